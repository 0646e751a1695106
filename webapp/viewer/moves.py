"""Moves on one segment's history, as they arrive → made one after the other, the newer ones taking the older along.

A move that comes while another of the same segment is computed or waits marks that one as overtaken: its computation
stops, its request is answered with `Cancelled`, and the newer move is made on a history that holds both.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from core_models.errors import Cancelled, Refused
from core_models.segmentation.history import History

OVERTAKEN = "Something newer came for this segment before this was answered; both count."


@dataclass(eq=False)
class Move:
    """One change of a history.

    Attributes:
        make: (history, whether a drawing lies beneath it) → the history after it; raises Refused.
        arrived: by the monotonic clock, in seconds.
        overtaken: set when a newer move of the same segment came.
        refused: why it could not be made when a newer move took it along.
    """

    make: Callable[[History, bool], History]
    arrived: float
    overtaken: threading.Event = field(default_factory=threading.Event)
    refused: Refused | None = None


class Moves:
    """The moves that have not been made yet, by segment.  `_lock` is held for no longer than a look at the table."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, list[Move]] = {}

    @contextlib.contextmanager
    def making(self, key: Hashable, move: Move) -> Iterator[None]:
        """Enter a move; when the block ends it and what came before it are done, unless something newer takes it."""
        with self._lock:
            waiting = self._waiting.setdefault(key, [])
            for older in waiting:
                older.overtaken.set()
            waiting.append(move)
        try:
            yield
        except Cancelled:
            if not move.overtaken.is_set():
                self._done(key, move)
                raise
            raise Cancelled(OVERTAKEN) from None
        except BaseException:
            self._done(key, move)
            raise
        self._done(key, move)

    def due(self, key: Hashable, move: Move) -> list[Move]:
        """The moves to make now, this one last.

        Raises:
            Cancelled: a newer one makes this move, or made it.
            Refused: a newer one tried to make it, and it could not be made.
        """
        with self._lock:
            waiting = list(self._waiting.get(key, ()))
        if move.refused is not None:
            raise move.refused
        if move not in waiting or move.overtaken.is_set():
            raise Cancelled(OVERTAKEN)
        return waiting[: waiting.index(move) + 1]

    def applied(self, waiting: list[Move], move: Move, history: History, based: bool) -> History:
        """The history after the waiting moves; an older one that cannot be made is left out.  Raises Refused."""
        for each in waiting:
            try:
                history = each.make(history, based)
            except Refused as e:
                if each is move:
                    raise
                each.refused = e
        return history

    def _done(self, key: Hashable, move: Move) -> None:
        with self._lock:
            waiting = self._waiting.get(key, [])
            if move in waiting:
                del waiting[: waiting.index(move) + 1]
            if not waiting:
                self._waiting.pop(key, None)
