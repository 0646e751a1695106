"""The benchmarks' own parts; what they measure is not judged here."""

import numpy as np
import pytest

from core_models.segmentation import cohorts
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid
from webapp import demo, settings
from webapp.benchmarks import browser, click, scan


def test_a_patient_cut_into_more_slices_stays_the_same_patient():
    array = np.zeros((5, 2, 3), np.int16) + (np.arange(5, dtype=np.int16) * 100)[:, None, None]
    volume = Volume(array, affine_of((2.5, 1.0, 1.0)), "CT", "HU")
    tall = scan.tall(volume, 17)
    assert tall.shape == (17, 2, 3)
    assert tall.array.dtype == np.int16
    assert tall.array[:, 0, 0].tolist() == list(range(0, 401, 25))
    assert tall.spacing == pytest.approx((2.5 / 4, 1.0, 1.0))
    last = np.array([0, 0, 16, 1])
    assert np.allclose(tall.affine @ last, volume.affine @ np.array([0, 0, 4, 1])), "the same length in millimetres"
    labels = scan.tall_labels(np.arange(5)[:, None, None] * np.ones((1, 2, 3), int), 17)
    assert labels[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_clicks_are_measured_of_the_service_where_there_is_no_browser(home, monkeypatch, tmp_path):
    import nibabel

    shape, affine = (20, 48, 48), affine_of((2.0, 1.0, 1.0))
    ball = ellipsoid(shape, affine, (24, 24, 10), (11, 11, 13))
    volume = ct([(ball, 90)], shape, affine)
    path = tmp_path / "ct.nii.gz"
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS → RAS
    nibabel.Nifti1Image(volume.array.transpose(2, 1, 0), flipped).to_filename(path)
    monkeypatch.setattr(demo, "paths", lambda settings, name: (path,))
    monkeypatch.setattr(scan, "organs", lambda settings: ball.astype(np.uint8))
    monkeypatch.setattr(cohorts, "DEMO_TARGETS", {"ball": (1,)})
    monkeypatch.setattr(browser, "chromium", lambda: None)
    said: list[str] = []
    result = click.measure(settings.load(), said.append)
    assert {"click_ms_p50", "click_ms_p95", "rss_mb", "ready_s"} <= set(result)
    assert result["browser"] is False
    assert result["click_ms_p50"] == result["service_ms_p50"] > 0
    assert 1 <= result["clicks"] <= click.CLICKS
    assert any("no browser" in line for line in said)
