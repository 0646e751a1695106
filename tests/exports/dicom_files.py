"""Arrays → DICOM files as bytes, read through the product's own intake where possible."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)


def save(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def base(sop_class: str, uids: dict[str, str], array: np.ndarray) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Müller^Anna", "P1", "19600102", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids["study"], uids["series"]
    ds.StudyDate, ds.StudyTime, ds.ContentDate, ds.ContentTime = "20260101", "120000", "20260101", "120000"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID, ds.SeriesNumber = "A1", "", "1", 1
    ds.StudyDescription, ds.Manufacturer, ds.BodyPartExamined = "CT chest", "test", "CHEST"
    ds.Rows, ds.Columns = array.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.PixelData = np.ascontiguousarray(array, "<i2").tobytes()
    return ds


def new_uids() -> dict[str, str]:
    return {k: generate_uid() for k in ("study", "series", "frame")}


def ct_files(array: np.ndarray, orientation=(1, 0, 0, 0, 1, 0), step=(0, 0, 2.5), origin=(-20, -30, 7)) -> list[bytes]:
    """Single-frame CT of (slice, row, column) int16 HU, in this slice order."""
    uids, out = new_uids(), []
    for k, plane in enumerate(array):
        ds = base(CTImageStorage, uids, plane)
        ds.Modality, ds.ImageType, ds.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator, ds.AcquisitionNumber = uids["frame"], "", 1
        ds.KVP, ds.PatientPosition = "120", "HFS"
        ds.PixelSpacing, ds.SliceThickness = [0.8, 0.7], "2.5"
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [float(o + s * k) for o, s in zip(origin, step, strict=True)]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        out.append(save(ds))
    return out


def enhanced_ct_file(array: np.ndarray, order: list[int]) -> bytes:
    """One multi-frame CT whose frame n shows slice order[n] of (slice, row, column) int16 HU."""
    uids = new_uids()
    ds = base(EnhancedCTImageStorage, uids, array[order])
    ds.Modality, ds.ImageType, ds.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uids["frame"], ""
    ds.NumberOfFrames = len(order)
    shared, measures, plane, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], "2.5"
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = "0", "1", "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [rescale]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in order:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-20.0, -30.0, 7 + 2.5 * k]
        group.PlanePositionSequence = [place]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    return save(ds)


def radiograph_file(array: np.ndarray) -> bytes:
    """A computed radiograph of (row, column) int16: no position in the patient, no frame of reference."""
    ds = base(ComputedRadiographyImageStorage, new_uids(), array)
    ds.Modality, ds.ImageType, ds.InstanceNumber = "CR", ["ORIGINAL", "PRIMARY"], 1
    ds.ImagerPixelSpacing, ds.PixelSpacing, ds.ViewPosition = [0.2, 0.2], [0.2, 0.2], "PA"
    ds.PatientOrientation = ["L", "F"]
    return save(ds)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))
