"""Scores on shapes whose answers are known by hand."""

import numpy as np
import pytest

from core_models.segmentation import metrics
from core_models.segmentation.engine import Mask


def cube(shape, low, high) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


def test_dice_of_known_overlaps():
    a = np.zeros((4, 4, 4), bool)
    b = a.copy()
    assert metrics.dice(a, b) == 1.0
    a[:2] = True
    b[1:3] = True
    assert metrics.dice(a, b) == 0.5
    assert metrics.dice(a, ~a) == 0.0


def test_a_moved_plate_is_as_far_as_it_was_moved_in_millimetres():
    a = cube((20, 30, 30), (5, 10, 10), (6, 20, 20))  # one slice thick: all of it is surface
    b = cube((20, 30, 30), (8, 10, 10), (9, 20, 20))
    assert metrics.hausdorff95(a, b, (2.5, 1.0, 1.0)) == pytest.approx(3 * 2.5)
    assert metrics.hausdorff95(a, a, (2.5, 1.0, 1.0)) == 0.0
    assert metrics.hausdorff95(a, b, (2.5, 1.0, 1.0)) == metrics.hausdorff95(b, a, (2.5, 1.0, 1.0))


def test_the_percentile_is_of_both_ways_together_and_forgives_one_far_voxel():
    a = cube((1, 60, 60), (0, 0, 0), (1, 1, 40))  # a line of 40 voxels along the volume's edge ...
    b = a.copy()
    b[0, 50, 5] = True  # ... and the same with a voxel 50 away: 1 of 81 distances
    assert metrics.hausdorff95(a, b, (1.0, 1.0, 1.0)) == 0.0
    b[0, 50, 5:15] = True  # 10 of 90: more than 5 %
    assert metrics.hausdorff95(a, b, (1.0, 1.0, 1.0)) == pytest.approx(50.0)


def test_where_the_volume_ends_there_is_no_surface():
    inner = cube((6, 8, 8), (0, 2, 2), (6, 6, 6))  # leaves the volume above and below
    assert not metrics.rim(inner)[:, 3:5, 3:5].any()
    assert metrics.rim(inner)[:, 2, 3].all()
    assert not metrics.rim(np.ones((3, 3, 3), bool)).any()
    whole, none = np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    assert metrics.hausdorff95(whole, whole, (1, 1, 1)) is None
    assert metrics.hausdorff95(inner, np.zeros_like(inner), (1, 1, 1)) is None
    assert metrics.hausdorff95(none, none, (1, 1, 1)) is None


def test_a_box_around_two_masks_gives_what_the_whole_volume_does():
    shape = (30, 40, 50)
    generator = np.random.default_rng(3)
    for low in ((0, 0, 0), (10, 12, 20), (18, 25, 35)):
        a = cube(shape, low, [v + 12 for v in low])
        b = cube(shape, [v + 3 for v in low], [v + 14 for v in low]) & (generator.random(shape) < 0.9)
        offset, (one, other) = metrics.together(Mask.from_full(a), Mask.from_full(b))
        where = tuple(slice(o, o + n) for o, n in zip(offset, one.shape, strict=True))
        assert np.array_equal(a[where], one)
        assert np.array_equal(b[where], other)
        assert one.sum() == a.sum()
        assert one.size < a.size
        assert metrics.hausdorff95(one, other, (3, 1, 2)) == pytest.approx(metrics.hausdorff95(a, b, (3, 1, 2)))
    empty = Mask.from_full(np.zeros(shape, bool))
    assert not metrics.together(empty, empty)[1][0].any()
    assert metrics.together(Mask.from_full(a), empty)[1][1].sum() == 0


def test_what_more_clicks_gave():
    scores = [0.5, 0.85, 0.8, 0.95]
    assert metrics.best_so_far(scores) == [0.5, 0.85, 0.85, 0.95]
    assert metrics.drops(scores) == pytest.approx([0, 0, 0.05, 0])
    assert metrics.reached(scores, 0.8) == 2
    assert metrics.reached(scores, 0.9) == 4
    assert metrics.reached(scores, 0.96) is None


def test_intervals_draw_owners_and_not_rows():
    values = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert metrics.interval(values, ["a"] * 4) is None
    low, high = metrics.interval(values, ["a", "a", "a", "b"])[0]
    assert (low, high) == (0.0, 1.0)  # with two owners a draw may hold either alone
    assert metrics.interval(values, list("abcd")) == metrics.interval(values, list("abcd"))
    certain = metrics.interval(np.full((8, 1), 0.7), list("abcdefgh"))[0]
    assert certain == pytest.approx([0.7, 0.7])
    holes = metrics.interval(np.array([[np.nan, 1.0], [np.nan, 1.0]]), ["a", "b"])
    assert holes == [[None, None], [1.0, 1.0]]
