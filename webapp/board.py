"""Segments and the indication → the board's cards, kept in step; statements → bound to the cards as they are now.

Cards of measurements are found again by (segment, quantity), so that a changed mask changes the number of the same card
and statements that cite it notice.  One lock: two readers of one board must not both add the missing card.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import rebind, refresh
from core_models.drafting.verify import check
from core_models.errors import NotFound, Refused
from core_models.segmentation.labels import region_of
from webapp.store import SegmentRow, Store

INDICATION = "indication"
READER = "reader"
MAX_CLINICAL = 2000  # characters of the clinical card; the whole indication stands above the page and in the prompt
MAX_TERM = 200


@dataclass(frozen=True)
class Quantity:
    """One number of a measurement that gets a card: its words, its key in the measurement, and how to show it."""

    words: str
    key: str
    unit: str
    scale: float = 1.0
    only_unit: str = ""  # the volume's value unit that it needs


QUANTITIES = (
    Quantity("volume", "volume_ml", "ml"),
    Quantity("area", "area_mm2", "cm²", scale=0.01),
    Quantity("mean attenuation", "mean", "HU", only_unit="HU"),
    Quantity("longest axial diameter", "longest_axial_diameter_mm", "mm"),
)


class Board:
    """The evidence board of every study."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()

    def sync(self, study_id: str) -> tuple[Evidence, ...]:
        """Bring the cards in step with segments and indication, and answer them all.

        A signed study's board stays as it was signed.  Raises NotFound.
        """
        with self._lock:
            study = self._store.study(study_id)
            cards = self._store.evidence(study_id)
            if study.state == "signed":
                return cards
            wanted = [card for row in self._store.segments(study_id) for card in measurement_cards(row)]
            if study.indication.strip():
                wanted.append(clinical_card(study.indication))
            present = {_key(card): card for card in cards if _is_derived(card)}
            for card in wanted:
                known = present.pop(_key(card), None)
                if known is None:
                    self._store.add_evidence(study_id, card)
                    continue
                card = replace(card, id=known.id, status=known.status)
                if card != known:
                    self._store.put_evidence(study_id, card)
            for gone in present.values():
                self._store.delete_evidence(study_id, gone.id)
            return self._store.evidence(study_id)

    def add_finding(self, study_id: str, term: str) -> Evidence:
        """A finding the reader states; the same one twice is one card.  Raises Refused on an empty or unknown form."""
        from core_models.drafting.findings import region_of_term

        term = " ".join(term.split())
        if not term or len(term) > MAX_TERM:
            raise Refused(f"A finding is a term of 1 to {MAX_TERM} characters; this one has {len(term)}.")
        with self._lock:
            for card in self._store.evidence(study_id):
                if card.kind == "finding" and card.source == READER and card.statement.casefold() == term.casefold():
                    if card.status == "accepted":
                        return card
                    return self._store.set_evidence_status(study_id, card.id, "accepted")
            card = Evidence("", "finding", region_of_term(term), term, source=READER, status="accepted")
            return self._store.add_evidence(study_id, card)

    def set_status(self, study_id: str, card_id: str, status: str) -> Evidence:
        """Accept, reject or reopen a card."""
        with self._lock:
            return self._store.set_evidence_status(study_id, card_id, status)

    def remove(self, study_id: str, card_id: str) -> None:
        """Take off a card that the reader or a search put there.

        Raises:
            Refused: the card follows from a segment or the indication; it is rejected instead, or its cause removed.
        """
        with self._lock:
            card = next((c for c in self._store.evidence(study_id) if c.id == card_id), None)
            if card is None:
                raise NotFound("There is no such card on this study's board.")
            if _is_derived(card):
                raise Refused(
                    "This card follows from a segment or the indication: reject it, or change what it rests on."
                )
            self._store.delete_evidence(study_id, card_id)


def measurement_cards(row: SegmentRow) -> tuple[Evidence, ...]:
    """One card per number that the segment's measurement holds; ids are empty."""
    measured = row.measurement or {}
    label = row.label.strip() or f"segment {row.number}"
    point = measured.get("centroid_lps")
    out = []
    for quantity in QUANTITIES:
        value = measured.get(quantity.key)
        if value is None or (quantity.only_unit and measured.get("unit") != quantity.only_unit):
            continue
        out.append(
            Evidence(
                id="",
                kind="measurement",
                region=region_of(label),
                statement=f"{label}: {quantity.words}",
                value=float(value) * quantity.scale,
                unit=quantity.unit,
                segment_id=row.id,
                location=(float(point[0]), float(point[1]), float(point[2])) if point else None,
                source=f"{row.engine} {row.engine_version}".strip(),
            )
        )
    return tuple(out)


def clinical_card(indication: str) -> Evidence:
    """The indication as a card; accepted, since the reader wrote it."""
    text = " ".join(indication.split())
    if len(text) > MAX_CLINICAL:
        text = text[: MAX_CLINICAL - 1] + "…"
    return Evidence("", "clinical", "other", text, source=INDICATION, status="accepted")


def bound(statements: Iterable[Statement], cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
    """The statements with `stale` as the cards say now.

    A statement that the cards supported and no longer do is stale too: a card may have got another name, or a new one
    may say otherwise.
    """
    return tuple(_bound(s, cards) for s in statements)


def _bound(statement: Statement, cards: tuple[Evidence, ...]) -> Statement:
    new = rebind(statement, cards)
    if new.stale or not _rests_on_cards(new) or new.support != "supported":
        return new
    return new if check(new, cards).support == "supported" else replace(new, stale=True)


def agreed(statement: Statement, cards: tuple[Evidence, ...]) -> Statement:
    """The statement with its numbers filled in anew, as the reader asked, and checked against the cards of now."""
    new = refresh(statement, cards)
    return check(new, cards) if _rests_on_cards(new) and new.support == "supported" else new


def reworded(statement: Statement, text: str, cards: tuple[Evidence, ...]) -> Statement:
    """The statement in the reader's words: its cards' numbers that stand in it are bound, its support is checked anew.

    What the check found of the model's sentence says nothing of another one.
    """
    if text == statement.text:
        return statement
    values = {c.id: c.value_text for c in cards if c.id in statement.evidence and c.status != "rejected"}
    template = text
    for ident, value in values.items():
        # A value that stands there twice may be another number that happens to be the same.
        if value and text.count(value) == 1 and [*values.values()].count(value) == 1:
            template = re.sub(rf"(?<![\w.]){re.escape(value)}(?!\w)", "{" + ident + "}", template)
    new = replace(statement.edited(text), template=template)
    return check(new, cards) if _rests_on_cards(new) else new


def _rests_on_cards(statement: Statement) -> bool:
    return statement.origin != "human" and bool(statement.evidence)


def _is_derived(card: Evidence) -> bool:
    return (card.kind == "measurement" and card.segment_id is not None) or (
        card.kind == "clinical" and card.source == INDICATION
    )


def _key(card: Evidence) -> tuple[str, str]:
    """What makes two cards the same one: the segment and the quantity, whatever the label is."""
    if card.kind == "clinical":
        return ("", INDICATION)
    return (card.segment_id or "", card.statement.rpartition(": ")[2])
