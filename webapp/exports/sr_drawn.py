"""What a reader measured by hand → measurement groups (TID 1501) of a structured report, each with its own coordinates.

On images with a frame of reference the points are in patient millimetres, whatever plane they were drawn on; on a
projection they are pixels of the image.
"""

from __future__ import annotations

import re

import highdicom as hd
import numpy as np
from highdicom.sr import (
    CoordinatesForMeasurement,
    CoordinatesForMeasurement3D,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from core_models.segmentation.lines import Number
from core_models.segmentation.naming.labels import CODES, code_of
from core_models.study.volume import Volume
from webapp.exports.bundle import ReportBundle, made_uid
from webapp.store import AnnotationRow

OWN_CODES = "99READINGROOM"  # where no public vocabulary that we know has the concept
LENGTH = CodedConcept("410668003", "SCT", "Length")
ANGLE = CodedConcept("1483009", "SCT", "Angle")
AREA = CodedConcept("42798000", "SCT", "Area")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
SIGNAL = CodedConcept("110852", "DCM", "MR signal intensity")
RATIO = CodedConcept("CTR", OWN_CODES, "Cardiothoracic ratio")
MEAN = CodedConcept("373098007", "SCT", "Mean")
DEVIATION = CodedConcept("386136009", "SCT", "Standard Deviation")
HEART = CodedConcept("80891009", "SCT", "Heart")
DERIVED = {"mean": MEAN, "sd": DEVIATION}
UNITS = {
    "mm": CodedConcept("mm", "UCUM", "millimeter"),
    "px": CodedConcept("{pixels}", "UCUM", "pixels"),
    "px²": CodedConcept("{pixels}2", "UCUM", "square pixels"),
    "cm²": CodedConcept("cm2", "UCUM", "square centimeter"),
    "°": CodedConcept("deg", "UCUM", "degree"),
    "HU": CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "ratio": CodedConcept("{ratio}", "UCUM", "ratio"),
    "": CodedConcept("1", "UCUM", "no units"),
}
DIGITS = 4


def rows(bundle: ReportBundle) -> tuple[AnnotationRow, ...]:
    """The annotations on the bundle's series that hold a number which a code says."""
    return tuple(a for a in bundle.own_annotations if any(_name(bundle, n) for n in a.numbers))


def groups(bundle: ReportBundle, images: list[Dataset]) -> list[MeasurementsAndQualitativeEvaluations]:
    """One group per annotation, with every number that has a code."""
    return [_group(bundle, row, images) for row in rows(bundle)]


def _group(bundle: ReportBundle, row: AnnotationRow, images: list[Dataset]) -> MeasurementsAndQualitativeEvaluations:
    places = _places(bundle, row, images)
    site = None
    if row.kind == "ratio" or row.label.strip().lower() in CODES:
        code, meaning = code_of(row.label)
        site = [hd.sr.FindingSite(HEART if row.kind == "ratio" else CodedConcept(code, "SCT", meaning))]
    found = []
    for number in row.numbers:
        name = _name(bundle, number)
        if name is None:
            continue
        unit = UNITS["ratio" if number.key == "ratio" else number.unit]
        own = {"heart": places[:1], "thorax": places[1:]}.get(number.key, places)
        found.append(
            Measurement(
                name,
                round(number.value, DIGITS),
                unit,
                derivation=DERIVED.get(number.key),
                finding_sites=site,
                referenced_coordinates=own or None,
            )
        )
    flat = bundle.series.shape[0] == 1
    title = re.sub(r"[\x00-\x1f\x7f\\]+", " ", f"{row.title(flat)}: {row.numbers[0].words}").strip()[:64]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=made_uid("annotation", row.id), identifier=title),
        measurements=found,
    )


def _name(bundle: ReportBundle, number: Number) -> CodedConcept | None:
    if number.key in ("length", "heart", "thorax"):
        return LENGTH
    if number.key in ("mean", "sd", "value"):
        if number.unit == "HU":
            return ATTENUATION
        return SIGNAL if bundle.series.modality == "MR" and not number.unit else None
    return {"angle": ANGLE, "area": AREA, "ratio": RATIO}.get(number.key)


def _places(
    bundle: ReportBundle, row: AnnotationRow, images: list[Dataset]
) -> list[CoordinatesForMeasurement | CoordinatesForMeasurement3D]:
    """The shapes that were drawn; none where the images say neither a place in the patient nor a single frame."""
    volume = bundle.volume()
    shapes = [(kind, np.asarray(points, np.float64)) for kind, points in _shapes(row)]
    frame = images[0].get("FrameOfReferenceUID")
    if frame and "ImagePositionPatient" in images[0]:
        return [CoordinatesForMeasurement3D(kind, volume.to_world(points), str(frame)) for kind, points in shapes]
    if len(images) != 1 or int(images[0].get("NumberOfFrames", 1) or 1) != 1:
        return []
    source = SourceImageForRegion(images[0].SOPClassUID, images[0].SOPInstanceUID)
    return [CoordinatesForMeasurement(kind, _pixels(volume, points), source) for kind, points in shapes]


def _shapes(row: AnnotationRow) -> list[tuple[str, list]]:
    """(DICOM graphic type, (i, j, k) points) of what was drawn."""
    points = [list(p) for p in row.points]
    if row.kind == "ellipse":
        return [("ELLIPSE", ellipse_axes(row.plane, row.points))]
    if row.kind == "probe":
        return [("POINT", points)]
    if row.kind == "ratio":
        return [("POLYLINE", points[:2]), ("POLYLINE", points[2:])]
    return [("POLYLINE", points)]


def ellipse_axes(plane: str, corners: tuple[tuple[float, float, float], ...]) -> list[list[float]]:
    """Both ends of the longer axis, then of the shorter one (PS3.3 C.18.6.1.2), from two corners of the box."""
    across, down = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
    a, b = np.asarray(corners, float)
    middle = (a + b) / 2
    ends = []
    for axis in (across, down):
        for corner in (a, b):
            end = middle.copy()
            end[axis] = corner[axis]
            ends.append(end.tolist())
    longer = abs(b[across] - a[across]) >= abs(b[down] - a[down])
    return ends if longer else [*ends[2:], *ends[:2]]


def _pixels(volume: Volume, points: np.ndarray) -> np.ndarray:
    """(i, j, k) → (column, row) of the stored image, whole numbers at pixel edges (PS3.3 C.18.6.1.2)."""
    out = np.empty((len(points), 3))  # source order: slice, row, column
    for axis, source in enumerate(volume.layout.axes):
        at = points[:, 2 - axis]
        out[:, source] = volume.shape[axis] - 1 - at if volume.layout.flips[axis] else at
    return out[:, [2, 1]] + 0.5
