"""Vessels that hang together with what they pass: made-up ones whose truth is known exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from core_models.segmentation import tube, watershed_engine
from core_models.segmentation.engine import Click
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.watershed_engine import WatershedEngine
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct

SPACING = (2.0, 2.0, 2.0)
SHAPE = (90, 80, 80)
BLOOD, LIVER = 45, 55
RADIUS = 9.0  # mm


@cache
def _vessel() -> tuple[Volume, np.ndarray]:
    """(a bending vein in fat, a third of whose length passes along a liver of nearly its own value; the vein)."""
    z, y, x = np.indices(SHAPE) * 2.0
    across = np.hypot(y - 80, x - (80 + 12 * np.sin(z / 40)))
    vein = (across <= RADIUS) & (z > 16) & (z < 164)
    liver = (x < 76) & (x > 20) & (y > 40) & (y < 120) & (z > 60) & (z < 110)
    return ct([(liver, LIVER), (vein, BLOOD)], SHAPE, affine_of(SPACING), noise=6.0), vein


@pytest.fixture(scope="module")
def grid() -> Grid:
    return grids.build(_vessel()[0])


def _middle(z: int) -> tuple[int, int, int]:
    """The grid voxel in the vein's midst, of a slice."""
    return z, 40, round((80 + 12 * np.sin(z * 2.0 / 40)) / 2)


def _followed(grid: Grid, z: int) -> tube.Tube:
    found = tube.found(grid, _middle(z), BLOOD - 45.0, BLOOD + 45.0)
    assert found is not None
    return found


def _full(grid: Grid, one: tube.Tube) -> np.ndarray:
    box, mask = one.drawn(grid)
    out = np.zeros(grid.shape, bool)
    out[box] = mask
    return out


@pytest.mark.parametrize("z", [20, 42, 70])
def test_a_vein_is_followed_along_an_organ_of_its_own_value(grid, z):
    found = _followed(grid, z)
    assert found.axis == 0
    assert found.width == pytest.approx(2 * RADIUS, abs=3)
    assert dice(_full(grid, found), _vessel()[1]) > 0.85


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0)])
def test_it_is_followed_whichever_way_it_runs(axes):
    volume, vein = _vessel()
    turned = replace(volume, array=np.ascontiguousarray(volume.array.transpose(axes)))
    built = grids.build(turned)
    found = tube.found(built, tuple(_middle(20)[a] for a in axes), BLOOD - 45.0, BLOOD + 45.0)
    assert found is not None
    assert found.axis == axes.index(0)
    assert dice(_full(built, found), vein.transpose(axes)) > 0.85


def test_it_ends_where_the_vein_ends(grid):
    found = _followed(grid, 20)
    assert found.first == pytest.approx(9, abs=2)
    assert found.first + len(found.sections) == pytest.approx(82, abs=2)


def test_what_is_as_wide_as_long_or_has_no_edges_is_no_tube(grid):
    z, y, x = np.indices(SHAPE) * 2.0
    ball = (z - 80) ** 2 + (y - 80) ** 2 + (x - 80) ** 2 <= 20**2
    built = grids.build(ct([(ball, BLOOD)], SHAPE, affine_of(SPACING), noise=6.0))
    assert tube.found(built, (40, 40, 40), 0.0, 90.0) is None
    assert tube.found(grid, (40, 20, 15), -145.0, -55.0) is None  # fat, far from all


def test_a_click_that_removes_on_its_axis_cuts_the_end_off_and_one_beside_it_does_not(grid):
    found = _followed(grid, 20)
    end = found.first + len(found.sections)
    cut = found.cut(grid, _middle(end - 6))
    assert (cut.first, len(cut.sections)) == (found.first, len(found.sections) - 11)
    other = _followed(grid, 60)
    begun = other.cut(grid, _middle(other.first + 5))
    assert begun.first == other.first + 11
    assert begun.first + len(begun.sections) == other.first + len(other.sections)
    z, y, x = _middle(end - 6)
    assert found.cut(grid, (z, y + 4, x)) is found
    assert found.cut(grid, (20, y, x)) is found  # where it was begun
    assert found.cut(grid, (0, y, x)) is found  # beyond it


def test_one_click_has_a_vein_in_a_gap_of_the_fat_around_it_and_not_the_muscle():
    z, y, x = np.indices(SHAPE) * 2.0
    across = np.hypot(y - 80, x - 80)
    vein = (across <= RADIUS) & (z > 16) & (z < 164)
    gap = (np.abs(y - 80) < 9) & (x < 80)  # all along it
    sleeve = (across <= RADIUS + 9) & ~vein & ~gap
    muscle = np.ones(SHAPE, bool)
    volume = ct([(muscle, LIVER), (sleeve, -100), (vein, BLOOD)], SHAPE, affine_of(SPACING), noise=6.0)
    engine = WatershedEngine()
    prepared = engine.prepare(volume)
    click = Click((40, 40, 42))
    first = engine.segment(prepared, (click,)).mask.full()
    assert watershed_engine.held(prepared, (42, 40, 40)) == watershed_engine.FOLLOWED
    assert dice(first, vein) > 0.8
    # A click that removes takes a part of it alone, on its own side.
    left = engine.segment(prepared, (click, Click((40, 40, 70), False))).mask.full()
    assert not left[70:].any()
    assert (left & vein)[:60].sum() > 0.9 * (first & vein)[:60].sum()
    # One that adds beside it adds no more than a vein's width.
    more = engine.segment(prepared, (click, Click((33, 40, 42)))).mask.full()
    assert 0 < np.count_nonzero(more & ~first) < 0.1 * np.count_nonzero(first)


def test_without_hounsfield_units_nothing_is_followed(grid):
    assert tube.found(replace(grid, hounsfield=False), _middle(20), 0.0, 90.0) is None
