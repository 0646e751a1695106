"""Unit vectors in → a FAISS index that is exact while small and inverted lists when large, and how much these miss.

Exact search reads every vector, so its time grows with the corpus.  From `EXACT_BELOW` reports on, vectors are kept in
inverted lists around k-means centroids (Sivic & Zisserman, ICCV 2003; IVFFlat of FAISS) and only the lists nearest to
the query are read.  What that misses is measured against exact search whenever such an index is written.

A filter is a bitmap that FAISS asks before it compares.  The fewer rows it leaves, the more lists are read, so that a
narrow filter never finds less than a wide one.
"""

from __future__ import annotations

import math

import faiss
import numpy as np

EXACT_BELOW = 100_000
"""Rows below which an index is exact: one search of so many takes about 7 ms on one core."""

EXACT, INVERTED = "exact", "inverted lists"
PROBED = 128
"""Lists read where nothing is filtered out: of 200,000 made-up reports this finds 0.95 of the nearest ten (`large`)."""

SAMPLE = 200
K = 10
_PER_LIST = 40  # vectors that train one centroid; FAISS warns below 39
_ITERATIONS = 10
_SAME = 1e-5  # scores nearer than this are equals, of which either is right


def build(vectors: np.ndarray, exact_below: int = EXACT_BELOW, like: faiss.Index | None = None) -> faiss.Index:
    """Index the vectors; row i is vector i, and `reconstruct(i)` gives it back.

    Args:
        vectors: (n, d) float32 of length 1.
        like: an index of nearly the same vectors, whose centroids are taken where it has any: training them is slow.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    n, dimensions = vectors.shape
    if n < exact_below:
        index = faiss.IndexFlatIP(dimensions)
    elif kind(like) == INVERTED:
        index = faiss.clone_index(like)
        index.reset()
    else:
        lists = max(1, min(int(4 * math.sqrt(n)), n // _PER_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.max_points_per_centroid = _ITERATIONS, _PER_LIST
        index.set_direct_map_type(faiss.DirectMap.Array)  # for reconstruct
        index.train(vectors)
    index.add(vectors)
    return index


def kind(index: faiss.Index | None) -> str:
    """`EXACT`, `INVERTED`, or "" of None."""
    return "" if index is None else INVERTED if isinstance(index, faiss.IndexIVFFlat) else EXACT


def search(
    index: faiss.Index, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, probed: int = PROBED
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest allowed rows of each query.

    Args:
        queries: (q, d) float32.
        allowed: (n,) bool of the rows that may be found, at least one; None: all.
        probed: lists to read where nothing is filtered out.

    Returns:
        (q, k) scores, best first, and (q, k) rows; -1 where there are no more.
    """
    share = 1.0 if allowed is None else float(allowed.mean())
    selector = None if share == 1.0 else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if kind(index) == EXACT:
        return index.search(queries, k, params=faiss.SearchParameters(sel=selector))
    lists = min(index.nlist, math.ceil(probed / share))
    return index.search(queries, k, params=faiss.SearchParametersIVF(sel=selector, nprobe=lists))


def recall(index: faiss.Index, vectors: np.ndarray, allowed: np.ndarray | None = None, probed: int = PROBED) -> float:
    """Recall@10 against exact search, of a fixed sample of the index's own vectors, each without itself; 1 if exact.

    Args:
        vectors: (n, d) float32, those of the index; `allowed`, `probed`: as in `search`.
    """
    if kind(index) == EXACT:
        return 1.0
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    asking = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    wanted = min(K + 1, len(rows))
    exact, _ = faiss.knn(vectors[asking], vectors[rows], wanted, metric=faiss.METRIC_INNER_PRODUCT)
    scores, _ = search(index, vectors[asking], wanted, allowed, probed)
    # The best is the query itself, or its equal.  Found counts what scores as the exact ones do: equals are many.
    found = np.minimum((scores >= exact[:, -1:] - _SAME).sum(1), wanted) - 1
    return float(found.mean() / max(1, wanted - 1))
