"""Finding terms as the corpus has them in → their words, and how alike the terms of two reports are.

A term is a heading with qualifiers ("Opacity/lung/base/left").  Compared are the terms alone, not the sentences: a
report that says the same findings in other words, or among many other sentences, is found by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import sparse

QUALIFIER = 0.5
"""Weight of a qualifier beside its heading's 1: the right finding on the wrong side still beats another finding."""

_SAYS_NOTHING = "no indexing"


def terms_text(terms: Sequence[str]) -> str:
    """Finding terms in words: ("Cardiomegaly/mild", "normal") becomes "cardiomegaly, mild. normal"."""
    words = (", ".join(part.strip().lower() for part in term.split("/")) for term in terms)
    return ". ".join(w for w in words if w and w != _SAYS_NOTHING)


class TermsLikeness:
    """Cosine similarity of reports' terms, each part weighted by how rare it is among the reports.

    Args:
        reports: the terms of each report; row i is report i.
    """

    def __init__(self, reports: Iterable[Sequence[str]]) -> None:
        weights = [_weights(terms) for terms in reports]
        self._column: dict[str, int] = {}
        for parts in weights:
            for part in parts:
                self._column.setdefault(part, len(self._column))
        having = Counter(part for parts in weights for part in parts)
        self._rarity = np.array([np.log(1.0 + len(weights) / having[p]) for p in self._column], dtype=np.float64)
        rows = [row for row, parts in enumerate(weights) for _ in parts]
        columns = [self._column[p] for parts in weights for p in parts]
        values = np.array([v for parts in weights for v in parts.values()], dtype=np.float64)
        values = values * self._rarity[columns] if len(columns) else values
        matrix = sparse.csr_array((values, (rows, columns)), shape=(len(weights), len(self._column)))
        lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))  # (reports,)
        self._lengths = np.where(lengths > 0, lengths, 1.0)
        self._matrix = matrix

    def to(self, terms: Sequence[str]) -> np.ndarray:
        """(reports,) float32, 0 to 1: the likeness of each report's terms to these; 0 where they share none."""
        query = np.zeros(len(self._column))
        outside = 0.0
        for part, weight in _weights(terms).items():
            column = self._column.get(part)
            if column is None:  # a part that no report has still counts: it is missing from every one
                outside += (weight * np.log(1.0 + self._matrix.shape[0])) ** 2
            else:
                query[column] = weight * self._rarity[column]
        length = float(np.sqrt(query @ query + outside))
        if not query.any():
            return np.zeros(self._matrix.shape[0], dtype=np.float32)
        return np.minimum(self._matrix @ query / (self._lengths * length), 1.0).astype(np.float32)


def _weights(terms: Sequence[str]) -> dict[str, float]:
    return dict(part for term in terms for part in _parts(term))


def _parts(term: str) -> Iterator[tuple[str, float]]:
    """The heading, and each qualifier bound to it: "left" of an opacity is not "left" of an effusion."""
    heading, *qualifiers = (" ".join(p.lower().split()) for p in term.split("/"))
    if not heading or heading == _SAYS_NOTHING:
        return
    yield heading, 1.0
    for qualifier in qualifiers:
        if qualifier:
            yield f"{heading}/{qualifier}", QUALIFIER
