"""The bytes of one DICOM file → a checked header with its frames; pixels stay where they are until they are asked for.

The header is read once, up to the pixel data; `Instance.pixels` says where the pixels lie in the bytes.  Anything a
header may lie about (sizes, counts, lengths, identifiers) is judged here, before memory is taken for it.
"""

from __future__ import annotations

import io
import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pydicom
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from core_models.errors import ReadingRoomError, Refused, TooLarge
from core_models.study.limits import Limits
from core_models.study.receipt import info, warning
from core_models.study.study import Note, Patient
from core_models.study.text import clean

log = logging.getLogger(__name__)

# pydicom's validation warnings quote header values, which would put patient identifiers into the log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0\0\0"
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"}
COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}
_NOT_SCANS = {
    "SR": "a structured report",
    "SEG": "a segmentation",
    "PR": "a presentation state",
    "KO": "a key-object note",
    "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan",
    "RTSTRUCT": "a radiotherapy structure set",
    "REG": "a registration",
    "ECG": "a waveform",
    "DOC": "a document",
}
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_UID = re.compile(r"[0-9.]{1,64}\Z")
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, _PIXEL_DATA}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}
PHOTOMETRIC = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"} | _COLOUR
# What tells images at one position apart, in this order: echo, phase, diffusion, contrast phase, kind of image.
_PHASE_KEYWORDS = (
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "ImageType",
)


class NotAScan(Refused):
    """A DICOM object without an image to read, such as a report; inside a folder it is only noted."""


@dataclass(frozen=True)
class Pixels:
    """Where the pixels lie and how they are stored.

    Attributes:
        offset, length: of the pixel data's value in `Instance.buffer`; length None when encapsulated.
        samples: 1 (grey or palette) or 3 (colour).
    """

    offset: int
    length: int | None
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool


@dataclass(frozen=True)
class Frame:
    """One 2-D image with its place in the patient.

    Attributes:
        index: its number within the instance, from 0.
        position: LPS mm of the first pixel's centre, or None.
        orientation: direction cosines of increasing column, then of increasing row, or None.
        spacing: (between rows, between columns) in mm, or None.
        thickness: distance to the next slice that the header states, or None.
        phase: values that tell images at one position apart.
    """

    instance: Instance
    index: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    window: tuple[float, float] | None
    phase: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """One file: identity, pixels and header.  `data` is the file as it came (preamble zeroed), for exports."""

    name: str
    data: bytes
    buffer: bytes
    header: Dataset
    transfer_syntax: str
    sop_uid: str
    study_uid: str
    series_uid: str
    number: int
    modality: str
    patient: Patient
    pixels: Pixels
    has_rescale: bool
    rescale_type: str
    localizer: bool
    notes: tuple[Note, ...] = ()

    @property
    def compressed(self) -> bool:
        return self.transfer_syntax in COMPRESSED

    def raw_pixels(self) -> memoryview:
        """The stored pixel bytes, encapsulated or not."""
        end = None if self.pixels.length is None else self.pixels.offset + self.pixels.length
        return memoryview(self.buffer)[self.pixels.offset : end]


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes are DICOM: the DICM prefix, or a plausible first element without one."""
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in (b"\x02\x00", b"\x08\x00") or len(head) < 132:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (head[3:4] == b"\0" and int.from_bytes(head[4:8], "little") <= 64)


def read(name: str, data: bytes, limits: Limits) -> tuple[Frame, ...]:
    """Parse and check one file.

    Args:
        name: its cleaned base name, for messages.

    Returns:
        its frames, at least one, which share one `instance`.

    Raises:
        NotAScan: it holds no image to read.
        TooLarge: its header declares more than `limits` allow.
        Refused: it is damaged, or of a kind that cannot be read; the sentence says what was found.
    """
    if data[128:132] == b"DICM" and any(data[:128]):
        data = bytes(128) + data[128:]  # an executable or TIFF may hide in the preamble
    try:
        instance, spacing = _instance(name, data, limits)
        return _frames(instance, spacing)
    except ReadingRoomError:
        raise
    except RecursionError as error:
        raise Refused(f'"{name}" nests its sequences too deeply (at most {limits.max_sequence_depth}).') from error
    except Exception as error:  # a hostile header can fail anywhere inside the parser
        log.info("A DICOM header could not be parsed: %s", type(error).__name__)
        raise Refused(f'"{name}" begins like a DICOM file but is damaged and cannot be read.') from error


def _instance(name: str, data: bytes, limits: Limits) -> tuple[Instance, tuple[float, float] | None]:
    """The checked instance, and its top-level pixel spacing."""
    buffer = _inflated(name, data, limits)
    header, at = _parse(name, buffer, limits)
    _check_depth(name, header, limits.max_sequence_depth)
    syntax = _transfer_syntax(name, header)
    modality = clean(header.get("Modality"), 16).upper() or "OT"
    _check_directory(name, header)
    if modality in _NOT_SCANS:
        raise NotAScan(f'"{name}" is {_NOT_SCANS[modality]}, not a scan.')
    if at is None:
        if "Rows" in header and "Columns" in header:
            raise Refused(f'"{name}" declares an image but holds no pixel data; the file seems to be cut short.')
        raise NotAScan(f'"{name}" is a DICOM object without an image.')
    pixels = _pixels(name, header, buffer, at, syntax, limits)
    notes: list[Note] = []
    _check_text(header, notes)
    if clean(header.get("LossyImageCompression")) == "01":
        notes.append(info("The images were compressed with loss before they arrived."))
    orientation = [clean(v, 8).upper() for v in _values(header.get("PatientOrientation"))]
    if "ImageOrientationPatient" not in header and orientation and orientation[0].startswith("R"):
        notes.append(warning("The image runs towards the patient's right as it was stored; it was not mirrored."))
    image_type = [clean(v).upper() for v in _values(header.get("ImageType"))]
    spacing = _spacing(header, notes)
    instance = Instance(
        name=name,
        data=data,
        buffer=buffer,
        header=header,
        transfer_syntax=syntax,
        sop_uid=_uid(name, header, "SOPInstanceUID"),
        study_uid=_uid(name, header, "StudyInstanceUID"),
        series_uid=_uid(name, header, "SeriesInstanceUID"),
        number=whole(header.get("InstanceNumber")) or 0,
        modality=modality,
        patient=_patient(header),
        pixels=pixels,
        has_rescale="RescaleSlope" in header or "SharedFunctionalGroupsSequence" in header,
        rescale_type=clean(header.get("RescaleType"), 16).upper(),
        localizer="LOCALIZER" in image_type,
        notes=tuple(notes),
    )
    return instance, spacing


def _inflated(name: str, data: bytes, limits: Limits) -> bytes:
    """The file with a deflated data set unpacked (bounded), as if it had been Explicit VR Little Endian."""
    head = data[:4096]
    searched = head if b"1.2.840.10008.1.2" in head else data
    if _DEFLATED not in searched:
        return data
    if data[128:136] != b"DICM\x02\0\0\0":
        raise Refused(f'"{name}" is deflated but its file meta information states no length.')
    end = 144 + int.from_bytes(data[140:144], "little")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(data[end:], limits.max_file_bytes // 4)
    except zlib.error as error:
        raise Refused(f'"{name}" holds a deflated data set that is damaged.') from error
    if unpacker.unconsumed_tail:
        raise TooLarge(f'"{name}" unpacks to more than {limits.max_file_bytes / 4e6:,.0f} MB.')
    return data[:end].replace(_DEFLATED, _EXPLICIT) + body


def _parse(name: str, buffer: bytes, limits: Limits) -> tuple[Dataset, tuple[int, int | None] | None]:
    """The header up to the pixel data, and (tag offset, declared length or None if undefined) of the pixel data."""
    seen = 0
    found: list[tuple[int, int]] = []

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal seen
        seen += 1
        if seen > limits.max_elements:
            raise TooLarge(f'"{name}" has more than {limits.max_elements:,} header elements.')
        if tag in _PIXEL_TAGS:
            found.append((int(tag), length))
            return True
        return False

    stream = io.BytesIO(buffer)
    header = read_partial(stream, stop_when=stop, force=buffer[128:132] != b"DICM")
    if not found:
        return header, None
    tag, length = found[0]
    if tag != _PIXEL_DATA:
        raise NotAScan(f'"{name}" holds floating-point maps, which are not read as scans.')
    long_form = not header.original_encoding[0]  # explicit VR: tag, VR, two reserved bytes, length
    return header, (stream.tell() + (12 if long_form else 8), None if length == 0xFFFFFFFF else length)


def _check_depth(name: str, dataset: Dataset, left: int) -> None:
    if left < 0:
        raise Refused(f'"{name}" nests its sequences too deeply.')
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        vr = element.VR
        if isinstance(element, RawDataElement) and vr in (None, "UN"):
            vr = dictionary_VR(tag) if dictionary_has_tag(tag) else None
        if vr == "SQ":
            for item in dataset[tag].value or ():
                _check_depth(name, item, left - 1)


def _transfer_syntax(name: str, header: Dataset) -> str:
    implicit, little = header.original_encoding
    syntax = clean(header.file_meta.get("TransferSyntaxUID"))
    if not syntax:
        syntax = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
    if not little or syntax == "1.2.840.10008.1.2.2":
        raise Refused(f'"{name}" is stored as Explicit VR Big Endian, which was retired and is not read.')
    if syntax not in NATIVE and syntax not in COMPRESSED:
        label = pydicom.uid.UID(syntax).name if _UID.match(syntax) else ""
        said = f"{label} ({syntax})" if label and label != syntax else syntax
        raise Refused(f'"{name}" uses transfer syntax {said}, which is not supported.')
    return syntax


def _check_directory(name: str, header: Dataset) -> None:
    """A DICOMDIR is never followed, but one that points outside its own folder marks the medium as hostile."""
    if clean(header.file_meta.get("MediaStorageSOPClassUID")) != _MEDIA_DIRECTORY:
        return
    for record in header.get("DirectoryRecordSequence") or ():
        for part in _values(record.get("ReferencedFileID")):
            if str(part) == ".." or any(sign in str(part) for sign in "/\\:\0"):
                raise Refused(f'"{name}" is a DICOMDIR that names a file outside of its folder.')
    raise NotAScan(f'"{name}" is a DICOMDIR, a table of contents without images.')


def _pixels(
    name: str, header: Dataset, buffer: bytes, at: tuple[int, int | None], syntax: str, limits: Limits
) -> Pixels:
    def number(keyword: str, lowest: int, highest: int, default: int | None = None) -> int:
        raw = header.get(keyword)
        if raw is None or raw == "":
            if default is None:
                raise Refused(f'"{name}" does not state {keyword}, so its image cannot be laid out.')
            return default
        value = whole(raw)
        if value is None or not lowest <= value <= highest:
            raise Refused(f'"{name}" states {keyword} = {clean(raw, 20)}; {lowest} to {highest} are possible.')
        return value

    rows, columns = number("Rows", 1, 65535), number("Columns", 1, 65535)
    frames = number("NumberOfFrames", 1, 2**31 - 1, default=1)
    if rows * columns * frames > limits.max_voxels:
        raise TooLarge(
            f'"{name}" declares {columns} × {rows} × {frames} pixels; at most {limits.max_voxels:,} can be opened.'
        )
    allocated = number("BitsAllocated", 1, 64)
    if allocated not in (8, 16, 32):
        raise Refused(f'"{name}" states BitsAllocated = {allocated}; 8, 16 or 32 are read.')
    stored = number("BitsStored", 1, allocated, default=allocated)
    samples = number("SamplesPerPixel", 1, 4, default=1)
    photometric = clean(header.get("PhotometricInterpretation"), 20).upper() or "MONOCHROME2"
    if photometric not in PHOTOMETRIC or samples != (3 if photometric in _COLOUR else 1):
        raise Refused(f'"{name}" has {samples} samples of {photometric}, a combination that is not read.')
    offset, length = at
    if syntax in NATIVE:
        subsampled = photometric == "YBR_FULL_422"
        expected = rows * columns * frames * (2 if subsampled else samples) * (allocated // 8)
        actual = len(buffer) - offset if length is None else min(length, len(buffer) - offset)
        if length is None:
            raise Refused(f'"{name}" has pixel data without a length although its transfer syntax is uncompressed.')
        if actual < expected:
            raise Refused(f'"{name}" holds {actual:,} bytes of pixels; {expected:,} were expected.')
        length = expected
    elif length is not None:
        raise Refused(f'"{name}" says that it is {COMPRESSED[syntax]} but its pixels are not encapsulated.')
    return Pixels(
        offset, length, rows, columns, frames, samples, photometric, allocated, stored,
        signed=whole(header.get("PixelRepresentation")) == 1,
    )  # fmt: skip


def _uid(name: str, header: Dataset, keyword: str) -> str:
    """A valid UID or ""; an invalid one is refused, since it names things in the store and in exports."""
    value = str(header.get(keyword) or "").strip("\0 ")
    if value and not _UID.match(value):
        raise Refused(f'"{name}" has a {keyword} that is not a valid UID.')
    return value


def _patient(header: Dataset) -> Patient:
    return Patient(
        id=clean(header.get("PatientID")),
        name=clean(header.get("PatientName"), 128),
        birth_date=date(header.get("PatientBirthDate")),
        sex=clean(header.get("PatientSex"), 4),
        age=clean(header.get("PatientAge"), 4),
    )


def date(value: object) -> str:
    """YYYYMMDD, or "" for anything else."""
    text = clean(value, 10).replace(".", "").replace("-", "")
    return text if len(text) == 8 and text.isdigit() else ""


def _check_text(header: Dataset, notes: list[Note]) -> None:
    known = all(str(v) in python_encoding for v in _values(header.get("SpecificCharacterSet")))
    texts = (header.get("PatientName"), header.get("StudyDescription"), header.get("SeriesDescription"))
    if not known or any("\ufffd" in str(text) for text in texts):
        notes.append(warning("The header's character set is broken: names and descriptions may show wrong letters."))


def _spacing(header: Dataset, notes: list[Note]) -> tuple[float, float] | None:
    """(between rows, between columns) in mm from the instance's top level."""
    if "PixelSpacing" in header:
        spacing = _pair(header.get("PixelSpacing"))
        if spacing is None:
            notes.append(warning("The pixel spacing is zero or not a number: lengths are not measured."))
        return spacing
    detector = _pair(header.get("ImagerPixelSpacing")) or _pair(header.get("NominalScannedPixelSpacing"))
    if detector is not None:
        factor = _number(header.get("EstimatedRadiographicMagnificationFactor"))
        if factor and factor >= 1:
            notes.append(info(f"Pixel spacing was corrected for the stated magnification of {factor:.2f}."))
            return detector[0] / factor, detector[1] / factor
        notes.append(warning("Pixel spacing is that at the detector: lengths come out somewhat too large."))
        return detector
    regions = header.get("SequenceOfUltrasoundRegions") or ()
    steps = {
        (_number(r.get("PhysicalDeltaY")), _number(r.get("PhysicalDeltaX")))
        for r in regions
        if r.get("PhysicalUnitsXDirection") == 3 and r.get("PhysicalUnitsYDirection") == 3  # centimetres
    }
    if len(steps) == 1 and len(regions) == 1:
        return _pair([10 * abs(v or 0) for v in steps.pop()])
    return None


def _frames(instance: Instance, spacing: tuple[float, float] | None) -> tuple[Frame, ...]:
    name, header, count = instance.name, instance.header, instance.pixels.frames
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    if shared is None and not per_frame:
        groups: Sequence[Dataset | None] = [None] * count
    elif len(per_frame) not in (0, count):
        raise Refused(f'"{name}" describes {len(per_frame)} frames but declares {count}.')
    else:
        groups = per_frame or [None] * count
    frames = []
    for index, group in enumerate(groups):

        def macro(sequence: str, group: Dataset | None = group) -> Dataset:
            for holder in (group, shared):
                item = _first(holder.get(sequence)) if holder is not None else None
                if item is not None:
                    return item
            return header

        measures = macro("PixelMeasuresSequence")
        own_spacing = _pair(measures.get("PixelSpacing")) if measures is not header else spacing
        rescale = macro("PixelValueTransformationSequence")
        slope = _number(rescale.get("RescaleSlope"), 1.0)
        intercept = _number(rescale.get("RescaleIntercept"), 0.0)
        if not slope or intercept is None:
            raise Refused(f'"{name}" has a rescale slope of zero or not a number: its values are lost.')
        position = _floats(macro("PlanePositionSequence").get("ImagePositionPatient"), 3)
        orientation = _floats(macro("PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
        frames.append(
            Frame(
                instance,
                index,
                position if orientation else None,  # type: ignore[arg-type]
                orientation if position else None,
                own_spacing,
                _number(measures.get("SpacingBetweenSlices")) or _number(measures.get("SliceThickness")),
                slope,
                intercept,
                _window(macro("FrameVOILUTSequence")),
                _phase(header, group),
            )
        )
    return tuple(frames)


def _phase(header: Dataset, group: Dataset | None) -> tuple[str, ...]:
    values = [clean(header.get(keyword), 100) for keyword in _PHASE_KEYWORDS]
    if group is not None:
        content = _first(group.get("FrameContentSequence"))
        if content is not None:
            # All but the last dimension tell stacks apart; which one is the position is found by the geometry.
            values.append(clean(content.get("TemporalPositionIndex")))
            values.append(clean(content.get("StackID")))
        diffusion = _first(group.get("MRDiffusionSequence"))
        echo = _first(group.get("MREchoSequence"))
        values.append(clean(diffusion.get("DiffusionBValue")) if diffusion is not None else "")
        values.append(clean(echo.get("EffectiveEchoTime")) if echo is not None else "")
    return tuple(values)


def _window(source: Dataset) -> tuple[float, float] | None:
    centre, width = (_number(_first(_values(source.get(k)))) for k in ("WindowCenter", "WindowWidth"))
    return (centre, width) if centre is not None and width is not None and width > 0 else None


def _values(value: object) -> list:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]


def _first(values: object):
    return values[0] if values is not None and len(values) else None  # type: ignore[arg-type, index]


def whole(value: object) -> int | None:
    """An int, or None for what is none."""
    try:
        return int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: object, default: float | None = None) -> float | None:
    """A finite float, `default` where there is none, None where it is not finite."""
    if value is None or value == "":
        return default
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _pair(value: object) -> tuple[float, float] | None:
    """Two finite positive numbers, or None."""
    numbers = [_number(v) for v in _values(value)]
    if len(numbers) != 2 or any(v is None or not 1e-6 < v < 1e4 for v in numbers):
        return None
    return numbers[0], numbers[1]  # type: ignore[return-value]


def _floats(value: object, count: int) -> tuple[float, ...] | None:
    """`count` floats (perhaps not finite: geometry judges them), or None where the element is absent or empty."""
    items = _values(value)
    if not items:
        return None
    try:
        numbers = tuple(float(v) for v in items)
    except (TypeError, ValueError):
        return (math.nan,) * count
    return numbers if len(numbers) == count else (math.nan,) * count
