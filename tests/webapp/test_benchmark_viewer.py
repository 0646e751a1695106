"""The viewer's benchmark on a small scan: every figure that is aimed at is there, and the README has its table."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from core_models.study.intake import read_scan
from core_models.study.volume import Volume
from tests.builders import affine, phantom
from tests.webapp.served import Served
from webapp.benchmarks import scan, viewer
from webapp.benchmarks.tab import PLANES, SAMPLE_S, Tab, peak_rss_mb

README = Path(__file__).resolve().parents[2] / "README.md"
DRAWN = dict.fromkeys(("scroll_ms_p50", "scroll_ms_p95", "window_ms_p50", "window_ms_p95"), 1.0)
FIGURES: dict[str, Any] = {
    "first_image_s": 0.2,
    "volume_ready_s": 1.0,
    "planes": dict.fromkeys(PLANES, DRAWN),
    "plane_ms_p50": 1.0,
    "plane_ms_p95": 16.5,
    "large_slices": 1000,
    "large_first_image_s": 0.5,
    "large_renderer_peak_mb": 640.0,
    "large_renderer_mb": 400.0,
    "intake_slices_per_s": 500.0,
    "intake_jpeg2000_slices_per_s": 19.9,
}


def _volume(slices: int = 6) -> Volume:
    return Volume(phantom((slices, 64, 64)), affine((0.7, 0.7, 2.5)), "CT", "HU", window=(40.0, 400.0))


@pytest.mark.parametrize("packed", [False, True], ids=["uncompressed", "JPEG 2000"])
def test_the_zip_holds_the_scan(tmp_path: Path, packed: bool) -> None:
    volume = _volume()
    (study,) = read_scan(scan.ct_zip(volume, tmp_path / "ct.zip", jpeg2000=packed))
    np.testing.assert_array_equal(study.series[0].volume.array, volume.array)
    assert study.series[0].volume.spacing == pytest.approx(volume.spacing)


def test_what_misses_its_aim_is_named() -> None:
    assert viewer.missed(FIGURES) == ["plane_ms_p95", "large_renderer_peak_mb", "intake_jpeg2000_slices_per_s"]
    assert viewer.missed({**FIGURES, "plane_ms_p95": 16, "large_renderer_peak_mb": 600.0}) == [
        "intake_jpeg2000_slices_per_s"
    ]


def test_the_readme_has_the_table_that_the_command_prints() -> None:
    text = README.read_text(encoding="utf-8")
    lines = text.partition("<!-- benchmark viewer -->\n")[2].partition("<!-- end -->")[0].splitlines()
    split = [
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in some] for some in (lines, viewer.table(FIGURES))
    ]
    assert [(row[0], row[2:]) for row in split[0]] == [(row[0], row[2:]) for row in split[1]]
    assert all(row[1] for row in split[0])


@pytest.mark.browser
def test_a_scan_is_opened_drawn_and_weighed_in_the_browser(served: Served, browser: Any) -> None:
    volume = _volume(12)
    store = served.services.store
    small, large = (store.add_study(viewer.study_of(v, n)) for n, v in enumerate((volume, scan.tall(volume, 30))))
    said: list[str] = []
    tab = Tab(browser, served.address)
    times = viewer.opened(tab, small, said.append)
    assert 0 < times["first_image_s"] <= times["volume_ready_s"] + 0.01
    figures = viewer.drawn(tab, 3, said.append)
    assert set(figures["planes"]) == set(PLANES)
    assert all(value > 0 for plane in figures["planes"].values() for value in plane.values())
    held = viewer.loaded(tab, large, 4, said.append)
    assert 20 < held["large_renderer_mb"] <= held["large_renderer_peak_mb"] + 50
    tab.page.close()


def test_the_peak_is_the_most_that_was_held() -> None:
    # A process of its own: this one may have let go of so much that what it takes anew is no growth.
    work = "input(); a = b'x' * 2**26; print('held', flush=True); input(); del a; print('free', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        process = psutil.Process(child.pid)
        with peak_rss_mb(process) as peak:
            before = peak[0]
            for said in ("held", "free"):
                child.stdin.write("\n")
                child.stdin.flush()
                assert child.stdout.readline().strip() == said
                time.sleep(5 * SAMPLE_S)
            after = process.memory_info().rss / 1e6
        child.communicate("\n")
    assert peak[0] > before + 60
    assert after < peak[0] - 60
