"""Clicks in → stored segments out: prepared engines, prompt histories, measurements and suggested names.

Concurrency: `_lock` guards the small tables here and is never held while anything is computed; each series has one lock
under which its clicks are computed and stored one after the other.  The order is always series lock, then `_lock`.
Volumes are prepared by one background thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core_models.errors import Refused
from core_models.segmentation import registry
from core_models.segmentation.engine import Click, Engine, Mask, Segmentation
from core_models.segmentation.history import History
from core_models.study.volume import Volume

PREPARED_HELD = 2  # series whose engine state stays in memory
ANSWERS_BYTES = 64 * 2**20  # of recent masks kept, so that undo and redo need no computing


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


@dataclass(frozen=True)
class _Prepared:
    volume: Volume
    engine: Engine
    state: Any


class SegmentService:
    """The one place where a click becomes a stored segment.

    Args:
        store: rows, volumes and masks.
        on_change: called with the study's id after every stored change (measurement cards are refreshed there).
        engine_for: which engine segments a volume.
    """

    def __init__(
        self,
        store: SegmentStore,
        on_change: Callable[[str], None] | None = None,
        engine_for: Callable[[Volume], Engine] = registry.engine_for,
    ) -> None:
        self.store = store
        self.on_change = on_change
        self._engine_for = engine_for
        self._lock = threading.Lock()
        self._series_locks: dict[str, threading.Lock] = {}
        self._prepared: OrderedDict[str, Future[_Prepared]] = OrderedDict()
        self._answers: OrderedDict[tuple[str, tuple[Click, ...]], Segmentation] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prepare")

    # ---- preparing -------------------------------------------------------------------------------------------------

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

    def _ready(self, series_id: str) -> _Prepared:
        """Wait for the prepared series; asks again where other series pushed it out before its turn came."""
        while True:
            try:
                return self.prepare(series_id).result()
            except CancelledError:
                continue

    def _prepare(self, series_id: str) -> _Prepared:
        volume = self.store.volume(series_id)
        engine = self._engine_for(volume)
        return _Prepared(volume, engine, engine.prepare(volume))

    def _series_lock(self, series_id: str) -> threading.Lock:
        with self._lock:
            return self._series_locks.setdefault(series_id, threading.Lock())

    # ---- prompts ---------------------------------------------------------------------------------------------------

    def click(self, series_id: str, index: tuple[int, int, int], positive: bool, segment_id: str | None = None) -> Any:
        """Add a prompt at (i, j, k) to a segment, or begin a new one; returns its stored row.

        Raises:
            NotFound: no such series or segment.
            Refused: outside the volume, the segment is of another series, a first click that removes, or nothing found.
            Conflict: the study is signed.
        """
        study, series = self.store.series(series_id)
        depth, rows, columns = series.shape
        if not all(0 <= at < size for at, size in zip(index, (columns, rows, depth), strict=True)):
            raise Refused(f"The click at {tuple(index)} is outside the scan of {columns} × {rows} × {depth} voxels.")
        with self._series_lock(series_id):
            row = self.store.segment(segment_id) if segment_id is not None else None
            if row is not None and row.series_id != series_id:
                raise Refused("This segment belongs to another series; start a new one here.")
            history = History(row.clicks, row.undone) if row is not None else History()
            if not history.done and not positive and (row is None or not row.based):
                raise Refused("A segment begins with a click that adds; clicks that remove come after it.")
            row = self._store(study.id, series_id, row, history.add(Click(tuple(index), positive)))
        self._changed(study.id)
        return row

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
                clicks=(),
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
        """Take the latest prompt back; with none left the segment stays, so that redo can bring it back.

        What stays is what the model drew, or nothing where clicks alone made the segment.
        """
        return self._step(segment_id, History.undo)

    def redo(self, segment_id: str) -> Any:
        """Bring back the prompt undone last."""
        return self._step(segment_id, History.redo)

    def _step(self, segment_id: str, move: Callable[[History], History]) -> Any:
        series_id = self.store.segment(segment_id).series_id
        with self._series_lock(series_id):
            row = self.store.segment(segment_id)
            before = History(row.clicks, row.undone)
            after = move(before)
            if after == before:
                return row
            row = self._store(row.study_id, series_id, row, after)
        self._changed(row.study_id)
        return row

    def _store(self, study_id: str, series_id: str, row: Any | None, history: History) -> Any:
        """Compute what the history says and store it; called under the series' lock."""
        from core_models.segmentation.labels import suggest
        from core_models.segmentation.measure import measure

        prepared = self._ready(series_id)
        answer = self._answer(series_id, prepared, row, history.done)
        mask = answer.mask
        if row is None and mask.empty:
            raise Refused(answer.note or "Nothing was found at this click; click inside the structure.")
        values: dict[str, Any] = {
            "clicks": history.done,
            "undone": history.undone,
            "mask": mask,
            "confidence": answer.confidence,
            "note": answer.note,
            "measurement": None if mask.empty else asdict(measure(prepared.volume, mask)),
        }
        # A guessed name follows the mask until the reader has chosen one.
        if not mask.empty and (row is None or row.suggested):
            values |= {"label": answer.label or suggest(prepared.volume, mask).label, "suggested": True}
        if row is not None:
            return self.store.save_segment(row.id, **values)
        engine = prepared.engine
        return self.store.add_segment(study_id, series_id, engine=engine.name, engine_version=engine.version, **values)

    def _answer(self, series_id: str, prepared: _Prepared, row: Any | None, clicks: tuple[Click, ...]) -> Segmentation:
        """The mask of all the clicks, on what a model drew where the segment began so."""
        base = self.store.base(row.id) if row is not None and row.based else None
        if base is None:
            return self._segment(series_id, prepared, clicks)
        from webapp.viewer.drawn import corrected

        return corrected(
            prepared.volume, base, clicks, lambda some: self._segment(series_id, prepared, some), row.confidence
        )

    def _segment(self, series_id: str, prepared: _Prepared, clicks: tuple[Click, ...]) -> Segmentation:
        """The engine's answer to all the clicks, from memory where it was given lately."""
        if not clicks:
            return Segmentation(Mask((0, 0, 0), np.zeros((0, 0, 0), bool), prepared.volume.shape), 0.0, 0)
        key = (series_id, clicks)
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        answer = prepared.engine.segment(prepared.state, clicks)
        with self._lock:
            self._answers[key] = answer
            while sum(a.mask.voxels.nbytes for a in self._answers.values()) > ANSWERS_BYTES:
                self._answers.popitem(last=False)
        return answer

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
        """Remove a segment; returns its study's id.  Raises NotFound, Conflict."""
        row = self.store.segment(segment_id)
        with self._series_lock(row.series_id):
            self.store.delete_segment(segment_id)
        self._changed(row.study_id)
        return row.study_id

    def _changed(self, study_id: str) -> None:
        if self.on_change is not None:
            self.on_change(study_id)

    def close(self) -> None:
        """Let the background thread end after what it is doing."""
        self._worker.shutdown(wait=False, cancel_futures=True)
