"""What the reader asks in → the most similar prior reports out, filtered before they are compared; or none, said so.

Concurrency: a `Searcher` changes nothing after construction; searches may run in several threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from core_models.errors import ModelMissing
from retrieval import guard
from retrieval.embedding import Encoder
from retrieval.index import Index, terms_text
from retrieval.report import CorpusReport, Prior

MAX_HITS = 50
MATCHED_SENTENCES = 3

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "RF", "XR", "PX"})


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        priors: hits, best first, no two with the same text; the nearest ones even when none is close.
        close: whether the best hit reaches the calibrated threshold.
        sentence: what the reader must know about the result ("No close precedent ..."); "" where there is nothing.
        other_modality: the index holds no report of the asked modality, so hits are of another one.
        threshold: the score that `close` was decided by.
        flags: what the guard found in the query.
    """

    priors: tuple[Prior, ...]
    close: bool
    sentence: str
    milliseconds: float
    other_modality: bool = False
    threshold: float = 0.0
    flags: tuple[str, ...] = ()


class Searcher:
    """Searches one opened index.

    Raises:
        ModelMissing: the index was made by another encoder than `encoder`.
    """

    def __init__(self, index: Index, encoder: Encoder) -> None:
        if index.manifest.embedding_model != encoder.name:
            raise ModelMissing(
                "The index of prior reports was made by another encoder: build it again with `python app.py index`."
            )
        self.index = index
        self._encoder = encoder
        self._modality = np.array([_modality(r.modality) for r in index.reports])
        self._region = np.array([r.region.lower() for r in index.reports])
        self._study = np.array([r.study_id for r in index.reports])
        self._patient = np.array([r.patient_key for r in index.reports])

    def search(
        self,
        query: str,
        *,
        terms: Sequence[str] = (),
        k: int = 5,
        modality: str | None = None,
        region: str | None = None,
        exclude_study: str | None = None,
        exclude_patient: str | None = None,
        minimum: float | None = None,
    ) -> SearchResult:
        """Find the prior reports nearest to the query.

        Args:
            query: free text (indication, findings); untrusted.
            terms: finding terms as the corpus has them ("Cardiomegaly/mild"); untrusted.
            k: hits wanted, 1 to `MAX_HITS`.
            modality: DICOM modality; hits are of it where the index has any (all radiograph codes are one), else of
                any, and the result says so.
            region: only reports of this region, where given.
            exclude_study, exclude_patient: never a report of this study id or with this patient key.
            minimum: threshold for "close"; None takes the index's calibrated one.
        """
        started = time.perf_counter()
        threshold = self.index.manifest.minimum if minimum is None else minimum
        text, flags = guard.clean(". ".join(t for t in (query.strip(), terms_text(terms)) if t))
        if not any(c.isalnum() for c in text):
            sentence = "Prior reports were not searched: there is no indication or finding to search with."
            return SearchResult((), False, sentence, _since(started), threshold=threshold, flags=flags)

        allowed, other_modality = self._allowed(modality, region, exclude_study, exclude_patient)
        vector = self._encoder.encode([text])  # (1, 384)
        hits = self._nearest(vector, allowed, max(1, min(k, MAX_HITS)))
        priors = tuple(Prior(self.index.reports[row], score, self._matched(row, vector[0])) for row, score in hits)
        close = bool(priors) and priors[0].score >= threshold
        notes = []
        if other_modality:
            notes.append(f"No prior reports of this modality ({_shown(modality)}) are in the index.")
        if not priors:
            notes.append("No prior report is left after the filters.")
        elif not close:
            notes.append(
                f"No close precedent: the nearest report scores {priors[0].score:.2f}, "
                f"below the calibrated {threshold:.2f}."
            )
        return SearchResult(priors, close, " ".join(notes), _since(started), other_modality, threshold, flags)

    def _allowed(
        self, modality: str | None, region: str | None, exclude_study: str | None, exclude_patient: str | None
    ) -> tuple[np.ndarray, bool]:
        """(reports,) bool of what may be a hit, and whether the asked modality is not in the index."""
        allowed = np.ones(len(self.index.reports), dtype=bool)
        other_modality = False
        if modality:
            same = self._modality == _modality(modality)
            other_modality = not same.any()
            if not other_modality:
                allowed &= same
        if region:
            allowed &= self._region == region.lower()
        if exclude_study:
            allowed &= self._study != exclude_study
        if exclude_patient:
            allowed &= self._patient != exclude_patient
        return allowed, other_modality

    def _nearest(self, vector: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, float]]:
        """Up to k (row, score), best first, each text once: half of all normal reports read word for word alike."""
        rows = np.flatnonzero(allowed).astype(np.int64)
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(rows))
        count = min(len(rows), 8 * k)
        while count:
            scores, found = self.index.vectors.search(vector, count, params=parameters)
            distinct: dict[str, tuple[int, float]] = {}
            for row, score in zip(found[0].tolist(), scores[0].tolist(), strict=True):
                if row >= 0:
                    distinct.setdefault(_normalised(self.index.reports[row]), (row, min(1.0, max(-1.0, score))))
            if len(distinct) >= k or count == len(rows):
                return list(distinct.values())[:k]
            count = min(len(rows), 4 * count)
        return []

    def _matched(self, row: int, vector: np.ndarray) -> tuple[str, ...]:
        """The report's sentences nearest to the query, best first."""
        rows = self.index.sentence_rows[row]
        if not rows:
            return ()
        scores = self.index.sentence_vectors[list(rows)].astype(np.float32) @ vector
        return tuple(self.index.sentences[rows[i]] for i in np.argsort(-scores)[:MATCHED_SENTENCES])


def _modality(code: str) -> str:
    """DX, CR and the like are one modality to a reader: radiograph."""
    code = code.strip().upper()
    return "CR" if code in _RADIOGRAPHS else code


def _shown(modality: str | None) -> str:
    return "".join(c for c in modality or "" if c.isalnum())[:16] or "unknown"


def _normalised(report: CorpusReport) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in report.text.casefold()).split())


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
