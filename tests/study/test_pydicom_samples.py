"""Every file inside the installed pydicom package: its pixels as pydicom itself reads them, or a refusal."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from core_models.errors import ReadingRoomError
from core_models.study.intake import read_scan
from core_models.study.raster import luminance

ROOT = Path(pydicom.__file__).parent / "data"
FILES = sorted(p for p in ROOT.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
MUST_READ = {
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "image_dfl.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_overlay.dcm",
}


def expected(path: Path) -> np.ndarray:
    """(slices, rows, columns) as pydicom decodes and rescales them, colour as luminance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path, force=True)
        array = ds.pixel_array
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            array = pydicom.pixels.apply_color_lut(array, ds)[..., :3]
        if ds.SamplesPerPixel == 3 or ds.PhotometricInterpretation == "PALETTE COLOR":
            array = luminance(array)
        array = array.reshape(-1, ds.Rows, ds.Columns)
        values = array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    if ds.PhotometricInterpretation == "MONOCHROME1" and ds.get("Modality") != "CT":
        values = values.min() + values.max() - values
    return values


def test_every_sample_is_read_as_pydicom_does_or_refused():
    read = set()
    for path in FILES:
        try:
            (study,) = read_scan(path)
        except ReadingRoomError:
            continue
        (series,) = study.series
        got = series.volume.layout.to_source(series.volume.array)
        np.testing.assert_allclose(got, expected(path), rtol=1e-6, err_msg=path.name)
        read.add(path.name)
    assert read >= MUST_READ


def test_the_sample_media_folder_opens_as_studies_without_what_is_big_endian():
    studies = read_scan(ROOT / "test_files" / "dicomdirtests" / "98892003")
    assert {s.modality for s in studies} == {"MR"}
    assert sum(series.receipt.loaded for study in studies for series in study.series) == 17


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "ExplVR_BigEnd.dcm"])
def test_big_endian_is_named(name):
    with pytest.raises(ReadingRoomError, match="Big Endian"):
        read_scan(ROOT / "test_files" / name)
