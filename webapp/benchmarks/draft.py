"""Drafts over HTTP on the demo CT with organs and findings: time to the first words, for 120 tokens, and memory.

The first draft loads the index, the text encoder and the language model (`cold_first_words_s`); `first_words_s` and
`draft_120_tokens_s` are of the drafts after it.  Where a draft is not 120 tokens long its own rate after the first
words is scaled to 120.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import httpx
import numpy as np

from core_models.errors import ModelMissing
from core_models.segmentation.judging.reader import deepest
from webapp.benchmarks import scan
from webapp.benchmarks.server import own_home, serving
from webapp.settings import Settings

ORGANS = {"liver": (5,), "spleen": (1,)}
FINDINGS = ("Cardiomegaly/mild", "Pleural Effusion/left/small", "Calcified Granuloma/lung/upper lobe/right")
TOKENS = 120
DRAFTS = 3


def measure(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    volume, labels = scan.volume(settings), scan.organs(settings)
    with (
        own_home(settings) as own,
        serving(own) as server,
        httpx.Client(base_url=server.address, timeout=300) as client,
    ):
        study = _opened(client)
        for name, values in ORGANS.items():
            index = [int(v) for v in deepest(np.isin(labels, values), volume.spacing)]
            series = study["series"][0]["id"]
            _ok(client.post(f"/api/series/{series}/click", json={"index": index, "positive": True, "segment": None}))
            say(f"clicked {name}")
        base = f"/api/studies/{study['id']}"
        for term in FINDINGS:
            _ok(client.post(f"{base}/evidence", json={"term": term}))
        _ok(client.put(f"{base}/indication", json={"text": "Shortness of breath."}))
        runs = []
        for n in range(1 + DRAFTS):
            runs.append(_draft(client, f"{base}/draft"))
            say(f"draft {n + 1}: first words {runs[-1][0]:.2f} s, {runs[-1][2]} tokens in {runs[-1][1]:.2f} s")
        memory = server.rss_mb()
    cold, warm = runs[0], runs[1:]
    return {
        "first_words_s": round(median(first for first, _, _ in warm), 2),
        "draft_120_tokens_s": round(median(f + (whole - f) * TOKENS / t for f, whole, t in warm), 2),
        "cold_first_words_s": round(cold[0], 2),
        "tokens": warm[0][2],
        "rss_mb": memory,
    }


def _ok(answer: httpx.Response) -> Any:
    if answer.status_code >= 400:
        raise ModelMissing(answer.json().get("error", f"The server answered {answer.status_code}."))
    return answer.json()


def _opened(client: httpx.Client) -> dict[str, Any]:
    job = _ok(client.post(f"/api/demo/{scan.NAME}"))["job"]
    while (state := _ok(client.get(f"/api/jobs/{job}")))["state"] == "running":
        time.sleep(0.1)
    if state["state"] != "done":
        raise ModelMissing(state["error"])
    return _ok(client.get(f"/api/studies/{state['result']['studies'][0]}"))


def _draft(client: httpx.Client, path: str) -> tuple[float, float, int]:
    """Seconds to the first words, seconds in all, tokens."""
    began, first, event = time.perf_counter(), 0.0, ""
    with client.stream("POST", path, json={}) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                value = json.loads(line[6:])
                if event == "error":
                    raise ModelMissing(value["error"])
                if event == "statement" and value["text"].strip() and not first:
                    first = time.perf_counter() - began
                if event == "done":
                    return first, time.perf_counter() - began, max(1, value["tokens"])
    raise ModelMissing("The draft ended without a last event.")
