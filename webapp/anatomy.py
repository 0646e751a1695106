"""The structures drawn on a study's radiographs → measured cards, computed from the masks as they are now."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from core_models.drafting.evidence import Evidence
from core_models.errors import ReadingRoomError
from core_models.foundation.measures import HEART, RIGHT_LUNG, STRUCTURES, measure
from core_models.foundation.reading import Caliper, Measured
from core_models.study.study import KINDS
from webapp.store import SegmentRow, SeriesRow, Store, StudyRow

RADIOGRAPHS = frozenset({"CR", "DX", "RG"})
PICTURES = frozenset({"OT", "SC", "XC"})  # may be a radiograph without a header: the eyes' own gate decides
HELD = 64

# Of a model's drawing only what a report states gets a card of its own; a clavicle's area is nobody's question.
QUIET = frozenset({"heart", "right clavicle", "left clavicle"})
AREA_ONLY = frozenset({"right lung", "left lung"})

# Measured key → what the card says it is of, and the structure it goes with.  Lung areas have their segment's own card.
CARDS = {"cardiothoracic_ratio": ("heart", HEART), "lung_area_ratio": ("lungs", RIGHT_LUNG)}


def is_radiograph(series: SeriesRow) -> bool:
    """Whether the image models are asked about a series: one projection, or one picture that may be one."""
    return series.shape[0] == 1 and series.modality in RADIOGRAPHS | PICTURES


def said_of(row: SegmentRow, quantity: str) -> bool:
    """Whether a segment's own measurement (a `board.Quantity` key) gets a card."""
    label = row.label.strip().casefold()
    drawn_here = row.based and row.engine not in KINDS.values()  # what came as DICOM is the reader's question
    if not drawn_here or label not in QUIET | AREA_ONLY:
        return True
    return label in AREA_ONLY and quantity == "area_mm2"


class StructureCards:
    """Cards from several structures of one radiograph; a measurement is computed once for each set of masks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[tuple, tuple[Measured, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def cards(self, study: StudyRow, segments: tuple[SegmentRow, ...]) -> tuple[Evidence, ...]:
        """One card for each ratio of each radiograph; ids are empty, and `segment_id` is the structure it goes with.

        Of two segments of one name the later one counts.
        """
        return tuple(card for card, _, _ in self._all(study, segments))

    def calipers(
        self, study: StudyRow, segments: tuple[SegmentRow, ...], card: Evidence
    ) -> tuple[str, tuple[Caliper, ...]]:
        """(series id, the lengths that a card's number is made of on the masks as they are now); ("", ()) where it is
        made of none."""
        for own, series, found in self._all(study, segments):
            if (own.segment_id, own.statement) == (card.segment_id, card.statement) and found.calipers:
                return series.id, found.calipers
        return "", ()

    def _all(self, study: StudyRow, segments: tuple[SegmentRow, ...]) -> Iterator[tuple[Evidence, SeriesRow, Measured]]:
        for series in filter(is_radiograph, study.series):
            drawn = {
                label: row
                for row in segments
                if row.series_id == series.id
                and all(row.box[3:])
                and (label := row.label.strip().casefold()) in STRUCTURES
            }
            for found in self._measured(series, drawn):
                if found.key in CARDS:
                    subject, structure = CARDS[found.key]
                    yield _card(series, found, subject, drawn[structure], drawn), series, found

    def _measured(self, series: SeriesRow, drawn: dict[str, SegmentRow]) -> tuple[Measured, ...]:
        if RIGHT_LUNG not in drawn:  # both ratios need it: no mask is read for nothing
            return ()
        key = (series.id, tuple(sorted((label, row.mask_file) for label, row in drawn.items())))
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        spacing = series.receipt.spacing if series.spacing_known else None
        try:
            masks = {label: self._store.mask(row.id) for label, row in drawn.items()}
        except ReadingRoomError:  # deleted meanwhile, or damaged: the segment's own panel says so, the board stands
            return ()
        found = measure(masks, (spacing[1], spacing[0]) if spacing else None)
        with self._lock:
            self._held[key] = found
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return found


def _card(
    series: SeriesRow, found: Measured, subject: str, anchor: SegmentRow, drawn: dict[str, SegmentRow]
) -> Evidence:
    sources = dict.fromkeys(f"{row.engine} {row.engine_version}".strip() for row in drawn.values())
    return Evidence(
        id="",
        kind="measurement",
        region=found.region,
        statement=f"{subject}: {found.words}",
        value=found.value,
        unit=found.unit,
        segment_id=anchor.id,
        location=None if found.point is None else lps(series, found.point),
        source=", ".join(sources),
    )


def lps(series: SeriesRow, point: tuple[float, float]) -> tuple[float, float, float]:
    """(i, j) pixel of a radiograph → LPS mm."""
    return lps_of(series, (*point, 0.0))


def lps_of(series: SeriesRow, index: tuple[float, float, float]) -> tuple[float, float, float]:
    """(i, j, k) of a series, whole or not → LPS mm."""
    i, j, k = index
    x, y, z = (row[0] * i + row[1] * j + row[2] * k + row[3] for row in series.affine[:3])
    return (x, y, z)
