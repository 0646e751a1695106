"""From the grid back to the scan's own voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core_models.segmentation import watershed_engine
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels import native
from core_models.segmentation.voxels.grid import Grid
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

SPACING = (1.0, 0.7, 0.7)
SHAPE = (90, 140, 140)


@pytest.fixture(scope="module")
def organ() -> tuple[Grid, np.ndarray]:
    """(a CT's grid of a lens in fat, thin against a grid step; the lens)."""
    affine = affine_of(SPACING)
    lens = ellipsoid(SHAPE, affine, (70.3, 69.6, 45.2), (31.3, 22.4, 6.7))
    return grids.build(ct([(lens, 60)], SHAPE, affine)), lens


def _box(grid: Grid) -> tuple[slice, slice, slice]:
    return tuple(slice(0, n) for n in grid.shape)  # type: ignore[return-value]


def _coarse(grid: Grid, mask: np.ndarray, moved: int = 0) -> np.ndarray:
    """A native mask on the grid, shifted by some voxels along x."""
    return np.roll(grids.averaged(mask.astype(np.float32), grid.shape) > 0.5, moved, 2)


def test_the_surface_lies_where_the_values_part(organ):
    grid, lens = organ
    coarse = _coarse(grid, lens)
    surface = native.upsample(replace(grid, hounsfield=False), coarse, _box(grid), [], []).full()
    values = native.upsample(grid, coarse, _box(grid), [], []).full()
    assert dice(values, lens) > 0.97 > dice(surface, lens)


def test_a_coarse_mask_beside_the_edge_is_put_right_within_the_band_alone(organ):
    grid, lens = organ
    coarse = _coarse(grid, lens, 1)
    surface = native.upsample(replace(grid, hounsfield=False), coarse, _box(grid), [], []).full()
    values = native.upsample(grid, coarse, _box(grid), [], []).full()
    assert dice(values, lens) > dice(surface, lens) + 0.02
    # A voxel that changed has one of the surface's other side within the band and half a voxel's diagonal.
    changed = np.argwhere(values != surface)
    rim = np.argwhere(np.logical_or.reduce([surface ^ np.roll(surface, 1, axis) for axis in range(3)]))
    some = changed[:: max(1, len(changed) // 50)]
    apart = np.sqrt((((some[:, None] - rim[None]) * SPACING) ** 2).sum(-1)).min(1)
    assert apart.max() <= native.BAND + 1.2


def test_a_bones_surface_lies_at_brighter_values_than_the_middle(organ, monkeypatch):
    grid, lens = organ
    coarse = _coarse(grid, lens)
    levels = (0.3, 0.5, 0.7)
    sizes = [native.upsample(grid, coarse, _box(grid), [], [], level).count for level in levels]
    assert sizes[0] > sizes[1] > sizes[2]
    click = Click((70, 69, 45))
    assert watershed_engine.level(grid, [click]) == 0.5
    monkeypatch.setattr(watershed_engine, "told", lambda *args: True)
    engine = watershed_engine.WatershedEngine()
    taken = []
    monkeypatch.setattr(native, "upsample", lambda *args, level: taken.append(level) or Mask.from_full(lens))
    engine.segment(grid, (click,))
    assert taken == [watershed_engine.BONE_LEVEL] == [0.7]


def test_where_there_is_no_contrast_the_coarse_surface_stays(organ):
    grid, lens = organ
    flat = replace(grid, smooth=np.zeros_like(grid.smooth), volume=_with(grid.volume, np.zeros(SHAPE, np.int16)))
    coarse = _coarse(grid, lens)
    expected = native.upsample(replace(grid, hounsfield=False), coarse, _box(grid), [], []).full()
    assert (native.upsample(flat, coarse, _box(grid), [], []).full() == expected).all()


def test_voxels_without_a_value_have_no_say(organ):
    grid, lens = organ
    array = grid.volume.array.astype(np.float32)
    array[:, :, 70:] = np.nan
    coarse = _coarse(grid, lens)
    holes = replace(grid, volume=_with(grid.volume, array))
    found = native.upsample(holes, coarse, _box(grid), [], []).full()
    surface = native.upsample(replace(grid, hounsfield=False), coarse, _box(grid), [], []).full()
    assert (found[:, :, 70:] == surface[:, :, 70:]).all()
    assert (found[:, :, :70] != surface[:, :, :70]).any()


def test_clicked_voxels_are_on_their_side_and_a_small_box_gives_the_same(organ):
    grid, lens = organ
    coarse = _coarse(grid, lens)
    inner = tuple(slice(int(c.min()), int(c.max()) + 1) for c in np.nonzero(coarse))
    whole = native.upsample(grid, coarse, _box(grid), [], []).full()
    found = native.upsample(grid, coarse[inner], inner, [(45, 69, 70)], [(45, 70, 70)]).full()  # type: ignore[arg-type]
    assert found[45, 69, 70]
    assert not found[45, 70, 70]
    found[45, 70, 70] = True
    assert (found == whole).all()


def _with(volume: Volume, array: np.ndarray) -> Volume:
    return replace(volume, array=array)
