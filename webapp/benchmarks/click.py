"""Clicks as the segment service answers them, measured and stored: `click_ms_p50`, `click_ms_p95`, `rss_mb`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from core_models.segmentation import cohorts, reader
from core_models.segmentation.engine import Mask
from webapp import demo
from webapp.benchmarks import scan
from webapp.benchmarks.server import own_home
from webapp.service import Services
from webapp.settings import Settings

CLICKS = 3  # per organ


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    labels = scan.organs(settings)
    with own_home(settings) as own:
        services = Services.create(own)
        try:
            study = services.store.add_study(services.read_scan(demo.paths(settings, scan.NAME))[0])
            series = services.store.study(study).series[0]
            start = time.perf_counter()
            prepared = services.segments.prepare(series.id).result()
            prepare_s = time.perf_counter() - start
            first: list[float] = []
            later: list[float] = []
            for name, values in cohorts.DEMO_TARGETS.items():
                target = Mask.from_full(reader.largest_part(np.isin(labels, values)))
                segment, answer = None, None
                for n in range(CLICKS):
                    click = reader.next_click(target, answer, prepared.volume.spacing)
                    if click is None:
                        break
                    start = time.perf_counter()
                    row = services.segments.click(series.id, click.index, click.positive, segment)
                    (later if n else first).append(1000 * (time.perf_counter() - start))
                    segment, answer = row.id, services.store.mask(row.id)
                say(f"{name}: {first[-1]:.0f} ms, then {later[-1]:.0f} ms")
        finally:
            services.segments.close()
            services.store.close()
    every = first + later
    return {
        "click_ms_p50": round(float(np.percentile(every, 50)), 1),
        "click_ms_p95": round(float(np.percentile(every, 95)), 1),
        "first_click_ms_p50": round(float(np.percentile(first, 50)), 1),
        "next_click_ms_p50": round(float(np.percentile(later, 50)), 1),
        "prepare_s": round(prepare_s, 2),
        "clicks": len(every),
        "rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
    }
