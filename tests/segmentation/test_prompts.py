"""Lines, boxes and rings become clicks that say the same."""

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation import prompts
from core_models.segmentation.engine import Box, Click, Lasso, Mask, Scribble
from core_models.study.volume import Volume

VOLUME = Volume(np.zeros((20, 60, 80), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]), modality="CT", unit="HU")


def test_a_click_stays_a_click():
    assert prompts.as_clicks(VOLUME, (Click((4, 5, 6), False),)) == (Click((4, 5, 6), False),)


def test_a_scribble_becomes_clicks_along_it_with_both_its_ends():
    line = Scribble(tuple((i, 30, 10) for i in range(10, 71)), positive=False)
    clicks = prompts.as_clicks(VOLUME, (line,))
    assert clicks[0].index == (10, 30, 10)
    assert clicks[-1].index == (70, 30, 10)
    assert not any(c.positive for c in clicks)
    assert 9 <= len(clicks) <= 13  # 60 mm, one each 6 mm


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_on_any_plane_adds_in_its_midst_and_removes_around_it(axis):
    first, last = [20, 20, 5], [40, 40, 15]
    first[axis] = last[axis] = 10
    adds, *removes = prompts.as_clicks(VOLUME, (Box(tuple(last), tuple(first)),))
    assert adds.positive
    assert all(low <= c <= high for c, low, high in zip(adds.index, first, last, strict=True))
    assert len(removes) >= 8
    for click in removes:
        assert not click.positive
        assert click.index[axis] == 10
        assert not all(low <= c <= high for c, low, high in zip(click.index, first, last, strict=True))


def test_a_ring_at_the_scans_rim_has_its_clicks_inside_the_scan():
    adds, *removes = prompts.as_clicks(VOLUME, (Lasso(((0, 0, 3), (20, 0, 3), (20, 20, 3), (0, 20, 3))),))
    assert adds.positive
    assert removes
    assert all(0 <= c < n for p in removes for c, n in zip(p.index, (80, 60, 20), strict=True))


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (Click((80, 0, 0)), "outside the volume"),
        (Scribble(()), "at least one point"),
        (Scribble(((1, 1, 1), (1, 1, 20))), "outside the volume"),
        (Box((-1, 0, 0), (5, 5, 0)), "outside the volume"),
        (Lasso(((1, 1, 1), (9, 9, 2), (30, 5, 3))), "one plane"),
        (Lasso(((1, 1, 1), (9, 1, 1), (30, 1, 1))), "encloses nothing"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused_with_a_reason(prompt, says):
    with pytest.raises(Refused, match=says):
        prompts.as_clicks(VOLUME, (prompt,))


WHOLE = Mask.from_full(np.ones((6, 30, 40), bool))
SMALL = Volume(np.zeros((6, 30, 40), np.int16), np.eye(4), modality="CT", unit="HU")


def test_nothing_outside_a_box_stays_on_its_slice_and_other_slices_are_left_alone():
    full = prompts.confined(SMALL, (Box((10, 5, 2), (20, 15, 2)),), WHOLE).full()
    assert full[[0, 1, 3, 4, 5]].all()
    assert full[2, 5:16, 10:21].all()
    assert full[2].sum() == 11 * 11


def test_a_box_on_another_plane_and_a_ring_confine_there_too():
    coronal = prompts.confined(SMALL, (Box((10, 7, 1), (20, 7, 4)),), WHOLE).full()
    assert coronal[:, 7].sum() == 4 * 11
    assert coronal[:, 8].all()
    ring = prompts.confined(SMALL, (Lasso(((5, 5, 3), (25, 5, 3), (25, 20, 3), (5, 20, 3))),), WHOLE).full()
    assert ring[3, 6:20, 6:25].all()
    assert not ring[3, :5].any()
    assert ring[2].all()


def test_a_later_click_outside_a_box_takes_it_back_and_one_inside_does_not():
    box = Box((10, 5, 2), (20, 15, 2))
    assert prompts.confined(SMALL, (box, Click((30, 25, 2))), WHOLE).full().all()
    assert not prompts.confined(SMALL, (box, Click((15, 10, 2))), WHOLE).full()[2, 25, 30]
    assert not prompts.confined(SMALL, (Click((30, 25, 2)), box), WHOLE).full()[2, 25, 30]
