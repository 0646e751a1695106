"""Clicks on the demo CT, from the mouse to the overlay in a browser: `click_ms_p50`, `click_ms_p95`, `rss_mb`.

A simulated reader clicks organs and bones.  First the service alone answers, in this process (`service_*`); then the
page, served by a process of its own, whose memory is `rss_mb`.  `ready_s` is from opening the series until the engine
is ready for it; `first_overlay_s` from opening the study in the browser until the overlay of a click made at its first
image.  `tall_*` is the same patient cut into 1000 slices.  Without a browser the service's figures stand in for the
page's, and `browser` is false.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import psutil

from core_models.errors import ModelMissing
from core_models.segmentation import cohorts
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.judging import reader
from core_models.study.study import Study
from webapp import demo
from webapp.benchmarks import browser, scan
from webapp.benchmarks.server import own_home, serving
from webapp.service import Services
from webapp.settings import Settings
from webapp.store import Store

CLICKS = 3  # per organ
TALL = 1000  # slices
TALL_TARGETS = ("spleen", "left kidney", "liver", "vertebra 31", "left lung")
SHOWN = """async ([i, j, k, positive]) => {
  const started = performance.now();
  await window.__viewer.click('axial', i, j, k, positive);
  await new Promise((resolve) => requestAnimationFrame(resolve));
  return [performance.now() - started, window.__viewer.viewer.active];
}"""

Answer = Callable[[Click, str | None], tuple[float, str]]


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    labels = scan.organs(settings)
    with own_home(settings) as own:
        services = Services.create(own)
        try:
            study = services.read_scan(demo.paths(settings, scan.NAME))[0]
            series = services.store.study(services.store.add_study(study)).series[0]
            start = time.perf_counter()
            spacing = services.segments.prepare(series.id).result().volume.spacing
            ready_s = time.perf_counter() - start
            say(f"the engine is ready {ready_s:.2f} s after the series was opened")
            first, later = _read(cohorts.DEMO_TARGETS, labels, spacing, *_service(services, series.id), say)
        finally:
            services.segments.close()
            services.store.close()
    service = {
        "service_ms_p50": _percentile(first + later, 50),
        "service_ms_p95": _percentile(first + later, 95),
        "service_rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
        "first_click_ms_p50": _percentile(first, 50),
        "next_click_ms_p50": _percentile(later, 50),
        "ready_s": round(ready_s, 2),
        "clicks": len(first) + len(later),
    }
    if browser.chromium() is None:
        say("There is no browser here: these are the service's figures alone.")
        shown = {"browser": False, "rss_mb": service["service_rss_mb"]}
        return shown | {f"click_ms_{p}": service[f"service_ms_{p}"] for p in ("p50", "p95")} | service
    page = _page(settings, study, labels, cohorts.DEMO_TARGETS, say)
    tall = _tall(study)
    few = {name: cohorts.DEMO_TARGETS[name] for name in TALL_TARGETS}
    say(f"{TALL} slices")
    long = _page(settings, tall, scan.tall_labels(labels, TALL), few, say)
    return {
        "browser": True,
        "click_ms_p50": page["p50"],
        "click_ms_p95": page["p95"],
        "rss_mb": page["rss_mb"],
        "first_overlay_s": page["first_overlay_s"],
        "tall_click_ms_p50": long["p50"],
        "tall_click_ms_p95": long["p95"],
        "tall_rss_mb": long["rss_mb"],
        "tall_first_overlay_s": long["first_overlay_s"],
    } | service


def _tall(study: Study) -> Study:
    one = study.series[0]
    return replace(study, series=(replace(one, volume=scan.tall(one.volume, TALL)),))


def _page(
    settings: Settings, study: Study, labels: np.ndarray, targets: Mapping[str, tuple[int, ...]], say: Any
) -> dict[str, Any]:
    """The study opened and clicked in a browser."""
    with own_home(settings) as own:
        with closing(Store(own)) as store:
            row = store.study(store.add_study(study))
        spacing = study.series[0].volume.spacing
        with serving(own) as server, browser.opened(server.address) as page:
            page.wait_for_function("window.__viewer")
            page.wait_for_selector("#rr-worklist input[type=file]", state="attached")
            start = time.perf_counter()
            page.evaluate("(id) => { location.hash = `#study=${id}`; }", row.id)
            page.wait_for_function("window.__viewer.metrics.first_image_ms != null", polling=20)
            name = next(iter(targets))
            target = Mask.from_full(reader.largest_part(np.isin(labels, targets[name])))
            answer, mask = _shown(page, server.address, labels.shape)
            answer(reader.next_click(target, None, spacing), None)
            first_overlay = time.perf_counter() - start
            say(f"the first overlay {first_overlay:.2f} s after the study was opened")
            page.wait_for_function("window.__viewer.state().ready", polling=20)
            rest = {name: values for name, values in targets.items() if name != next(iter(targets))}
            first, later = _read(rest, labels, spacing, answer, mask, say)
            memory = server.rss_mb()
    return {
        "p50": _percentile(first + later, 50),
        "p95": _percentile(first + later, 95),
        "rss_mb": memory,
        "first_overlay_s": round(first_overlay, 2),
    }


def _read(
    targets: Mapping[str, tuple[int, ...]],
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    answer: Answer,
    mask: Callable[[str], Mask],
    say: Callable[[str], None],
) -> tuple[list[float], list[float]]:
    """Milliseconds of the first clicks on a target and of those after them."""
    first: list[float] = []
    later: list[float] = []
    for name, values in targets.items():
        target = Mask.from_full(reader.largest_part(np.isin(labels, values)))
        segment, drawn, took = None, None, []
        for _ in range(CLICKS):
            click = reader.next_click(target, drawn, spacing)
            if click is None:
                break
            ms, segment = answer(click, segment)
            took.append(ms)
            drawn = mask(segment)
        first += took[:1]
        later += took[1:]
        say(f"{name}: {', '.join(f'{ms:.0f}' for ms in took)} ms")
    return first, later


def _service(services: Services, series: str) -> tuple[Answer, Callable[[str], Mask]]:
    def answer(click: Click, segment: str | None) -> tuple[float, str]:
        start = time.perf_counter()
        row = services.segments.click(series, click.index, click.positive, segment)
        return 1000 * (time.perf_counter() - start), row.id

    return answer, services.store.mask


def _shown(page: Any, address: str, shape: tuple[int, int, int]) -> tuple[Answer, Callable[[str], Mask]]:
    """Clicks through the page; the masks that it was sent."""

    def answer(click: Click, segment: str | None) -> tuple[float, str]:
        if segment is None:
            page.evaluate("window.__viewer.viewer.newSegment()")
        ms, active = page.evaluate(SHOWN, [*click.index, click.positive])
        if active is None or (segment is not None and active != segment):
            raise ModelMissing("The page did not answer a click; see the server's log.")
        return ms, active

    def mask(segment: str) -> Mask:
        found = httpx.get(f"{address}/api/segments/{segment}/mask", timeout=60)
        x, y, z, dx, dy, dz = json.loads(found.headers["x-box"])
        return Mask((z, y, x), np.frombuffer(found.content, bool).reshape(dz, dy, dx), shape)

    return answer, mask


def _percentile(values: list[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 1)
