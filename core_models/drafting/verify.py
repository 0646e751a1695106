"""A statement and the cards in → supported, unsupported or contradicted, by rules that never ask the model.

The check reads the sentence anew: which findings it affirms or denies, on which side, and which numbers it holds, and
compares that with the cards it cites.  It does not judge whether the cards are right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from core_models.drafting import findings as f
from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import placeholders

_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*(?:cm|mm|ml|cc|hu|%)", re.IGNORECASE)


def check(statement: Statement, cards: Sequence[Evidence]) -> Statement:
    """The statement with `support` and `note` set; rejected cards count as absent."""
    known = {c.id: c for c in cards if c.status != "rejected"}
    cited = [known[i] for i in statement.evidence if i in known and known[i].kind != "prior"]
    findings = [c for c in known.values() if c.kind == "finding" and c.statement.lower() not in f.NORMAL_TERMS]
    stated = f.mentions(re.sub(r"\{[EP]\d+\}", "", statement.template or statement.text))
    denied = {m.concept for m in stated if m.polarity == "absent"}
    affirmed = {m.concept for m in stated if m.polarity != "absent"}

    for card in findings:
        own = f.concepts_of_term(card.statement)
        if own and own & denied and not own & affirmed:
            return replace(statement, support="contradicted", note=f"{card.id} says otherwise: {card.statement}.")
        sides, mine = f.side_of(card.statement), f.side_of(statement.text)
        if card in cited and sides and mine and own & affirmed and not sides & mine:
            return replace(statement, support="contradicted", note=f"{card.id} names the other side.")
    bare = re.sub(r"\{[EP]\d+\}", "", statement.template or statement.text)
    if _NUMBER.search(bare):
        return replace(statement, support="unsupported", note="It holds a number that no card gives.")
    if not cited:
        return replace(statement, support="unsupported", note="No card on the board supports it.")
    if f.is_normal(statement.text) and not placeholders(statement.template):
        if any(c.statement.lower() in f.NORMAL_TERMS for c in cited if c.kind == "finding"):
            return replace(statement, support="supported", note="")
        return replace(statement, support="unsupported", note="No card says that this is normal.")
    license_ = set().union(*(f.licensed(c.statement) for c in cited if c.kind == "finding"), set())
    if placeholders(statement.template) or all(c.kind == "measurement" for c in cited):
        license_ |= affirmed & set().union(*(f.licensed(c.statement.split(":")[0]) for c in cited), set())
    extra = affirmed - license_
    if extra:
        words = ", ".join(sorted(extra))
        return replace(statement, support="unsupported", note=f"The cited cards do not say: {words}.")
    return replace(statement, support="supported", note="")
