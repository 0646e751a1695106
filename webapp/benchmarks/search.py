"""Held-out indications and finding terms, embedded and searched: `search_ms_p50`, `search_ms_p95`, `reports`.

Where the index holds the shared image-text space, the same with an image, all lists fused: `fused_ms_p50`, `_p95`.  The
image's vector is given, as the page has it from the reading; a vector in any direction takes the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    index = searcher.index
    return {
        **_percentiles("search", times),
        **(_fused(searcher, held) if index.shared.model else {}),
        "reports": index.manifest.reports,
        "images": index.manifest.images,
        "queries": len(times),
    }


def _fused(searcher: Any, held: Sequence[Any]) -> dict[str, float]:
    shared = searcher.index.shared
    images = np.random.default_rng(0).standard_normal((len(held), shared.dimensions)).astype(np.float32)
    times = [
        searcher.search(r.indication, terms=r.terms, modality="CR", image=image, image_model=shared.model).milliseconds
        for r, image in zip(held, images, strict=True)
    ]
    return _percentiles("fused", times)


def _percentiles(name: str, times: Sequence[float]) -> dict[str, float]:
    return {f"{name}_ms_p{p}": round(float(np.percentile(times, p)), 2) for p in (50, 95)}
