"""The demo CT in the browser: opened, scrolled and windowed; uploaded; with 1,000 slices; and read by the intake.

What is counted:
- `first_image_s`, `volume_ready_s`: from the click on the worklist's row; medians of `OPENINGS` page loads.
- `upload_*`: the same CT as a DICOM ZIP, from the moment the server has received the last byte.
- `redraw_ms_*`: what the browser's thread spends on drawing all panes of the 2 × 2 layout, while it scrolls and while
  the window is dragged; `planes`: on one pane, while that plane is scrolled, and while the window is dragged.
- `large_*`: the demo CT cut into 1,000 slices; memory as `webapp.benchmarks.tab` counts it, at its highest
  while the scan loads and is scrolled, and at rest afterwards.
- `intake_slices_per_s`, `intake_jpeg2000_slices_per_s`: `read_scan` on a ZIP of the demo CT, nothing stored.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core_models.study.intake import read_scan
from core_models.study.study import Patient, Receipt, Series, Study
from core_models.study.volume import Volume
from webapp.benchmarks import scan
from webapp.benchmarks.browser import launched
from webapp.benchmarks.server import own_home, serving
from webapp.benchmarks.tab import PLANES, Tab, peak_rss_mb
from webapp.settings import Settings
from webapp.store import Store

OPENINGS = 5
STEPS = 100
LARGE = 1000
REST_MS = 100  # longer than a slice rests before its full detail is fetched
# Key → (at most, at least) what is aimed at.
AIMS: dict[str, tuple[float | None, float | None]] = {
    "first_image_s": (0.5, None),
    "volume_ready_s": (1.5, None),
    "plane_ms_p50": (8, None),
    "plane_ms_p95": (16, None),
    "large_first_image_s": (1, None),
    "large_renderer_peak_mb": (600, None),
    "intake_slices_per_s": (None, 60),
    "intake_jpeg2000_slices_per_s": (None, 20),
}


def measure(settings: Settings, say: Callable[[str], None], large: int = LARGE, steps: int = STEPS) -> dict[str, Any]:
    volume = scan.volume(settings)
    with tempfile.TemporaryDirectory(prefix="reading-room-benchmark-") as name:
        result = intake(volume, Path(name), say)
        with own_home(settings) as own:
            store = Store(own)
            studies = [store.add_study(study_of(v, n)) for n, v in enumerate((volume, scan.tall(volume, large)))]
            store.close()
            with serving(own) as server:
                with launched() as browser:
                    tab = Tab(browser, server.address)
                    result |= opened(tab, studies[0], say) | drawn(tab, steps, say)
                    result |= uploaded(tab, Path(name) / "ct.zip", say)
                with launched() as browser:  # its memory is this scan's alone
                    result |= {"large_slices": large, **loaded(Tab(browser, server.address), studies[1], steps, say)}
    result["missed"] = missed(result)
    for line in table(result):
        say(line)
    return result


def study_of(volume: Volume, n: int) -> Study:
    """A study of one series, as the store takes it."""
    z, y, x = volume.shape
    receipt = Receipt("DICOM", volume.modality, (x, y, z), volume.spacing[::-1], z, z, volume.spacing_known)
    series = Series(f"2.25.9{n}.1", 1, f"CT of {z} slices", volume.modality, volume, receipt)
    return Study(f"2.25.9{n}", Patient(), "20240101", f"CT of {z} slices", "", (series,))


def intake(volume: Volume, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Slices a second that are read; `ct.zip` is left in the folder."""
    out = {}
    for key, file, packed in (
        ("intake_slices_per_s", "ct.zip", False),
        ("intake_jpeg2000_slices_per_s", "packed.zip", True),
    ):
        archive = scan.ct_zip(volume, folder / file, jpeg2000=packed)
        start = time.perf_counter()
        read_scan(archive)
        out[key] = round(volume.shape[0] / (time.perf_counter() - start), 1)
        say(f"{volume.shape[0]} slices, {archive.stat().st_size / 1e6:.0f} MB: {out[key]} slices/s")
    return out


def opened(tab: Tab, study_id: str, say: Callable[[str], None]) -> dict[str, float]:
    times = [tab.open(study_id) for _ in range(OPENINGS)]
    first, ready = (float(np.median(column)) for column in zip(*times, strict=True))
    say(f"opened: first image {first:.2f} s, whole volume {ready:.2f} s")
    return {"first_image_s": round(first, 3), "volume_ready_s": round(ready, 2)}


def drawn(tab: Tab, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Redraws of the open study."""
    tab.time_panes()
    scrolls = {plane: tab.scrolled(plane, steps) for plane in PLANES}
    window = tab.windowed(steps)
    planes = {}
    for plane in PLANES:
        both = {"scroll": scrolls[plane][plane], "window": window[plane]}
        planes[plane] = {f"{what}_ms_p{p}": _percentile(ms, p) for what, ms in both.items() for p in (50, 95)}
        say(f"{plane}: " + ", ".join(f"{key} {value}" for key, value in planes[plane].items()))
    frames = scrolls["axial"]["all"] + window["all"]
    return {
        "redraw_ms_p50": _percentile(frames, 50),
        "redraw_ms_p95": _percentile(frames, 95),
        "scroll_ms_p50": _percentile(scrolls["axial"]["all"], 50),
        "window_ms_p50": _percentile(window["all"], 50),
        "frames": len(frames),
        "planes": planes,
        "plane_ms_p50": max(v for p in planes.values() for k, v in p.items() if k.endswith("p50")),
        "plane_ms_p95": max(v for p in planes.values() for k, v in p.items() if k.endswith("p95")),
    }


def uploaded(tab: Tab, archive: Path, say: Callable[[str], None]) -> dict[str, float]:
    page = tab.page
    tab.worklist()
    page.evaluate("window.__viewer.metrics.first_image_ms = null")
    chooser = page.locator("#rr-worklist input[type=file]").first
    chooser.wait_for(state="attached")
    received: list[float] = []
    page.on("response", lambda r: r.url.endswith("/api/upload") and received.append(time.perf_counter()))
    chooser.set_input_files(str(archive))
    page.wait_for_function("window.__viewer.metrics.first_image_ms != null", polling=20)
    first = time.perf_counter() - received[0]
    page.wait_for_function("window.__viewer.state().ready", polling=20)
    ready = time.perf_counter() - received[0]
    say(f"uploaded: first image {first:.2f} s, whole volume {ready:.2f} s after the last byte")
    return {"upload_first_image_s": round(first, 2), "upload_volume_ready_s": round(ready, 2)}


def loaded(tab: Tab, study_id: str, steps: int, say: Callable[[str], None]) -> dict[str, float]:
    """A scan too large to be held whole: opened, scrolled through in every plane, and at rest on some of its slices."""
    tab.worklist()
    renderer = tab.renderer()
    before = renderer.memory_info().rss / 1e6
    with peak_rss_mb(renderer) as peak:
        first, ready = tab.open(study_id)
        if (now := tab.renderer()).pid != renderer.pid:  # the page was loaded anew, perhaps into another process
            renderer = now
        with peak_rss_mb(renderer) as later:
            tab.time_panes()
            for plane in PLANES:
                tab.scrolled(plane, steps)
            for _ in range(steps // 4):
                tab.page.keyboard.press("ArrowDown")
                tab.page.wait_for_timeout(REST_MS)
    tab.page.wait_for_timeout(1000)
    out = {
        "large_first_image_s": round(first, 3),
        "large_volume_ready_s": round(ready, 2),
        "large_renderer_peak_mb": round(max(peak[0], later[0]), 1),
        "large_renderer_mb": round(renderer.memory_info().rss / 1e6, 1),
        "empty_renderer_mb": round(before, 1),
    }
    say(", ".join(f"{key} {value}" for key, value in out.items()))
    return out


def missed(result: dict[str, Any]) -> list[str]:
    """The keys whose aim is not reached."""
    return [
        key
        for key, (most, least) in AIMS.items()
        if (most is not None and result[key] > most) or (least is not None and result[key] < least)
    ]


# What was measured for NiiVue 0.65 (out of the `ipyniivue` wheel) on a two-core machine, with software WebGL.
NIIVUE = {"first": "2.7–5.8 s", "ready": "8.7–12.3 s", "scroll": "1.5 ms + WebGL", "window": "4.5–6.7 ms"}


def table(r: dict[str, Any]) -> list[str]:
    """The README's table of these figures, line by line, as Markdown."""
    scroll, window = (
        ", ".join(
            f"{plane} {r['planes'][plane][f'{what}_ms_p50']} / {r['planes'][plane][f'{what}_ms_p95']}"
            for plane in PLANES
        )
        for what in ("scroll", "window")
    )
    rows = [
        ("512 × 512 × 133 CT opened: first image", f"{r['first_image_s']:.2f} s", "0.5 s", NIIVUE["first"]),
        ("whole volume ready", f"{r['volume_ready_s']:.2f} s", "1.5 s", NIIVUE["ready"]),
        ("one plane redrawn while scrolling, median / 95th percentile", f"{scroll} ms", "8 / 16 ms", NIIVUE["scroll"]),
        ("one plane redrawn while windowing", f"{window} ms", "8 / 16 ms", NIIVUE["window"]),
        (f"512 × 512 × {r['large_slices']:,} CT opened: first image", f"{r['large_first_image_s']:.2f} s", "1 s", "–"),
        (
            "memory of its tab, at its highest; at rest",
            f"{r['large_renderer_peak_mb']:.0f} MB; {r['large_renderer_mb']:.0f} MB",
            "600 MB",
            "–",
        ),
        ("intake, uncompressed", f"{r['intake_slices_per_s']:.0f} slices/s", "60", "–"),
        ("intake, JPEG 2000 lossless", f"{r['intake_jpeg2000_slices_per_s']:.0f} slices/s", "20", "–"),
    ]
    head = ("| What | Here | Aim | NiiVue |", "|---|---|---|---|")
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def _percentile(ms: list[float], p: int) -> float:
    return round(float(np.percentile(ms, p)), 2)
