"""Bones that no value parts from their neighbours: a made-up spine and rib cage whose truth is known exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from core_models.segmentation import rib, vertebra
from core_models.segmentation.engine import Click
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.watershed_engine import WatershedEngine
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct

SPACING = (2.0, 2.0, 2.0)
SHAPE = (70, 80, 70)
HEIGHT, DISC = 24.0, 6.0  # mm
MIDDLE = (70.0, 70.0, 70.0)  # mm from the first voxel: the middle of the middle body
MUSCLE, MARROW, CORTEX, NUCLEUS = 55, 110, 380, 85  # HU


def _mm() -> tuple[np.ndarray, ...]:
    """z, y, x in mm from `MIDDLE`."""
    return tuple(a * s - m for a, s, m in zip(np.indices(SHAPE), SPACING, MIDDLE, strict=True))


def _vertebra(level: float) -> tuple[np.ndarray, np.ndarray]:
    """(all of it, its marrow) of a vertebra whose body's middle lies at that height."""
    z, y, x = _mm()
    z = z - level
    across = np.hypot(y / 15, x / 20)
    body = (np.abs(z) <= HEIGHT / 2) & (across <= 1)
    marrow = (np.abs(z) <= HEIGHT / 2 - 3) & (np.hypot(y / 12, x / 17) <= 1)
    around = np.hypot(y - 24, x)
    high = (z > -4) & (z < 10)
    arch = high & (around > 9) & (around <= 14) & (y > 8)
    spine = (z > -10) & (z < 4) & (np.abs(x) <= 3) & (y > 34) & (y <= 56)
    facets = (z > -18) & (z < 12) & (np.abs(np.abs(x) - 12) <= 3) & (np.abs(y - 30) <= 4)  # they touch the next ones
    return body | arch | spine | facets, marrow


@cache
def _back() -> tuple[Volume, np.ndarray]:
    """(a lumbar spine in muscle, the middle one of its vertebrae)."""
    levels = [n * (HEIGHT + DISC) for n in (-2, -1, 0, 1, 2)]
    whole = [_vertebra(level) for level in levels]
    _, y, x = _mm()
    disc = np.hypot(y / 15, x / 20) <= 1
    parts = [(np.ones(SHAPE, bool), MUSCLE), (disc, NUCLEUS)]
    parts += [(bone, CORTEX) for bone, _ in whole] + [(marrow, MARROW) for _, marrow in whole]
    return ct(parts, SHAPE, affine_of(SPACING)), whole[2][0]


@cache
def _cage() -> tuple[Volume, np.ndarray]:
    """(two ribs and the breastbone that both join, in muscle; the first of the ribs)."""
    z, y, x = np.indices((60, 90, 90)) * 2.0
    around = np.hypot(y - 90, x - 90)
    ribs = [np.hypot(around - 70, z - height) for height in (40.0, 64.0)]
    front = y < 130
    bones = [(ring <= 6) & front for ring in ribs]
    plate = (np.abs(y - 130) <= 12) & (np.abs(x - 90) >= 40) & (z > 20) & (z < 90)
    parts = [(np.ones(z.shape, bool), MUSCLE), *((bone, 320) for bone in bones)]
    parts += [((ring <= 3) & front, 150) for ring in ribs] + [(plate, 320)]
    return ct(parts, z.shape, affine_of(SPACING)), bones[0] & ~plate


def _found(kind, volume: Volume, point: tuple[int, int, int]) -> np.ndarray | None:
    """What `vertebra.found` or `rib.found` says of a (z, y, x) place, as a mask of the grid."""
    grid = grids.build(volume)
    assert grid.shape == volume.shape
    told = kind.found(grid, point)
    if told is None:
        return None
    out = np.zeros(grid.shape, bool)
    out[told[0]] = told[1]
    return out


@pytest.mark.parametrize("off", [(0, 0, 0), (2, 2, -4), (-3, -3, 3)])
def test_a_click_in_a_body_gives_that_vertebra_and_no_other(off) -> None:
    volume, truth = _back()
    mask = _found(vertebra, volume, tuple(35 + o for o in off))
    assert mask is not None
    assert dice(mask, truth) > 0.85
    above, below = _vertebra(HEIGHT + DISC)[0], _vertebra(-HEIGHT - DISC)[0]
    assert (mask & (above | below)).sum() < 0.1 * truth.sum(), "what touches it is another one's"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param((42, 35, 35), id="disc"),
        pytest.param((35, 35, 12), id="muscle beside it"),
        pytest.param((35, 47, 35), id="canal"),
        pytest.param((35, 5, 5), id="corner"),
    ],
)
def test_beside_a_body_there_is_no_vertebra(point) -> None:
    assert _found(vertebra, _back()[0], point) is None


def test_an_organ_is_no_vertebra() -> None:
    z, y, x = _mm()
    organ = np.sqrt((z / 20) ** 2 + (y / 18) ** 2 + (x / 22) ** 2) <= 1
    volume = ct([(np.ones(SHAPE, bool), -80), (organ, 110)], SHAPE, affine_of(SPACING))
    assert _found(vertebra, volume, (35, 35, 35)) is None, "no cortex"
    shell = organ & ~(np.sqrt((z / 17) ** 2 + (y / 15) ** 2 + (x / 19) ** 2) <= 1)
    volume = ct([(np.ones(SHAPE, bool), -80), (organ, 110), (shell, 380)], SHAPE, affine_of(SPACING))
    assert _found(vertebra, volume, (35, 35, 35)) is None, "no canal behind it"


@pytest.mark.parametrize("end", [20, 45, 70])
def test_a_click_on_a_rib_gives_that_rib_up_to_what_it_joins(end) -> None:
    volume, truth = _cage()
    at = np.argwhere(truth)
    at = at[np.abs(at[:, 2] - end).argsort()]
    at = at[at[:, 2] == at[0, 2]]
    mask = _found(rib, volume, tuple(int(c) for c in np.median(at[at[:, 1] == at[:, 1].min()], 0)))
    assert mask is not None
    assert dice(mask, truth) > 0.8
    assert not mask[29:].any(), "the next rib is another one"


def test_what_is_not_long_and_thin_is_no_rib() -> None:
    volume, _ = _cage()
    assert _found(rib, volume, (27, 65, 15)) is None, "the plate"
    assert _found(rib, volume, (27, 45, 45)) is None, "muscle far from bone"
    assert _found(rib, _back()[0], (35, 35, 35)) is None, "a body"


@pytest.mark.parametrize(("kind", "scene"), [(vertebra, _back), (rib, _cage)])
def test_bones_are_told_where_values_and_lengths_are_known_alone(kind, scene) -> None:
    volume, truth = scene()
    point = (
        (35, 35, 35) if kind is vertebra else tuple(int(c) for c in np.argwhere(truth)[len(np.argwhere(truth)) // 2])
    )
    assert _found(kind, volume, point) is not None
    assert kind.found(grids.build(replace(volume, unit="1")), point) is None
    assert kind.found(grids.build(replace(volume, spacing_known=False)), point) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 64, 2), (2, 40, 40), (9, 9, 9)])
def test_small_scans_hold_none(shape) -> None:
    grid = grids.build(ct([], shape, affine_of(SPACING), background=110))
    middle = tuple(n // 2 for n in shape)
    assert vertebra.found(grid, middle) is None
    assert rib.found(grid, middle) is None


def test_the_engine_gives_the_bone_and_further_clicks_mend_it() -> None:
    volume, truth = _back()
    engine = WatershedEngine()
    prepared = engine.prepare(volume)
    first = engine.segment(prepared, (Click((35, 35, 35), True),)).mask.full()
    assert dice(first, truth) > 0.85
    missing = np.argwhere(truth & ~first)
    at = missing[np.abs(missing - np.median(missing, 0)).sum(1).argmin()]
    second = engine.segment(
        prepared, (Click((35, 35, 35), True), Click(tuple(int(c) for c in at[::-1]), True))
    ).mask.full()
    assert (first & ~second).sum() == 0
    assert dice(second, truth) > dice(first, truth) - 0.02, "what is added is bone beside it, not the whole spine"
    off = np.argwhere(first & (np.indices(SHAPE)[1] > 52))  # the spinous process
    taken = engine.segment(
        prepared, (Click((35, 35, 35), True), Click(tuple(int(c) for c in np.median(off, 0)[::-1]), False))
    ).mask.full()
    assert taken[35, 35, 35]
    assert taken.sum() < first.sum()


def test_a_mirrored_scan_gives_the_mirrored_vertebra() -> None:
    volume, _ = _back()
    there = _found(vertebra, volume, (35, 35, 34))
    mirrored = replace(volume, array=np.ascontiguousarray(volume.array[..., ::-1]))
    back = _found(vertebra, mirrored, (35, 35, SHAPE[2] - 35))
    assert there is not None
    assert back is not None
    assert dice(there, back[..., ::-1]) > 0.95
