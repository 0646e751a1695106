"""Clicks at the same time, names and guesses, and what is computed again: the rules of the segment service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_models.errors import Cancelled, ModelMissing, ReadingRoomError, Refused
from core_models.segmentation.engine import Click, Mask, Prompt, Segmentation, never
from core_models.segmentation.naming import labels
from core_models.study.volume import Volume
from tests.viewer.harness import BoxEngine, Harness, ct

SOON = 10  # seconds; only a broken service waits so long
A, B = (20, 16, 8), (40, 30, 12)


class GatedEngine(BoxEngine):
    """A box engine that stops where it is told to, until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def prepare(self, volume: Volume) -> Volume:
        self._pass()
        return super().prepare(volume)

    def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
        self._pass(cancelled)
        return super().segment(prepared, clicks)

    def _pass(self, cancelled=never) -> None:
        if self.gate.is_set():
            return
        self.entered.release()
        end = time.monotonic() + SOON
        while not self.gate.wait(0.01):
            if cancelled():
                raise Cancelled("It was stopped.")
            assert time.monotonic() < end


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def harness(home: Path, engine: GatedEngine) -> Iterator[Harness]:
    made = Harness(home, engine)
    yield made
    engine.gate.set()
    made.close()


@pytest.fixture
def at_once() -> Iterator[Callable[..., Any]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def _clicks(row: Any) -> list[tuple[int, int, int]]:
    return [click.index for click in row.clicks]


def test_two_clicks_at_once_on_one_segment_are_both_kept(harness: Harness, engine: GatedEngine, at_once) -> None:
    series = harness.add(ct()).series[0].id
    segment = harness.service.click(series, A, True).id
    engine.gate.clear()
    first = at_once(harness.service.click, series, B, True, segment)
    assert engine.entered.acquire(timeout=SOON)
    second = at_once(harness.service.click, series, (10, 8, 4), True, segment)
    with pytest.raises(Cancelled, match="both count"):
        first.result(SOON)
    assert harness.store.segment(segment).clicks == (Click(A),), "nothing is stored of what was cancelled"
    engine.gate.set()
    assert _clicks(second.result(SOON)) == [A, B, (10, 8, 4)]
    mask = harness.store.mask(segment).full()
    assert all(mask[index[::-1]] for index in (A, B, (10, 8, 4)))


def test_two_new_segments_at_once_are_both_kept(harness: Harness, at_once) -> None:
    study = harness.add(ct())
    rows = [at_once(harness.service.click, study.series[0].id, index, True) for index in (A, B)]
    assert {row.result(SOON).number for row in rows} == {1, 2}
    assert len(harness.store.segments(study.id)) == 2


def test_with_the_last_click_undone_the_segment_stays_empty(harness: Harness) -> None:
    study = harness.add(ct())
    row = harness.service.click(study.series[0].id, A, True)
    empty = harness.service.undo(row.id)
    assert (empty.clicks, _undone(empty), empty.measurement) == ((), [A], None)
    assert harness.store.mask(row.id).empty
    assert harness.service.undo(row.id) == empty, "there is nothing more to take back"
    harness.service.told()
    assert harness.changes == [study.id] * 2
    assert harness.service.redo(row.id) == row


def _undone(row: Any) -> list[tuple[int, int, int]]:
    return [step.action.index for step in row.undone]


def test_a_click_after_an_undo_ends_what_could_be_redone(harness: Harness) -> None:
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    harness.service.undo(row.id)
    after = harness.service.click(series, B, True, row.id)
    assert (_clicks(after), after.undone) == ([B], ())


def test_an_emptied_segment_does_not_begin_with_a_click_that_removes(harness: Harness) -> None:
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    harness.service.undo(row.id)
    with pytest.raises(Refused, match="begins with a click that adds"):
        harness.service.click(series, B, False, row.id)


@pytest.fixture
def guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guessed name tells how many voxels the mask has."""
    monkeypatch.setattr(labels, "suggest", lambda volume, mask: labels.Suggestion(f"guess {mask.count}", 1.0))


@pytest.mark.usefixtures("guesses")
def test_a_guessed_name_follows_the_mask_until_the_reader_names_it(harness: Harness) -> None:
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    assert (row.label, row.suggested) == ("guess 75", True)
    row = harness.service.click(series, B, True, row.id)
    assert row.label == "guess 150"
    harness.service.edit(row.id, label="liver")
    row = harness.service.click(series, (10, 8, 4), True, row.id)
    assert (row.label, row.suggested) == ("liver", False)
    assert harness.service.undo(row.id).label == "liver"


def test_what_a_guess_rests_on_is_kept_until_the_reader_names_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = labels.Suggestion("spleen", 0.83, "position, HU and shape, 83 %")
    monkeypatch.setattr(labels, "suggest", lambda volume, mask: found)
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    assert (row.label, row.suggested) == ("spleen", found.basis)
    monkeypatch.setattr(labels, "suggest", lambda volume, mask: labels.UNSURE)
    row = harness.service.click(series, B, True, row.id)
    assert (row.label, row.suggested) == ("structure", True)
    harness.service.edit(row.id, label="spleen")
    assert harness.store.segment(row.id).suggested is False


def test_a_damaged_atlas_stops_no_click_and_is_told(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(volume, mask):
        raise ModelMissing("The atlas is damaged.")

    monkeypatch.setattr(labels, "suggest", damaged)
    row = harness.service.click(harness.add(ct()).series[0].id, A, True)
    assert (row.label, row.suggested, row.note) == ("structure", True, "The atlas is damaged.")
    assert not harness.store.mask(row.id).empty


@pytest.mark.usefixtures("guesses")
def test_a_name_given_while_a_click_is_computed_stays(harness: Harness, engine: GatedEngine, at_once) -> None:
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    engine.gate.clear()
    click = at_once(harness.service.click, series, B, True, row.id)
    assert engine.entered.acquire(timeout=SOON)
    named = at_once(harness.service.edit, row.id, label="liver")
    shown = at_once(harness.service.edit, row.id, visible=False)
    assert shown.result(SOON).visible is False, "looks do not wait"
    engine.gate.set()
    click.result(SOON), named.result(SOON)
    row = harness.store.segment(row.id)
    assert (row.label, row.suggested, len(row.clicks)) == ("liver", False, 2)


def test_the_engine_is_asked_once_for_each_set_of_clicks(harness: Harness, engine: GatedEngine) -> None:
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    harness.service.click(series, B, True, row.id)
    for move in ("undo", "undo", "redo", "redo", "undo"):
        getattr(harness.service, move)(row.id)
    assert engine.segmented == [(Click(A),), (Click(A), Click(B))]
    assert engine.prepared == 1


def test_another_series_gets_its_own_answer_to_the_same_click(harness: Harness, engine: GatedEngine) -> None:
    one, other = harness.add(ct(), ct((9, 40, 60))).series
    assert harness.service.click(one.id, (59, 39, 8), True).box == (57, 37, 7, 3, 3, 3)
    assert harness.service.click(other.id, (59, 39, 8), True).box == (57, 37, 7, 3, 3, 2)
    assert engine.prepared == 2


def test_a_click_outlives_that_other_series_push_its_own_out_of_the_queue(
    harness: Harness, engine: GatedEngine, at_once
) -> None:
    series = [row.id for row in harness.add(*(ct((6, 40, 60)) for _ in range(4))).series]
    engine.gate.clear()
    harness.service.prepare(series[0])
    assert engine.entered.acquire(timeout=SOON)
    click = at_once(harness.service.click, series[1], (20, 16, 3), True)
    while series[1] not in harness.service._prepared:
        assert not click.done()
    harness.service.prepare(series[2])
    harness.service.prepare(series[3])
    assert series[1] not in harness.service._prepared
    engine.gate.set()
    assert click.result(SOON).number == 1


def test_a_failure_to_prepare_is_not_kept(home: Path) -> None:
    engines = iter([None, BoxEngine()])
    harness = Harness(home, engine_for=lambda volume: next(engines))
    series = harness.add(ct()).series[0].id
    with pytest.raises(ReadingRoomError, match="could not read this scan"):
        harness.service.click(series, A, True)
    assert harness.service.click(series, A, True).number == 1
    harness.close()


class StubbornEngine(BoxEngine):
    """The same box whatever is clicked."""

    def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
        return super().segment(prepared, clicks[:1])


@pytest.mark.parametrize(
    ("index", "positive", "settled"),
    [(A, False, True), (B, True, True), (B, False, False), (A, True, False)],
    ids=["removes inside", "adds outside", "removes outside", "adds inside"],
)
def test_that_another_click_will_hardly_help_is_said_of_one_that_asked_for_a_change(
    home: Path, index: tuple[int, int, int], positive: bool, settled: bool
) -> None:
    harness = Harness(home, StubbornEngine())
    series = harness.add(ct()).series[0].id
    first = harness.service.click(series, A, True)
    assert not first.settled
    assert harness.service.click(series, index, positive, first.id).settled is settled
    harness.close()


def test_where_the_engine_finds_nothing_no_segment_begins(home: Path) -> None:
    class Nothing(BoxEngine):
        def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
            return Segmentation(Mask.from_full(np.zeros(prepared.shape, bool)), 0.0, 0, "That is outside the body.")

    harness = Harness(home, Nothing())
    study = harness.add(ct())
    with pytest.raises(Refused, match="outside the body"):
        harness.service.click(study.series[0].id, A, True)
    assert harness.store.segments(study.id) == ()
    harness.service.told()
    assert harness.changes == []
    harness.close()
