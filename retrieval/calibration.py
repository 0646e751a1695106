"""Real queries and what they find in an index → the similarity below which a best hit is no close precedent."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from retrieval.report import CorpusReport
from retrieval.shared import ImageVectors, unit
from retrieval.terms import terms_text

QUERIES = 300
ENOUGH = 50
"""Queries below which a percentile says too little."""
PERCENTILE = 5.0
DEFAULT_MINIMUM = 0.44
"""Used for texts below ENOUGH queries: the value that the Open-i reports give."""


def text_queries(reports: Sequence[CorpusReport]) -> list[tuple[int, str]]:
    """(report row, a query as a reader would cause it: indication and finding terms) for a fixed sample."""
    queries = []
    for row in random.Random(0).sample(range(len(reports)), min(QUERIES, len(reports))):
        terms = terms_text(reports[row].terms)
        if terms:
            queries.append((row, f"{reports[row].indication} {terms}".strip()))
    return queries


def text_minimum(
    reports: Sequence[CorpusReport], vectors: np.ndarray, queries: list[tuple[int, str]], embedded: np.ndarray
) -> tuple[float, str]:
    """The similarity that the best hit of all but a few real queries reaches, each without its own study.

    Args:
        vectors: (reports, d); `embedded`: (queries, d).
    """
    if len(queries) < ENOUGH:
        return DEFAULT_MINIMUM, f"default: {len(queries)} reports with terms are too few to calibrate on"
    own = [reports[row].study_id for row, _ in queries]
    return _reached(vectors, [r.study_id for r in reports], embedded, own), (
        f"{PERCENTILE:g}th percentile of the best score of {len(queries)} indexed reports' own indication "
        "and terms, each searched without its own study"
    )


def image_minimum(
    reports: Sequence[CorpusReport], texts: np.ndarray | None, images: ImageVectors
) -> tuple[float | None, str]:
    """The same for radiographs against report texts in the shared space; None where there is too little to say.

    Args:
        texts: (reports, d), or None where the index has none.
        images: radiographs of the model that made `texts`, by study id.
    """
    if texts is None:
        return None, "not calibrated: there are no report texts of the shared space"
    if len(images.vectors) < ENOUGH:
        return None, f"not calibrated: {len(images.vectors)} radiographs are fewer than {ENOUGH}"
    queries = np.stack([unit(v) for v in images.vectors.values()])  # (images, d)
    minimum = _reached(texts.astype(np.float32), [r.study_id for r in reports], queries, list(images.vectors))
    return minimum, (
        f"{PERCENTILE:g}th percentile of the best score of {len(queries)} radiographs among the report texts, "
        "each searched without its own study"
    )


def image_floor(images: ImageVectors) -> float | None:
    """The similarity that few pairs of different studies' radiographs reach; None where there is too little to say.

    The best of a handful of earlier images is the best whatever it shows: below this it is not like the query.
    """
    if len(images.vectors) < ENOUGH:
        return None
    vectors = np.stack([unit(v) for v in images.vectors.values()])  # (images, d)
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return round(float(np.percentile(pairs, 100.0 - PERCENTILE)), 4)


def _reached(vectors: np.ndarray, studies: Sequence[str], queries: np.ndarray, own: Sequence[str]) -> float:
    scores = queries @ vectors.T  # (queries, reports)
    scores[np.array(own)[:, None] == np.array(studies)[None, :]] = -1.0
    return round(float(np.percentile(scores.max(1), PERCENTILE)), 4)
