"""From `python app.py` to the first whole page: `ready_s`, the median of three starts, and `rss_mb` then."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from webapp.benchmarks.server import own_home, serving
from webapp.settings import Settings

STARTS = 3


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    seconds, memory = [], []
    for n in range(STARTS):
        with own_home(settings) as own, serving(own) as server:
            seconds.append(round(server.ready_s, 2))
            memory.append(server.rss_mb())
        say(f"start {n + 1}: {seconds[-1]:.2f} s, {memory[-1]:.0f} MB")
    return {"ready_s": median(seconds), "rss_mb": max(memory), "starts_s": seconds}
