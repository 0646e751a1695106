"""A study's draft → what the image, the priors and each card did to it; asked of the model once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core_models.drafting.evidence import DraftModel, Statement
from core_models.errors import Busy, Conflict, NotFound, Refused
from webapp.board import Board
from webapp.drafting import WAIT_S, Drafting
from webapp.eyes import EyesService
from webapp.store import ReportState, Store, encoding
from webapp.store.base import now
from webapp.store.corrections import READER
from webapp.store.explanations import ExplanationRow

if TYPE_CHECKING:
    from core_models.drafting.drafter import Job
    from core_models.drafting.why import Effect, Explanation, Writer

Json = dict[str, Any]
NO_DRAFT = "There is no draft to ask about yet: draft the report first."
OTHER_MODEL = "This draft was written by another adapter than the one in use: draft again, then ask why."
NO_MEMORY = "There is not enough memory to write the draft again: close other studies and try once more."


class Why:
    """Explains drafts; it holds nothing itself, so that any number may stand on one store."""

    def __init__(self, store: Store, board: Board, eyes: EyesService, drafting: Drafting) -> None:
        self._store, self._board, self._eyes, self._drafting = store, board, eyes, drafting

    def stored(self, study_id: str) -> Json:
        """What is kept of the study's latest draft.  Raises NotFound: the study is not here, or nobody asked."""
        state, version, _ = self._drafted(study_id)
        row = None if version is None else self._store.explanation(study_id, version)
        if row is None:
            raise NotFound("Nobody has asked why of this draft yet.")
        return view(row, state)

    def explain(
        self,
        study_id: str,
        statement: str = "",
        more: bool = False,
        say: Callable[[str], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Json:
        """As `stored`, but asked of the model where the board, the model or the question is new.

        Args:
            statement: of the report; the cards that it cites are left out before others.
            more: go on with what a large board left untried.
            cancelled: heard while waiting for the model; a batch that has begun is written to its end and kept.

        Raises:
            NotFound; Refused: there is no draft, or no card to write from; Conflict: another adapter wrote it;
            Busy: a draft is being written, or the memory does not suffice; ModelMissing.
        """
        state, version, model = self._drafted(study_id)
        if version is None or model is None:
            raise Refused(NO_DRAFT)
        self._eyes.wait(study_id, cancelled, seconds=WAIT_S)
        self._board.sync(study_id)
        job = self._drafting.job(study_id, model.seed)
        key = digest(job, model)
        first = next((s.evidence for s in state.statements if s.id == statement), ())

        def answered() -> tuple[ExplanationRow | None, bool]:
            """(what is kept for this board, whether it answers the question)."""
            row = self._store.explanation(study_id, version)
            if row is None or row.key != key:
                return None, False
            left = {o["id"] for o in row.content["untried"]}
            return row, not left or not (more or left & set(first))

        def work(writer: Writer) -> ExplanationRow:
            from core_models.drafting import why

            row, enough = answered()  # by somebody who had the model before
            if row is not None and enough:
                return row
            if (writer.model.name, writer.model.adapter) != (model.name, model.adapter):
                raise Conflict(OTHER_MODEL)
            say("Writing the draft again without each thing it rests on")
            try:
                found = why.explain(writer, job, None if row is None else decoded(row.content), first)
            except MemoryError:
                raise Busy(NO_MEMORY) from None
            rate = found.faithfulness.rate
            row = ExplanationRow(study_id, version, key, model.name, model.adapter, now(), rate, encoded(found))
            self._store.put_explanation(row)
            return row

        row, enough = answered()
        if row is None or not enough:
            say("Waiting for the language model")
            row = self._drafting.with_writer(work, cancelled)
        return view(row, state)

    def _drafted(self, study_id: str) -> tuple[ReportState, int | None, DraftModel | None]:
        """(working report, number of the version that holds its latest draft, what wrote that)."""
        state = self._store.report(study_id)
        drafts = [v for v in self._store.versions(study_id) if v.kind == "draft" and v.author != READER]
        return state, drafts[-1].number if drafts else None, drafts[-1].model if drafts else None


def digest(job: Job, model: DraftModel) -> str:
    """Names all that the redrafts are written from and what writes them."""
    pixels = b"" if job.picture is None else job.picture.tobytes()
    return encoding.digest(
        {
            "cards": [encoding.evidence_json(c) for c in job.cards],
            "priors": [asdict(p) for p in job.priors],
            "asked": [job.indication, job.modality, job.seed],
            "picture": hashlib.sha256(pixels).hexdigest(),
            "model": [model.name, model.adapter],
        }
    )


def encoded(explanation: Explanation) -> Json:
    """As JSON."""
    return {
        "statements": [encoding.statement_json(s) for s in explanation.statements],
        "effects": [asdict(e) for e in explanation.effects],
        "untried": [asdict(o) for o in explanation.untried],
    }


def decoded(content: Json) -> Explanation:
    """The inverse of `encoded`."""
    from core_models.drafting.drafter import Omission
    from core_models.drafting.why import Change, Effect, Explanation

    def effect(d: Json) -> Effect:
        changed, reworded = (tuple(Change(**c) for c in d[name]) for name in ("changed", "reworded"))
        return Effect(Omission(**d["omission"]), changed, tuple(d["gone"]), reworded, tuple(d["appeared"]))

    return Explanation(
        tuple(encoding.statement(s) for s in content["statements"]),
        tuple(effect(e) for e in content["effects"]),
        tuple(Omission(**o) for o in content["untried"]),
    )


def view(row: ExplanationRow, state: ReportState) -> Json:
    """The explanation on the report's own statements, as the routes answer it.

    A statement that the model would not write again word for word (the board changed, the reader edited it) has none.
    """
    from core_models.drafting.why import same

    found = decoded(row.content)
    drafted = [s for s in state.statements if s.origin == "model"]
    pairs = [(s, same(s, found.statements)) for s in drafted]
    return {
        "version": row.version,
        "model": row.model,
        "adapter": row.adapter,
        "created_at": row.created_at,
        "faithfulness": asdict(found.faithfulness),
        "elsewhere": asdict(found.elsewhere),
        "priors": asdict(found.priors),
        "image": asdict(found.image),
        "statements": {
            s.id: {"idle": list(found.idle(own)), "lines": [_line(e, own) for e in found.effects if _tells(e, own)]}
            for s, own in pairs
            if own is not None
        },
        "missing": [s.id for s, own in pairs if own is None],
        "appeared": [{"without": asdict(e.omission), "texts": list(e.appeared)} for e in found.effects if e.appeared],
        "untried": [asdict(o) for o in found.untried],
    }


def _tells(effect: Effect, statement: Statement) -> bool:
    """Whether a reader wants to know: of a card that the statement does not cite, only where it changes it."""
    return effect.omission.kind != "card" or effect.omission.id in statement.evidence or effect.touches(statement.id)


def _line(effect: Effect, statement: Statement) -> Json:
    line = {
        "without": asdict(effect.omission),
        "outcome": "gone" if statement.id in effect.gone else "same",
        "text": "",
    }
    for outcome in ("changed", "reworded"):
        for change in getattr(effect, outcome):
            if change.statement == statement.id:
                line |= {"outcome": outcome, "text": change.new}
    return line
