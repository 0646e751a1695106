"""Structures that a model drew at once, and which of them a prompt means."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation.bigger.picked import Structure, pick, structures
from core_models.segmentation.engine import Box, Click, Lasso, Mask, Scribble
from core_models.study.volume import Volume

LABELS = np.zeros((6, 20, 24), np.uint8)
LABELS[1:4, 2:8, 2:8] = 1
LABELS[1:4, 10:18, 10:20] = 2
LABELS[5, 0:2, 22:24] = 2
NAMES = {1: "spleen", 2: "liver"}
VOLUME = Volume(np.zeros(LABELS.shape, np.int16), np.eye(4), modality="CT", unit="HU")


def picked(*prompts, parts=False):
    return pick(VOLUME, structures(LABELS, NAMES, parts), prompts, "The model")


def test_a_click_picks_what_is_under_it_and_gives_its_name() -> None:
    answer = picked(Click((3, 4, 2)))
    np.testing.assert_array_equal(answer.mask.full(), LABELS == 1)
    assert (answer.label, answer.note, answer.used) == ("spleen", "", 1)


def test_two_clicks_join_two_and_a_removing_one_takes_one_away() -> None:
    both = picked(Click((3, 4, 2)), Click((12, 12, 2)))
    np.testing.assert_array_equal(both.mask.full(), LABELS > 0)
    assert both.label == ""
    one = picked(Click((3, 4, 2)), Click((12, 12, 2)), Click((4, 4, 2), False))
    np.testing.assert_array_equal(one.mask.full(), LABELS == 2)
    again = picked(Click((3, 4, 2)), Click((3, 4, 2), False), Click((3, 4, 2)))
    np.testing.assert_array_equal(again.mask.full(), LABELS == 1)


def test_beside_everything_nothing_is_picked_and_the_note_says_so() -> None:
    answer = picked(Click((0, 0, 0)))
    assert answer.mask.empty
    assert answer.note == "The model drew no structure at this place."
    assert answer.confidence == 0.0


@pytest.mark.parametrize(
    "prompt",
    [
        Scribble(((1, 4, 2), (6, 4, 2), (7, 4, 2), (11, 12, 2))),
        Box((1, 1, 2), (11, 11, 2)),
        Box((1, 1, 0), (9, 9, 5)),
        Lasso(((1, 1, 2), (9, 1, 2), (9, 9, 2), (1, 9, 2))),
    ],
)
def test_lines_boxes_and_rings_mean_what_they_hold_most_of(prompt) -> None:
    np.testing.assert_array_equal(picked(prompt).mask.full(), LABELS == 1)


def test_parts_of_one_name_can_be_picked_apart() -> None:
    assert picked(Click((12, 12, 2))).mask.full()[5].any()
    alone = picked(Click((12, 12, 2)), parts=True)
    assert not alone.mask.full()[5].any()
    assert alone.mask.count == 3 * 8 * 10


def test_of_structures_that_overlap_the_smallest_is_meant() -> None:
    large, small = np.ones((3, 5, 5), bool), np.zeros((3, 5, 5), bool)
    small[1, 2, 2] = True
    found = (Structure("liver", Mask.from_full(large)), Structure("tumour", Mask.from_full(small)))
    volume = Volume(np.zeros((3, 5, 5), np.int16), np.eye(4))
    assert pick(volume, found, (Click((2, 2, 1)),), "m").label == "tumour"
    assert pick(volume, found, (Click((1, 1, 1)),), "m").label == "liver"


@pytest.mark.parametrize(
    "prompts", [(), (Click((3, 4, 2), False),), (Click((24, 0, 0)),), (Box((0, 0, 0), (0, 0, 9)),)]
)
def test_prompts_that_say_nothing_are_refused(prompts) -> None:
    with pytest.raises(Refused):
        picked(*prompts)


def test_labels_without_a_name_are_left_out() -> None:
    assert [one.name for one in structures(LABELS, {2: "liver"})] == ["liver"]
    assert structures(np.zeros((2, 3, 4), np.uint8), NAMES) == ()
