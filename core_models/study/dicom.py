"""The bytes of one DICOM file → a checked header with its frames; pixels stay where they are until they are asked for.

The header is read once, up to the pixel data; `Instance.pixels` says where the pixels lie in the bytes.  Anything a
header may lie about (sizes, counts, lengths, identifiers) is judged here, before memory is taken for it.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pydicom
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from core_models.errors import ReadingRoomError, Refused, TooLarge
from core_models.study.elements import date, values, whole
from core_models.study.frames import COMPRESSED, Frame, Instance, Pixels, frames_of, spacing_of
from core_models.study.identity import text_in_pixels
from core_models.study.limits import Limits
from core_models.study.receipt import info, warning
from core_models.study.study import Note, Patient
from core_models.study.text import clean

log = logging.getLogger(__name__)

# pydicom's validation warnings quote header values, which would put patient identifiers into the log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0\0\0"
# A deflated data set may be this large, or this many times its file: real images reach tens, a bomb a thousand.
_SMALL_BODY = 64 * 1024**2
_MAX_RATIO = 100
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"}
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
_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, _PIXEL_DATA}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}
_IMAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES = {
    f"{_IMAGE}1": ("CR", "RG"),
    f"{_IMAGE}1.1": ("DX", "CR", "RG", "PX"),
    f"{_IMAGE}1.1.1": ("DX", "CR", "RG", "PX"),
    f"{_IMAGE}1.2": ("MG",),
    f"{_IMAGE}1.2.1": ("MG",),
    f"{_IMAGE}2": ("CT",),
    f"{_IMAGE}2.1": ("CT",),
    f"{_IMAGE}3.1": ("US", "IVUS"),
    f"{_IMAGE}4": ("MR",),
    f"{_IMAGE}4.1": ("MR",),
    f"{_IMAGE}6.1": ("US", "IVUS"),
    f"{_IMAGE}12.1": ("XA",),
    f"{_IMAGE}12.1.1": ("XA",),
    f"{_IMAGE}12.2": ("RF",),
    f"{_IMAGE}20": ("NM",),
    f"{_IMAGE}128": ("PT",),
}
PHOTOMETRIC = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"} | _COLOUR


class NotAScan(Refused):
    """A DICOM object without an image to read, such as a report; inside a folder it is only noted."""


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes are DICOM: the DICM prefix, or a plausible first element without one."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 132:
        return False
    if head[:2] in (b"\x00\x02", b"\x00\x08"):  # big endian, which `opened` refuses by its name
        return head[4:6].isalpha() and head[4:6].isupper()
    if head[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (head[3:4] == b"\0" and int.from_bytes(head[4:8], "little") <= 64)


@dataclass(frozen=True)
class Opened:
    """One file whose header was parsed and whose transfer syntax can be read; its pixels were not looked at.

    Attributes:
        data: the file as it came, its preamble zeroed; `buffer` the same with a deflated data set unpacked.
        at: (offset of the pixel data element's value, its length or None when encapsulated), or None without pixels.
    """

    name: str
    data: bytes
    buffer: bytes
    header: Dataset
    syntax: str
    modality: str
    at: tuple[int, int | None] | None


def read(name: str, data: bytes, limits: Limits) -> tuple[Frame, ...]:
    """Parse and check one image file.

    Args:
        name: its cleaned base name, for messages.

    Returns:
        its frames, at least one, which share one `instance`.

    Raises:
        NotAScan: it holds no image to read.
        TooLarge: its header declares more than `limits` allow.
        Refused: it is damaged, or of a kind that cannot be read; the sentence says what was found.
    """
    return frames(opened(name, data, limits), limits)


@contextmanager
def plain_refusals(name: str, limits: Limits) -> Iterator[None]:
    """Whatever a hostile header makes the parser raise → Refused with one sentence."""
    try:
        yield
    except ReadingRoomError:
        raise
    except RecursionError as error:
        raise Refused(f'"{name}" nests its sequences too deeply (at most {limits.max_sequence_depth}).') from error
    except Exception as error:  # a hostile header can fail anywhere inside the parser
        log.info("A DICOM header could not be parsed: %s", type(error).__name__)
        raise Refused(f'"{name}" begins like a DICOM file but is damaged and cannot be read.') from error


def opened(name: str, data: bytes, limits: Limits) -> Opened:
    """Parse and check one file's header.  Raises as `read`."""
    if data[128:132] == b"DICM" and any(data[:128]):
        data = bytes(128) + data[128:]  # an executable or TIFF may hide in the preamble
    if data[:2] in (b"\x00\x02", b"\x00\x08") and data[128:132] != b"DICM":
        raise Refused(f'"{name}" is stored as Explicit VR Big Endian, which was retired and is not read.')
    with plain_refusals(name, limits):
        buffer = _inflated(name, data, limits)
        header, at = _parse(name, buffer, limits)
        _check_depth(name, header, limits.max_sequence_depth)
        syntax = _transfer_syntax(name, header)
        modality = clean(header.get("Modality"), 16).upper() or "OT"
        _check_directory(name, header)
        return Opened(name, data, buffer, header, syntax, modality, at)


def frames(file: Opened, limits: Limits) -> tuple[Frame, ...]:
    """The frames of an opened image file.  Raises as `read`."""
    with plain_refusals(file.name, limits):
        if file.modality in _NOT_SCANS:
            raise NotAScan(f'"{file.name}" is {_NOT_SCANS[file.modality]}, not a scan.')
        instance, spacing = _instance(file, limits)
        return frames_of(instance, spacing)


def _instance(file: Opened, limits: Limits) -> tuple[Instance, tuple[float, float] | None]:
    """The checked instance, and its top-level pixel spacing."""
    name, header = file.name, file.header
    notes: list[Note] = []
    pixels = pixels_of(file, limits)
    _check_text(header, notes)
    if clean(header.get("LossyImageCompression")) == "01":
        notes.append(info("The images were compressed with loss before they arrived."))
    orientation = [clean(v, 8).upper() for v in values(header.get("PatientOrientation"))]
    if "ImageOrientationPatient" not in header and orientation and orientation[0].startswith("R"):
        notes.append(warning("The image runs towards the patient's right as it was stored; it was not mirrored."))
    image_type = [clean(v).upper() for v in values(header.get("ImageType"))]
    if header.get("ModalityLUTSequence"):
        notes.append(info("Values went through the header's modality look-up table."))
    if other := _other_class(header, file.modality):
        notes.append(warning(f"The header calls the image {file.modality}, its object class says {other}."))
    if shown := text_in_pixels(header):
        declared = shown.startswith("declares")
        notes.append((warning if declared else info)(f"The image {shown}."))
    spacing, source = spacing_of(header, notes)
    if not source and header.get("SharedFunctionalGroupsSequence"):
        source = "PixelMeasuresSequence"
    instance = Instance(
        name=name,
        data=file.data,
        buffer=file.buffer,
        header=header,
        transfer_syntax=file.syntax,
        sop_uid=uid_of(file, "SOPInstanceUID"),
        study_uid=uid_of(file, "StudyInstanceUID"),
        series_uid=uid_of(file, "SeriesInstanceUID"),
        number=whole(header.get("InstanceNumber")) or 0,
        modality=file.modality,
        patient=patient_of(header),
        pixels=pixels,
        has_rescale="RescaleSlope" in header or "SharedFunctionalGroupsSequence" in header,
        rescale_type=clean(header.get("RescaleType"), 16).upper(),
        localizer="LOCALIZER" in image_type,
        notes=tuple(notes),
        spacing_source=source,
    )
    return instance, spacing


def _other_class(header: Dataset, modality: str) -> str:
    """The modality that the object's class is made for, where it is another one than the header's; else ""."""
    expected = _CLASSES.get(clean(header.get("SOPClassUID")), ())
    return "" if not expected or modality in expected else expected[0]


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
        room = min(limits.max_file_bytes // 4, max(_SMALL_BODY, _MAX_RATIO * len(data)))
        body = unpacker.decompress(data[end:], room)
    except zlib.error as error:
        raise Refused(f'"{name}" holds a deflated data set that is damaged.') from error
    if unpacker.unconsumed_tail:
        raise TooLarge(f'"{name}" unpacks to more than {room / 1e6:,.0f} MB.')
    return data[:end].replace(_DEFLATED, _EXPLICIT) + body


def _parse(name: str, buffer: bytes, limits: Limits) -> tuple[Dataset, tuple[int, int | None] | None]:
    """The header up to the pixel data, and (tag offset, declared length or None if undefined) of the pixel data."""
    # An item becomes an object some fifty times its size; a file of fewer than 8 bytes for each cannot hold them.
    if len(buffer) > 8 * limits.max_items and buffer.count(_ITEM) > limits.max_items:
        raise TooLarge(f'"{name}" holds more than {limits.max_items:,} items in its sequences.')
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
        for part in values(record.get("ReferencedFileID")):
            if str(part) == ".." or any(sign in str(part) for sign in "/\\:\0"):
                raise Refused(f'"{name}" is a DICOMDIR that names a file outside of its folder.')
    raise NotAScan(f'"{name}" is a DICOMDIR, a table of contents without images.')


def pixels_of(file: Opened, limits: Limits, bits: tuple[int, ...] = (8, 16, 32)) -> Pixels:
    """Where the pixels lie and how they are stored, checked against the bytes that are there.

    Args:
        bits: values of BitsAllocated that are read.

    Raises:
        NotAScan: there is no image; TooLarge, Refused: its layout is damaged or cannot be read.
    """
    name, header, buffer, syntax = file.name, file.header, file.buffer, file.syntax
    if file.at is None:
        if "Rows" in header and "Columns" in header:
            raise Refused(f'"{name}" declares an image but holds no pixel data; the file seems to be cut short.')
        raise NotAScan(f'"{name}" is a DICOM object without an image.')

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
    if allocated not in bits:
        said = f"{', '.join(str(b) for b in bits[:-1])} or {bits[-1]}"
        raise Refused(f'"{name}" states BitsAllocated = {allocated}; {said} are read.')
    stored = number("BitsStored", 1, allocated, default=allocated)
    samples = number("SamplesPerPixel", 1, 4, default=1)
    photometric = clean(header.get("PhotometricInterpretation"), 20).upper() or "MONOCHROME2"
    if photometric not in PHOTOMETRIC or samples != (3 if photometric in _COLOUR else 1):
        raise Refused(f'"{name}" has {samples} samples of {photometric}, a combination that is not read.')
    offset, length = file.at
    if syntax in NATIVE:
        subsampled = photometric == "YBR_FULL_422"
        expected = -(-rows * columns * frames * (2 if subsampled else samples) * allocated // 8)
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


def uid_of(file: Opened, keyword: str) -> str:
    """A valid UID or ""; an invalid one is refused, since it names things in the store and in exports."""
    value = str(file.header.get(keyword) or "").strip("\0 ")
    if value and not _UID.match(value):
        raise Refused(f'"{file.name}" has a {keyword} that is not a valid UID.')
    return value


def patient_of(header: Dataset) -> Patient:
    """Who the header says it is of; untrusted text, cleaned."""
    return Patient(
        id=clean(header.get("PatientID")),
        name=clean(header.get("PatientName"), 128),
        birth_date=date(header.get("PatientBirthDate")),
        sex=clean(header.get("PatientSex"), 4),
        age=clean(header.get("PatientAge"), 4),
    )


def _check_text(header: Dataset, notes: list[Note]) -> None:
    known = all(str(v) in python_encoding for v in values(header.get("SpecificCharacterSet")))
    texts = (header.get("PatientName"), header.get("StudyDescription"), header.get("SeriesDescription"))
    if not known or any("\ufffd" in str(text) for text in texts):
        notes.append(warning("The header's character set is broken: names and descriptions may show wrong letters."))
