"""Held-out indications and finding terms, embedded and searched: `search_ms_p50`, `search_ms_p95`, `reports`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from webapp.priors import opener
from webapp.settings import Settings

QUERIES = 200


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    from retrieval.training import source_reports

    held = [r for r in source_reports("open-i")[1] if r.terms][:QUERIES]
    searcher = opener(settings)()
    searcher.search("cough", terms=("Opacity/lung/base/left",))  # loads the encoder
    times = [searcher.search(r.indication, terms=r.terms, modality="CR").milliseconds for r in held]
    say(f"{len(times)} queries")
    return {
        "search_ms_p50": round(float(np.percentile(times, 50)), 2),
        "search_ms_p95": round(float(np.percentile(times, 95)), 2),
        "reports": searcher.index.manifest.reports,
        "queries": len(times),
    }
