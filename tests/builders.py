"""Synthetic scans for tests: arrays → valid DICOM, NIfTI and image files, and the hostile ones that must be refused.

Arrays of `ct_series` are (slice, row, column) and its affine maps (column, row, slice, 1) to LPS mm, as in a Volume.
Pixel values of synthetic patients are made up; names are plainly invented.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from core_models.study.volume import canonical

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def uid(*parts: object) -> str:
    """A valid UID that is the same for the same parts."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def affine(spacing: Sequence[float] = (1.0, 1.0, 2.0), origin: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Axial affine: spacing (column, row, slice) mm, origin LPS mm of the first voxel."""
    out = np.diag([*spacing, 1.0])
    out[:3, 3] = origin
    return out


def phantom(shape: tuple[int, int, int] = (8, 24, 32)) -> np.ndarray:
    """A body in air with one dense block low on the patient's left, front, top: every axis can be told apart.

    Canonical (z, y, x), int16 HU: the block is at high k (superior), low j (anterior) and high i (left).
    """
    z, y, x = shape
    out = np.full(shape, -1000, np.int16)
    out[:, y // 8 : -y // 8, x // 8 : -x // 8] = 40
    out[z - z // 4 :, y // 6 : y // 3, x - x // 3 : x - x // 6] = 700
    return out


def dataset(
    pixels: np.ndarray, *, sop_class: str = CTImageStorage, modality: str = "CT", **attributes: object
) -> Dataset:
    """One uncompressed single-frame instance, (rows, columns) int16 or uint16 or uint8.

    Args:
        attributes: DICOM keywords that are set last; None removes the element.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = sop_class
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240131"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber = "A100"
    ds.Modality = modality
    ds.Manufacturer = "Builders"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"{modality} chest"
    ds.SeriesDescription = "Phantom"
    ds.PatientName = "Phantom^Anna"
    ds.PatientID = "RR-0001"
    ds.PatientBirthDate = "19600229"
    ds.PatientSex = "F"
    ds.BodyPartExamined = "CHEST"
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("series")
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    for keyword, value in attributes.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    if "SOPInstanceUID" not in ds:
        ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, ds.InstanceNumber, hashlib.sha256(ds.PixelData).hexdigest())
    return ds


def encoded(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    ds.file_meta = meta
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def ct_files(
    volume: np.ndarray | None = None,
    *,
    n: int = 8,
    geometry: np.ndarray | None = None,
    patient: str = "RR-0001",
    intercept: int = -1024,
    modality: str = "CT",
    **attributes: object,
) -> list[bytes]:
    """The files of an axial, oblique or sheared series, one per slice, in slice order.

    Args:
        volume: (slice, row, column) HU; a phantom of `n` slices by default.
        geometry: affine (column, row, slice, 1) → LPS mm; 1 × 1 × 2 mm axial by default.
        intercept: of the rescale; stored values are HU − intercept.
    """
    volume = phantom((n, 24, 32)) if volume is None else volume
    geometry = affine() if geometry is None else geometry
    columns, rows, step = (geometry[:3, a] for a in range(3))
    dx, dy = float(np.linalg.norm(columns)), float(np.linalg.norm(rows))
    normal = np.cross(columns / dx, rows / dy)
    base = {
        "PatientID": patient,
        "FrameOfReferenceUID": uid("frame", patient),
        "PositionReferenceIndicator": "",
        "PixelSpacing": [_ds(dy), _ds(dx)],
        "SliceThickness": _ds(abs(float(step @ normal))),
        "ImageOrientationPatient": [_ds(v) for v in (*(columns / dx), *(rows / dy))],
    }
    if modality == "CT":
        base |= {"KVP": "120", "AcquisitionNumber": 1, "PatientPosition": "HFS", "RescaleType": "HU"}
        base |= {"RescaleSlope": "1", "RescaleIntercept": str(intercept), "WindowCenter": "40", "WindowWidth": "400"}
    sop_class = {"CT": CTImageStorage, "MR": MRImageStorage}[modality]
    offset = intercept if modality == "CT" else 0
    out = []
    for k, plane in enumerate(volume):
        stored = (plane.astype(np.int32) - offset).astype(np.uint16 if offset < 0 else np.int16)
        own = base | {
            "InstanceNumber": k + 1,
            "ImagePositionPatient": [_ds(v) for v in geometry[:3, 3] + k * step],
        }
        out.append(encoded(dataset(stored, sop_class=sop_class, modality=modality, **{**own, **attributes})))
    return out


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.10g}"[:16] if abs(value) > 1e-9 else "0"


def ct_series(folder: Path, volume: np.ndarray | None = None, **options: object) -> list[Path]:
    """Write `ct_files(volume, **options)` into a folder; returns the paths in slice order."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for k, data in enumerate(ct_files(volume, **options)):  # type: ignore[arg-type]
        path = folder / f"IM{k + 1:04d}.dcm"
        path.write_bytes(data)
        out.append(path)
    return out


def edited(data: bytes, **attributes: object) -> bytes:
    """A DICOM file with some elements changed (None removes one); nothing else is checked or mended."""
    ds = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in attributes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def zipped(path: Path, members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    """A ZIP of (name, bytes)."""
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def ct_zip(path: Path, nifti: Path) -> Path:
    """The NIfTI CT as a ZIP of uncompressed DICOM slices in a folder, axial and in radiological order."""
    image = nibabel.load(nifti)
    # float32 of whole numbers is exact and a quarter of nibabel's default
    source = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    array, lps, _ = canonical(source.astype(np.int16), _RAS_TO_LPS @ image.affine)
    files = ct_files(array, geometry=lps, patient="RR-DEMO", intercept=0, StudyInstanceUID=uid("demo study"))
    return zipped(path, ((f"series/{k + 1:04d}.dcm", data) for k, data in enumerate(files)))


def radiograph(path: Path, pixels: np.ndarray | None = None, *, modality: str = "DX", **attributes: object) -> Path:
    """A frontal chest radiograph: (rows, columns) uint16, 12 bits; a bright heart between dark lungs by default."""
    if pixels is None:
        rows, columns = np.mgrid[0:256, 0:256]
        pixels = np.full((256, 256), 2200, np.uint16)
        for centre in (80, 176):
            pixels[((rows - 120) / 90) ** 2 + ((columns - centre) / 40) ** 2 < 1] = 600
        pixels[((rows - 160) / 50) ** 2 + ((columns - 140) / 45) ** 2 < 1] = 2800
    sop_class = {"DX": DigitalXRayImageStorageForPresentation, "CR": ComputedRadiographyImageStorage}[modality]
    options: dict[str, object] = {
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "BitsStored": 12,
        "HighBit": 11,
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": ["0.2", "0.2"],
        "SeriesInstanceUID": uid("radiograph", modality),
        "StudyInstanceUID": uid("radiograph study"),
        "WindowCenter": "1800",
        "WindowWidth": "3000",
    }
    if modality == "DX":
        options |= {
            "PresentationIntentType": "FOR PRESENTATION",
            "ImageLaterality": "U",
            "AnatomicRegionSequence": _items(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning="Chest"),
            "PixelIntensityRelationship": "LIN",
            "PixelIntensityRelationshipSign": 1,
            "RescaleIntercept": "0",
            "RescaleSlope": "1",
            "RescaleType": "US",
            "PresentationLUTShape": "IDENTITY",
            "LossyImageCompression": "00",
            "BurnedInAnnotation": "NO",
            "DetectorType": "",
            "PositionerType": "",
            "AcquisitionContextSequence": DicomSequence([]),
        }
    path.write_bytes(encoded(dataset(pixels, sop_class=sop_class, modality=modality, **{**options, **attributes})))
    return path


def enhanced_ct(volume: np.ndarray, geometry: np.ndarray, order: Sequence[int] | None = None) -> bytes:
    """An enhanced multi-frame CT; `order` gives the slice that each frame shows."""
    order = list(range(len(volume))) if order is None else list(order)
    columns, rows, step = (geometry[:3, a] for a in range(3))
    dx, dy = float(np.linalg.norm(columns)), float(np.linalg.norm(rows))
    ds = dataset(
        volume[0].astype(np.int16),
        sop_class=EnhancedCTImageStorage,
        NumberOfFrames=len(volume),
        FrameOfReferenceUID=uid("enhanced"),
        SOPInstanceUID=uid("enhanced instance"),
    )
    ds.PixelData = np.ascontiguousarray(volume[order].astype(np.int16)).tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = _items(PixelSpacing=[dy, dx], SliceThickness=float(np.linalg.norm(step)))
    cosines = [float(v) for v in (*(columns / dx), *(rows / dy))]
    shared.PlaneOrientationSequence = _items(ImageOrientationPatient=cosines)
    shared.PixelValueTransformationSequence = _items(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")
    ds.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = _items(ImagePositionPatient=[float(v) for v in geometry[:3, 3] + k * step])
        frame.FrameContentSequence = _items(StackID="1", InStackPositionNumber=k + 1)
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    return encoded(ds)


def _items(**attributes: object) -> DicomSequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return DicomSequence([item])


def nifti(array: np.ndarray, ras: np.ndarray, *, zipped: bool = True) -> bytes:
    """NIfTI-1 bytes of an (x, y, z[, t]) array with an affine (i, j, k, 1) → RAS mm."""
    data = nibabel.Nifti1Image(array, ras).to_bytes()
    return gzip.compress(data, 1) if zipped else data


# Hostile files.


def without_pixels(data: bytes) -> tuple[bytes, bytes]:
    """Split an Explicit VR file before its pixel data element."""
    at = data.index(b"\xe0\x7f\x10\x00O")
    return data[:at], data[at:]


def deep_sequences(data: bytes, depth: int) -> bytes:
    """The file with `depth` sequences of undefined length nested in each other before its pixel data."""
    head, tail = without_pixels(data)
    start = b"\x54\x00\x16\x00SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return head + start * depth + end * depth + tail


def deflated(data: bytes, body: bytes | None = None) -> bytes:
    """The file in Deflated Explicit VR Little Endian; `body` replaces the data set."""
    import zlib

    ds = pydicom.dcmread(io.BytesIO(data))
    end = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data[end:] if body is None else body) + packer.flush()
    meta = io.BytesIO()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    pydicom.filewriter.write_file_meta_info(meta, ds.file_meta)
    return bytes(128) + b"DICM" + meta.getvalue() + packed


def forged_zip(path: Path, real: int, declared: int) -> Path:
    """A ZIP whose one member unpacks to `real` zero bytes but declares `declared`."""
    zipped(path, [("scan.dcm", bytes(real))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature)
        data[start + at : start + at + 4] = struct.pack("<I", declared)
    path.write_bytes(data)
    return path


def encrypted_zip(path: Path) -> Path:
    """A ZIP whose member is flagged as encrypted."""
    zipped(path, [("scan.dcm", b"secret")])
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    path.write_bytes(data)
    return path


def link_zip(path: Path) -> Path:
    """A ZIP that holds a symbolic link."""
    entry = zipfile.ZipInfo("scan.dcm")
    entry.create_system = 3
    entry.external_attr = (0o120777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return path
