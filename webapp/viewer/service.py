"""Prompts and edits in → stored segments out: prepared engines, histories, measurements and suggested names.

Concurrency: `_lock` guards the small tables here and is never held while anything is computed; each series has one lock
under which its masks are computed and stored one after the other.  The order is always series lock, then `_lock`.
Volumes are prepared by one background thread.  What a reader asks of one segment while an answer to an earlier request
is computed cancels that computation and is answered together with it, so that both count (`moves.Moves`).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Waited
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from core_models.errors import Busy, Cancelled, ModelMissing, NotFound, ReadingRoomError, Refused
from core_models.segmentation import registry
from core_models.segmentation.edits import Edit, Interpolation
from core_models.segmentation.engine import Alternative, Click, Engine, Mask, Prompt, Segmentation
from core_models.segmentation.history import Action, History, Step, begins
from core_models.study.volume import Volume
from webapp.errors import logged
from webapp.heap import give_back
from webapp.viewer.bounded import Left, bounded
from webapp.viewer.memory import Memory
from webapp.viewer.moves import OVERTAKEN, Move, Moves

PREPARED_HELD = 2  # series whose engine state stays in memory
ANSWERS_BYTES = 64 * 2**20  # of recent masks, packed, so that undo and redo need no computing
VERSIONS_BYTES = 32 * 2**20  # of masks as they were sent, packed, so that the next one goes as what changed
LIMIT_S = 60.0  # for one answer of an engine
LOOK_S = 0.1  # between two looks at whether a wait was cancelled
BY_HAND = "brush"  # the engine of a segment that has edits alone
BEGUN = 256  # new segments whose first request is remembered
FAILED = "The segmentation engine failed here; the segment stays as it was."
UNCHANGED = {  # what is no step where the mask stays as it was
    Interpolation: "Nothing lies between the painted slices: paint so that they overlap, and a slice apart.",
    Alternative: "There is no other answer here: what drew this has one alone, or both are the same.",
}
UNPREPARED = "The segmentation engine could not read this scan; the log holds the details."


class SegmentStore(Protocol):
    """What this service needs of `webapp.store.Store`."""

    def volume(self, series_id: str) -> Volume: ...
    def series(self, series_id: str) -> tuple[Any, Any]: ...
    def sources(self, series_id: str) -> tuple[Path, ...]: ...
    def segment(self, segment_id: str) -> Any: ...
    def segments(self, study_id: str) -> tuple[Any, ...]: ...
    def mask(self, segment_id: str) -> Mask: ...
    def base(self, segment_id: str) -> Mask | None: ...
    def add_segment(self, study_id: str, series_id: str, **values: Any) -> Any: ...
    def save_segment(self, segment_id: str, **values: Any) -> Any: ...
    def edit_segment(self, segment_id: str, **values: Any) -> Any: ...
    def delete_segment(self, segment_id: str) -> None: ...
    def restore_segment(self, segment_id: str) -> Any: ...


@dataclass(frozen=True)
class _Prepared:
    volume: Volume
    engine: Engine
    state: Any


class SegmentService:
    """The one place where a prompt or an edit becomes a stored segment.

    Args:
        store: rows, volumes and masks.
        on_change: called with the study's id after every stored change, by a thread of its own (measurement cards are
            refreshed there).
        engine_for: which engine segments a volume.
        limit_s: how long an engine may take for one answer.
    """

    def __init__(
        self,
        store: SegmentStore,
        on_change: Callable[[str], None] | None = None,
        engine_for: Callable[[Volume], Engine] = registry.engine_for,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.store = store
        self.on_change = on_change
        self._engine_for = engine_for
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._series_locks: dict[str, threading.Lock] = {}
        self._prepared: OrderedDict[str, Future[_Prepared]] = OrderedDict()
        self._answers = Memory(ANSWERS_BYTES)
        self._versions = Memory(VERSIONS_BYTES)
        self._moves = Moves()
        self._begun: OrderedDict[tuple[str, str], str] = OrderedDict()  # (series, the reader's word for it) → segment
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._teller = ThreadPoolExecutor(1, thread_name_prefix="changed")

    # ---- preparing -------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Load what every scan's engine needs, in the background, before the first scan is opened."""
        self._worker.submit(_load_engine)

    def prepare(self, series_id: str) -> Future[_Prepared]:
        """Begin preparing a series in the background, or join what is under way; returns at once."""
        with self._lock:
            future = self._prepared.get(series_id)
            if future is None or future.cancelled() or (future.done() and future.exception() is not None):
                future = self._prepared[series_id] = self._worker.submit(self._prepare, series_id)
            self._prepared.move_to_end(series_id)
            while len(self._prepared) > PREPARED_HELD:
                _, oldest = self._prepared.popitem(last=False)
                oldest.cancel()
            return future

    def _ready(self, series_id: str, cancelled: Callable[[], bool]) -> _Prepared:
        """Wait for the prepared series; asks again where other series pushed it out before its turn came."""
        end = time.monotonic() + self._limit_s
        while True:
            if cancelled():
                raise Cancelled(OVERTAKEN)
            try:
                return self.prepare(series_id).result(LOOK_S)
            except CancelledError:
                continue
            except Waited:
                if time.monotonic() > end:
                    raise Busy("The scan is still being prepared for the first click; try again in a moment.") from None
            except ReadingRoomError:
                raise
            except Exception as e:
                logged(e)
                raise ReadingRoomError(UNPREPARED) from e

    def _prepare(self, series_id: str) -> _Prepared:
        volume = self.store.volume(series_id)
        engine = self._engine_for(volume)
        ready = _Prepared(volume, engine, engine.prepare(volume))
        give_back()
        return ready

    def _series_lock(self, series_id: str) -> threading.Lock:
        with self._lock:
            return self._series_locks.setdefault(series_id, threading.Lock())

    # ---- prompts and edits -----------------------------------------------------------------------------------------

    def click(self, series_id: str, index: tuple[int, int, int], positive: bool, segment_id: str | None = None) -> Any:
        """Add a click at (i, j, k) to a segment, or begin a new one; as `add`."""
        return self.add(series_id, Click(tuple(index), positive), segment_id)

    def add(self, series_id: str, action: Action, segment_id: str | None = None, word: str = "") -> Any:
        """Add a prompt or an edit to a segment, or begin a new one; returns its stored row.

        Args:
            word: the reader's own word for a new segment, so that a second request joins the one that the first
                began or is about to begin.

        Raises:
            NotFound: no such series or segment.
            Refused: outside the volume, the segment is of another series, a first step that removes, nothing found.
            Conflict: the study is signed.
            Cancelled: something newer came for the segment before this was answered; both count.
            TimedOut, ReadingRoomError: the engine took too long or failed; the segment is as it was.
        """
        arrived = time.monotonic()
        study, series = self.store.series(series_id)
        self._check(series_id, series.shape, action)

        def move(history: History, based: bool) -> History:
            if not history.done and not based and not begins(action):
                raise Refused("A segment begins with a click that adds; clicks that remove come after it.")
            return history.add(Step(action))

        return self._do(study.id, series_id, segment_id, word, Move(move, arrived))

    def _check(self, series_id: str, shape: tuple[int, int, int], action: Action) -> None:
        depth, rows, columns = shape
        if isinstance(action, Click):
            if not all(0 <= at < size for at, size in zip(action.index, (columns, rows, depth), strict=True)):
                raise Refused(
                    f"The click at {action.index} is outside the scan of {columns} × {rows} × {depth} voxels."
                )
        elif isinstance(action, Edit):
            from core_models.segmentation.editing import checked

            checked(self.store.volume(series_id), action)
        else:
            from core_models.segmentation.prompts import as_clicks

            as_clicks(self.store.volume(series_id), (action,))

    def place(
        self, series_id: str, label: str, mask: Mask, *, engine: str, version: str, confidence: float, note: str = ""
    ) -> Any:
        """Store a structure that a model drew and named; one that the same model drew under that name stays as it is.

        Args:
            note: what a reader should know of it, a sentence.

        Raises:
            NotFound: no such series.
            Refused: the mask is empty or of another image.
            Conflict: the study is signed.
        """
        from core_models.segmentation.measure import measure

        study, _ = self.store.series(series_id)
        volume = self.store.volume(series_id)
        with self._series_lock(series_id):
            for row in self.store.segments(study.id):
                same = row.based and row.label.casefold() == label.casefold() and row.engine == engine
                if same and row.series_id == series_id:
                    return row
            row = self.store.add_segment(
                study.id,
                series_id,
                label=label,
                suggested=False,
                steps=(),
                mask=mask,
                engine=engine,
                engine_version=version,
                confidence=confidence,
                note=note,
                measurement=asdict(measure(volume, mask)),
                based=True,
            )
        self._changed(study.id)
        return row

    def undo(self, segment_id: str) -> Any:
        """Take the latest step back; with none left the segment stays, so that redo can bring it back.

        What stays is what the model drew, or nothing where the reader's steps alone made the segment.
        """
        return self._step(segment_id, lambda history, based: history.undo())

    def redo(self, segment_id: str) -> Any:
        """Bring back the step undone last."""
        return self._step(segment_id, lambda history, based: history.redo())

    def _step(self, segment_id: str, move: Callable[[History, bool], History]) -> Any:
        row = self.store.segment(segment_id)
        return self._do(row.study_id, row.series_id, segment_id, "", Move(move, time.monotonic()))

    def _do(self, study_id: str, series_id: str, segment_id: str | None, word: str, move: Move) -> Any:
        """Make a move on a segment's history, with what is still waiting for the same segment, and store the result."""
        segment_id = segment_id or self._begun.get((series_id, word))
        key = segment_id or (series_id, word or uuid.uuid4().hex)
        with self._moves.making(key, move), self._series_lock(series_id):
            waiting = self._moves.due(key, move)
            segment_id = segment_id or self._begun.get((series_id, word))  # begun while this one waited
            row = self.store.segment(segment_id) if segment_id is not None else None
            if row is not None and row.series_id != series_id:
                raise Refused("This segment belongs to another series; start a new one here.")
            before = History(row.steps, row.undone) if row is not None else History()
            after = self._moves.applied(waiting, move, before, row is not None and row.based)
            if after == before and row is not None:
                return row
            row, mask = self._store(study_id, series_id, row, before, after, move)
            if word:
                self._remember((series_id, word), row.id)
            self._versions.put_mask((row.id, row.version), mask)
        self._changed(study_id)
        return row

    def _remember(self, key: tuple[str, str], segment_id: str) -> None:
        with self._lock:
            self._begun[key] = segment_id
            while len(self._begun) > BEGUN:
                self._begun.popitem(last=False)

    def _store(
        self, study_id: str, series_id: str, row: Any | None, before: History, after: History, move: Move
    ) -> tuple[Any, Mask]:
        """Compute what the history says and store it; called under the series' lock.  Answers the row and its mask."""
        from core_models.segmentation.measure import measure
        from core_models.segmentation.settling import settled

        volume = self.store.volume(series_id)
        answer = self._answer(series_id, volume, row, before, after, move)
        mask = answer.mask
        if row is None and mask.empty:
            raise Refused(answer.note or "Nothing was found at this click; click inside the structure.")
        old = self._mask(row) if row is not None else None
        if len(after.done) > len(before.done) and after.done[-1].ms is None:
            gain = _gain(volume, old, mask)
            if gain == (0.0, 0.0) and (word := UNCHANGED.get(type(after.done[-1].action))):
                raise Refused(word)
            cost = replace(after.done[-1], ms=1000 * (time.monotonic() - move.arrived), unit=_unit(volume))
            after = History((*after.done[:-1], replace(cost, added=gain[0], removed=gain[1])), after.undone)
        values: dict[str, Any] = {
            "steps": after.done,
            "undone": after.undone,
            "mask": mask,
            "confidence": answer.confidence,
            "note": answer.note,
            "measurement": None if mask.empty else asdict(measure(volume, mask)),
            "hint": answer.hint,
            "settled": answer.settled or (_asked_for(old, before, after) and settled(old, mask)),
        }
        # A guessed name follows the mask until the reader has chosen one.
        if not mask.empty and (row is None or row.suggested):
            values |= (
                {"label": answer.label, "suggested": True} if answer.label else _suggested(volume, mask, answer.note)
            )
        if row is None or row.engine == BY_HAND:
            values |= self._maker(series_id, after, move)
        if row is None:
            return self.store.add_segment(study_id, series_id, **values), mask
        return self.store.save_segment(row.id, **values), mask

    def _maker(self, series_id: str, history: History, move: Move) -> dict[str, str]:
        """Who draws a segment: the series' engine where there is a prompt, else the reader."""
        if all(isinstance(action, Edit) for action in history.actions):
            return {"engine": BY_HAND, "engine_version": ""}
        engine = self._ready(series_id, move.overtaken.is_set).engine
        return {"engine": engine.name, "engine_version": engine.version}

    def _answer(
        self, series_id: str, volume: Volume, row: Any | None, before: History, after: History, move: Move
    ) -> Segmentation:
        """The mask of all the steps, on what a model drew where the segment began so."""
        from webapp.viewer.composed import composed, digests

        base = self.store.base(row.id) if row is not None and row.based else None
        keys = [(series_id, row.id if base is not None else "", d) for d in digests(after.actions)]
        stored = None
        if row is not None and before.done and after.actions[: len(before.done)] == before.actions:
            stored = len(before.done)

        def recall(number: int) -> Segmentation | None:
            if (known := self._answers.get(keys[number])) is not None:
                return known
            # What is stored is the answer to what was done so far, whoever computed it.
            if number == stored:
                label = row.label if row.suggested is True else ""  # the atlas' name is given anew
                return Segmentation(self._mask(row), row.confidence, number, row.note, row.hint, row.settled, label)
            return None

        return composed(
            volume,
            base,
            row.confidence if row is not None else 0.0,
            after.actions,
            lambda prompts: self._segment(series_id, prompts, move.overtaken.is_set),
            recall,
            lambda number, answer: self._answers.put(keys[number], answer),
        )

    def _segment(self, series_id: str, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool]) -> Segmentation:
        """The engine's answer to prompts alone, from memory where it was given lately.

        Raises:
            Cancelled, Refused, TimedOut; ReadingRoomError where the engine failed.
        """
        from webapp.viewer.composed import digests

        key = (series_id, "engine", digests(prompts)[-1])
        if (known := self._answers.get(key)) is not None:
            return known
        prepared = self._ready(series_id, cancelled)
        if not getattr(prepared.engine, "alternatives", False):
            prompts = tuple(p for p in prompts if not isinstance(p, Alternative))
        try:
            answer, error = bounded(
                lambda stop: prepared.engine.segment(prepared.state, prompts, stop),
                cancelled,
                self._limit_s,
                "The segmentation",
                give_back,
            )
        except Left:
            with self._lock:  # what hangs may still change it
                self._prepared.pop(series_id, None)
            raise
        if error is not None:
            logged(error)
            raise ReadingRoomError(FAILED) from error
        self._answers.put(key, answer)
        return answer

    def _mask(self, row: Any) -> Mask:
        """A stored mask, from memory where it was read or sent lately; called under the series' lock."""
        mask = self._versions.mask((row.id, row.version))
        return mask if mask is not None else self.store.mask(row.id)

    def mask(self, segment_id: str) -> tuple[str, Mask]:
        """A segment's mask and its version.  Raises NotFound."""
        row = self.store.segment(segment_id)
        while True:
            if (mask := self._versions.mask((row.id, row.version))) is not None:
                return row.version, mask
            mask, before = self.store.mask(segment_id), row
            row = self.store.segment(segment_id)
            if row.version == before.version:  # else it may be the mask of either
                self._versions.put_mask((row.id, row.version), mask)
                return row.version, mask

    def earlier(self, segment_id: str, version: str) -> Mask | None:
        """The mask as it was in that version, where it is still in memory."""
        return self._versions.mask((segment_id, version))

    # ---- name, looks, removal --------------------------------------------------------------------------------------

    def edit(
        self,
        segment_id: str,
        *,
        label: str | None = None,
        colour: str | None = None,
        visible: bool | None = None,
        outline: bool | None = None,
    ) -> Any:
        """Rename, recolour, show or hide, fill or outline.  Raises NotFound, Refused, Conflict."""
        if label is None:
            return self.store.edit_segment(segment_id, colour=colour, visible=visible, outline=outline)
        # Not while a click is computed: its guess would be stored over the reader's name.
        with self._series_lock(self.store.segment(segment_id).series_id):
            row = self.store.edit_segment(segment_id, label=label, colour=colour, visible=visible, outline=outline)
        self._changed(row.study_id)
        return row

    def delete(self, segment_id: str) -> str:
        """Take a segment away; returns its study's id.  Raises NotFound, Conflict."""
        row = self.store.segment(segment_id)
        with self._series_lock(row.series_id):
            self.store.delete_segment(segment_id)
        self._changed(row.study_id)
        return row.study_id

    def restore(self, segment_id: str) -> Any:
        """Bring a deleted segment back as it was.  Raises NotFound, Conflict."""
        row = self.store.restore_segment(segment_id)
        self._changed(row.study_id)
        return row

    def _changed(self, study_id: str) -> None:
        """Tell in the background: the overlay does not wait for the cards, and who reads cards refreshes them first."""
        if self.on_change is not None:
            self._teller.submit(self._tell, study_id)

    def _tell(self, study_id: str) -> None:
        try:
            self.on_change(study_id)
        except NotFound:
            pass  # the study was deleted meanwhile
        except Exception as e:
            logged(e)

    def told(self) -> None:
        """Wait until every change so far was told."""
        self._teller.submit(lambda: None).result()

    def close(self) -> None:
        """Let the background threads end after what they are doing."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._teller.shutdown()


def _load_engine() -> None:
    from core_models.segmentation import measure, watershed_engine  # noqa: F401  (what follows an answer too)
    from core_models.segmentation.naming import labels  # noqa: F401

    watershed_engine.ready()


def _asked_for(old: Mask | None, before: History, after: History) -> bool:
    """Whether what was done last is a new prompt that asked an engine for a change of the mask there was: a click that
    was on its side of it already did not, and that nothing changed says nothing of the next one."""
    if old is None or len(after.done) <= len(before.done):
        return False
    last = after.done[-1].action
    if isinstance(last, Click):
        at = tuple(c - o for c, o in zip(last.index[::-1], old.offset, strict=True))
        within = all(0 <= c < n for c, n in zip(at, old.voxels.shape, strict=True))
        return bool(within and old.voxels[at]) is not last.positive
    return not isinstance(last, Edit | Alternative)


def _unit(volume: Volume) -> str:
    if not volume.spacing_known:
        return "voxels"
    return "ml" if volume.shape[0] > 1 else "cm²"


def _suggested(volume: Volume, mask: Mask, note: str) -> dict[str, Any]:
    """Label and what it rests on; where the atlas is damaged the segment stays unnamed, and its note says why."""
    from core_models.segmentation.naming import labels

    try:
        found = labels.suggest(volume, mask)
    except ModelMissing as error:
        return {"label": labels.UNSURE.label, "suggested": True, "note": note or str(error)}
    return {"label": found.label, "suggested": found.basis or True}


def _gain(volume: Volume, old: Mask | None, new: Mask) -> tuple[float, float]:
    """What the new mask has and the old had not, and the other way round, in `_unit`."""
    from core_models.segmentation.editing import overlap

    common = overlap(old, new) if old is not None else 0
    added, removed = new.count - common, (old.count if old is not None else 0) - common
    one = {"ml": volume.voxel_ml, "cm²": volume.voxel_ml * 10 / volume.spacing[0], "voxels": 1.0}[_unit(volume)]
    return float(added * one), float(removed * one)
