"""The demo CT → its volume, its organs, and the same CT as a ZIP of DICOM files, as a hospital would send it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from core_models.study.intake import read_scan
from core_models.study.volume import Volume
from webapp import demo
from webapp.settings import Settings

NAME = "chest-ct"
ROOT = "2.25.314159265358979"


def volume(settings: Settings) -> Volume:
    """The demo CT.  Raises ModelMissing where it was not fetched."""
    return read_scan(demo.paths(settings, NAME))[0].series[0].volume


def organs(settings: Settings) -> np.ndarray:
    """Its label map (z, y, x), on the same grid (TotalSegmentator's numbers)."""
    return read_scan(demo.companion(settings, NAME, "mask.nii.gz"))[0].series[0].volume.array


def tall(scan: Volume, slices: int) -> Volume:
    """The same patient cut into `slices` thinner slices, values interpolated between neighbours (int16)."""
    depth = scan.shape[0]
    at = np.linspace(0, depth - 1, slices)
    array = np.empty((slices, *scan.shape[1:]), np.int16)
    for k, z in enumerate(at):
        low = min(int(z), depth - 2)
        share = np.float32(z - low)
        array[k] = np.rint((1 - share) * scan.array[low] + share * scan.array[low + 1])
    affine = scan.affine.copy()
    affine[:3, 2] *= (depth - 1) / (slices - 1)
    return Volume(array, affine, scan.modality, scan.unit, scan.spacing_known, scan.window)


def tall_labels(labels: np.ndarray, slices: int) -> np.ndarray:
    """The label map of `tall`: each slice that of the nearest one."""
    return labels[np.rint(np.linspace(0, labels.shape[0] - 1, slices)).astype(int)]


def ct_zip(scan: Volume, path: Path, jpeg2000: bool = False) -> Path:
    """Write the volume as one CT file per slice, in an uncompressed ZIP; with `jpeg2000` losslessly compressed.

    The volume is canonical (LPS, axial), so rows run to Left and columns to Posterior.
    """
    columns, rows, step = (scan.affine[:3, axis] for axis in range(3))
    spacing = [float(np.linalg.norm(v)) for v in (rows, columns)]
    orientation = [*(columns / spacing[1]), *(rows / spacing[0])]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for k, plane in enumerate(scan.array):
            ds = Dataset()
            ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{ROOT}.3.{k + 1}"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2"
            ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = f"{ROOT}.4", ""
            ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientBirthDate = "DEMO-1", "Demo^Chest CT", "", ""
            ds.Modality, ds.StudyDate, ds.StudyTime, ds.StudyID = "CT", "20230101", "120000", "1"
            ds.AccessionNumber, ds.ReferringPhysicianName, ds.Manufacturer = "", "", ""
            ds.StudyDescription, ds.SeriesDescription, ds.BodyPartExamined = "Chest CT", "Demo chest CT", "CHEST"
            ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber, ds.KVP = 1, k + 1, 1, "120"
            ds.PatientPosition, ds.ImageType = "HFS", ["DERIVED", "SECONDARY", "AXIAL"]
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
            ds.Rows, ds.Columns = plane.shape
            ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
            ds.WindowCenter, ds.WindowWidth = "40", "400"
            ds.PixelSpacing = [_decimal(mm) for mm in spacing]
            ds.SliceThickness = _decimal(float(np.linalg.norm(step)))
            ds.ImageOrientationPatient = [_decimal(v) for v in orientation]
            ds.ImagePositionPatient = [_decimal(v) for v in scan.affine[:3, 3] + k * step]
            pixels = np.ascontiguousarray(plane, dtype="<i2")
            ds.PixelData = _jpeg2000(pixels) if jpeg2000 else pixels.tobytes()
            ds["PixelData"].VR = "OB" if jpeg2000 else "OW"
            ds["PixelData"].is_undefined_length = jpeg2000
            ds.file_meta = FileMetaDataset()
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.file_meta.TransferSyntaxUID = JPEG2000Lossless if jpeg2000 else ExplicitVRLittleEndian
            file = io.BytesIO()
            ds.save_as(file, enforce_file_format=True)
            archive.writestr(f"CT/IM{k + 1:04d}.dcm", file.getvalue())
    return path


def _jpeg2000(pixels: np.ndarray) -> bytes:
    import openjpeg

    monochrome = 2  # the encoder's own code
    stream = openjpeg.encode(pixels, bits_stored=16, photometric_interpretation=monochrome)
    return encapsulate([bytes(stream)])


def _decimal(value: float) -> str:
    """A DICOM decimal string (at most 16 characters)."""
    return f"{value:.9g}" if abs(value) > 1e-9 else "0"
