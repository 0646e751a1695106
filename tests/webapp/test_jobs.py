"""Jobs: one outcome each, cleanup in all of them, and a bounded queue."""

from __future__ import annotations

import threading

import pytest

from core_models.errors import Busy, NotFound, Refused, TooLarge
from webapp.jobs import REMEMBERED, Jobs


def _run(jobs: Jobs, work, **options):
    job = jobs.submit(work, **options)
    assert job.finished.wait(10)
    return job


def test_progress_and_result() -> None:
    jobs = Jobs()
    middle = threading.Event()
    go_on = threading.Event()

    def work(progress, cancelled):
        progress(3, 7, "Reading slices")
        middle.set()
        go_on.wait(10)
        return {"studies": ["a"]}

    job = jobs.submit(work)
    assert middle.wait(10)
    assert job.as_json() | {"id": ""} == {
        "id": "",
        "state": "running",
        "done": 3,
        "total": 7,
        "text": "Reading slices",
        "result": None,
        "error": "",
        "status": 0,
    }
    go_on.set()
    assert job.finished.wait(10)
    assert (job.state, job.result) == ("done", {"studies": ["a"]})


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (Refused("This is not a scan."), 422, "This is not a scan."),
        (TooLarge("Too many voxels."), 413, "Too many voxels."),
        (MemoryError(), 413, "There is not enough memory to read this scan."),
    ],
)
def test_a_failure_keeps_its_sentence_and_cleans_up(error: Exception, status: int, sentence: str) -> None:
    cleaned = threading.Event()

    def work(progress, cancelled):
        raise error

    job = _run(Jobs(), work, cleanup=cleaned.set)
    assert (job.state, job.status, job.error) == ("failed", status, sentence)
    assert cleaned.is_set()


def test_a_bug_is_not_shown() -> None:
    def work(progress, cancelled):
        raise KeyError("Doe^Jane")

    job = _run(Jobs(), work)
    assert (job.state, job.status) == ("failed", 500)
    assert "Jane" not in job.error


def test_cancel_stops_running_and_waiting_jobs() -> None:
    jobs = Jobs(workers=1)
    started = threading.Event()
    cleaned: list[str] = []

    def slow(progress, cancelled):
        from core_models.errors import Cancelled

        started.set()
        while not cancelled():
            threading.Event().wait(0.005)
        raise Cancelled("Stopped.")

    ran: list[str] = []
    first = jobs.submit(slow, cleanup=lambda: cleaned.append("first"))
    second = jobs.submit(lambda p, c: ran.append("second"), cleanup=lambda: cleaned.append("second"))
    assert started.wait(10)
    jobs.cancel(second.id)
    jobs.cancel(first.id)
    assert first.finished.wait(10)
    assert second.finished.wait(10)
    assert (first.state, second.state) == ("cancelled", "cancelled")
    assert ran == []
    assert cleaned == ["first", "second"]


def test_the_queue_is_bounded_and_a_refused_job_is_cleaned_up() -> None:
    jobs = Jobs(workers=1, waiting=1)
    started, go_on = threading.Event(), threading.Event()

    def hold(progress, cancelled):
        started.set()
        go_on.wait(10)

    jobs.submit(hold)
    assert started.wait(10)
    jobs.submit(hold)
    cleaned = threading.Event()
    with pytest.raises(Busy):
        jobs.submit(hold, cleanup=cleaned.set)
    assert cleaned.is_set()
    go_on.set()


def test_unknown_jobs_are_not_found_and_old_ones_are_forgotten() -> None:
    jobs = Jobs()
    with pytest.raises(NotFound):
        jobs.get("none")
    first = _run(jobs, lambda p, c: None)
    for _ in range(REMEMBERED + 1):
        _run(jobs, lambda p, c: None)
    with pytest.raises(NotFound):
        jobs.get(first.id)
