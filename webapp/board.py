"""Segments, indication and image models → the board's cards, kept in step; statements → bound to the cards as they are.

Cards of measurements are found again by (segment or annotation, quantity), so that a changed mask or a moved line
changes the number of the same card and statements that cite it notice; a model's findings by their term, so that the
reader's verdict outlives a second reading.  A card whose cause is gone is retired, not removed: with the cause an undo
brings back the card under its id, so that the report's statements rest on it again.  One lock: two readers of one board
must not both add the missing card.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import rebind, refresh
from core_models.drafting.verify import check
from core_models.errors import NotFound, Refused
from core_models.foundation.reading import Caliper
from core_models.segmentation.naming.labels import region_of
from webapp.anatomy import StructureCards, lps_of, said_of
from webapp.store import AnnotationRow, SegmentRow, SeriesRow, Store, StudyRow

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
# Of what a reader drew, the numbers that a report states; a plain grey level says nothing outside its image.
STATED = frozenset({"length", "angle", "area", "mean", "value", "ratio"})
UNITLESS = frozenset({"ratio"})


class Board:
    """The evidence board of every study.

    Args:
        findings: study → the findings that image models propose, and whether they read all that they were to read
            (only then a proposal that they no longer make is taken off).
    """

    def __init__(
        self, store: Store, findings: Callable[[StudyRow], tuple[tuple[Evidence, ...], bool]] | None = None
    ) -> None:
        self._store = store
        self._findings = findings or (lambda study: ((), False))
        self._structures = StructureCards(store)
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
            segments = self._store.segments(study_id)
            wanted = [card for row in segments for card in measurement_cards(row)]
            wanted += self._structures.cards(study, segments)
            series = {row.id: row for row in study.series}
            for drawn in self._store.annotations(study_id):
                wanted += annotation_cards(drawn, series[drawn.series_id])
            if study.indication.strip():
                wanted.append(clinical_card(study.indication))
            found, complete = self._findings(study)
            own = [card for card in cards if is_readers(card) and card.status != "rejected"]
            wanted += [card for card in found if not any(says_already(mine, card) for mine in own)]
            present = {_key(card): card for card in cards if _is_derived(card)}
            retired = {_key(card): card for card in self._store.retired_evidence(study_id)}
            for card in wanted:
                known = present.pop(_key(card), None)
                if known is None and (before := retired.pop(_key(card), None)) is not None:
                    # Its cause is back, by an undo: so is the card, with its verdict and what the report says of it.
                    self._store.put_evidence(study_id, replace(card, id=before.id, status=before.status))
                    continue
                if known is None:
                    self._store.add_evidence(study_id, card)
                    continue
                card = replace(card, id=known.id, status=known.status)
                if card != known:
                    self._store.put_evidence(study_id, card)
            for gone in present.values():
                if gone.kind == "finding" and not _given_up(gone, own, complete):
                    continue
                self._store.retire_evidence(study_id, gone.id)
            return self._store.evidence(study_id)

    def calipers(self, study_id: str, card_id: str) -> tuple[str, tuple[Caliper, ...]]:
        """(series id, the lengths a card's number is made of), ("", ()) where it is made of none.  Raises NotFound."""
        card = next((c for c in self._store.evidence(study_id) if c.id == card_id), None)
        if card is None:
            raise NotFound("There is no such card on this study's board.")
        return self._structures.calipers(self._store.study(study_id), self._store.segments(study_id), card)

    def add_finding(self, study_id: str, term: str) -> Evidence:
        """A finding the reader states; the same one twice is one card, and one that a model proposed is accepted.

        Raises Refused on an empty or unknown form.
        """
        from core_models.drafting.findings import region_of_term

        term = " ".join(term.split())
        if not term or len(term) > MAX_TERM:
            raise Refused(f"A finding is a term of 1 to {MAX_TERM} characters; this one has {len(term)}.")
        with self._lock:
            for card in self._store.evidence(study_id):
                if card.kind == "finding" and card.statement.casefold() == term.casefold():
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
            Refused: the card follows from a segment, a drawn measurement, the indication or the image; it is rejected
                instead, or its cause removed.
        """
        with self._lock:
            card = next((c for c in self._store.evidence(study_id) if c.id == card_id), None)
            if card is None:
                raise NotFound("There is no such card on this study's board.")
            if _is_derived(card):
                raise Refused(
                    "This card follows from a segment, a measurement, the indication or the image: "
                    "reject it, or change its cause."
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
        if not said_of(row, quantity.key):
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


def annotation_cards(row: AnnotationRow, series: SeriesRow) -> tuple[Evidence, ...]:
    """One card per number of what a reader drew that a report may state; ids are empty."""
    from core_models.segmentation.lines import middle

    region = "heart" if row.kind == "ratio" else region_of(row.label)
    title = row.title(flat=series.shape[0] == 1)
    return tuple(
        Evidence(
            id="",
            kind="measurement",
            region=region,
            statement=f"{title}: {number.words}",
            value=number.value,
            unit=number.unit,
            location=lps_of(series, middle(row.points)),
            source=READER,
            annotation_id=row.id,
        )
        for number in row.numbers
        if number.key in STATED and (number.unit or number.key in UNITLESS)
    )


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


def is_readers(card: Evidence) -> bool:
    """Whether the reader stated this finding."""
    return card.kind == "finding" and card.source == READER


def is_models(card: Evidence) -> bool:
    """Whether an image model proposed this finding."""
    return card.kind == "finding" and card.source != READER


def says_already(mine: Evidence, proposed: Evidence) -> bool:
    """Whether the reader's finding states what the model proposes: the same words, or the same thing more closely.

    "Pleural Effusion/left" states a proposed "Pleural Effusion"; "no effusion" does not, and both stand there.
    """
    from core_models.drafting.findings import concepts_of_term

    if mine.statement.casefold() == proposed.statement.casefold():
        return True
    concepts = concepts_of_term(proposed.statement)
    return bool(concepts) and concepts <= concepts_of_term(mine.statement)


def _given_up(card: Evidence, own: Iterable[Evidence], complete: bool) -> bool:
    """Whether a model's card that is not proposed any more leaves the board: the reader's verdict on it does not."""
    if card.status != "proposed":
        return False
    return complete or any(says_already(mine, card) for mine in own)


def _is_derived(card: Evidence) -> bool:
    return (
        (card.kind == "measurement" and (card.segment_id or card.annotation_id) is not None)
        or (card.kind == "clinical" and card.source == INDICATION)
        or is_models(card)
    )


def _key(card: Evidence) -> tuple[str, str]:
    """What makes two cards the same: segment or annotation and quantity, whatever the label is; a finding's term."""
    if card.kind == "clinical":
        return ("", INDICATION)
    if card.kind == "finding":
        return ("finding", card.statement.casefold())
    return (card.segment_id or card.annotation_id or "", card.statement.rpartition(": ")[2])
