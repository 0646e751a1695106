"""What came as DICOM beside the images → segments of the stored study, and reports from elsewhere beside its own."""

from __future__ import annotations

from collections.abc import Sequence

import pydicom

from core_models.errors import NotFound, Refused
from core_models.segmentation.attached import Laid, lay
from core_models.study.attachments import Attachment
from core_models.study.received import Received
from core_models.study.study import KINDS
from webapp.report import Reports
from webapp.store import SeriesRow, Store, StudyRow
from webapp.store.encoding import plain
from webapp.viewer.service import SegmentService


def study_of(store: Store, uid: str, attachments: Sequence[Attachment]) -> str:
    """The id of the stored study that the attachments belong to.

    Raises:
        NotFound: it is not here; Refused: it is another patient's.
    """
    row = next((s for s in store.studies() if s.uid == plain(uid)), None)
    if row is None:
        raise NotFound(
            f'"{attachments[0].name}" belongs to a study that is not here: upload its images first, or with it.'
        )
    if any(a.patient.id and plain(a.patient.id) != row.patient_id for a in attachments):
        raise Refused("This study is here already for another patient; mixed patients are refused.")
    return row.id


def draw(store: Store, segments: SegmentService, study_id: str, attachments: Sequence[Attachment]) -> list[str]:
    """Store what the attachments draw as segments, all of it or nothing; what is here already stays as it is.

    Returns:
        the ids of the segments that are new.

    Raises:
        Refused: one lies on no image of the study.
        Conflict: the study is signed.
    """
    study = store.study(study_id)
    laid = [(a, *_lay(store, study, a)) for a in attachments if a.drawings]
    before = {row.id for row in store.segments(study_id)}
    new: dict[str, None] = {}
    try:
        for attachment, series_id, drawings in laid:
            kind = KINDS[attachment.kind]
            for one in drawings:
                note = f"From a {kind} object of the study. {one.note}".strip()
                row = segments.place(
                    series_id, one.label, one.mask, engine=kind, version=one.drawn_by, confidence=1.0, note=note
                )
                if row.id not in before:
                    new[row.id] = None
    except BaseException:
        for segment_id in new:
            segments.delete(segment_id)
        raise
    if laid:
        store.audit("attach", study_id, f"{len(new)} segments")
    return list(new)


def receive(store: Store, study_id: str, attachments: Sequence[Attachment]) -> list[str]:
    """Keep the structured reports among the attachments beside the study's own report, which stays as it is.

    Returns:
        the ids of those that are new.

    Raises:
        Conflict: the study is signed.
    """
    found = [(a, a.received) for a in attachments if a.received is not None]
    new = [store.add_received(study_id, uid=a.uid, date=a.date, report=report) for a, report in found]
    return [received_id for received_id in new if received_id]


def take_over(reports: Reports, study_id: str, report: Received, date: str = "") -> None:
    """A report from elsewhere → the reader's own sentences of the working report, because the reader asked for it.

    Raises:
        Conflict: the study is signed.
    """
    from core_models.drafting.findings import region_of

    numbers = [_dated(text, date) for text in report.measured]
    findings = [("findings", region_of(text), text) for text in (*report.findings, *numbers)]
    reports.add_lines(study_id, [*findings, *(("impression", region_of(text), text) for text in report.impression)])


def _dated(text: str, date: str) -> str:
    """A line of numbers that says that they were not measured here."""
    when = f" of {date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else ""
    return f"{text[:-1]} (structured report{when})."


def _lay(store: Store, study: StudyRow, attachment: Attachment) -> tuple[str, tuple[Laid, ...]]:
    """(id of the first series that the drawings lie on, the drawings there); those that it refers to come first."""
    refusal: Refused | None = None
    for series in sorted(study.series, key=lambda s: s.uid not in attachment.series_uids):
        try:
            return series.id, lay(attachment, store.volume(series.id), _slices(store, series, attachment))
        except Refused as error:
            refusal = refusal or error
    raise refusal or Refused("The study holds no images that could be drawn on.")


def _slices(store: Store, series: SeriesRow, attachment: Attachment) -> dict[str, int]:
    """SOPInstanceUID → slice in the source's order, where each original is one slice."""
    wanted = {plane.source for drawing in attachment.drawings for plane in drawing.planes} - {""}
    paths = store.sources(series.id) if wanted else ()
    depth = series.shape[series.layout.axes.index(0)]
    if len(paths) != depth:
        return {}
    uids = [pydicom.dcmread(p, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]) for p in paths]
    return {str(header.get("SOPInstanceUID", "")): n for n, header in enumerate(uids)}
