"""A statement and the cards in → supported, unsupported or contradicted, by rules that never ask the model.

The check reads the sentence anew: which findings it affirms or denies, on which side, and which numbers it holds, and
compares that with the cards it cites.  It does not judge whether the cards are right, and it knows only the words of
`findings`: of a sentence that holds none of them it asks that a cited card says the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
# Digits that count and measure nothing: vertebrae, ribs, segments, ordinals, views.
_LEVEL = re.compile(
    r"\b[CTLS]\d{1,2}(?:\s*(?:[-/]|to|through|and)\s*[CTLS]?\d{1,2})*\b|\b\d{1,2}(?:st|nd|rd|th)\b|"
    r"\b(?:ribs?|segments?|levels?) \d{1,2}(?:\s*(?:,|-|and|to|through)\s*\d{1,2})*\b|"
    r"\b(?:two|three|four|[234])[ -]views?\b",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|"
    r"fourteen|fifteen|twenty)\b(?= (?:[\w-]+ ){0,3}?[\w-]+s\b)",
    re.IGNORECASE,
)
# All that a sentence on measurements alone may add to its cards' own words.
_MEASURING = frozenset(
    re.findall(
        r"\w+",
        "a an the this that there it its is are was has have with and of in on at to for by from which while whereas "
        "measures measure measuring measured shows estimated calculated approximately about total respectively",
    )
)
_NEGATIONS = {"no", "not", "without", "never", "nor"}
_LUNG = ("lungs", "pleura")  # regions whose findings have an upper and a lower place
# "Small lung volumes" tells the finding, not how much of it there is.
_DEGREE_IS_NAME = ("hypoinflation", "hyperinflation")
_NOT_BY_SHAPE = ("adenopathy", "pulmonary artery", "device")  # measured where they are normal, too


def check(statement: Statement, cards: Sequence[Evidence]) -> Statement:
    """The statement with `support` and `note` set; rejected cards count as absent."""
    known = {c.id: c for c in cards if c.status != "rejected"}
    cited = [known[i] for i in statement.evidence if i in known and known[i].kind != "prior"]
    template = statement.template or statement.text
    bare = PLACEHOLDER.sub("", template)
    stated = f.mentions(bare)
    affirmed = {m.concept for m in stated if m.polarity != "absent"}
    numbers = placeholders(template)

    if note := _denied(bare, affirmed, known.values()) or _misplaced(bare, cited):
        return replace(statement, support="contradicted", note=note)
    if _bare_number(bare, cited):
        return replace(statement, support="unsupported", note="It holds a number that no card gives.")
    if wrong := _wrong_number(template, statement.evidence, known):
        return replace(statement, support="unsupported", note=wrong)
    if not cited:
        return replace(statement, support="unsupported", note="No card on the board supports it.")
    if f.is_normal(bare) and not numbers:
        if any(c.kind == "finding" and c.statement.lower() in f.NORMAL_TERMS for c in cited) or _negated(bare, cited):
            return replace(statement, support="supported", note="")
        return replace(statement, support="unsupported", note="No card says that this is normal.")
    proposals = [c for c in cited if _is_proposal(c)]
    firm = set().union(*(f.licensed(c.statement) for c in cited if c.kind == "finding" and c not in proposals), set())
    if numbers or all(c.kind == "measurement" for c in cited):
        firm |= affirmed & set().union(*(_named(c) for c in cited if c not in proposals), set())
    license_ = firm.union(*(f.licensed(c.statement) for c in proposals))
    extra = affirmed - license_
    if extra:
        words = ", ".join(sorted(extra))
        return replace(statement, support="unsupported", note=f"The cited cards do not say: {words}.")
    if numbers and all(c.kind == "measurement" for c in cited):
        unsaid = _words(bare) - set().union(*(_words(c.statement) for c in cited)) - _MEASURING
        if unsaid:
            note = f"The cited cards do not say: {', '.join(sorted(unsaid))}."
            return replace(statement, support="unsupported", note=note)
    certain = {m.concept for m in stated if m.polarity == "present"} - firm
    for card in proposals:
        if certain & f.licensed(card.statement):
            note = f"{card.id} is a proposal (p {card.probability:.2f}): the sentence states it as certain."
            return replace(statement, support="unsupported", note=note)
    if not numbers and _side_invented(bare, cited):
        return replace(statement, support="unsupported", note="No cited card names the side.")
    if not affirmed and not numbers and not any(_in_words(c, bare) for c in cited):
        return replace(statement, support="unsupported", note="Nothing in it can be checked against the cited cards.")
    return replace(statement, support="supported", note="")


def supported(text: str, card: Evidence) -> bool:
    """Whether a sentence that cites this one card holds nothing that the card does not say."""
    statement = Statement("s1", "findings", card.region, text, (card.id,), template=text)
    return check(statement, [card]).support == "supported"


def states(statement_text: str, card: Evidence) -> bool:
    """Whether a sentence says what the card says: affirms its finding, on its side, or denies what a negative denies.

    A measurement is stated where its placeholder stands, or its structure and its number do; a card without a known
    finding where all its words do.  Hedged or plain makes no difference.
    """
    bare = PLACEHOLDER.sub("", statement_text)
    words = _in_words(card, bare)
    if card.kind == "measurement":
        structure = card.statement.rpartition(": ")[0]
        return card.id in placeholders(statement_text) or bool(
            card.value_text and card.value_text in bare and structure.casefold() in bare.casefold()
        )
    if card.kind != "finding":
        return words
    if card.statement.lower() in f.NORMAL_TERMS:
        return f.is_normal(bare)
    if f.is_normal(card.statement):
        denied = {r.concept for r in f.readings(card.statement)}
        affirmed = {m.concept for m in f.mentions(bare) if m.polarity != "absent"}
        if not denied:
            return words
        return not denied & affirmed and _negated(bare, [card], every=False)
    own = f.concepts_of_term(card.statement)
    if not own or words:
        return words
    sides = f.side_of(card.statement)  # "left effusion" says half of a card of both sides
    return any(
        r.concept in own and r.polarity != "absent" and not (sides and r.sides and not sides <= r.sides)
        for r in f.readings(bare)
    )


def _denied(bare: str, affirmed: set[str], cards: Iterable[Evidence]) -> str:
    """Why a sentence says the opposite of a card of the board, cited or not; "" when it does not.

    A denial that names a side or a degree ("no large effusion") speaks only of a card that names the same.
    """
    readings = f.readings(bare)
    for card in cards:
        own = _own(card)
        sides, degrees = f.side_of(card.statement), f.degrees_of(card.statement)
        if f.ACUTE.search(card.statement):
            degrees |= {"acute"}
        if own and not own & affirmed:
            for r in readings:
                if (
                    r.concept in own
                    and (not r.sides or r.sides & sides)
                    and (not r.degrees or r.concept in _DEGREE_IS_NAME or r.degrees & degrees)
                ):
                    return f"{card.id} says otherwise: {card.statement}."
        if card.kind != "finding" or own or not f.is_normal(card.statement):
            continue
        for no in f.readings(card.statement):  # the reader's own negative
            for r in readings:
                same = r.concept == no.concept and r.polarity != "absent"
                if same and (not no.sides or no.sides & r.sides) and (not no.degrees or no.degrees & r.degrees):
                    return f"{card.id} says otherwise: {card.statement}."
    return ""


def _own(card: Evidence) -> frozenset[str]:
    """The findings that a card says are there: those of a finding, or of the name of what was measured."""
    if card.kind == "finding":
        return f.concepts_of_term(card.statement)
    if card.kind == "measurement":
        name = card.statement.rpartition(": ")[0]
        return frozenset(m.concept for m in f.mentions(name) if m.polarity != "absent") - set(_NOT_BY_SHAPE)
    return frozenset()


def _misplaced(bare: str, cited: Sequence[Evidence]) -> str:
    """Why a sentence puts a cited finding on another side, in another place or degree; "" when one card agrees."""
    readings = [r for r in f.readings(bare) if r.polarity != "absent"]
    for concept in dict.fromkeys(r.concept for r in readings):
        mine = [r for r in readings if r.concept == concept]
        sides = frozenset().union(*(r.sides for r in mine))
        degrees = frozenset().union(*(r.degrees for r in mine)) - {"acute"}
        places = frozenset().union(*(r.places for r in mine))
        notes = []
        for card in cited:
            if concept not in _own(card):
                continue
            if _apart(f.side_of(card.statement), sides):
                notes.append(f"{card.id} names the other side.")
            elif concept not in _DEGREE_IS_NAME and _apart(f.degrees_of(card.statement), degrees):
                notes.append(f"{card.id} names another degree: {card.statement}.")
            elif f.BY_NAME[concept].region in _LUNG and _apart(f.places_of(card.statement), places):
                notes.append(f"{card.id} names another place: {card.statement}.")
            else:
                notes = []
                break
        if notes:
            return notes[0]
    return ""


def _apart(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one and other and not one & other)


def _side_invented(bare: str, cited: Sequence[Evidence]) -> bool:
    """Whether a finding has a side at hand in the sentence, and cited cards that name it but no side."""
    for r in f.readings(bare):
        named = [c for c in cited if c.kind == "finding" and r.concept in f.concepts_of_term(c.statement)]
        if r.polarity != "absent" and r.own_sides and named and not any(f.side_of(c.statement) for c in named):
            return True
    return False


def _negated(bare: str, cards: Sequence[Evidence], every: bool = True) -> bool:
    """Whether the readers' negatives ("no pneumothorax") deny all (or any) that the sentence does, or in its words."""
    negatives = [c for c in cards if c.kind == "finding" and f.is_normal(c.statement)]
    if any(_in_words(c, bare) for c in negatives) and len(f.readings(bare)) <= 1:
        return True
    denials = [no for c in negatives for no in f.readings(c.statement)]
    covered = [
        any(no.concept == r.concept and (not no.sides or (r.sides and r.sides <= no.sides)) for no in denials)
        for r in f.readings(bare)
        if r.polarity == "absent"
    ]
    return bool(covered) and (all(covered) if every else any(covered))


def _is_proposal(card: Evidence) -> bool:
    """A model's finding on the image that no reader has accepted."""
    return card.kind == "finding" and card.status == "proposed" and card.probability is not None


def _bare_number(bare: str, cited: Sequence[Evidence]) -> bool:
    """Whether a sentence measures or counts what no cited card gives in its own words ("target lesion 1")."""
    if _NUMBER.search(bare):
        return True
    given = set().union(*(_words(c.statement) for c in cited), set())
    return any(m[0].casefold() not in given for m in _COUNT.finditer(_LEVEL.sub(" ", bare)))


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


def _in_words(card: Evidence, bare: str) -> bool:
    """Whether a sentence holds all the words of a card, and denies only if the card does."""
    own, said = _words(card.statement), _words(bare)
    return own <= said and own & _NEGATIONS == said & _NEGATIONS


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
