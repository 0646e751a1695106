"""Every file in the installed pydicom package: its pixels as pydicom itself reads them, or a refusal of the table."""

from __future__ import annotations

import warnings
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut

from core_models.errors import ReadingRoomError, Refused
from core_models.study.dicom import NotAScan
from core_models.study.intake import read_scan
from core_models.study.raster import luminance

ROOT = Path(pydicom.__file__).parent / "data"
FILES = sorted(p for p in ROOT.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
README = Path(__file__).resolve().parents[2] / "README.md"

BIG_ENDIAN = (Refused, "Explicit VR Big Endian")
NO_IMAGE = (NotAScan, "a DICOM object without an image")
UNKNOWN = (Refused, "none of the formats")
NO_PIXELS = (Refused, "declares an image but holds no pixel data")
DIRECTORY = (NotAScan, "a table of contents")
REFUSED: dict[str, tuple[type[ReadingRoomError], str]] = {
    # Not DICOM at all.
    "*.json": UNKNOWN,
    "*.txt": UNKNOWN,
    "*/README*": UNKNOWN,
    "*.dump": UNKNOWN,
    "*.icc": UNKNOWN,
    "*/zipMR.gz": UNKNOWN,
    "*/no_meta.dcm": UNKNOWN,  # its first byte is changed
    # DICOM without an image.
    "palettes/*.dcm": NO_IMAGE,
    "charset_files/chrSQEncoding*.dcm": NO_IMAGE,
    "*/TINY_ALPHA/PT000000/ST000000/SE000000/IM*": NO_IMAGE,
    "*/UN_sequence.dcm": NO_IMAGE,
    "*/empty_charset_LEI.dcm": NO_IMAGE,
    "*/no_meta_group_length.dcm": NO_IMAGE,
    "*/priv_SQ.dcm": NO_IMAGE,
    "*/DICOMDIR": DIRECTORY,
    "*/DICOMDIR-empty.dcm": DIRECTORY,
    "*/DICOMDIR-implicit": DIRECTORY,
    "*/DICOMDIR-nooffset": DIRECTORY,
    "*/DICOMDIR-nopatient": DIRECTORY,
    "*/DICOMDIR-reordered": DIRECTORY,
    "*/ExplVR_LitEndNoMeta.dcm": (NotAScan, "a radiotherapy plan"),
    "*/rtplan*.dcm": (NotAScan, "a radiotherapy plan"),
    "*/rtdose.dcm": (NotAScan, "a radiotherapy dose"),
    "*/rtdose_1frame.dcm": (NotAScan, "a radiotherapy dose"),
    "*/rtdose_rle*.dcm": (NotAScan, "a radiotherapy dose"),
    "*/badVR.dcm": (NotAScan, "a radiotherapy dose"),
    "*/reportsi*.dcm": (NotAScan, "a structured report"),
    "*/test-SR.dcm": (NotAScan, "a structured report"),
    "*/waveform_ecg.dcm": (NotAScan, "a waveform"),
    # Retired, damaged, or of a kind that no permissive decoder reads.
    "*/ExplVR_BigEnd*.dcm": BIG_ENDIAN,
    "*/MR_small_bigendian.dcm": BIG_ENDIAN,
    "*_expb*.dcm": BIG_ENDIAN,
    "*/SC_rgb_small_odd_big_endian.dcm": BIG_ENDIAN,
    "*/DICOMDIR-bigEnd": BIG_ENDIAN,
    "charset_files/chrJapMulti*.dcm": NO_PIXELS,
    "charset_files/chrKoreanMulti.dcm": NO_PIXELS,
    "*/meta_missing_tsyntax.dcm": (Refused, "does not state Rows"),
    "*/nested_priv_SQ.dcm": (Refused, "does not state Rows"),
    "*/MR_truncated.dcm": (Refused, "8,130 bytes of pixels; 8,192 were expected"),
    "*/JPEG2000-embedded-sequence-delimiter.dcm": (Refused, "damaged and cannot be decoded"),
    "*/liver_1frame.dcm": (Refused, "describes 3 frames but holds 1"),
}
ATTACHED = {"rtstruct.dcm": ("RTSTRUCT", ["patient"])}
# JPEG of 12 bits, which pydicom's decoders refuse: (row, column) → the value that pydicom's own tests expect of another
# decoder there, read off in another viewer.
TWELVE_BITS = {(420, 140): 244, (230, 120): 95}
NOT_PYDICOMS = {"JPEG-lossy.dcm": TWELVE_BITS, "JPGExtended.dcm": TWELVE_BITS}


def refusal(path: Path) -> tuple[type[ReadingRoomError], str] | None:
    """What the table says of a file; every file is named by one row at most."""
    name = path.relative_to(ROOT).as_posix()
    rows = [row for pattern, row in REFUSED.items() if fnmatch(name, pattern)]
    assert len(set(rows)) <= 1, name
    return rows[0] if rows else None


def expected(ds: pydicom.Dataset) -> np.ndarray:
    """(slices, rows, columns) as pydicom decodes and rescales them, colour as luminance, MONOCHROME1 mirrored."""
    array = ds.pixel_array
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, ds)[..., :3]
    else:
        array = apply_modality_lut(array, ds)
    if ds.SamplesPerPixel == 3 or ds.PhotometricInterpretation == "PALETTE COLOR":
        array = luminance(array)
    values = array.reshape(-1, ds.Rows, ds.Columns)
    if ds.PhotometricInterpretation == "MONOCHROME1" and ds.get("Modality") != "CT":
        values = values.min() + values.max() - values
    return values


def check(path: Path) -> str:
    """Judge one file: "read", "not pydicoms", "attached" or "refused"."""
    row = refusal(path)
    if row is not None:
        with pytest.raises(ReadingRoomError) as caught:
            read_scan(path)
        assert type(caught.value) is row[0], path.name
        assert row[1] in str(caught.value), path.name
        return "refused"
    (study,) = read_scan(path)
    if path.name in ATTACHED:
        (attachment,) = study.attachments
        assert (attachment.kind, [d.label for d in attachment.drawings]) == ATTACHED[path.name]
        return "attached"
    (series,) = study.series
    if path.name in NOT_PYDICOMS:
        (plane,) = series.volume.layout.to_source(series.volume.array)
        assert {at: plane[at] for at in NOT_PYDICOMS[path.name]} == NOT_PYDICOMS[path.name], path.name
        with pytest.raises(RuntimeError, match="12-bit"):
            _ = pydicom.dcmread(path).pixel_array
        return "not pydicoms"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path, force=True)
        values = expected(ds)
    got = series.volume.layout.to_source(series.volume.array)
    np.testing.assert_allclose(got, values, rtol=1e-6, err_msg=path.name)
    assert series.modality == ds.get("Modality", "OT"), path.name
    centre, width = (np.atleast_1d(ds.get(k) or [])[:1] for k in ("WindowCenter", "WindowWidth"))
    if len(centre) and len(width) and float(width[0]) > 0 and ds.PhotometricInterpretation != "MONOCHROME1":
        assert series.volume.window == (float(centre[0]), float(width[0])), path.name
    return "read"


def test_every_sample_is_read_as_pydicom_does_or_refused_as_the_table_says():
    assert len(FILES) > 150
    outcomes = Counter(check(path) for path in FILES)
    used = [p for p in REFUSED if any(fnmatch(f.relative_to(ROOT).as_posix(), p) for f in FILES)]
    assert used == list(REFUSED)
    said = (
        f"Of the {len(FILES)} files inside pydicom {pydicom.__version__}, {outcomes['read']} open with pydicom's own "
        f"pixels, {outcomes['not pydicoms']} with JPEG of 12 bits, which pydicom does not decode, "
        f"{outcomes['attached']} as drawn structures, and {outcomes['refused']} are refused"
    )
    assert said in README.read_text(encoding="utf-8"), said


def test_the_sample_media_folder_opens_as_studies_without_what_is_big_endian():
    studies = read_scan(ROOT / "test_files" / "dicomdirtests" / "98892003")
    assert {s.modality for s in studies} == {"MR"}
    assert sum(series.receipt.loaded for study in studies for series in study.series) == 17
