"""Store and study id → `ReportBundle`, the one value that every export reads."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core_models.drafting.evidence import Evidence, Statement
from core_models.errors import NotFound
from core_models.segmentation.engine import Mask
from core_models.study.study import Receipt
from core_models.study.volume import Volume
from webapp.board import bound
from webapp.report import struck_out
from webapp.store import AnnotationRow, PriorRow, ReportState, SegmentRow, SeriesRow, Store, StudyRow, Version
from webapp.store.received import ReceivedRow

RESEARCH_USE = "Research use, not a medical device."


@dataclass(frozen=True)
class ReportBundle:
    """Everything of one study that an export may need; voxels and masks are read only when asked for.

    Attributes:
        study: of a signed one only the series that were there at signing.
        series: the series that the segments and measurements lie on (the one with most of them; without any the
            largest).
        report: the working report, or for a signed study its last version (with addenda).
        signature: the version that was signed, which tells by whom and when (an addendum has an author of its own);
            None before signing.
        evidence: the board; for a signed study as it stood at signing.
        segments: all segments of the study, of every series; annotations: all that the reader measured by hand.
        volume: gives the series' volume; mask: gives a segment's mask.
        received: reports of the study that came from elsewhere; no part of `report`.
        sources: the series' original DICOM files in the source's slice order; () for other formats.
    """

    study: StudyRow
    series: SeriesRow
    report: ReportState | Version
    signature: Version | None
    evidence: tuple[Evidence, ...]
    segments: tuple[SegmentRow, ...]
    annotations: tuple[AnnotationRow, ...]
    priors: tuple[PriorRow, ...]
    volume: Callable[[], Volume]
    mask: Callable[[SegmentRow], Mask]
    sources: tuple[Path, ...]
    received: tuple[ReceivedRow, ...] = ()
    notice: str = RESEARCH_USE

    @property
    def receipt(self) -> Receipt:
        return self.series.receipt

    @property
    def signed(self) -> bool:
        """The report is a frozen version that a reader signed (an addendum's version included)."""
        return self.signature is not None

    @property
    def indication(self) -> str:
        return self.report.indication if isinstance(self.report, Version) else self.study.indication

    @property
    def own_segments(self) -> tuple[SegmentRow, ...]:
        """The segments on `series`, by number."""
        return tuple(s for s in self.segments if s.series_id == self.series.id)

    @property
    def own_annotations(self) -> tuple[AnnotationRow, ...]:
        """What was measured by hand on `series`, by number."""
        return tuple(a for a in self.annotations if a.series_id == self.series.id)

    def section(self, name: str) -> tuple[Statement, ...]:
        """The statements of "findings" or "impression"."""
        return tuple(s for s in self.report.statements if s.section == name)

    def meant(self) -> ReportBundle:
        """The same without the statements that stand struck out: what signing would freeze."""
        statements = tuple(s for s in self.report.statements if not struck_out(s))
        return replace(self, report=replace(self.report, statements=statements))


def collect(store: Store, study_id: str, *, series_id: str = "", version: int | None = None) -> ReportBundle:
    """Read a study for export.

    Args:
        series_id: whose segments go into DICOM exports; "" chooses the series with most segments.
        version: a version's number; None takes the last signed one, or the working report of an unsigned study.

    Raises:
        NotFound: no such study, series or version.
    """
    study, segments, state = store.study(study_id), store.segments(study_id), store.report(study_id)
    annotations = store.annotations(study_id)
    # The working report's marks follow the board of this moment, as on the page.
    report: ReportState | Version = replace(state, statements=bound(state.statements, store.evidence(study_id)))
    if version is not None:
        report = store.version(study_id, version)
    elif state.signed_version is not None:
        report = store.versions(study_id)[-1]
    if state.signed_version is not None:  # what arrived afterwards is no part of what was signed
        study = replace(study, series=tuple(s for s in study.series if not s.after_signing))
        segments = tuple(s for s in segments if s.series_id in {one.id for one in study.series})
    signature = None
    if state.signed_version is not None and isinstance(report, Version) and report.kind != "draft":
        signature = store.version(study_id, state.signed_version)

    def weight(row: SeriesRow) -> tuple[int, int]:
        return sum(s.series_id == row.id for s in (*segments, *annotations)), row.shape[0] * row.shape[1] * row.shape[2]

    series = next((s for s in study.series if s.id == series_id), None) if series_id else max(study.series, key=weight)
    if series is None:
        raise NotFound("There is no such series in this study.")
    return ReportBundle(
        study=study,
        series=series,
        report=report,
        signature=signature,
        evidence=report.evidence if isinstance(report, Version) else store.evidence(study_id),
        segments=segments,
        annotations=annotations,
        priors=store.priors(study_id),
        volume=lambda: store.volume(series.id),
        mask=lambda row: store.mask(row.id),
        sources=store.sources(series.id),
        received=store.received(study_id),
    )


def made_uid(*parts: object) -> str:
    """A DICOM UID ("2.25." + a UUID as a number) that is the same for the same parts."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(str(p) for p in parts)).int}"
