"""The receipt: what was expected, what arrived, what the lengths rest on, and what speaks against the header."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.study.intake import read_scan
from tests import builders


def series_of(path):
    return read_scan(path)[0].series[0]


def texts(series, level: str = "") -> str:
    return " ".join(n.text for n in series.receipt.notes if not level or n.level == level)


@pytest.mark.parametrize(
    ("attributes", "source", "spacing", "said"),
    [
        ({}, "ImagerPixelSpacing", 0.2, "at the detector"),
        (
            {"EstimatedRadiographicMagnificationFactor": "1.25"},
            "ImagerPixelSpacing, less the magnification",
            0.16,
            "magnification of 1.25",
        ),
        ({"PixelSpacing": ["0.2", "0.2"]}, "PixelSpacing, that at the detector", 0.2, "at the detector"),
        (
            {"PixelSpacing": ["0.15", "0.15"], "PixelSpacingCalibrationType": "FIDUCIAL"},
            "PixelSpacing, calibrated",
            0.15,
            "calibrated by fiducial",
        ),
        ({"ImagerPixelSpacing": None, "PixelSpacing": ["0.3", "0.3"]}, "PixelSpacing", 0.3, ""),
        (
            {"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": ["0.1", "0.1"]},
            "NominalScannedPixelSpacing",
            0.1,
            "at the detector",
        ),
    ],
)  # fmt: skip
def test_the_source_of_the_spacing_is_told(tmp_path, attributes, source, spacing, said):
    series = series_of(builders.radiograph(tmp_path / "a", **attributes))
    assert series.receipt.spacing_source == source
    assert series.receipt.spacing[:2] == pytest.approx((spacing, spacing))
    assert said in texts(series)
    if source in ("PixelSpacing", "PixelSpacing, calibrated"):
        assert "at the detector" not in texts(series)


def test_without_spacing_there_is_no_source(tmp_path):
    path = builders.radiograph(tmp_path / "a", ImagerPixelSpacing=None, PixelSpacing=["0", "0"])
    assert series_of(path).receipt.spacing_source == ""


def test_an_ultrasound_region_gives_the_spacing(tmp_path):
    region = builders._items(
        PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.05, PhysicalDeltaY=0.04
    )
    ds = builders.dataset(np.zeros((4, 6), np.uint8), modality="US", SequenceOfUltrasoundRegions=region)
    (tmp_path / "a").write_bytes(builders.encoded(ds))
    receipt = series_of(tmp_path / "a").receipt
    assert receipt.spacing_source == "SequenceOfUltrasoundRegions"
    assert receipt.spacing[:2] == pytest.approx((0.5, 0.4))


@pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "NumberOfSeriesRelatedInstances"])
def test_images_that_the_header_counts_and_that_did_not_arrive(tmp_path, keyword):
    builders.ct_series(tmp_path, **{keyword: "133"})
    receipt = series_of(tmp_path).receipt
    assert (receipt.expected, receipt.loaded) == (133, 8)
    assert "counts 133 images" in texts(series_of(tmp_path), "warning")


def test_a_stack_whose_numbers_begin_late_says_that_it_may_be_cut(tmp_path):
    paths = builders.ct_series(tmp_path, n=8)
    assert texts(series_of(tmp_path)) == ""
    for path in paths[:3]:
        path.unlink()
    assert "first image has number 4: 3 images before it may not have arrived" in texts(series_of(tmp_path), "info")


def test_a_ct_whose_values_are_no_ct_is_warned_of(tmp_path):
    builders.ct_series(tmp_path / "odd", np.full((4, 24, 32), 2500, np.int16))
    assert "says CT, but" in texts(series_of(tmp_path / "odd"), "warning")
    builders.ct_series(tmp_path / "mr", builders.phantom(), modality="MR")
    assert "says MR, but the values look like CT" in texts(series_of(tmp_path / "mr"), "warning")
    builders.ct_series(tmp_path / "plain", builders.phantom() + np.int16(1000), modality="MR")
    assert texts(series_of(tmp_path / "plain")) == ""


def test_a_class_that_is_made_for_another_modality_is_warned_of(tmp_path):
    data = builders.edited(builders.ct_files(n=1)[0], Modality="MR")
    (tmp_path / "a").write_bytes(data)
    assert "calls the image MR, its object class says CT" in texts(series_of(tmp_path / "a"), "warning")


@pytest.mark.parametrize(
    ("attributes", "said", "level"),
    [
        ({"modality": "US"}, "is an ultrasound image, which often shows the patient's name", "info"),
        ({"modality": "OT", "sop_class": "1.2.840.10008.5.1.4.1.1.7"}, "is a secondary capture", "info"),
        ({"modality": "CR", "BurnedInAnnotation": "YES"}, "declares that text is burned", "warning"),
        ({"modality": "CR", "BurnedInAnnotation": "NO"}, "", "info"),
    ],
)
def test_text_that_may_be_burned_in_is_told(tmp_path, attributes, said, level):
    ds = builders.dataset(np.zeros((4, 6), np.uint8), **attributes)
    (tmp_path / "a").write_bytes(builders.encoded(ds))
    told = texts(series_of(tmp_path / "a"), level)
    assert said in told
    assert bool(said) == ("shows the patient's name" in told or "burned" in told)
