"""Segments on a DICOM series → a DICOM Segmentation (BINARY, overlap kept) on the original images' own geometry."""

from __future__ import annotations

import hashlib
import io
import re
import warnings

import highdicom as hd
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from core_models.errors import ReadingRoomError, Refused
from core_models.segmentation.edits import Interpolation, Stroke
from core_models.segmentation.naming.labels import MORPHOLOGICAL, code_of
from core_models.study.study import KINDS
from core_models.study.volume import Volume
from webapp.exports.bundle import ReportBundle, made_uid
from webapp.store import SegmentRow

MANUFACTURER = "Reading Room"
MODEL = "Reading Room (research use, not a medical device)"
SOFTWARE = "0.1.0"
SERIES_NUMBER = 300
ALL_FRAMES_BYTES = 64 * 1024**2  # below this, empty frames are written too: some readers misplace sparse ones
# Required by the Segmentation's own modules, though they may be empty; sources often leave them out.
MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
ANATOMY = CodedConcept("123037004", "SCT", "Anatomical Structure")
ABNORMALITY = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")


def available(bundle: ReportBundle) -> str:
    """Why there can be no DICOM Segmentation, in a sentence; "" when there can be."""
    if not bundle.sources:
        return "A DICOM Segmentation needs the original DICOM images; this series did not come as DICOM."
    if not bundle.own_segments:
        return "There are no segments to export: click a structure first."
    empty = [s.label or f"segment {s.number}" for s in bundle.own_segments if min(s.box[3:]) == 0]
    if empty:
        return f"The segment {empty[0][:60]!r} is empty: delete it or click it again before exporting."
    return ""


def write(bundle: ReportBundle) -> bytes:
    """The Segmentation as a DICOM file.  Raises Refused."""
    return to_bytes(build(bundle, read_sources(bundle)))


def to_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def read_sources(bundle: ReportBundle) -> list[Dataset]:
    """The headers of the original images in the source's slice order, gaps of optional identity filled with ""."""
    if reason := available(bundle):
        raise Refused(reason)
    return headers(bundle)


def headers(bundle: ReportBundle) -> list[Dataset]:
    """As `read_sources`, whether there are segments or not."""
    images = []
    for path in bundle.sources:
        try:
            image = pydicom.dcmread(path, stop_before_pixels=True)
        except (OSError, InvalidDicomError) as e:
            raise ReadingRoomError("A stored original image cannot be read; upload the scan again.") from e
        for keyword in MAY_BE_EMPTY:
            if keyword not in image:
                setattr(image, keyword, "")
        images.append(image)
    return images


def build(bundle: ReportBundle, images: list[Dataset]) -> hd.seg.Segmentation:
    """Put the segments of the bundle's series on its original images.

    The same segments give the same instance UID, so that a structured report made separately refers to this object.

    Raises:
        Refused: an empty mask, or originals that do not fit the volume.
    """
    volume, rows = bundle.volume(), bundle.own_segments
    frames = frame_slices(volume, images)
    first = images[0]
    pixels = np.zeros((len(frames), int(first.Rows), int(first.Columns), len(rows)), np.uint8)
    content = hashlib.sha256()
    for n, row in enumerate(rows):
        mask = bundle.mask(row)
        if mask.empty:
            raise Refused(f"The segment {row.label[:60]!r} is empty: delete it or click it again before exporting.")
        source = volume.layout.to_source(mask.full())
        if source.shape[1:] != pixels.shape[1:3]:
            raise Refused("The original images differ in size from the volume; they cannot carry the segments.")
        pixels[..., n] = source[frames]
        content.update(repr((row.id, row.label, row.engine, row.engine_version, mask.offset)).encode())
        content.update(np.packbits(mask.voxels))
    key = (bundle.series.id, content.hexdigest())
    every_frame = pixels.size / 8 <= ALL_FRAMES_BYTES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about odd values that the source's header holds
            seg = hd.seg.Segmentation(
                images,
                pixels,
                hd.seg.SegmentationTypeValues.BINARY,
                [describe(n, row) for n, row in enumerate(rows, 1)],
                series_instance_uid=made_uid("seg series", *key),
                series_number=SERIES_NUMBER,
                sop_instance_uid=made_uid("seg", *key),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=MODEL,
                software_versions=SOFTWARE,
                device_serial_number="1",
                omit_empty_frames=not every_frame,
                content_label="SEGMENTS",
                content_description="Research use, not a medical device",
                series_description="Segments (research use)",
            )
    except (AttributeError, ValueError, KeyError, TypeError) as e:
        raise Refused(
            "The original images lack what a DICOM Segmentation must refer to (geometry or identity in the header)."
        ) from e
    if "FrameOfReferenceUID" not in seg:
        _complete_without_geometry(seg, first)
    return seg


def _complete_without_geometry(seg: hd.seg.Segmentation, source: Dataset) -> None:
    """A radiograph has no place in the patient; make its Segmentation valid and readable all the same."""
    seg.PatientOrientation = source.get("PatientOrientation") or ""
    shared = seg.SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence")
    if measures and "SliceThickness" not in measures[0]:
        # Readers insist on a thickness that a projection does not have.  The group is optional beside the reference
        # to the source image, whose own spacing holds.
        del shared.PixelMeasuresSequence


def describe(number: int, row: SegmentRow) -> hd.seg.SegmentDescription:
    """One segment's entry: the reader's label, its SNOMED CT code, and what drew it."""
    code, meaning = code_of(row.label)
    category = ABNORMALITY if row.label.strip().lower() in MORPHOLOGICAL else ANATOMY
    rule_based = row.engine == "watershed"
    family = codes.cid7162.MorphologicalOperations if rule_based else codes.cid7162.ArtificialIntelligence
    untouched = row.based and not row.steps
    kinds = hd.seg.SegmentAlgorithmTypeValues
    kind = kinds.AUTOMATIC if untouched else kinds.SEMIAUTOMATIC
    by_hand = all(isinstance(step.action, Stroke | Interpolation) for step in row.steps)
    if row.steps and by_hand and not row.based:
        kind = kinds.MANUAL
    if untouched and row.engine in KINDS.values():  # it came so, and goes out as it came
        kind = kinds(row.engine_version.split()[0])
    return hd.seg.SegmentDescription(
        number,
        label_of(row),
        category,
        CodedConcept(code, "SCT", meaning),
        kind,
        None
        if kind == kinds.MANUAL
        else hd.AlgorithmIdentificationSequence(
            name=_short(row.engine) or "unnamed", version=_short(row.engine_version) or "1", family=family
        ),
        tracking_uid=tracking_uid(row),
        tracking_id=label_of(row),
    )


def tracking_uid(row: SegmentRow) -> str:
    """The same segment's UID in every export, whatever its shape."""
    return made_uid("segment", row.id)


def label_of(row: SegmentRow) -> str:
    """The label as DICOM's LO takes it: at most 64 characters, no backslash, no control characters."""
    return _short(row.label) or f"Segment {row.number}"


def _short(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\\]+", " ", text).strip()[:64].strip()


def frame_slices(volume: Volume, images: list[Dataset]) -> np.ndarray:
    """For every source frame (in file order), the slice of the source-ordered array that it shows.

    The frames of a multi-frame file may lie in any order, so they are ranked by position along the slice axis.
    """
    slices = volume.layout.to_source(np.empty(volume.shape, bool)).shape[0]
    places = positions(images)
    count = sum(int(i.get("NumberOfFrames", 1) or 1) for i in images)
    if count != slices or (len(images) > 1 and count != len(images)):
        raise Refused(f"The original images hold {count} frames and the volume {slices} slices: they do not match.")
    if places is None:
        return np.arange(slices)
    axis = volume.layout.axes.index(0)
    direction = volume.affine[:3, 2 - axis] * (-1 if volume.layout.flips[axis] else 1)
    order = np.argsort(places @ direction, kind="stable")
    out = np.empty(slices, int)
    out[order] = np.arange(slices)
    return out


def positions(images: list[Dataset]) -> np.ndarray | None:
    """ImagePositionPatient of every frame (n, 3) in mm, or None where the header has none."""
    rows = []
    for image in images:
        groups = image.get("PerFrameFunctionalGroupsSequence")
        shared = image.get("SharedFunctionalGroupsSequence")
        for group in groups or [image]:
            place = group.get("PlanePositionSequence") or (shared and shared[0].get("PlanePositionSequence"))
            value = place[0].get("ImagePositionPatient") if place else group.get("ImagePositionPatient")
            if not value:
                return None
            rows.append([float(v) for v in value])
    frames = sum(int(i.get("NumberOfFrames", 1) or 1) for i in images)
    return np.array(rows) if len(rows) == frames else None
