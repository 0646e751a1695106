"""Segments on a DICOM series → an RT Structure Set (PS3.3 A.19): their contours in the original images' slices.

Implicit VR: a contour's text may be longer than explicit VR can say (64 KB).
"""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from importlib.metadata import version

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds

from core_models.errors import Refused
from core_models.segmentation.contours import Contour, contours
from core_models.segmentation.naming.labels import code_of
from core_models.study.study import KINDS
from webapp.exports import seg
from webapp.exports.bundle import ReportBundle, made_uid
from webapp.store import SegmentRow

SERIES_NUMBER = 301
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management: retired, and what the attribute still wants
_COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip


def available(bundle: ReportBundle) -> str:
    """Why there can be no RT Structure Set, in a sentence; "" when there can be."""
    if reason := seg.available(bundle):
        return reason.replace("A DICOM Segmentation", "An RT Structure Set")
    if not bundle.receipt.spacing:
        return "An RT Structure Set gives places in the patient, and this series does not say where it lies."
    return ""


def write(bundle: ReportBundle) -> bytes:
    """The structure set as a DICOM file.  Raises Refused."""
    dataset = build(bundle, seg.read_sources(bundle))
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def build(bundle: ReportBundle, images: list[Dataset]) -> Dataset:
    """Every segment of the bundle's series as a region of interest; those that overlap stay whole.

    Raises:
        Refused: an empty mask, or originals that do not fit the volume or do not say where they lie.
    """
    frame_of_reference = str(images[0].get("FrameOfReferenceUID") or "")
    if not frame_of_reference or seg.positions(images) is None:
        raise Refused("An RT Structure Set gives places in the patient, and these images do not say where they lie.")
    volume, rows = bundle.volume(), bundle.own_segments
    references = _references(images, seg.frame_slices(volume, images))
    content = hashlib.sha256()
    out = _head(images[0])
    out.StructureSetROISequence, out.ROIContourSequence, out.RTROIObservationsSequence = [], [], []
    used: dict[int, None] = {}
    for number, row in enumerate(rows, 1):
        mask = bundle.mask(row)
        if mask.empty:
            raise Refused(f"The segment {row.label[:60]!r} is empty: delete it or click it again before exporting.")
        content.update(repr((row.id, row.label, row.engine, row.engine_version, mask.offset)).encode())
        content.update(np.packbits(mask.voxels))
        drawn = list(contours(volume, mask))
        used |= dict.fromkeys(c.slice for c in drawn)
        out.StructureSetROISequence.append(_region(number, row, frame_of_reference))
        out.ROIContourSequence.append(_drawn(number, row, drawn, references))
        out.RTROIObservationsSequence.append(_observed(number, row))
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [references[n] for n in sorted(references)]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = frame_of_reference, [study]
    out.ReferencedFrameOfReferenceSequence = [frame]
    key = (bundle.series.id, content.hexdigest())
    out.SOPInstanceUID = out.file_meta.MediaStorageSOPInstanceUID = made_uid("rtstruct", *key)
    out.SeriesInstanceUID = made_uid("rtstruct series", *key)
    return out


def _head(image: Dataset) -> Dataset:
    """Patient and study of the images, and what made this object."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = RTStructureSetStorage
    out.file_meta.ImplementationVersionName = f"PYDICOM {version('pydicom')}"[:16]
    out.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _COPIED:
        if keyword in image:
            setattr(out, keyword, image[keyword].value)
    now = datetime.now()
    out.Modality, out.SeriesNumber, out.OperatorsName = "RTSTRUCT", SERIES_NUMBER, ""
    out.SeriesDescription = "Segments (research use)"
    out.Manufacturer, out.ManufacturerModelName = seg.MANUFACTURER, seg.MODEL
    out.DeviceSerialNumber, out.SoftwareVersions = "1", seg.SOFTWARE
    out.InstanceNumber, out.StructureSetLabel = 1, "SEGMENTS"
    out.StructureSetDescription = "Research use, not a medical device"
    out.StructureSetDate, out.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    out.FrameOfReferenceUID = image.get("FrameOfReferenceUID")
    out.PositionReferenceIndicator = image.get("PositionReferenceIndicator") or ""
    out.ApprovalStatus = "UNAPPROVED"
    return out


def _references(images: list[Dataset], slices: np.ndarray) -> dict[int, Dataset]:
    """Slice of the source's order → the reference to its image, or to the frame of the one file."""
    out = {}
    for n, at in enumerate(slices):
        image = images[n] if len(images) > 1 else images[0]
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        if int(image.get("NumberOfFrames", 1) or 1) > 1:
            item.ReferencedFrameNumber = n + 1
        out[int(at)] = item
    return out


def _region(number: int, row: SegmentRow, frame_of_reference: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ReferencedFrameOfReferenceUID = number, frame_of_reference
    item.ROIName = seg.label_of(row)
    untouched = row.based and not row.steps
    item.ROIGenerationAlgorithm = "AUTOMATIC" if untouched else "SEMIAUTOMATIC"
    if untouched and row.engine in KINDS.values():  # it came so, and goes out as it came
        item.ROIGenerationAlgorithm = row.engine_version.split()[0]
    return item


def _drawn(number: int, row: SegmentRow, drawn: list[Contour], references: dict[int, Dataset]) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = [int(row.colour[n : n + 2], 16) for n in (1, 3, 5)]
    item.ContourSequence = []
    for contour in drawn:
        one = Dataset()
        one.ContourImageSequence = [references[contour.slice]]
        one.ContourGeometricType, one.NumberOfContourPoints = "CLOSED_PLANAR", len(contour.points)
        one.ContourData = [_decimal(v) for v in contour.points.ravel().tolist()]
        item.ContourSequence.append(one)
    item.ReferencedROINumber = number
    return item


def _decimal(value: float) -> str:
    """To a ten-thousandth of a millimetre, in the 16 characters of a DS."""
    text = f"{value:.4f}"
    return text if len(text) <= 16 else format_number_as_ds(value)


def _observed(number: int, row: SegmentRow) -> Dataset:
    item, code = Dataset(), Dataset()
    item.ObservationNumber, item.ReferencedROINumber = number, number
    code.CodeValue, code.CodeMeaning = code_of(row.label)
    code.CodingSchemeDesignator = "SCT"
    item.RTROIIdentificationCodeSequence = [code]
    item.RTROIInterpretedType, item.ROIInterpreter = "", ""
    return item
