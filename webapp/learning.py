"""What signing kept → cases to train and to judge an adapter on, and how much of what a model drafts is accepted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core_models.drafting import findings as f
from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.promotion import MIN_CASES
from core_models.drafting.verify import check
from webapp.store import Store
from webapp.store.corrections import Correction, KeptCase

LATEST_SHARE = 3  # one signed case in three, the latest, is judged on and not trained on
Z95 = 1.959964

Json = dict[str, Any]


@dataclass(frozen=True)
class SignedCase:
    """A signed study as an example of what should have been drafted.

    Attributes:
        signed_at: ISO 8601 UTC.
        modality: as in the header ("CR", "CT", ...).
        cards: what the prompt is made of, in board order; rejected ones are not among them.
        statements: the signed ones that rest on these cards, checked ("supported"), citing no other card.
        patient: the same number for studies of one patient within one list; no identifier.
    """

    study_id: str
    signed_at: str
    indication: str
    modality: str
    cards: tuple[Evidence, ...]
    statements: tuple[Statement, ...]
    patient: int


def training_studies(store: Store) -> list[SignedCase]:
    """The signed studies that a model drafted, oldest signature first.

    A reader's own sentence cites nothing; it is given the finding cards whose findings it affirms, or the card that
    says that the rest is normal.  A sentence that the check does not find supported is left out: no source, no
    assertion.  So is a study of which no sentence is left.
    """
    cases = (_case(kept) for kept in store.signed_cases())
    return [case for case in cases if case.statements]


def apart(cases: Sequence[SignedCase]) -> tuple[list[SignedCase], list[SignedCase]]:
    """(cases to train on, the latest to judge by): a third, at least `promotion.MIN_CASES`; no patient is in both."""
    count = min(len(cases), max(MIN_CASES, len(cases) // LATEST_SHARE))
    ordered = sorted(cases, key=lambda case: case.signed_at)
    latest = ordered[len(ordered) - count :]
    held = {case.patient for case in latest}
    return [case for case in ordered[: len(ordered) - count] if case.patient not in held], latest


def acceptance(store: Store, adapter: str | None = None) -> list[Json]:
    """How many of the sentences drafted on a finding were signed as they were, the commonest finding first.

    Args:
        adapter: only what this one drafted, as drafts name it ("name@digest"); None: any.

    Returns:
        [{finding, drafted, kept, edited, removed, struck, rate, ci95}]; a restored sentence counts as kept, a sentence
        that cites several findings counts for each; `rate` = kept / drafted with Wilson's 95 % interval.
    """
    counts: dict[str, Counter[str]] = {}
    for row in _drafted(store.corrections(), adapter):
        for concept in row.concepts:
            counts.setdefault(concept, Counter())[row.outcome] += 1
    rows = [{"finding": name, **_shares(count)} for name, count in counts.items()]
    return sorted(rows, key=lambda row: (-row["drafted"], row["finding"]))


def writers(store: Store) -> list[Json]:
    """The same over all sentences, for each adapter that drafted: [{adapter, model, studies, drafted, ..., ci95}]."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    studies: dict[tuple[str, str], set[str]] = {}
    for row in _drafted(store.corrections(), None):
        key = (row.adapter, row.model)
        counts.setdefault(key, Counter())[row.outcome] += 1
        studies.setdefault(key, set()).add(row.study_id)
    return [
        {"adapter": adapter, "model": model, "studies": len(studies[adapter, model]), **_shares(count)}
        for (adapter, model), count in counts.items()
    ]


def wilson(successes: int, trials: int) -> list[float]:
    """The 95 % score interval of a share (Wilson 1927); needs at least one trial."""
    share, spread = successes / trials, Z95**2 / trials
    half = Z95 * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return [(share + spread / 2 + sign * half) / (1 + spread) for sign in (-1, 1)]


def _drafted(rows: Iterable[Correction], adapter: str | None) -> Iterator[Correction]:
    return (row for row in rows if row.outcome != "added" and adapter in (None, row.adapter))


def _shares(count: Counter[str]) -> Json:
    kept, drafted = count["kept"] + count["restored"], count.total()
    return {
        "drafted": drafted,
        "kept": kept,
        **{name: count[name] for name in ("edited", "removed", "struck")},
        "rate": round(kept / drafted, 4),
        "ci95": [round(end, 4) for end in wilson(kept, drafted)],
    }


def _case(kept: KeptCase) -> SignedCase:
    cards = tuple(card for card in kept.cards if card.status != "rejected")
    return SignedCase(
        study_id=kept.study_id,
        signed_at=kept.signed_at,
        indication=kept.indication,
        modality=kept.modality,
        cards=cards,
        statements=tuple(found for s in kept.statements if (found := _resting(s, cards)) is not None),
        patient=kept.patient,
    )


def _resting(statement: Statement, cards: Sequence[Evidence]) -> Statement | None:
    """The statement on the cards it cites, or else on those that say what it says; None where neither support it."""
    known = {card.id for card in cards}
    own = tuple(ident for ident in statement.evidence if ident in known)
    text = statement.text
    for evidence, region in ((own, statement.region), (_saying(text, cards), f.region_of(text))):
        checked = check(replace(statement, evidence=evidence, region=region), cards)
        if checked.support == "supported":
            return checked
    return None


def _saying(text: str, cards: Sequence[Evidence]) -> tuple[str, ...]:
    """The finding cards whose findings a text affirms; of a normal text, the card that says that the rest is normal."""
    asserted = [card for card in cards if card.kind == "finding"]
    if f.is_normal(text):
        return tuple(card.id for card in asserted if card.statement.lower() in f.NORMAL_TERMS)
    affirmed = {m.concept for m in f.mentions(text) if m.polarity != "absent"}
    return tuple(card.id for card in asserted if f.concepts_of_term(card.statement) & affirmed)
