"""The 133-slice demo CT as a DICOM ZIP, uploaded by a browser: first image, whole volume, redraws.

`first_image_s` and `volume_ready_s` count from the moment the server has received the last byte.  `redraw_ms_*` is what
the browser's thread spends on drawing all panes of the 2 × 2 layout, while it scrolls and while the window is dragged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core_models.study.intake import read_scan
from webapp.benchmarks import browser, scan
from webapp.benchmarks.server import own_home, serving
from webapp.settings import Settings

SLICES = 100
MOVES = 100


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    volume = scan.volume(settings)
    with tempfile.TemporaryDirectory(prefix="reading-room-benchmark-") as name:
        archive = scan.ct_zip(volume, Path(name) / "ct.zip")
        say(f"{volume.shape[0]} slices, {archive.stat().st_size / 1e6:.0f} MB")
        start = time.perf_counter()
        read_scan(archive)
        slices_per_s = volume.shape[0] / (time.perf_counter() - start)
        with own_home(settings) as own, serving(own) as server, browser.opened(server.address) as page:
            chooser = page.locator("#rr-worklist input[type=file]").first
            chooser.wait_for(state="attached")
            received: list[float] = []
            page.on("response", lambda r: r.url.endswith("/api/upload") and received.append(time.perf_counter()))
            chooser.set_input_files(str(archive))
            page.wait_for_function("window.__viewer?.metrics.first_image_ms != null", polling=20)
            first_image = time.perf_counter() - received[0]
            page.wait_for_function("window.__viewer.state().ready", polling=20)
            ready = time.perf_counter() - received[0]
            say(f"first image {first_image:.2f} s, whole volume {ready:.2f} s after the upload")
            scrolled = _frames(page, lambda: _scroll(page))
            windowed = _frames(page, lambda: _window(page))
    frames = scrolled + windowed
    return {
        "first_image_s": round(first_image, 2),
        "volume_ready_s": round(ready, 2),
        "redraw_ms_p50": round(float(np.percentile(frames, 50)), 2),
        "redraw_ms_p95": round(float(np.percentile(frames, 95)), 2),
        "scroll_ms_p50": round(float(np.percentile(scrolled, 50)), 2),
        "window_ms_p50": round(float(np.percentile(windowed, 50)), 2),
        "frames": len(frames),
        "intake_slices_per_s": round(slices_per_s, 1),
    }


def _frames(page: Any, work: Callable[[], None]) -> list[float]:
    page.evaluate("() => { window.__viewer.metrics.frames.length = 0; }")
    work()
    page.wait_for_timeout(200)
    return page.evaluate("() => [...window.__viewer.metrics.frames]")


def _scroll(page: Any) -> None:
    page.mouse.move(*_centre(page))
    page.keyboard.press("Home")
    for _ in range(SLICES):
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(10)


def _window(page: Any) -> None:
    x, y = _centre(page)
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    for n in range(MOVES):
        page.mouse.move(x + n % 50, y + n % 30)
        page.wait_for_timeout(10)
    page.mouse.up(button="right")


def _centre(page: Any) -> tuple[float, float]:
    box = page.locator("#rr-viewer canvas").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
