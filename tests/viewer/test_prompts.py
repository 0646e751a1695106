"""Prompts and edits of every kind in one history: what is stored, cancelled, taken back and refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_models.errors import Cancelled, ReadingRoomError, Refused, TimedOut
from core_models.segmentation.editing import painted
from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import (
    Alternative,
    Box,
    Click,
    Lasso,
    Mask,
    Prompt,
    Scribble,
    Segmentation,
    never,
)
from core_models.segmentation.history import Step
from core_models.segmentation.watershed_engine import WatershedEngine
from core_models.study.volume import Volume
from tests.viewer.harness import BoxEngine, Harness, TwoBoxEngine, ct
from tests.viewer.test_service import SOON, GatedEngine

A, B, C = (20, 16, 8), (40, 30, 12), (10, 8, 4)
LASSO = Lasso(((10, 10, 5), (20, 10, 5), (20, 20, 5), (10, 20, 5)))


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
def series(harness: Harness) -> str:
    return harness.add(ct()).series[0].id


@pytest.fixture
def at_once() -> Iterator[Callable[..., Any]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def actions(row: Any) -> list[Any]:
    return [step.action for step in row.steps]


def full(harness: Harness, row: Any) -> np.ndarray:
    return harness.store.mask(row.id).full()


# ---- every kind ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [Scribble(((10, 10, 5), (25, 10, 5))), Box((10, 10, 5), (20, 20, 5)), Box((10, 10, 3), (20, 20, 7)), LASSO],
)
def test_a_segment_begins_with_any_prompt_and_is_stored_with_it(harness: Harness, series: str, prompt: Prompt) -> None:
    row = harness.service.add(series, prompt)
    assert actions(harness.store.segment(row.id)) == [prompt]
    assert full(harness, row).any()
    assert harness.engine.segmented == [(prompt,)], "the engine gets it as it was drawn"
    assert full(harness, harness.service.undo(row.id)).sum() == 0
    assert np.array_equal(full(harness, harness.service.redo(row.id)), full(harness, row))


def test_each_step_tells_its_cost_and_its_gain(harness: Harness, series: str) -> None:
    row = harness.service.click(series, A, True)
    row = harness.service.add(series, Stroke((A,), 30.0, 2, False), row.id)
    first, second = row.steps
    one = 75 * 0.8 * 0.9 * 2.5 / 1000
    assert (first.added, first.removed, first.unit) == (pytest.approx(one), 0.0, "ml")
    assert (second.added, second.removed) == (0.0, pytest.approx(one / 3))
    assert first.ms > 0
    assert harness.store.segment(row.id).steps == row.steps


def test_a_flat_image_gains_area_and_one_without_spacing_voxels(harness: Harness) -> None:
    flat = Volume(np.zeros((1, 40, 60), np.int16), np.diag([0.5, 0.5, 1, 1]), modality="DX")
    unknown = Volume(ct().array, np.eye(4), spacing_known=False)
    for volume, gain in ((flat, (25 * 0.25 / 100, "cm²")), (unknown, (75.0, "voxels"))):
        study = harness.add(volume, uid=f"2.25.{gain[1]}")
        step = harness.service.click(study.series[0].id, (20, 16, 0 if volume is flat else 8), True).steps[0]
        assert (step.added, step.unit) == (pytest.approx(gain[0]), gain[1])


# ---- painting --------------------------------------------------------------------------------------------------------


def test_what_is_painted_asks_no_engine_and_is_exact(harness: Harness, series: str) -> None:
    strokes = [Stroke(((20, 16, k), (26, 16, k)), 3.0) for k in (5, 9)]
    row = harness.service.add(series, strokes[0])
    row = harness.service.add(series, strokes[1], row.id)
    assert np.array_equal(full(harness, row), painted(ct(), strokes[0]).full() | painted(ct(), strokes[1]).full())
    row = harness.service.add(series, Interpolation(2), row.id)
    filled = full(harness, row)
    assert [bool(filled[k, 16, 23]) for k in range(4, 11)] == [False, True, True, True, True, True, False]
    assert (harness.engine.prepared, harness.engine.segmented) == (0, [])
    assert (row.engine, row.confidence) == ("brush", 1.0)
    row = harness.service.undo(row.id)
    assert not full(harness, row)[7].any()


def test_painting_on_a_clicked_segment_after_a_restart_asks_no_engine(home: Path) -> None:
    harness = Harness(home)
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    before = full(harness, row)
    harness.close()
    again = Harness(home)
    stroke = Stroke(((30, 16, 8),), 2.0)
    row = again.service.add(series, stroke, row.id)
    assert np.array_equal(full(again, row), before | painted(ct(), stroke).full())
    assert again.engine.segmented == []
    again.close()


def test_a_click_after_painting_acts_on_what_was_painted(harness: Harness, series: str) -> None:
    stroke = Stroke((A,), 6.0)
    row = harness.service.add(series, stroke)
    row = harness.service.click(series, B, True, row.id)
    mask = full(harness, row)
    assert mask[B[::-1]]
    assert np.array_equal(mask[8], painted(ct(), stroke).full()[8])
    assert row.engine == "box", "now an engine has drawn part of it"
    row = harness.service.click(series, (22, 16, 8), False, row.id)
    assert not full(harness, row)[8, 16, 22]
    assert full(harness, row)[B[::-1]]
    for _ in range(3):
        row = harness.service.undo(row.id)
    assert harness.store.mask(row.id).empty
    for _ in range(3):
        row = harness.service.redo(row.id)
    assert not full(harness, row)[8, 16, 22]


def test_an_edit_between_clicks_parts_them(harness: Harness, series: str) -> None:
    row = harness.service.click(series, A, True)
    row = harness.service.add(series, Stroke((A,), 1.5, 2, False), row.id)
    row = harness.service.click(series, B, True, row.id)
    assert not full(harness, row)[A[::-1]], "what was erased stays erased"
    assert harness.engine.segmented == [(Click(A),), (Click(B),)]


@pytest.mark.parametrize("edit", [Stroke((A,), 3.0, 2, False), Grow(A, -1000, 1000, False), Interpolation(2)])
def test_a_segment_does_not_begin_with_what_takes_away(harness: Harness, series: str, edit: Any) -> None:
    with pytest.raises(Refused, match="begins with"):
        harness.service.add(series, edit)


def test_nothing_to_fill_in_is_refused_and_not_kept(harness: Harness, series: str) -> None:
    row = harness.service.add(series, Stroke((A,), 3.0))
    with pytest.raises(Refused, match="at least two slices"):
        harness.service.add(series, Interpolation(2), row.id)
    row = harness.service.add(series, Stroke(((50, 35, 12),), 3.0), row.id)
    with pytest.raises(Refused, match="Nothing lies between"):
        harness.service.add(series, Interpolation(2), row.id)
    assert len(harness.store.segment(row.id).steps) == 2


def test_the_other_answer_is_a_step_of_its_own_and_a_second_one_goes_back(home: Path) -> None:
    harness = Harness(home, TwoBoxEngine())
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    first = full(harness, row)
    row = harness.service.add(series, Alternative(), row.id)
    assert actions(harness.store.segment(row.id)) == [Click(A), Alternative()]
    assert np.array_equal(full(harness, row), np.roll(first, 1, 0))
    assert (row.steps[-1].added, row.steps[-1].removed) == pytest.approx((25 * 0.8 * 0.9 * 2.5 / 1000,) * 2)
    row = harness.service.click(series, B, True, row.id)
    assert harness.engine.segmented[-1] == (Click(A), Alternative(), Click(B)), "what comes after builds on it"
    row = harness.service.add(series, Alternative(), harness.service.undo(row.id).id)
    assert np.array_equal(full(harness, row), first)
    assert np.array_equal(full(harness, harness.service.undo(row.id)), np.roll(first, 1, 0))
    harness.close()


def test_the_other_answer_is_refused_where_there_is_none(harness: Harness, series: str, home: Path) -> None:
    row = harness.service.click(series, A, True)
    with pytest.raises(Refused, match="no other answer"):
        harness.service.add(series, Alternative(), row.id)
    assert harness.engine.segmented[-1] == (Click(A),), "an engine that knows of none never sees it"
    two = Harness(home / "two", TwoBoxEngine())
    series = two.add(ct()).series[0].id
    row = two.service.click(series, A, True)
    row = two.service.add(series, Stroke((B,), 3.0), row.id)
    with pytest.raises(Refused, match="no other answer"):
        two.service.add(series, Alternative(), row.id)
    assert len(two.store.segment(row.id).steps) == 2
    with pytest.raises(Refused, match="begins with"):
        two.service.add(series, Alternative())
    two.close()


def test_a_range_grows_in_all_directions(harness: Harness, series: str) -> None:
    values = ct().array
    at = (45, 9, 17)
    row = harness.service.add(series, Grow(at, float(values[at[::-1]]), 3000.0))
    mask = full(harness, row)
    assert mask[at[::-1]]
    assert (values[mask] >= values[at[::-1]]).all()
    assert mask.any(axis=(1, 2)).sum() > 1


# ---- cancelled -------------------------------------------------------------------------------------------------------


def test_a_second_click_on_a_new_segment_joins_the_first(harness: Harness, engine, series: str, at_once) -> None:
    harness.service.prepare(series).result(SOON)
    engine.gate.clear()
    first = at_once(harness.service.add, series, Click(A), None, "word")
    assert engine.entered.acquire(timeout=SOON)
    second = at_once(harness.service.add, series, Click(B), None, "word")
    with pytest.raises(Cancelled, match="both count"):
        first.result(SOON)
    engine.gate.set()
    row = second.result(SOON)
    assert actions(row) == [Click(A), Click(B)]
    assert [step.ms is None for step in row.steps] == [True, False], "the cost is told with the last of them"
    third = harness.service.add(series, Click(C), None, "word")
    assert (third.id, actions(third)) == (row.id, [Click(A), Click(B), Click(C)])
    assert len(harness.store.segments(row.study_id)) == 1


def test_undo_stops_what_is_computed_and_takes_it_back(harness: Harness, engine, series: str, at_once) -> None:
    row = harness.service.click(series, A, True)
    engine.gate.clear()
    click = at_once(harness.service.click, series, B, True, row.id)
    assert engine.entered.acquire(timeout=SOON)
    after = harness.service.undo(row.id)
    with pytest.raises(Cancelled):
        click.result(SOON)
    assert actions(after) == [Click(A)]
    engine.gate.set()
    assert actions(harness.service.redo(row.id)) == [Click(A), Click(B)]


def test_a_click_on_another_segment_cancels_nothing(harness: Harness, engine, series: str, at_once) -> None:
    rows = [harness.service.click(series, index, True) for index in (A, B)]
    engine.gate.clear()
    clicks = [at_once(harness.service.click, series, C, True, row.id) for row in rows]
    assert engine.entered.acquire(timeout=SOON)
    engine.gate.set()
    assert [actions(click.result(SOON))[-1] for click in clicks] == [Click(C)] * 2


def test_what_was_refused_does_not_come_back_with_the_next(harness: Harness, series: str) -> None:
    row = harness.service.click(series, A, True)
    with pytest.raises(Refused):
        harness.service.click(series, (0, 0, 99), True, row.id)
    assert actions(harness.service.click(series, B, True, row.id)) == [Click(A), Click(B)]


# ---- engines that fail -----------------------------------------------------------------------------------------------


class Failing(BoxEngine):
    """A box engine that fails as it is told."""

    fails: Callable[[], None] | None = None

    def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
        if self.fails:
            self.fails(cancelled)
        return super().segment(prepared, clicks)


def dies(cancelled) -> None:
    raise MemoryError("no more")


def stops_when_asked(cancelled) -> None:
    while not cancelled():
        time.sleep(0.01)
    raise Cancelled("It was stopped.")


def hangs(cancelled) -> None:
    time.sleep(1.0)


@pytest.mark.parametrize(
    ("fails", "error", "words"),
    [
        (dies, ReadingRoomError, "engine failed here; the segment stays as it was"),
        (stops_when_asked, TimedOut, r"longer than 0.2 s and was stopped; the segment stays as it was"),
        (hangs, TimedOut, r"longer than 0.2 s"),
    ],
)
def test_after_a_failure_the_mask_stays_and_undo_works(home, monkeypatch, fails, error, words: str) -> None:
    monkeypatch.setattr("webapp.viewer.bounded.GRACE_S", 0.1)
    engine = Failing()
    harness = Harness(home, engine, limit_s=0.2)
    series = harness.add(ct()).series[0].id
    row = harness.service.click(series, A, True)
    row = harness.service.click(series, B, True, row.id)
    before = full(harness, row)
    engine.fails = fails
    with pytest.raises(error, match=words):
        harness.service.click(series, C, True, row.id)
    assert harness.store.segment(row.id) == row
    assert np.array_equal(full(harness, row), before)
    assert actions(harness.service.undo(row.id)) == [Click(A)]
    assert not full(harness, row)[B[::-1]]
    engine.fails = None
    assert actions(harness.service.click(series, C, True, row.id)) == [Click(A), Click(C)]
    harness.close()


def test_a_scan_still_being_prepared_says_so(home: Path) -> None:
    engine = GatedEngine()
    engine.gate.clear()
    harness = Harness(home, engine, limit_s=0.2)
    with pytest.raises(ReadingRoomError, match="still being prepared"):
        harness.service.click(harness.add(ct()).series[0].id, A, True)
    engine.gate.set()
    harness.close()


# ---- bad clicks, with the engine that readers have -------------------------------------------------------------------


@pytest.fixture
def clicked(home: Path) -> Iterator[Callable[..., Any]]:
    harness = Harness(home, WatershedEngine())

    def click(volume: Volume, *clicks: Click) -> tuple[Harness, Any]:
        series = harness.add(volume).series[0].id
        row = None
        for one in clicks:
            row = harness.service.add(series, one, row.id if row else None)
        return harness, row

    yield click
    harness.close()


def bright(spots: list[tuple[int, int, int]], dtype: Any = np.int16, **options: Any) -> Volume:
    values = np.full((24, 60, 60), 0, dtype)
    for i, j, k in spots:
        values[k, j, i] = 400
    options.setdefault("unit", "HU")
    return Volume(values, np.diag([1.0, 1.0, 2.0, 1.0]), modality="CT", **options)


def test_a_click_on_a_one_voxel_object_has_it(clicked) -> None:
    harness, row = clicked(bright([(30, 30, 12)]), Click((30, 30, 12)))
    assert full(harness, row)[12, 30, 30]


def test_a_click_among_values_that_are_no_numbers_is_measured_without_them(clicked) -> None:
    values = np.full((24, 60, 60), 40, np.float32)
    values[8:16, 20:40, 20:40] = np.nan
    volume = Volume(values, np.diag([1.0, 1.0, 2.0, 1.0]), modality="MR")
    harness, row = clicked(volume, Click((30, 30, 12)))
    assert full(harness, row)[12, 30, 30]
    numbers = [v for v in row.measurement.values() if isinstance(v, float)]
    assert np.isfinite(numbers).all()


def test_contradictory_clicks_at_one_voxel_keep_the_mask(clicked) -> None:
    harness, row = clicked(bright([]), Click((30, 30, 12)))
    before = full(harness, row)
    with pytest.raises(Refused, match="at least one positive click"):
        harness.service.click(row.series_id, (30, 30, 12), False, row.id)
    assert np.array_equal(full(harness, row), before)
    row = harness.service.click(row.series_id, (20, 20, 12), True, row.id)
    row = harness.service.click(row.series_id, (30, 30, 12), False, row.id)
    assert "contradict" in row.note
    assert len(harness.service.undo(row.id).steps) == 2


def test_a_volume_without_spacing_is_segmented_and_told_in_voxels(clicked) -> None:
    _, row = clicked(bright([(30, 30, 12)], spacing_known=False), Click((30, 30, 12)))
    assert (row.steps[0].unit, row.measurement["volume_ml"]) == ("voxels", None)


def test_five_hundred_clicks_are_answered_and_undone(harness: Harness, series: str) -> None:
    row = harness.service.click(series, (0, 0, 0), True)
    clicks = [Click((n % 60, n // 60, n % 20), n % 7 != 0) for n in range(1, 499)]
    steps = (*row.steps, *(Step(click) for click in clicks))
    harness.store.save_segment(row.id, steps=steps, undone=(), mask=harness.store.mask(row.id), confidence=0.9)
    row = harness.service.click(series, (30, 20, 10), True, row.id)
    assert len(row.steps) == 500
    assert len(harness.engine.segmented[-1]) == 500
    last = full(harness, row)
    row = harness.service.undo(row.id)
    assert actions(row) == [Click((0, 0, 0)), *clicks]
    assert not np.array_equal(full(harness, row), last)
    row = harness.service.redo(row.id)
    assert np.array_equal(full(harness, row), last)


def test_nothing_found_begins_no_segment_and_leaves_no_word_behind(home: Path) -> None:
    class Nothing(BoxEngine):
        def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
            return Segmentation(Mask.from_full(np.zeros(prepared.shape, bool)), 0.0, 0)

    harness = Harness(home, Nothing())
    study = harness.add(ct())
    for _ in range(2):
        with pytest.raises(Refused, match="Nothing was found"):
            harness.service.add(study.series[0].id, Click(A), None, "word")
    assert harness.store.segments(study.id) == ()
    harness.close()
