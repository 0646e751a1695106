"""A study's cards and priors → a draft, streamed as events while it is written, and stored when it ends.

Concurrency: one draft is written at a time (`_turn`); a few more may wait, the rest are told to come back.  Each draft
runs in its own thread and pushes its events to a queue; whoever listens may leave, which stops it.  The language model
is loaded once, by the first draft, while it holds the turn.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from core_models.drafting.evidence import Draft, DraftModel, Statement
from core_models.errors import Busy, Cancelled, Conflict, ReadingRoomError
from webapp.board import Board
from webapp.errors import logged
from webapp.eyes import EyesService
from webapp.priors import Priors
from webapp.report import Reports
from webapp.settings import Settings
from webapp.store import Store

if TYPE_CHECKING:
    from core_models.drafting.drafter import Job

T = TypeVar("T")
WAIT_S = 30.0  # for the draft before; then the reader is told to try again
WAITING = 4
TICK_S = 0.1

Json = dict[str, Any]
END = None  # the queue's last item


class Writer(Protocol):
    """What is asked of `core_models.drafting.drafter.Drafter`."""

    def stream(self, job: Job, cancelled: Callable[[], bool]) -> Iterator[Any]: ...

    def many(self, jobs: Sequence[Job]) -> list[Draft]: ...


@dataclass
class Run:
    """One draft under way: its events, and the switch that stops it."""

    study_id: str
    events: queue.Queue[tuple[str, Json] | None] = field(default_factory=queue.Queue)
    cancel: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


class Drafting:
    """Starts, streams and stops drafts."""

    def __init__(
        self,
        store: Store,
        board: Board,
        priors: Priors,
        reports: Reports,
        load: Callable[[], Writer],
        eyes: EyesService,
    ):
        self._store, self._board, self._priors, self._reports = store, board, priors, reports
        self._load, self._eyes = load, eyes
        self._writer: Writer | None = None
        self._turn = threading.Lock()
        self._lock = threading.Lock()  # guards _runs
        self._runs: dict[str, Run] = {}

    def start(self, study_id: str, *, search: bool = True, seed: int = 0) -> Run:
        """Begin a draft in the background.

        Args:
            search: look for similar reports first.

        Raises:
            NotFound; Conflict: signed, or a draft of this study is under way; Busy: too many are waiting.
        """
        if self._store.study(study_id).state == "signed":
            raise Conflict("This study is signed and may not change; write an addendum instead.")
        run = Run(study_id)
        with self._lock:
            if study_id in self._runs:
                raise Conflict("A draft of this study is being written already: wait for it or stop it.")
            if len(self._runs) >= WAITING:
                raise Busy("Too many drafts are waiting: try again in a moment.")
            self._runs[study_id] = run
        threading.Thread(target=self._run, args=(run, search, seed), name="draft", daemon=True).start()
        return run

    def stop(self, study_id: str, wait_s: float = 10.0) -> bool:
        """Stop the study's draft and wait until what is finished of it is stored; whether there was one."""
        with self._lock:
            run = self._runs.get(study_id)
        if run is None:
            return False
        run.cancel.set()
        run.finished.wait(wait_s)
        return True

    def job(self, study_id: str, seed: int = 0) -> Job:
        """All that a draft of the study is made from, as it is now.  Raises NotFound."""
        from core_models.drafting.drafter import Job

        study = self._store.study(study_id)
        return Job(
            cards=tuple(c for c in self._store.evidence(study_id) if c.status != "rejected"),
            priors=tuple(prior_texts(self._store, study_id)),
            indication=study.indication,
            modality=study.modality,
            picture=self._eyes.picture(study_id),
            seed=seed,
        )

    def with_writer(self, work: Callable[[Writer], T], cancelled: Callable[[], bool] = lambda: False) -> T:
        """Call `work` with the loaded model while no draft is written.

        Raises:
            Busy: a draft does not end in time; ModelMissing: the model is not there; what `work` raises.
        """
        self._wait(cancelled, lambda: None)
        try:
            if self._writer is None:
                self._writer = self._load()
            return work(self._writer)
        finally:
            self._turn.release()

    def forget(self) -> None:
        """Let go of the loaded model: the next draft loads the adapter that is in use then."""
        with self._turn:
            self._writer = None

    def _run(self, run: Run, search: bool, seed: int) -> None:
        try:
            self._wait(
                run.cancel.is_set, lambda: run.events.put(("status", {"text": "Waiting for another draft to end"}))
            )
            try:
                self._write(run, search, seed)
            finally:
                self._turn.release()
        except Cancelled:
            run.events.put(("done", {"complete": False, "report": None, "warnings": []}))
        except ReadingRoomError as error:
            run.events.put(("error", {"error": str(error), "status": error.status}))
        except MemoryError:
            run.events.put(("error", {"error": "There is not enough memory to write a draft.", "status": 503}))
        except Exception as error:
            run.events.put(("error", {"error": logged(error), "status": 500}))
        finally:
            with self._lock:
                self._runs.pop(run.study_id, None)
            run.finished.set()
            run.events.put(END)

    def _wait(self, cancelled: Callable[[], bool], tell: Callable[[], None]) -> None:
        """Take the turn.  Raises Cancelled, Busy."""
        deadline = time.monotonic() + WAIT_S
        told = False
        while not self._turn.acquire(timeout=TICK_S):
            if cancelled():
                raise Cancelled("The draft was stopped.")
            if time.monotonic() > deadline:
                raise Busy("Another draft is being written: try again in a moment.")
            if not told:
                tell()
                told = True

    def _write(self, run: Run, search: bool, seed: int) -> None:
        self._read_images(run)
        self._board.sync(run.study_id)
        warnings = self._search(run) if search else []
        if self._writer is None:
            run.events.put(("status", {"text": "Loading the language model"}))
            self._writer = self._load()
        if run.cancel.is_set():
            raise Cancelled("The draft was stopped.")
        run.events.put(("status", {"text": "Writing"}))
        finished: list[Statement] = []
        model: DraftModel | None = None
        unseen: tuple[str, ...] = ()
        draft = None
        kinds = _event_kinds()
        stream = self._writer.stream(self.job(run.study_id, seed), run.cancel.is_set)
        failure: Exception | None = None
        try:
            for event in stream:
                if isinstance(event, kinds.Started):
                    model = replace(event.model, index_digest=self._priors.digest)
                    unseen = (*event.unseen, *self._eyes.unseen(run.study_id))
                    run.events.put(("start", {"model": asdict(model), "unseen": list(unseen)}))
                elif isinstance(event, kinds.Partial):
                    run.events.put(("step", _step_json(event)))
                    run.events.put(("statement", _partial_json(event)))
                elif isinstance(event, kinds.Finished):
                    finished.append(event.statement)
                    run.events.put(("finished", asdict(event.statement)))
                elif isinstance(event, kinds.Done):
                    draft = event.draft
        except Cancelled:
            pass
        except Exception as error:  # what was finished before the model failed is still worth keeping
            failure = error
        if draft is not None:
            finished = list(draft.statements)
            warnings = [*warnings, *draft.warnings]
        report = None
        if finished and model is not None:
            from webapp.routes import shapes

            # Word for word from a prior: said so, since it was written about another patient.
            finished = list(self._priors.mark_copied(finished, self._store.priors(run.study_id)))
            report = shapes.report(*self._reports.merge_draft(run.study_id, finished, model, unseen))
        if failure is not None:
            raise failure
        run.events.put(
            (
                "done",
                {
                    "report": report,
                    "complete": bool(draft and draft.complete),
                    "warnings": warnings,
                    "seconds": draft.seconds if draft else None,
                    "tokens": draft.tokens if draft else None,
                },
            )
        )

    def _read_images(self, run: Run) -> None:
        """The findings on the image before the draft that is written from them; what cannot be read is in `unseen`."""
        if any(not look.over for look in self._eyes.look(run.study_id)):
            run.events.put(("status", {"text": "Reading the image"}))
            self._eyes.wait(run.study_id, run.cancel.is_set, seconds=WAIT_S)
            run.events.put(("evidence", {}))
        if run.cancel.is_set():
            raise Cancelled("The draft was stopped.")

    def _search(self, run: Run) -> list[str]:
        """Similar reports before the draft; without an index the draft is written all the same, and says so."""
        run.events.put(("status", {"text": "Looking for similar reports"}))
        try:
            found = self._priors.find(run.study_id)
        except Conflict:
            raise
        except ReadingRoomError as error:
            run.events.put(("warning", {"text": str(error)}))
            return [f"Similar reports were not searched: {error}"]
        run.events.put(("evidence", {}))
        if found.sentence:
            run.events.put(("warning", {"text": found.sentence}))
        return [found.sentence] if found.sentence else []


def _step_json(event: Any) -> Json:
    step = event.step
    return {
        "id": event.statement_id,
        "considered": list(step.considered) if step else list(event.evidence),
        "follows": step.follows if step else "",
    }


def _partial_json(event: Any) -> Json:
    return {
        "id": event.statement_id,
        "section": event.section,
        "region": event.region,
        "evidence": list(event.evidence),
        "text": event.text,
    }


def _event_kinds() -> Any:
    from core_models.drafting import drafter

    return drafter


def prior_texts(store: Store, study_id: str) -> list[Any]:
    """The priors that are close, do not contradict the board and were not rejected, as the drafter takes them."""
    from core_models.drafting.drafter import PriorText

    return [
        PriorText(
            id=row.evidence.id,
            findings=row.prior.report.findings,
            impression=row.prior.report.impression,
            terms=row.prior.report.terms,
            matched=row.prior.matched,
            said=row.prior.said,
        )
        for row in store.priors(study_id)
        if row.evidence.status != "rejected" and row.prior.close and row.prior.stance != "contradicts"
    ]


def loader(settings: Settings) -> Callable[[], Writer]:
    """A function that loads the language model with its adapter; torch is imported when it is called."""

    def load() -> Writer:
        from core_models.drafting import promotion, writers

        own = settings.writer in ("", writers.EMBEDDED)
        adapter = promotion.resolve(settings.home, settings.adapter) if own or settings.adapter else None
        return writers.open_writer(
            settings.writer,
            settings.models,
            adapter,
            settings.threads,
            key=settings.writer_key,
            allow_remote=settings.writer_allow_remote,
        )

    return load
