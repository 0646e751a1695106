"""The simulated reader clicks where a careful one would, and sees what an engine answers."""

import numpy as np
import pytest

from core_models.segmentation.engine import Alternative, Click, Mask, Segmentation
from core_models.segmentation.judging import reader

UNIT = (1.0, 1.0, 1.0)


def mask(shape, *boxes) -> Mask:
    out = np.zeros(shape, bool)
    for low, high in boxes:
        out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Mask.from_full(out)


class Answers:
    """An engine that answers what is next in a queue, whatever is clicked."""

    name, version, licence = "queue", "1", "none"

    def __init__(self, *masks: Mask) -> None:
        self.masks = list(masks)
        self.asked: list[tuple[Click, ...]] = []

    def prepare(self, volume):
        return volume

    def segment(self, prepared, prompts, cancelled=lambda: False):
        self.asked.append(prompts)
        return Segmentation(self.masks[min(len(self.asked), len(self.masks)) - 1], 0.0, len(prompts))


def slow_next_click(target: np.ndarray, answer: np.ndarray | None, spacing) -> Click | None:
    """The rule as it reads, over the whole volume."""
    if answer is None:
        return Click(reader.deepest(target, spacing), True)
    missed, extra = reader.largest_part(target & ~answer), reader.largest_part(answer & ~target)
    if not missed.any() and not extra.any():
        return None
    positive = missed.sum() >= extra.sum()
    return Click(reader.deepest(missed if positive else extra, spacing), bool(positive))


def test_clicks_go_to_the_deepest_point_of_the_largest_error():
    shape = (11, 40, 40)
    target = mask(shape, ((0, 5, 5), (11, 16, 16)))
    assert reader.next_click(target, None, UNIT) == Click((10, 10, 5), True)
    assert reader.next_click(target, target, UNIT) is None
    both = mask(shape, ((0, 5, 5), (11, 16, 16)), ((0, 25, 25), (11, 36, 36)))
    assert reader.next_click(target, both, UNIT) == Click((30, 30, 5), False)
    nothing = Mask.from_full(np.zeros(shape, bool))
    assert reader.next_click(target, nothing, UNIT) == Click((10, 10, 5), True)


def test_the_deepest_point_of_a_picture_is_in_its_plane():
    """Its one slice has a surface on either side, as near to every pixel: the rim would be as deep as the midst."""
    target = mask((1, 40, 40), ((0, 5, 5), (1, 16, 36)))
    x, y, z = reader.next_click(target, None, UNIT).index
    assert (y, z) == (10, 0)
    assert 10 <= x <= 30
    slab = mask((9, 40, 40), ((4, 5, 5), (5, 16, 16)))
    assert reader.next_click(slab, None, UNIT) == Click((10, 10, 4), True)


def test_what_is_missing_wins_a_tie_and_one_connected_error_beats_more_voxels_in_pieces():
    shape = (5, 40, 40)
    target = mask(shape, ((0, 5, 5), (5, 15, 15)))
    moved = mask(shape, ((0, 5, 8), (5, 15, 18)))  # as much too much on one side as is missing on the other
    assert reader.next_click(target, moved, UNIT).positive
    crumbs = [((0, 30, c), (5, 32, c + 2)) for c in range(2, 38, 4)]  # 9 × 20 voxels
    scattered = mask(shape, ((0, 5, 5), (5, 15, 14)), *crumbs)  # and a strip of 50 is missing
    assert scattered.count - 450 == 180
    assert reader.next_click(target, scattered, UNIT).positive


def test_the_quick_way_clicks_where_the_rule_says():
    generator = np.random.default_rng(5)
    shape, spacing = (12, 30, 26), (2.5, 0.8, 1.1)
    for _ in range(40):
        target, answer = (np.zeros(shape, bool) for _ in range(2))
        for array in (target, answer):
            for _ in range(2):
                low = [int(generator.integers(0, n - 4)) for n in shape]
                array[tuple(slice(a, a + int(generator.integers(3, 12))) for a in low)] = True
        answer &= generator.random(shape) < 0.97
        expected = slow_next_click(target, answer, spacing)
        assert reader.next_click(Mask.from_full(target), Mask.from_full(answer), spacing) == expected
        assert reader.next_click(Mask.from_full(target), None, spacing) == slow_next_click(target, None, spacing)


def test_a_trace_tells_scores_distances_and_clicks():
    shape = (10, 30, 30)
    target = mask(shape, ((2, 5, 5), (8, 15, 15)))
    half = mask(shape, ((2, 5, 5), (5, 15, 15)))
    engine = Answers(half, target)
    trace = reader.read(engine, None, target, (2.0, 1.0, 1.0), clicks=4, reported=(1, 4))
    assert trace.dice == pytest.approx((2 / 3, 1, 1, 1))
    assert trace.hausdorff95[1] == pytest.approx(6.0)  # three slices of 2 mm are missing
    assert trace.hausdorff95[4] == 0.0
    assert len(trace.clicks) == len(trace.seconds) == len(engine.asked) == 2, "nothing is left to click after two"
    assert engine.asked == [trace.clicks[:1], trace.clicks], "clicks add up"
    assert all(c.positive and target.full()[c.index[::-1]] for c in trace.clicks)
    assert not half.full()[trace.clicks[1].index[::-1]]


def test_who_looks_at_both_answers_keeps_the_better_and_clicks_on_from_it():
    shape = (10, 30, 30)
    target = mask(shape, ((2, 5, 5), (8, 15, 15)))
    parts = [mask(shape, ((2, 5, 5), (n, 15, 15))) for n in range(3, 9)]
    # One and its other, three times: better, worse, and better by next to nothing.
    engine = Answers(parts[0], parts[1], parts[3], parts[2], parts[4], parts[4])
    trace = reader.read(engine, None, target, UNIT, clicks=3, reported=(3,), either=True)
    assert trace.dice == pytest.approx((2 * 2 / 8, 2 * 4 / 10, 2 * 5 / 11))
    assert trace.others == 1
    assert len(trace.clicks) == len(trace.seconds) == 3
    first, second, third = trace.clicks
    kept = (first, Alternative(), second)
    assert engine.asked[1:] == [
        (first, Alternative()), kept, (*kept, Alternative()), (*kept, third), (*kept, third, Alternative()),
    ]  # fmt: skip
    assert len(trace.changes) == 2


def test_an_empty_answer_scores_nothing_and_has_no_distance():
    shape = (4, 10, 10)
    target = mask(shape, ((1, 2, 2), (3, 8, 8)))
    trace = reader.read(Answers(Mask.from_full(np.zeros(shape, bool))), None, target, UNIT, clicks=3)
    assert trace.dice == (0.0, 0.0, 0.0)
    assert trace.hausdorff95 == {1: None, 3: None}
    assert len(trace.clicks) == 3
