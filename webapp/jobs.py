"""A function that takes a while → a job with progress, a result or one sentence, and a way to stop it.

Concurrency: `workers` threads take jobs from one bounded queue.  One lock guards the table of jobs; a job's own fields
are written by its worker alone, except `cancel`, an event that anyone may set.  Work never holds the lock.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from core_models.errors import Busy, Cancelled, NotFound, ReadingRoomError
from webapp.errors import logged

State = Literal["running", "done", "failed", "cancelled"]
WORKERS = 2
WAITING = 16  # jobs that may wait; the next one is told to come back
REMEMBERED = 200  # finished jobs whose outcome can still be asked for

Progress = Callable[[int, int, str], None]
Stopped = Callable[[], bool]
Work = Callable[[Progress, Stopped], Any]


@dataclass
class Job:
    """One run.  `work` gets (progress(done, total, text), cancelled()) and answers the JSON-able result."""

    id: str
    work: Work | None
    cleanup: Callable[[], None]
    state: State = "running"
    done: int = 0
    total: int = 0
    text: str = "Waiting"
    result: Any = None
    error: str = ""
    status: int = 0
    cancel: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "text": self.text,
            "result": self.result,
            "error": self.error,
            "status": self.status,
        }


class Jobs:
    """The queue and its workers; threads are daemons and start with the first job."""

    def __init__(self, workers: int = WORKERS, waiting: int = WAITING) -> None:
        self._queue: queue.Queue[Job] = queue.Queue(maxsize=waiting)
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._workers = workers
        self._started = False

    def submit(self, work: Work, cleanup: Callable[[], None] = lambda: None) -> Job:
        """Queue `work`; `cleanup` runs in every outcome, a full queue included.

        Raises:
            Busy: as many jobs as allowed are waiting already.
        """
        job = Job(secrets.token_urlsafe(12), work, cleanup)
        with self._lock:
            if not self._started:
                self._started = True
                for n in range(self._workers):
                    threading.Thread(target=self._run, name=f"job-{n}", daemon=True).start()
            self._jobs[job.id] = job
            self._forget()
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            with self._lock:
                self._jobs.pop(job.id, None)
            cleanup()
            raise Busy("Too many scans are being read at once: try again in a moment.") from None
        return job

    def get(self, job_id: str) -> Job:
        """The job. Raises NotFound."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFound("There is no such job; it may have finished long ago.")
        return job

    def cancel(self, job_id: str) -> Job:
        """Ask the job to stop at its next step; a job that is over stays as it is."""
        job = self.get(job_id)
        job.cancel.set()
        return job

    def _forget(self) -> None:
        over = [key for key, job in self._jobs.items() if job.finished.is_set()]
        for key in over[: max(0, len(over) - REMEMBERED)]:
            del self._jobs[key]

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            self._perform(job)

    def _perform(self, job: Job) -> None:
        def progress(done: int, total: int, text: str = "") -> None:
            job.done, job.total = int(done), int(total)
            if text:
                job.text = text

        work, job.work = job.work, None  # a finished job must not keep its inputs alive
        assert work is not None
        state: State = "failed"
        try:
            if job.cancel.is_set():
                raise Cancelled("The reader stopped it.")
            job.text = "Reading"
            job.result = work(progress, job.cancel.is_set)
            state = "done"
        except Cancelled as error:
            state, job.error, job.status = "cancelled", str(error), error.status
        except ReadingRoomError as error:
            job.error, job.status = str(error), error.status
        except MemoryError:
            job.error, job.status = "There is not enough memory to read this scan.", 413
        except Exception as error:
            job.error, job.status = logged(error), 500
        finally:
            try:
                job.cleanup()
            except Exception as error:
                logged(error)
            job.state = state  # last, so that whoever sees the end also sees the outcome and no leftovers
            job.finished.set()
