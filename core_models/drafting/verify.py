"""A statement and the cards in → supported, unsupported or contradicted, by rules that never ask the model.

The check reads the sentence anew: which findings it affirms or denies, on which side, and which numbers it holds, and
compares that with the cards it cites.  It does not judge whether the cards are right, and it knows only the words of
`findings`: of a sentence that holds none of them it asks that a cited card says the same words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from core_models.drafting import findings as f
from core_models.drafting import prompt
from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import PLACEHOLDER, placeholders

_NUMBER = re.compile(
    r"\d+(?:\.\d+)?[\s-]*(?:[cm]m|ml|cc|hu|%|percent|(?:centi|milli)(?:met|lit)(?:er|re)|lit(?:er|re)|hounsfield)"
    r"|\bratio\b[^.;]{0,40}?\d",  # a ratio has no unit to be told by
    re.IGNORECASE,
)

_DEGREES = {
    "low": re.compile(r"\b(?:mild(?:ly)?|minimal(?:ly)?|small|slight(?:ly)?|tiny|trace|borderline)\b", re.IGNORECASE),
    "middle": re.compile(r"\bmoderate(?:ly)?\b", re.IGNORECASE),
    "high": re.compile(r"\b(?:severe(?:ly)?|large|marked(?:ly)?|massive|extensive)\b", re.IGNORECASE),
}

_CHAMBER = re.compile(r"\b(?:left|right) (?:atri\w+|ventric\w+|main|brachiocephalic)\b", re.IGNORECASE)  # no side


def check(statement: Statement, cards: Sequence[Evidence]) -> Statement:
    """The statement with `support` and `note` set; rejected cards count as absent."""
    known = {c.id: c for c in cards if c.status != "rejected"}
    cited = [known[i] for i in statement.evidence if i in known and known[i].kind != "prior"]
    findings = [c for c in known.values() if c.kind == "finding" and c.statement.lower() not in f.NORMAL_TERMS]
    template = statement.template or statement.text
    bare = PLACEHOLDER.sub("", template)
    stated = f.mentions(bare)
    denied = {m.concept for m in stated if m.polarity == "absent"}
    affirmed = {m.concept for m in stated if m.polarity != "absent"}

    for card in findings:
        own = f.concepts_of_term(card.statement)
        if own and own & denied and not own & affirmed:
            return replace(statement, support="contradicted", note=f"{card.id} says otherwise: {card.statement}.")
        sides, mine = f.side_of(card.statement), f.side_of(statement.text)
        if card not in cited or not own & affirmed:
            continue
        if sides and mine and not sides & mine:
            return replace(statement, support="contradicted", note=f"{card.id} names the other side.")
        degrees, said = _degrees(card.statement), _degrees(bare)
        if len(affirmed) == 1 and degrees and said and not degrees & said:  # of several, it may be another's degree
            return replace(statement, support="contradicted", note=f"{card.id} names another degree: {card.statement}.")
    if _NUMBER.search(bare):
        return replace(statement, support="unsupported", note="It holds a number that no card gives.")
    if wrong := _wrong_number(template, statement.evidence, known):
        return replace(statement, support="unsupported", note=wrong)
    if not cited:
        return replace(statement, support="unsupported", note="No card on the board supports it.")
    numbers = placeholders(template)
    if f.is_normal(bare) and not numbers:
        asserted = [c.statement for c in cited if c.kind == "finding"]
        # The reader's own negative ("no pneumothorax") is asserted too, in its words.
        if any(a.lower() in f.NORMAL_TERMS or (f.is_normal(a) and _words(a) <= _words(bare)) for a in asserted):
            return replace(statement, support="supported", note="")
        return replace(statement, support="unsupported", note="No card says that this is normal.")
    license_ = set().union(*(f.licensed(c.statement) for c in cited if c.kind == "finding"), set())
    if numbers or all(c.kind == "measurement" for c in cited):
        license_ |= affirmed & set().union(*(_named(c) for c in cited), set())
    extra = affirmed - license_
    if extra:
        words = ", ".join(sorted(extra))
        return replace(statement, support="unsupported", note=f"The cited cards do not say: {words}.")
    sided = [c for c in cited if c.kind == "finding" and f.concepts_of_term(c.statement) & affirmed]
    if f.side_of(_CHAMBER.sub("", bare)) and sided and not numbers and not any(f.side_of(c.statement) for c in sided):
        return replace(statement, support="unsupported", note="No cited card names the side.")
    if not affirmed and not numbers and not any(_words(c.statement) <= _words(bare) for c in cited):
        return replace(statement, support="unsupported", note="Nothing in it can be checked against the cited cards.")
    return replace(statement, support="supported", note="")


def _wrong_number(template: str, evidence: Sequence[str], known: dict[str, Evidence]) -> str:
    """Why a card's number does not stand where the sentence says it does; "" when each has its place.

    The card's structure must be named before the number, and its quantity since the number before.
    """
    start = 0
    for match in PLACEHOLDER.finditer(template):
        before, since = template[: match.start()].casefold(), template[start : match.start()].casefold()
        start = match.end()
        card = known.get(match[1])
        if card is None or card.value is None:
            return "It names a measurement that is not on the board."
        if card.id not in evidence:
            return f"It holds the number of a card that it does not cite: {card.id}."
        structure, _, quantity = prompt.safe(card.statement, prompt.MAX_CARD).casefold().rpartition(": ")
        if structure not in before or quantity not in since:
            return f"{card.id} is another number: {card.statement}."
    return ""


def _named(card: Evidence) -> set[str]:
    """The findings that a cited card licenses by its name: a measured "nodule" is one, a measured "heart" is no finding
    although the corpus has a heading of that word.
    """
    name = card.statement.split(":")[0]
    if card.kind != "measurement":
        return set(f.licensed(name))
    own = {m.concept for m in f.mentions(name) if m.polarity != "absent"}
    return own | {other for concept in own for other in f.BY_NAME[concept].covers}


def _degrees(text: str) -> set[str]:
    """How much of it a text says there is: any of "low", "middle", "high"."""
    return {degree for degree, words in _DEGREES.items() if words.search(text)}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
