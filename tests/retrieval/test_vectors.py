"""Exact below a size, inverted lists above: recall is measured, filters come first, and a generation keeps its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval import index, large, vectors
from tests.retrieval.conftest import WordEncoder, ids_of, report


@pytest.fixture(scope="module")
def corpus() -> np.ndarray:
    """3,000 unit vectors around 60 centres."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((60, 64))
    drawn = centres[generator.integers(60, size=3000)] + 0.7 * generator.standard_normal((3000, 64))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_the_kind_follows_the_size(corpus: np.ndarray) -> None:
    assert vectors.kind(vectors.build(corpus)) == vectors.EXACT
    assert vectors.kind(vectors.build(corpus, exact_below=3001)) == vectors.EXACT
    assert vectors.kind(vectors.build(corpus, exact_below=3000)) == vectors.INVERTED


def test_every_vector_comes_back(corpus: np.ndarray) -> None:
    built = vectors.build(corpus, exact_below=1)
    assert built.ntotal == 3000
    assert np.array_equal(built.reconstruct_n(0, 3000), corpus)


def test_recall_is_whole_for_exact_falls_with_fewer_lists_and_is_whole_for_all(corpus: np.ndarray) -> None:
    built = vectors.build(corpus, exact_below=1)
    assert vectors.recall(vectors.build(corpus), corpus) == 1.0
    few, some, every = (vectors.recall(built, corpus, probed=n) for n in (1, 3, built.nlist))
    assert few < some <= every == 1.0


@pytest.mark.parametrize("share", [0.3, 0.01])
def test_a_filter_is_kept_and_finds_all_that_it_leaves(corpus: np.ndarray, share: float) -> None:
    allowed = np.random.default_rng(1).random(3000) < share
    built = vectors.build(corpus, exact_below=1)
    wanted = int(allowed.sum())
    scores, rows = vectors.search(built, corpus[:5], wanted, allowed, probed=built.nlist)
    assert all(set(r) == set(np.flatnonzero(allowed)) for r in rows.tolist())
    assert np.all(np.diff(scores) <= 1e-6)
    _, few = vectors.search(built, corpus[:5], 10, allowed, probed=2)
    assert set(few[few >= 0].tolist()) <= set(np.flatnonzero(allowed).tolist())
    narrow, wide = vectors.recall(built, corpus, allowed, probed=2), vectors.recall(built, corpus, probed=2)
    assert narrow >= wide - 0.02, "a narrow filter reads more lists"


def test_centroids_are_taken_over_where_there_are_any(corpus: np.ndarray) -> None:
    first = vectors.build(corpus, exact_below=1)
    again = vectors.build(corpus[:2500], exact_below=1, like=first)
    assert (again.ntotal, first.ntotal) == (2500, 3000)
    assert np.array_equal(again.quantizer.reconstruct_n(0, again.nlist), first.quantizer.reconstruct_n(0, first.nlist))
    assert vectors.kind(vectors.build(corpus, exact_below=1, like=vectors.build(corpus))) == vectors.INVERTED


def test_a_large_index_says_its_recall_and_keeps_its_kind(words: WordEncoder, tmp_path: Path) -> None:
    reports = [report(i, f"Finding {n} of kind{n % 9} in place{n % 31}.") for n, i in enumerate(ids_of("train", 400))]
    built = index.build(reports, words, tmp_path, exact_below=300)
    assert built.manifest.kind == vectors.INVERTED
    assert 0.5 < built.manifest.recall_at_10 <= 1.0
    added = index.add(tmp_path, [report("mine", "A lung abscess.", source="signed")], words)
    assert (added.manifest.kind, added.manifest.exact_below, added.vectors.ntotal) == (vectors.INVERTED, 300, 401)
    small = index.build(reports[:50], words, tmp_path / "small")
    assert (small.manifest.kind, small.manifest.recall_at_10) == (vectors.EXACT, 1.0)


def test_the_measurement_of_a_large_corpus(words: WordEncoder, tmp_path: Path) -> None:
    reports = [report(i, f"Finding {n}. Place {n % 31} is normal.") for n, i in enumerate(ids_of("train", 120))]
    result = large.run(index.build(reports, words, tmp_path), rows=2500)
    assert result["rows"] == 2500
    assert 0 < result["lists"] <= 2500 // 40
    recalls = [result["recall@10"][f"1 allowed, {n} lists"] for n in large.PROBED]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0, "all lists are read"
