"""A model's drawing under the reader's clicks: a part is added or taken off, never the structure itself."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.segmentation.engine import Box, Click, Lasso, Mask, Segmentation
from core_models.segmentation.history import begins
from core_models.study.volume import Volume
from webapp.viewer.drawn import corrected, deepest

ROWS, COLUMNS = 120, 100
VOLUME = Volume(np.zeros((1, ROWS, COLUMNS), np.uint8), np.diag([0.5, 1.0, 1.0, 1.0]), "CR")


def mask(rows: tuple[int, int], columns: tuple[int, int]) -> Mask:
    full = np.zeros(VOLUME.shape, bool)
    full[0, slice(*rows), slice(*columns)] = True
    return Mask.from_full(full)


DRAWN = mask((20, 101), (30, 71))  # its middle: row 60, column 50


class Finds:
    """An engine that finds the same whatever is clicked."""

    def __init__(self, found: Mask, note: str = "") -> None:
        self.found, self.note = found, note
        self.asked: list[tuple[Click, ...]] = []

    def __call__(self, clicks: tuple[Click, ...]) -> Segmentation:
        self.asked.append(clicks)
        assert begins(clicks[0])
        return Segmentation(self.found, 0.5, len(clicks), self.note)


def test_without_clicks_it_is_the_drawing() -> None:
    answer = corrected(VOLUME, DRAWN, (), Finds(DRAWN), 0.9)
    assert (answer.mask, answer.confidence) == (DRAWN, 0.9)


def test_the_middle_of_a_drawing_on_one_slice() -> None:
    assert deepest(VOLUME, DRAWN) == (50, 60, 0)
    ring = DRAWN.full()
    ring[0, 30:91, 40:61] = False
    i, j, _ = deepest(VOLUME, Mask.from_full(ring))
    assert ring[0, j, i], "inside, also where the midst is not"


def test_an_adding_click_joins_what_is_found_held_back_by_the_removing_ones() -> None:
    engine = Finds(mask((90, 110), (60, 90)))
    clicks = (Click((80, 100, 0)), Click((10, 10, 0), False))
    answer = corrected(VOLUME, DRAWN, clicks[:1], engine, 0.9)
    assert np.array_equal(answer.mask.full(), DRAWN.full() | engine.found.full())
    corrected(VOLUME, DRAWN, clicks, engine, 0.9)
    assert engine.asked[1] == clicks
    adds, removes, middle = engine.asked[2][1], engine.asked[2][0], engine.asked[2][2]
    assert (removes, adds) == (Click((10, 10, 0)), Click((80, 100, 0), False))
    assert not middle.positive


@pytest.mark.parametrize(
    "ring", [Box((35, 40, 0), (60, 80, 0)), Lasso(((35, 40, 0), (60, 40, 0), (60, 80, 0), (35, 80, 0)))]
)
def test_a_ring_around_the_drawing_leaves_nothing_outside_it(ring) -> None:
    answer = corrected(VOLUME, DRAWN, (ring,), Finds(mask((45, 70), (40, 55))), 0.9)
    full = answer.mask.full()[0]
    assert full[45:75, 40:55].all()
    assert not full[:39].any()
    assert not full[:, 63:].any()


def test_a_ring_beside_the_drawing_adds_and_takes_nothing() -> None:
    engine = Finds(mask((30, 50), (80, 95)))
    answer = corrected(VOLUME, DRAWN, (Box((78, 25, 0), (98, 55, 0)),), engine, 0.9)
    assert np.array_equal(answer.mask.full(), DRAWN.full() | engine.found.full())


@pytest.mark.parametrize("row", [25, 98])
def test_a_removing_click_never_takes_more_than_its_own_half(row: int) -> None:
    everything = Finds(mask((0, ROWS), (0, COLUMNS)), "It ran out of the body.")
    answer = corrected(VOLUME, DRAWN, (Click((50, row, 0), False),), everything, 0.9)
    left = answer.mask.full()[0]
    assert not left[row, 50]
    assert left[60, 50]
    assert 0.5 < left.sum() / DRAWN.count < 0.9
    assert answer.note == "It ran out of the body."


def test_a_removing_click_on_the_middle_itself_is_taken_at_its_word() -> None:
    at = deepest(VOLUME, DRAWN)
    answer = corrected(VOLUME, DRAWN, (Click(at, False),), Finds(DRAWN), 0.9)
    assert answer.mask.empty
