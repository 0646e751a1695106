"""Work that may hang, die or be overtaken → its answer, or the error that says so, within a time limit.

Python cannot end a thread: work that does not stop when asked is left behind in a thread of its own, and what it used
must not be used again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from core_models.errors import Cancelled, ReadingRoomError, TimedOut

T = TypeVar("T")
LOOK_S = 0.05  # between two looks at whether it was cancelled or took too long
GRACE_S = 2.0  # for work that was told to stop


class Left(TimedOut):
    """It took too long and did not stop when asked: its thread still runs."""


def bounded(
    work: Callable[[Callable[[], bool]], T],
    cancelled: Callable[[], bool],
    limit_s: float,
    what: str,
    afterwards: Callable[[], object] = lambda: None,
) -> tuple[T, BaseException | None]:
    """Run `work(stop)` and answer (its result, None), or (None, what it raised that has no sentence of its own).

    Args:
        cancelled: asked between steps; `stop` answers True when it does, or when the time is over.
        what: a sentence's beginning ("The segmentation").
        afterwards: done by the work's own thread once it has ended, which nobody waits for.

    Raises:
        Cancelled: `cancelled` was answered True and the work stopped for it.
        TimedOut: it took longer than `limit_s`.
        ReadingRoomError: the work's own.
    """
    over = threading.Event()
    done = threading.Event()
    outcome: list[Any] = [None, None]

    def run() -> None:
        try:
            outcome[0] = work(lambda: over.is_set() or cancelled())
        except BaseException as e:  # handed to the caller, who tells a bug from a refusal
            outcome[1] = e
        done.set()
        afterwards()

    threading.Thread(target=run, name="segment", daemon=True).start()
    end = time.monotonic() + limit_s
    while not done.wait(LOOK_S):
        if time.monotonic() > end:
            over.set()
            if not done.wait(GRACE_S):
                raise Left(_late(what, limit_s))
    result, error = outcome
    if isinstance(error, Cancelled) and over.is_set() and not cancelled():
        raise TimedOut(_late(what, limit_s))
    if isinstance(error, ReadingRoomError):
        raise error
    return result, error


def _late(what: str, limit_s: float) -> str:
    return f"{what} took longer than {limit_s:g} s and was stopped; the segment stays as it was."
