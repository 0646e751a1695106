"""An index's sentence vectors → a corpus of hundreds of thousands, and what inverted lists miss and save in it.

There is no such corpus here: a vector stands for a report of a few sentences drawn at random, and is moved a little.
Such reports have less in common than real ones, which makes them harder to find; an index of real ones measures its own
recall whenever it is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from retrieval import vectors
from retrieval.opened import Index

Progress = Callable[[int, int, str], None]

ROWS = 200_000
SENTENCES = 4
NOISE = 0.3
"""Length of the noise beside the vector's 1."""
PROBED = (16, 32, 64, vectors.PROBED, 256)
SHARES = (1.0, 0.1, 0.01)
TIMED = 50
_CHUNK = 10_000


def run(index: Index, rows: int = ROWS, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Build both kinds of index over `rows` vectors and search them, with filters that leave all, 10 % and 1 %.

    Takes about 4 kB of memory a row, and a minute and a half for 200,000 on one core.
    """
    progress(0, 3, "Drawing vectors")
    corpus = _corpus(index.sentence_vectors, rows)
    progress(1, 3, "Building")
    started = time.perf_counter()
    inverted = vectors.build(corpus, exact_below=0)
    seconds = time.perf_counter() - started
    exact = faiss.IndexFlatIP(corpus.shape[1])
    exact.add(corpus)
    progress(2, 3, "Searching")
    generator = np.random.default_rng(1)
    filters = {share: None if share == 1.0 else generator.random(rows) < share for share in SHARES}
    out = {
        "rows": rows,
        "lists": inverted.nlist,
        "build_s": round(seconds, 1),
        "probed": vectors.PROBED,
        "exact_ms": {f"{s:g}": _milliseconds(exact, corpus, mask, 0) for s, mask in filters.items()},
        "recall@10": {},
        "ms": {},
    }
    for share, mask in filters.items():
        for probed in PROBED if share == 1.0 else (vectors.PROBED,):
            key = f"{share:g} allowed, {probed} lists"
            out["recall@10"][key] = round(vectors.recall(inverted, corpus, mask, probed), 4)
            out["ms"][key] = _milliseconds(inverted, corpus, mask, probed)
    progress(3, 3, "Done")
    return out


def _corpus(known: np.ndarray, rows: int) -> np.ndarray:
    """(rows, d) float32 unit vectors."""
    generator = np.random.default_rng(0)
    out = np.empty((rows, known.shape[1]), np.float32)
    for start in range(0, rows, _CHUNK):
        part = out[start : start + _CHUNK]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32) * (NOISE / np.sqrt(part.shape[1]))
        drawn = known[generator.integers(len(known), size=(len(part), SENTENCES))].astype(np.float32).sum(1)
        part += drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return out


def _milliseconds(index: faiss.Index, corpus: np.ndarray, allowed: np.ndarray | None, probed: int) -> float:
    """Median time of one query."""
    times = []
    for query in corpus[:TIMED]:
        started = time.perf_counter()
        vectors.search(index, query[None], vectors.K, allowed, probed)
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1000, 2)
