"""What the reader asks and the image shows → the most similar priors out, filtered beforehand; or none, said so.

Up to four lists are fused by their ranks (see `fusion`): the query's text against the reports, the finding terms
against the reports' terms, and the image, in the shared image-text space, against the reports' texts and against the
images of signed studies.  An indication alone is one list: cosine similarity decides.

Concurrency: a `Searcher` changes nothing after construction; searches may run in several threads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core_models.errors import ModelMissing
from core_models.foundation.hubs import popularity
from retrieval import guard, vectors
from retrieval.embedding import Encoder
from retrieval.fusion import FINDINGS, IMAGE_IMAGE, IMAGE_REPORT, TEXT, WEIGHTS, Fused, fuse
from retrieval.generation import REBUILD
from retrieval.opened import Index
from retrieval.report import CorpusReport, Prior
from retrieval.shared import ImageVectors, unit
from retrieval.terms import TermsLikeness, terms_text

MAX_HITS = 50
MATCHED_SENTENCES = 3
DEPTH = 200
"""Distinct texts of each list that are fused: what stands lower could add less than 1/260."""

UNCALIBRATED_IMAGES = 1
"""Images that are fused while no floor is calibrated: of a handful, the best is the best whatever it shows."""

_DATE = re.compile(r"\d{8}")
_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "RF", "XR", "PX"})
_NOT_WORDS = re.compile(r"[\W_]+")

Hits = list[tuple[int, float]]
"""(report row, score), best first, each text once."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        priors: hits, best first, no two with the same text; the nearest ones even when none is close.
        close: whether the report nearest to the query's text (where it has none: to the image) reaches the calibrated
            threshold; it is among the priors unless other lists outvoted it.  False where that is not calibrated, and
            the sentence says so.
        sentence: what the reader must know about the result ("No close precedent ..."); "" where there is nothing.
        other_modality: the index holds no report of the asked modality, so hits are of another one.
        threshold: the score that `close` was decided by; 0 where there is none.
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

    Args:
        askers: radiographs that nobody asks about, such as training images.  Report texts that are near to most of
            them are ranked lower for an image (`hubs`); without them, or with another model's, the plain cosine ranks.

    Raises:
        ModelMissing: the index was made by another encoder than `encoder`.
    """

    def __init__(self, index: Index, encoder: Encoder, askers: ImageVectors | None = None) -> None:
        if index.manifest.embedding_model != encoder.name:
            raise ModelMissing(
                "The index of prior reports was made by another encoder: build it again with `python app.py index`."
            )
        self.index = index
        self.encoder = encoder
        self._modality = np.array([_modality(r.modality) for r in index.reports])
        self._region = np.array([r.region.lower() for r in index.reports])
        self._study = np.array([r.study_id for r in index.reports])
        self._patient = np.array([r.patient_key for r in index.reports])
        self._date = np.array([_day(r.date) for r in index.reports])
        self._limited = np.array([bool(r.readers) for r in index.reports])
        texts: dict[str, int] = {}
        self._text = np.array([texts.setdefault(_normalised(r), len(texts)) for r in index.reports])  # (reports,)
        self._terms = TermsLikeness(r.terms for r in index.reports)
        held = index.shared.texts
        self._shared_texts = None if held is None else held.astype(np.float32)  # (reports, d)
        self._popularity = np.zeros(len(index.reports), np.float32)
        if held is not None and askers is not None and askers.model == index.shared.model:
            known = np.stack([unit(v) for v in askers.vectors.values()])
            self._popularity = popularity(self._shared_texts, known)
        self._images = index.shared.images.astype(np.float32)  # (images, d)

    def search(
        self,
        query: str,
        *,
        terms: Sequence[str] = (),
        k: int = 5,
        modality: str | None = None,
        region: str | None = None,
        exclude_study: str | None = None,
        patient: str | None = None,
        date: str = "",
        reader: str = "",
        minimum: float | None = None,
        image: np.ndarray | None = None,
        image_model: str = "",
    ) -> SearchResult:
        """Find the priors nearest to the query.

        Args:
            query: free text (indication, findings); untrusted.
            terms: finding terms as the corpus has them ("Cardiomegaly/mild"); untrusted.
            k: hits wanted, 1 to `MAX_HITS`.
            modality: DICOM modality; hits are of it where the index has any (all radiograph codes are one), else of
                any, and the result says so.
            region: only reports of this region, where given.
            exclude_study: never a report, or an image, of this study id.
            patient: the study's patient key; of this patient only reports from before `date` are hits, and marked.
            date: the study's day, YYYYMMDD; without one no report of the patient is known to be earlier.
            reader: who asks; reports that name their readers are hits for those alone.
            minimum: threshold for "close"; None takes the index's calibrated one.
            image: (d,) vector of the study's image in the shared image-text space, or None; alone it is enough.
            image_model: the space's name; vectors of another than the index's are not used, and the result says so.

        Raises:
            ValueError: `image` is not one finite vector of the length that its model has in the index.
        """
        started = time.perf_counter()
        picture, image_note = (None, "") if image is None else self._picture(image, image_model)
        text, flags = guard.clean(". ".join(t for t in (query.strip(), terms_text(terms)) if t))
        asked = any(c.isalnum() for c in text)
        threshold = self._threshold(asked, minimum)
        if not asked and picture is None:
            sentence = "Prior reports were not searched: there is no indication or finding to search with."
            sentence = f"{sentence} {image_note}".strip()
            return SearchResult((), False, sentence, _since(started), threshold=threshold or 0.0, flags=flags)

        allowed, other_modality = self._allowed(modality, region, exclude_study, patient, date)
        allowed &= self._may_see(reader)
        k = max(1, min(k, MAX_HITS))
        vector = self.encoder.encode([text])[0] if asked else None  # (384,)
        lists = self.lists(vector, terms, picture, allowed, k)
        priors = tuple(self._prior(hit, row, vector, picture, threshold, patient) for hit, row in self.fused(lists)[:k])
        best = self._best(lists, picture, np.flatnonzero(allowed))
        close = bool(priors) and threshold is not None and best >= threshold
        notes = [image_note]
        if other_modality:
            notes.append(f"No prior reports of this modality ({_shown(modality)}) are in the index.")
        if not priors:
            notes.append("No prior report is left after the filters.")
        elif threshold is None:
            notes.append("These priors were found by the image alone; how close they are is not calibrated.")
        elif not close:
            notes.append(
                f"No close precedent: the nearest report scores {best:.2f}, below the calibrated {threshold:.2f}."
            )
        sentence = " ".join(n for n in notes if n)
        return SearchResult(priors, close, sentence, _since(started), other_modality, threshold or 0.0, flags)

    def lists(
        self, vector: np.ndarray | None, terms: Sequence[str], picture: np.ndarray | None, allowed: np.ndarray, k: int
    ) -> dict[str, Hits]:
        """What there is to ask with, each against the allowed rows; a list with nothing in it is left out.

        Args:
            vector: (384,) of the query's text; picture: (d,) of the image in the shared space; None: not asked with.
            allowed: (reports,) bool.
            k: hits wanted after the fusion: of one list alone no more are ranked.
        """
        rows = np.flatnonzero(allowed)
        likeness = self._terms.to(terms)[rows]
        alike = likeness > 0
        lists: dict[str, Hits] = {TEXT: [], FINDINGS: []}  # first, as the reader reads them
        if vector is not None:
            lists[TEXT] = self._nearest(vector, allowed, k if picture is None and not alike.any() else DEPTH)
        if picture is not None:
            lists |= self._seen(picture, rows)
        # Of the many with just these terms ("normal") those count that another list names too, not the first indexed.
        named = np.isin(self._text[rows], [self._text[row] for hits in lists.values() for row, _ in hits])
        lists[FINDINGS] = self._distinct(rows[alike], likeness[alike], DEPTH, named[alike])
        return {name: hits for name, hits in lists.items() if hits}

    def _best(self, lists: dict[str, Hits], picture: np.ndarray | None, rows: np.ndarray) -> float:
        """The cosine that says whether there is a close precedent: of the text, else of the image."""
        if lists.get(TEXT):
            return lists[TEXT][0][1]
        if lists.get(IMAGE_REPORT):  # the plain cosine, as it was calibrated, of whichever is nearest
            return _cosine((self._shared_texts[rows] @ picture).max())
        return lists[IMAGE_IMAGE][0][1] if lists.get(IMAGE_IMAGE) else -1.0

    def _picture(self, image: np.ndarray, model: str) -> tuple[np.ndarray | None, str]:
        """The image's unit vector where the index has vectors of its model, and what to say of it otherwise."""
        held, why = self.index.shared, self.index.manifest.shared_note
        if not held.model:
            return None, f"The image was not searched: {why}; {REBUILD}."
        if held.model != model:
            return None, f"The image was not searched: another model read it than made the index; {REBUILD}."
        picture = unit(image)
        if picture.shape != (held.dimensions,):
            raise ValueError(f"an image of {model} has {picture.shape} numbers, not {held.dimensions}")
        if held.texts is None:
            return picture, f"The image was compared with images of signed studies only: {why}; {REBUILD}."
        return picture, ""

    def _threshold(self, asked: bool, minimum: float | None) -> float | None:
        if minimum is not None:
            return minimum
        if asked:
            return self.index.manifest.minimum
        return None if self._shared_texts is None else self.index.manifest.image_minimum

    def _seen(self, picture: np.ndarray, rows: np.ndarray) -> dict[str, Hits]:
        """The image's lists over the allowed rows."""
        lists = {}
        if self._shared_texts is not None:
            near = self._shared_texts[rows] @ picture - self._popularity[rows]
            lists[IMAGE_REPORT] = self._distinct(rows, near, DEPTH)
        pictured, floor = self.index.shared.image_rows, self.index.manifest.image_floor
        alike = self._images @ picture
        mine = np.isin(pictured, rows) & (alike >= (-np.inf if floor is None else floor))
        deep = UNCALIBRATED_IMAGES if floor is None else DEPTH
        lists[IMAGE_IMAGE] = self._distinct(pictured[mine], alike[mine], deep)
        return lists

    def _distinct(self, rows: np.ndarray, scores: np.ndarray, count: int, before: np.ndarray | None = None) -> Hits:
        """The best `count` texts of the rows; among equals those first that `before` names."""
        hits: dict[int, tuple[int, float]] = {}
        order = np.argsort(-scores, kind="stable") if before is None else np.lexsort((~before, -scores))
        for place in order.tolist():
            hits.setdefault(int(self._text[rows[place]]), (int(rows[place]), _cosine(scores[place])))
            if len(hits) == count:
                break
        return list(hits.values())

    def fused(
        self, lists: Mapping[str, Hits], weights: Mapping[str, float] | None = WEIGHTS
    ) -> list[tuple[Fused[int], int]]:
        """The texts of all lists, best first, each with the row of the report that stands for it."""
        by_text = {name: [(int(self._text[row]), score) for row, score in hits] for name, hits in lists.items()}
        row_of: dict[int, int] = {}
        for hits in lists.values():
            # Of reports that read alike, the last list's: the one whose image is like it, else whose terms are.
            row_of |= {int(self._text[row]): row for row, _ in hits}
        return [(hit, row_of[hit.thing]) for hit in fuse(by_text, weights)]

    def _prior(
        self,
        hit: Fused[int],
        row: int,
        vector: np.ndarray | None,
        picture: np.ndarray | None,
        threshold: float | None,
        patient: str | None,
    ) -> Prior:
        scores = {name: score for name, _, score in hit.found_by}
        if vector is not None:
            score = scores.get(TEXT)
            if score is None:  # far down the text's own list, or not in it
                score = _cosine(self.index.vectors.reconstruct(row) @ vector)
        elif self._shared_texts is not None:
            score = _cosine(self._shared_texts[row] @ picture)
        else:
            score = scores[IMAGE_IMAGE]
        matched = () if vector is None else self._matched(row, vector)
        return Prior(
            self.index.reports[row],
            score,
            matched,
            hit.found_by,
            close=threshold is not None and score >= threshold,
            same_patient=bool(patient) and str(self._patient[row]) == patient,
        )

    def _may_see(self, reader: str) -> np.ndarray:
        """(reports,) bool: those that name no readers, and those that name this one."""
        seen = ~self._limited
        for row in np.flatnonzero(self._limited).tolist():
            seen[row] = reader in self.index.reports[row].readers
        return seen

    def _allowed(
        self, modality: str | None, region: str | None, exclude_study: str | None, patient: str | None, date: str
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
        if patient:
            earlier = (self._date != "") & (self._date < _day(date))  # nothing is before a day that is not known
            allowed &= (self._patient != patient) | earlier
        return allowed, other_modality

    def _nearest(self, vector: np.ndarray, allowed: np.ndarray, k: int) -> Hits:
        """Up to k hits of the text, each text once: half of all normal reports read word for word alike."""
        allowed_rows = int(allowed.sum())
        count = min(allowed_rows, 8 * k)
        while count:
            scores, found = vectors.search(self.index.vectors, vector[None], count, allowed)
            distinct: dict[int, tuple[int, float]] = {}
            for row, score in zip(found[0].tolist(), scores[0].tolist(), strict=True):
                if row >= 0:
                    distinct.setdefault(int(self._text[row]), (row, _cosine(score)))
            if len(distinct) >= k or count == allowed_rows:
                return list(distinct.values())[:k]
            count = min(allowed_rows, 4 * count)
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


def _day(date: str) -> str:
    """The day as it can be compared; "" where none is known."""
    return date if _DATE.fullmatch(date) else ""


def _shown(modality: str | None) -> str:
    return "".join(c for c in modality or "" if c.isalnum())[:16] or "unknown"


def _normalised(report: CorpusReport) -> str:
    return _NOT_WORDS.sub(" ", report.text.casefold()).strip()


def _cosine(score: float) -> float:
    return min(1.0, max(-1.0, float(score)))


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
