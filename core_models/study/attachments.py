"""What was drawn on a study or measured in it, as DICOM → plain values: Segmentation, RT structure set, our own report.

Nothing here knows the images; `core_models.segmentation.attached` lays the drawings on a volume.  A structured report
of another maker stays `NotAScan`: its content is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from core_models.errors import Refused, TooLarge
from core_models.study import received
from core_models.study.dicom import NotAScan, Opened, patient_of, pixels_of, plain_refusals, uid_of
from core_models.study.elements import first, floats, number, pair, values, whole
from core_models.study.frames import Instance, Pixels
from core_models.study.limits import Limits
from core_models.study.pixels import Decoder
from core_models.study.received import Received
from core_models.study.study import KINDS, Patient
from core_models.study.text import clean

OURS = "Reading Room"  # Manufacturer of what `webapp.exports` writes
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_MAX_NAME = 64


@dataclass(frozen=True)
class Plane:
    """One slice of a segment.

    Attributes:
        box: bool (rows, columns), cropped to what is set; `corner`: (row, column) of its first pixel in the frame.
        shape: (rows, columns) of the whole frame.
        position, orientation, spacing, thickness: as of a `Frame`; None where the object does not say.
        source: SOPInstanceUID of the image it was drawn on, or "".
    """

    box: np.ndarray
    corner: tuple[int, int]
    shape: tuple[int, int]
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    source: str


@dataclass(frozen=True)
class Drawing:
    """One segment or region of interest: planes, or closed contours of (n, 3) LPS mm each.

    Attributes:
        left_out: contours that are points or open lines, which enclose nothing.
        drawn_by: how it was made, as its object says: "MANUAL", or "AUTOMATIC" or "SEMIAUTOMATIC" and what did it.
    """

    label: str
    planes: tuple[Plane, ...] = ()
    contours: tuple[np.ndarray, ...] = ()
    left_out: int = 0
    drawn_by: str = "MANUAL"


@dataclass(frozen=True)
class Attachment:
    """One object that belongs to a study.

    Attributes:
        name: of its file, cleaned, for messages.
        series_uids: of the images that it refers to, in its order; may be empty.
        uid: its SOPInstanceUID; `received`: the text of a structured report.
    """

    kind: Literal["SEG", "RTSTRUCT", "SR"]
    name: str
    study_uid: str
    patient: Patient
    series_uids: tuple[str, ...]
    drawings: tuple[Drawing, ...] = ()
    date: str = ""
    uid: str = ""
    received: Received | None = None


def holds(file: Opened) -> bool:
    """Whether the file is an object that `read` reads."""
    if file.modality == "SR":
        return clean(file.header.get("Manufacturer")) == OURS
    return file.modality in ("SEG", "RTSTRUCT")


def read(file: Opened, limits: Limits) -> Attachment:
    """Read the whole object.

    Raises:
        Refused: damaged, of a kind that is not read, or it names no study.
        TooLarge: more than `limits` allow.
        NotAScan: there is nothing in it.
    """
    if file.modality != "SEG" and len(file.data) > limits.max_attachment_bytes:
        raise TooLarge(
            f'"{file.name}" is over the {limits.max_attachment_bytes / 1e6:,.0f} MB that are read of its kind.'
        )
    with plain_refusals(file.name, limits):
        study_uid = uid_of(file, "StudyInstanceUID")
        if not study_uid:
            raise Refused(f'"{file.name}" does not say to which study it belongs.')
        header = file.header
        parts: dict = {}
        if file.modality == "SEG":
            parts = {"drawings": _segments(file, limits), "series_uids": _referenced(header)}
        elif file.modality == "RTSTRUCT":
            parts = {"drawings": _regions(file), "series_uids": tuple(_planned_on(header))}
        else:
            told = received.read(header)
            parts = {"received": None if told.empty else told, "series_uids": ()}
        if not parts.get("drawings") and not parts.get("received"):
            raise NotAScan(f'"{file.name}" is a {KINDS[file.modality]} object in which nothing is drawn or measured.')
        return Attachment(
            kind=file.modality,  # type: ignore[arg-type]
            name=file.name,
            study_uid=study_uid,
            patient=patient_of(header),
            uid=uid_of(file, "SOPInstanceUID"),
            date=clean(header.get("ContentDate") or header.get("StructureSetDate"), 8),
            **parts,
        )


def _referenced(header: Dataset) -> tuple[str, ...]:
    return tuple(clean(s.get("SeriesInstanceUID")) for s in header.get("ReferencedSeriesSequence") or ())


def _label(value: object, n: int) -> str:
    return clean(value, _MAX_NAME) or f"segment {n}"


# DICOM Segmentation (PS3.3 A.51).


def _segments(file: Opened, limits: Limits) -> tuple[Drawing, ...]:
    header, name = file.header, file.name
    kind = clean(header.get("SegmentationType"), 16).upper()
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise Refused(
            f'"{name}" is a segmentation of type {kind or "unknown"}; BINARY, FRACTIONAL or LABELMAP are read.'
        )
    labels: dict[int, str] = {}
    makers: dict[int, str] = {}
    for item in header.get("SegmentSequence") or ():
        segment = whole(item.get("SegmentNumber"))
        if segment is None or segment < 0 or segment in labels:
            raise Refused(f'"{name}" numbers its segments in a way that does not tell them apart.')
        labels[segment] = _label(item.get("SegmentLabel"), segment)
        makers[segment] = _maker(item)
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = first(header.get("SharedFunctionalGroupsSequence"))
    planes: dict[int, list[Plane]] = {n: [] for n in labels if n or kind != "LABELMAP"}
    count = 0
    for count, values_ in enumerate(_frames(file, limits), 1):
        if count > len(groups):
            break
        group = groups[count - 1]
        if kind == "LABELMAP":
            present = [int(n) for n in np.unique(values_) if n]
            found = [(n, values_ == n) for n in present]
        else:
            half = max(1, whole(header.get("MaximumFractionalValue")) or 1) / 2 if kind == "FRACTIONAL" else 0
            identity = first(_of(group, shared, "SegmentIdentificationSequence"))
            segment = whole(identity.get("ReferencedSegmentNumber")) if identity is not None else None
            found = [(segment, values_ >= half if half else values_ != 0)]
        for segment, mask in found:
            if segment not in planes:
                raise Refused(f'"{name}" has a frame of segment {segment}, which it does not describe.')
            if plane := _plane(mask, group, shared):
                planes[segment].append(plane)
    if count != len(groups):
        raise Refused(f'"{name}" describes {len(groups)} frames but holds {count}.')
    return tuple(Drawing(labels[n], tuple(found), drawn_by=makers[n]) for n, found in planes.items() if found)


def _maker(segment: Dataset) -> str:
    how = clean(segment.get("SegmentAlgorithmType"), 16).upper()
    if how not in ("AUTOMATIC", "SEMIAUTOMATIC"):
        return "MANUAL"
    return f"{how} {clean(segment.get('SegmentAlgorithmName'), _MAX_NAME)}".strip()


def _frames(file: Opened, limits: Limits) -> Iterator[np.ndarray]:
    """The frames' stored values, (rows, columns)."""
    pixels = pixels_of(file, limits, bits=(1, 8, 16))
    if pixels.samples != 1:
        raise Refused(f'"{file.name}" is a segmentation in colour, which is not read.')
    shape = (pixels.rows, pixels.columns)
    size = pixels.rows * pixels.columns
    if pixels.length is None:
        with Decoder(limits) as decoder:
            yield from decoder.frames(_bare(file, pixels))
        return
    raw = np.frombuffer(file.buffer, np.uint8, pixels.length, pixels.offset)
    for n in range(pixels.frames):
        if pixels.allocated == 1:  # packed without gaps between frames, first pixel in the lowest bit (PS3.5 8.1.1)
            start, end = n * size, (n + 1) * size
            bits = np.unpackbits(raw[start // 8 : -(-end // 8)], bitorder="little")
            yield bits[start % 8 : start % 8 + size].reshape(shape)
        else:
            wide = pixels.allocated // 8
            yield raw[n * size * wide : (n + 1) * size * wide].view(f"<u{wide}").reshape(shape)


def _bare(file: Opened, pixels: Pixels) -> Instance:
    """What the decoder needs of a file that is no image of a series."""
    return Instance(
        name=file.name,
        data=file.data,
        buffer=file.buffer,
        header=file.header,
        transfer_syntax=file.syntax,
        sop_uid="",
        study_uid="",
        series_uid="",
        number=0,
        modality=file.modality,
        patient=Patient(),
        pixels=pixels,
        has_rescale=False,
        rescale_type="",
        localizer=False,
    )


def _of(group: Dataset, shared: Dataset | None, sequence: str):
    return group.get(sequence) or (shared.get(sequence) if shared is not None else None)


def _plane(mask: np.ndarray, group: Dataset, shared: Dataset | None) -> Plane | None:
    """The frame cropped to what is set in it; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    place = first(_of(group, shared, "PlanePositionSequence"))
    directions = first(_of(group, shared, "PlaneOrientationSequence"))
    measures = first(_of(group, shared, "PixelMeasuresSequence"))
    derivation = first(_of(group, shared, "DerivationImageSequence"))
    source = first(derivation.get("SourceImageSequence")) if derivation is not None else None
    return Plane(
        mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(bool),
        (int(rows[0]), int(columns[0])),
        mask.shape,
        floats(place.get("ImagePositionPatient"), 3) if place is not None else None,  # type: ignore[arg-type]
        floats(directions.get("ImageOrientationPatient"), 6) if directions is not None else None,
        pair(measures.get("PixelSpacing")) if measures is not None else None,
        _thickness(measures) if measures is not None else None,
        clean(source.get("ReferencedSOPInstanceUID")) if source is not None else "",
    )


def _thickness(measures: Dataset) -> float | None:
    stated = number(measures.get("SpacingBetweenSlices")) or number(measures.get("SliceThickness"))
    return stated if stated and stated > 1e-3 else None


# RT Structure Set (PS3.3 A.19).


def _regions(file: Opened) -> tuple[Drawing, ...]:
    header, name = file.header, file.name
    labels = {whole(r.get("ROINumber")): r.get("ROIName") for r in header.get("StructureSetROISequence") or ()}
    out = []
    for region in header.get("ROIContourSequence") or ():
        roi = whole(region.get("ReferencedROINumber"))
        contours, left_out = [], 0
        for contour in region.get("ContourSequence") or ():
            if clean(contour.get("ContourGeometricType"), 20).upper() not in _CLOSED:
                left_out += 1
                continue
            points = _points(contour)
            if points is None:
                raise Refused(f'"{name}" has a contour whose points are not three finite numbers each.')
            if len(points) >= 3:
                contours.append(points)
            else:
                left_out += 1
        if contours:
            out.append(Drawing(_label(labels.get(roi), roi or len(out) + 1), (), tuple(contours), left_out))
    return tuple(out)


def _points(contour: Dataset) -> np.ndarray | None:
    """(n, 3) LPS mm, or None where the text is no such list.  Read from the bytes: a number as pydicom's own object
    takes twenty times the memory."""
    element = contour.get_item("ContourData")
    if element is None:
        return np.empty((0, 3))
    raw = element.value
    text = raw if isinstance(raw, bytes) else "\\".join(str(v) for v in values(raw)).encode()
    parts = text.strip(b" \0").split(b"\\")
    try:
        numbers = np.array(parts, np.float64) if parts != [b""] else np.empty(0)
    except ValueError:
        return None
    return numbers.reshape(-1, 3) if numbers.size % 3 == 0 and np.isfinite(numbers).all() else None


def _planned_on(header: Dataset) -> Iterator[str]:
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield clean(series.get("SeriesInstanceUID"))
