"""Segments and measurements → a DICOM TID 1500 measurement report that refers to the Segmentation."""

from __future__ import annotations

import re
import warnings

import highdicom as hd
from highdicom.sr import (
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    SourceImageForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from core_models.errors import Refused
from core_models.segmentation import measure
from core_models.segmentation.naming.labels import MORPHOLOGICAL, code_of
from webapp.exports import seg, sr_drawn, sr_text
from webapp.exports.bundle import ReportBundle, made_uid
from webapp.store import SegmentRow

SERIES_NUMBER = 301
VOLUME = CodedConcept("118565006", "SCT", "Volume")
AREA = CodedConcept("42798000", "SCT", "Area")
LONG_AXIS = CodedConcept("103339001", "SCT", "Long Axis")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
MEAN = CodedConcept("373098007", "SCT", "Mean")
MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
MILLIMETRE = CodedConcept("mm", "UCUM", "millimeter")
SQUARE_MILLIMETRE = CodedConcept("mm2", "UCUM", "square millimeter")
HOUNSFIELD = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
PROCEDURES = {
    "CT": ("77477000", "Computed tomography"),
    "MR": ("113091000", "Magnetic resonance imaging"),
    "PT": ("82918005", "Positron emission tomography"),
    "US": ("16310003", "Ultrasonography"),
    "CR": ("363680008", "Radiographic imaging procedure"),
    "DX": ("363680008", "Radiographic imaging procedure"),
}
ANY_IMAGING = ("363679005", "Imaging")


def available(bundle: ReportBundle) -> str:
    """Why there can be no structured report, in a sentence; "" when there can be."""
    reason = seg.available(bundle)
    if bundle.sources and not bundle.own_segments:
        if sr_drawn.rows(bundle):
            return ""
        return "The structured report holds measurements and there are none: click a structure first, or measure one."
    return reason.replace("DICOM Segmentation", "DICOM structured report")


def write(bundle: ReportBundle) -> bytes:
    """The structured report as a DICOM file.  Raises Refused."""
    if reason := available(bundle):
        raise Refused(reason)
    images = seg.headers(bundle)
    return seg.to_bytes(build(bundle, images, seg.build(bundle, images) if bundle.own_segments else None))


def build(bundle: ReportBundle, images: list[Dataset], segmentation: hd.seg.Segmentation | None) -> Comprehensive3DSR:
    """One measurement group per segment: volume (ml) or area (mm²), mean HU for CT, longest axial diameter (mm).

    After them one group for each measurement that the reader drew, then the report's text.

    Args:
        segmentation: of the segments; None where there are none.

    Raises:
        Refused: nothing can be measured, or the originals lack what a structured report must refer to.
    """
    groups = []
    if segmentation is not None:
        groups = [_group(bundle, n, row, images, segmentation) for n, row in enumerate(bundle.own_segments, 1)]
    groups += sr_drawn.groups(bundle, images)
    code, meaning = PROCEDURES.get(bundle.series.modality, ANY_IMAGING)
    report = MeasurementReport(
        observation_context=_context(bundle),
        procedure_reported=CodedConcept(code, "SCT", meaning),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    report[0].ContentSequence.extend(sr_text.items(bundle))
    drawn = bundle.own_annotations
    segments = segmentation.SOPInstanceUID if segmentation is not None else bundle.series.id
    key = (segments, bundle.report, *([drawn] if drawn else []))
    evidence = [*images, *([segmentation] if segmentation is not None else [])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return Comprehensive3DSR(
                evidence=evidence,
                content=report[0],
                series_instance_uid=made_uid("sr series", *key),
                series_number=SERIES_NUMBER,
                sop_instance_uid=made_uid("sr", *key),
                instance_number=1,
                manufacturer=seg.MANUFACTURER,
                is_complete=bundle.signed,
                is_final=bundle.signed,
                is_verified=False,
                series_description="Measurements (research use)",
            )
    except (AttributeError, ValueError, KeyError, TypeError) as e:
        raise Refused("The original images lack what a DICOM structured report must refer to.") from e


def _context(bundle: ReportBundle) -> ObservationContext:
    device = ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=made_uid("device"), name=seg.MANUFACTURER, manufacturer_name=seg.MANUFACTURER, model_name=seg.MODEL
        ),
    )
    person = None
    if bundle.signature is not None:
        name = re.sub(r"[\x00-\x1f\x7f\\=^]+", " ", bundle.signature.author).strip()[:64]
        person = ObserverContext(codes.DCM.Person, PersonObserverIdentifyingAttributes(name=f"{name or 'unnamed'}^"))
    return ObservationContext(observer_person_context=person, observer_device_context=device)


def _group(
    bundle: ReportBundle, number: int, row: SegmentRow, images: list[Dataset], segmentation: hd.seg.Segmentation
) -> VolumetricROIMeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations:
    code, meaning = code_of(row.label)
    concept = CodedConcept(code, "SCT", meaning)
    abnormal = row.label.strip().lower() in MORPHOLOGICAL
    common = {
        "tracking_identifier": TrackingIdentifier(uid=seg.tracking_uid(row), identifier=seg.label_of(row)),
        "finding_type": concept if abnormal else seg.ANATOMY,
        "finding_sites": None if abnormal else [FindingSite(concept)],
        "measurements": measurements(bundle, row),
    }
    identity = {"sop_class_uid": segmentation.SOPClassUID, "sop_instance_uid": segmentation.SOPInstanceUID}
    if bundle.series.shape[0] == 1:
        frame = ReferencedSegmentationFrame(
            **identity,
            frame_number=_frames_of(segmentation, number),
            segment_number=number,
            source_image=SourceImageForSegmentation(images[0].SOPClassUID, images[0].SOPInstanceUID),
        )
        for item in frame:
            for reference in item.get("ReferencedSOPSequence", ()):
                if "ReferencedFrameNumber" in reference and "ReferencedSegmentNumber" in reference:
                    del reference.ReferencedSegmentNumber  # PS3.3 C.18.4: not beside a frame, which implies it
        return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **common)
    sources = [SourceImageForSegmentation(i.SOPClassUID, i.SOPInstanceUID) for i in images]
    segment = ReferencedSegment(**identity, segment_number=number, source_images=sources)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)


def _frames_of(segmentation: hd.seg.Segmentation, number: int) -> list[int]:
    """The frames (from 1) that hold a segment."""
    groups = segmentation.PerFrameFunctionalGroupsSequence
    return [n for n, g in enumerate(groups, 1) if g.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number]


def measurements(bundle: ReportBundle, row: SegmentRow) -> list[Measurement]:
    """What the stored mask measures, from the mask itself, so that the report agrees with the Segmentation.

    Raises:
        Refused: nothing can be measured (unknown spacing and no HU).
    """
    m = measure.measure(bundle.volume(), bundle.mask(row))
    found = []
    if m.volume_ml is not None:
        found.append(Measurement(VOLUME, round(m.volume_ml, 3), MILLILITRE))
    if m.area_mm2 is not None:
        found.append(Measurement(AREA, round(m.area_mm2, 2), SQUARE_MILLIMETRE))
    if m.mean is not None and m.unit == "HU":
        found.append(Measurement(ATTENUATION, round(m.mean, 1), HOUNSFIELD, derivation=MEAN))
    if m.longest_axial_diameter_mm is not None:
        found.append(Measurement(LONG_AXIS, round(m.longest_axial_diameter_mm, 2), MILLIMETRE))
    if not found:
        raise Refused("Nothing can be measured here: the scan states no usable spacing and its values have no unit.")
    return found
