"""A study, its image where it was read → the earlier reports that are of use, put on the board as cards.

The index is opened on first use and again when its file changes; one lock guards that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from core_models.drafting.evidence import Evidence, Statement
from core_models.errors import ModelMissing, ReadingRoomError
from retrieval import choice
from retrieval.fusion import TEXT
from retrieval.guard import INSTRUCTION, copied
from retrieval.report import Prior
from webapp.settings import Settings
from webapp.store import PriorRow, Store

if TYPE_CHECKING:
    import numpy as np

    from retrieval.shared import ImageVectors

EmbeddingOf = Callable[[str], "tuple[np.ndarray, str] | None"]
"""Study id → its image's (d,) vector in the shared image-text space and that space's name; None: not read, no image."""

CONSIDERED = 50
"""Nearest reports that the few on the board are chosen from."""

COMMON = 5
"""Reports of the index that hold a sentence, from which on it is nobody's own: of Open-i's training sentences in 5 to 9
reports 46 % were written again in the held-out ones, of those in 10 or more 85 %, of those in a single one 2 %."""

MAX_STATEMENT = 300
UNKNOWN = frozenset({"", "OT", "SC"})  # a picture says nothing of its modality: every report may be like it
INDICATION_ALONE = (
    "Found by the indication alone, no closer than chance on held-out studies: add a finding to find closer ones."
)
INSTRUCTION_SENTENCE = "The indication or a finding reads like an instruction to a model; it is quoted, not followed."


class Search(Protocol):
    """What is asked of `retrieval.search.Searcher`."""

    def search(self, query: str, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Found:
    """The priors on the board after a search, and what the reader must know of it ("" where there is nothing)."""

    rows: tuple[PriorRow, ...]
    sentence: str


class Priors:
    """Search and the priors on the board.

    Args:
        embedding_of: what the eyes saw of a study's image; asked at every search.
    """

    def __init__(
        self,
        store: Store,
        open_search: Callable[[], Search],
        patient_key: Callable[[str], str] = lambda _: "",
        embedding_of: EmbeddingOf = lambda _: None,
    ) -> None:
        self._store = store
        self._patient_key = patient_key
        self._embedding_of = embedding_of
        self._open = open_search
        self._search: Search | None = None
        self._lock = threading.Lock()

    def find(self, study_id: str) -> Found:
        """Search with the indication, the board's findings and the image; store what is of use and answer it.

        Raises:
            NotFound; Conflict: the study is signed; ModelMissing: the index or the text encoder is not prepared.
        """
        study = self._store.study(study_id)
        findings = [c for c in self._store.evidence(study_id) if c.kind == "finding" and c.status != "rejected"]
        image, image_model = self._embedding(study_id)
        result = self._opened().search(
            study.indication,
            terms=tuple(c.statement for c in findings),
            k=CONSIDERED,
            modality=None if study.modality in UNKNOWN else study.modality,
            exclude_study=study_id,
            patient=self._patient_key(study.patient_id) or None,
            date=study.date,
            image=image,
            image_model=image_model,
        )
        shown = choice.chosen(result.priors, [choice.Finding(c.id, c.statement) for c in findings])
        rows = self._store.set_priors(study_id, [(prior_card(hit), hit) for hit in shown])
        odd = INSTRUCTION_SENTENCE if INSTRUCTION in result.flags else ""
        close = any(h.close for h in shown)
        none = any(h.close for h in result.priors) and not close
        asked_with = {name for h in result.priors for name, *_ in h.found_by}
        alone = INDICATION_ALONE if close and not findings and asked_with <= {TEXT} else ""
        sentences = (odd, result.sentence, choice.NONE_STATES if none else "", alone)
        return Found(rows, " ".join(s for s in sentences if s))

    def mark_copied(self, statements: Sequence[Statement], rows: Sequence[PriorRow]) -> tuple[Statement, ...]:
        """The statements, those of the model that stand word for word in one of these priors marked with its card's id.

        A sentence that at least `COMMON` reports of the index hold is everybody's and is not marked; where no index can
        be opened, every sentence counts as rare.
        """
        try:
            index = getattr(self._opened(), "index", None)
        except ReadingRoomError:
            index = None
        cards = {id(row.prior): row.evidence.id for row in rows}

        def marked(statement: Statement) -> Statement:
            if statement.origin != "model" or (index is not None and index.times(statement.text) >= COMMON):
                return statement
            source = copied(statement.text, (row.prior for row in rows))
            return statement if source is None else replace(statement, copied_from=cards[id(source)])

        return tuple(map(marked, statements))

    def _opened(self) -> Search:
        """The search on the index in force."""
        with self._lock:
            if self._search is None or _outdated(self._search):
                self._search = self._open()
            return self._search

    def _embedding(self, study_id: str) -> tuple[np.ndarray | None, str]:
        try:
            return self._embedding_of(study_id) or (None, "")
        except ReadingRoomError:  # the eyes say themselves what they lack; text and findings are searched all the same
            return None, ""

    @property
    def digest(self) -> str:
        """Names the index that searches use now; "" before the first one."""
        with self._lock:
            return getattr(getattr(self._search, "index", None), "digest", "")

    def forget(self) -> None:
        """Open the index anew at the next search."""
        with self._lock:
            self._search = None


def _outdated(search: Search) -> bool:
    """Whether another index was put in force since this one was opened, by this process or another."""
    opened = getattr(search, "index", None)
    if opened is None:
        return False
    from retrieval.index import in_force

    return in_force(opened.folder) != opened.digest


def prior_card(hit: Prior) -> Evidence:
    """The card of a hit: its sentence about the board, else the one nearest to the query, else the report; in short."""
    told = [sentence for _, sentence in hit.said] or hit.matched or [hit.report.impression or hit.report.findings]
    text = " ".join(told[0].split())
    if len(text) > MAX_STATEMENT:
        text = text[: MAX_STATEMENT - 1] + "…"
    return Evidence("", "prior", "other", text, source=f"report {hit.report.id}")


def quoted(searcher: Any, study_id: str, indication: str, cards: Sequence[Evidence]) -> list[Any]:
    """The priors that a draft from these cards would have quoted to it, for evaluations.

    Found and chosen as `Priors.find` does it; those that are close and do not contradict the board.
    """
    from core_models.drafting.drafter import PriorText

    findings = [choice.Finding(c.id, c.statement) for c in cards if c.kind == "finding"]
    terms = tuple(c.statement for c in findings)
    found = searcher.search(indication, terms=terms, k=CONSIDERED, modality="CR", exclude_study=study_id)
    return [
        PriorText(f"P{n}", p.report.findings, p.report.impression, p.report.terms, p.matched, p.said)
        for n, p in enumerate(choice.chosen(found.priors, findings), 1)
        if p.close and p.stance != "contradicts"
    ]


def opener(settings: Settings) -> Callable[[], Search]:
    """A function that opens the local index; nothing is imported before it is called."""

    def open_search() -> Search:
        from retrieval.index import open_index
        from retrieval.search import Searcher

        tower = shared_text(settings.threads)
        askers = None if tower is None else reference_images(tower.name)
        return Searcher(open_index(settings.index), text_encoder(settings.threads), askers)

    return open_search


def reference_images(model: str) -> ImageVectors | None:
    """Embeddings of training radiographs that ship with the image model of that name, or None: how near a radiograph's
    nearest report usually is, and which reports are near to all radiographs."""
    from core_models.foundation import weights
    from retrieval.shared import ImageVectors

    try:
        vectors = weights.load_reference().numpy()
    except ReadingRoomError:
        return None
    return ImageVectors(model, {f"reference {n}": vector for n, vector in enumerate(vectors)})


@cache
def text_encoder(threads: int) -> Any:
    """The one text encoder of this process: searches and the indexer share its weights."""
    from retrieval.embedding import TextEncoder

    return TextEncoder(threads)


def shared_text(threads: int) -> Any | None:
    """The text tower of the shared image-text space, or None where its weights are not installed."""
    try:
        return _shared_text(threads)
    except ModelMissing:
        return None


@cache
def _shared_text(threads: int) -> Any:
    from core_models.foundation.shared_space import SharedText

    return SharedText(threads)
