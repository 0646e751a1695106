"""Brush, interpolation and growing by value: exact in native voxels, on every plane, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation import editing
from core_models.segmentation.editing import applied, checked, grown, interpolated, painted
from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume

SHAPE = (20, 30, 40)  # (z, y, x)
SPACING = (2.5, 0.9, 0.8)  # of z, y, x
VOLUME = Volume(np.zeros(SHAPE, np.int16), np.diag([0.8, 0.9, 2.5, 1.0]), modality="CT", unit="HU")
NOTHING = Mask.from_full(np.zeros(SHAPE, bool))


def within(points: list[tuple[int, int, int]], axis: int, radius: float) -> np.ndarray:
    """By the definition, voxel by voxel: within the radius of one of the points, on their slice."""
    grids = np.indices(SHAPE)
    out = np.zeros(SHAPE, bool)
    for point in points:
        apart = sum(((grids[n] - point[2 - n]) * SPACING[n]) ** 2 for n in range(3) if n != 2 - axis)
        out |= (np.sqrt(apart) <= radius + 1e-9) & (grids[2 - axis] == point[axis])
    return out


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("radius", [0.1, 2.7, 5.0])
def test_a_stroke_is_the_voxels_near_its_line_on_its_slice(axis: int, radius: float) -> None:
    first, last = [10, 12, 9], [10, 12, 9]
    first[(axis + 1) % 3], last[(axis + 1) % 3] = 6, 14
    line = [tuple(first[:1] + first[1:])]
    for n in range(6, 15):
        point = list(first)
        point[(axis + 1) % 3] = n
        line.append(tuple(point))
    found = painted(VOLUME, Stroke((tuple(first), tuple(last)), radius, axis))
    assert np.array_equal(found.full(), within(line, axis, radius))


def test_a_dot_at_the_corner_stays_in_the_volume() -> None:
    found = painted(VOLUME, Stroke(((39, 29, 19),), 3.0, 1))
    assert found.full()[19, 29, 39]
    assert np.array_equal(found.full(), within([(39, 29, 19)], 1, 3.0))


def test_the_brush_adds_and_the_eraser_takes_away() -> None:
    stroke = Stroke(((20, 15, 10),), 4.0)
    disc = painted(VOLUME, stroke)
    mask, _ = applied(VOLUME, NOTHING, stroke)
    assert np.array_equal(mask.full(), disc.full())
    hole = Stroke(((20, 15, 10),), 2.0, 2, False)
    ring, _ = applied(VOLUME, mask, hole)
    assert np.array_equal(ring.full(), disc.full() & ~painted(VOLUME, hole).full())
    gone, _ = applied(VOLUME, ring, Stroke(((20, 15, 10),), 9.0, 2, False))
    assert gone.empty
    assert gone.shape == SHAPE


def discs(axis: int, radii: dict[int, float], positive: bool = True) -> tuple[Stroke, ...]:
    out = []
    for k, radius in radii.items():
        point = [20, 15, 10]
        point[axis] = k
        out.append(Stroke((tuple(point),), radius, axis, positive))
    return tuple(out)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_between_two_discs_lies_a_cone(axis: int) -> None:
    strokes = discs(axis, {4: 3.0, 8: 6.0})
    mask = NOTHING
    for stroke in strokes:
        mask, _ = applied(VOLUME, mask, stroke)
    filled = interpolated(VOLUME, mask, axis, strokes)
    areas = [int(np.moveaxis(filled.full(), 2 - axis, 0)[k].sum()) for k in range(3, 10)]
    assert areas[0] == areas[-1] == 0, "beyond the painted slices nothing is filled"
    inside = areas[1:-1]
    assert inside == sorted(inside)
    middle = [20, 15, 10]
    middle[axis] = 6
    half = within([tuple(middle)], axis, 4.5)
    wrong = np.moveaxis(filled.full() ^ half, 2 - axis, 0)[6].sum()
    assert wrong <= 0.25 * half.sum(), "half-way it is a disc of half-way radius, to a voxel at its rim"
    assert np.array_equal(np.moveaxis(filled.full(), 2 - axis, 0)[4], np.moveaxis(mask.full(), 2 - axis, 0)[4])


def test_a_mend_is_carried_on_between_its_slices_and_the_rest_stays() -> None:
    full = np.zeros(SHAPE, bool)
    full[:, 5:25, 5:35] = True
    full[6, 6, 6] = False  # far from the mend: not the reader's doing, and no business of the interpolation
    mask = Mask.from_full(full)
    strokes = discs(2, {4: 4.0, 8: 4.0}, positive=False)
    for stroke in strokes:
        mask, _ = applied(VOLUME, mask, stroke)
    filled = interpolated(VOLUME, mask, 2, strokes).full()
    for k in (5, 6, 7):
        assert not filled[k, 15, 20]
        assert filled[k, 20, 30]
    assert not filled[6, 6, 6]
    assert np.array_equal(filled[9], full[9])


def test_painted_areas_that_do_not_overlap_change_nothing() -> None:
    strokes = (Stroke(((5, 5, 4),), 2.0), Stroke(((35, 25, 8),), 2.0))
    mask = editing.joined(*(painted(VOLUME, s) for s in strokes))
    assert np.array_equal(interpolated(VOLUME, mask, 2, strokes).full(), mask.full())


@pytest.mark.parametrize("strokes", [(), discs(2, {4: 3.0}), discs(1, {4: 3.0, 8: 3.0})])
def test_interpolation_needs_two_slices_of_the_plane(strokes: tuple[Stroke, ...]) -> None:
    with pytest.raises(Refused, match="at least two slices"):
        applied(VOLUME, NOTHING, Interpolation(2), strokes)


def ramp() -> Volume:
    values = np.zeros(SHAPE, np.int16)
    values[8:12, 10:20, 10:30] = 100
    values[8:12, 10:20, 28:30] = 140
    values[15:18, 10:20, 10:30] = 100  # of the same value, and not connected
    return Volume(values, VOLUME.affine, modality="CT", unit="HU")


def test_a_range_grows_through_what_is_connected_and_no_farther() -> None:
    found, note = grown(ramp(), Grow((15, 15, 10), 90, 110))
    expected = np.zeros(SHAPE, bool)
    expected[8:12, 10:20, 10:28] = True
    assert np.array_equal(found.full(), expected)
    assert note == ""
    wider, _ = grown(ramp(), Grow((15, 15, 10), 90, 140))
    assert wider.count == 4 * 10 * 20


def test_a_range_that_reaches_everything_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "REACH", 8.0)
    found, note = grown(VOLUME, Grow((20, 15, 10), -10, 10))
    assert found.voxels.shape == (7, 17, 21)
    assert "cut 8 mm" in note


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (Stroke(((40, 0, 0),), 1.0), "outside the scan of 40 × 30 × 20"),
        (Stroke(((0, -1, 0),), 1.0), "outside"),
        (Stroke((), 1.0), "at least one point"),
        (Stroke(((1, 1, 1), (1, 1, 2)), 1.0), "one slice"),
        (Stroke(((1, 1, 1),), 0.0), "radius"),
        (Stroke(((1, 1, 1),), float("nan")), "radius"),
        (Stroke(((1, 1, 1),), 1.0, 3), "axis"),
        (Grow((0, 0, 20), 0, 1), "outside"),
        (Grow((0, 0, 0), 1, 2), "does not hold"),
    ],
)
def test_what_cannot_be_edited_is_refused(edit, words: str) -> None:
    with pytest.raises(Refused, match=words):
        checked(VOLUME, edit)


def test_no_range_grows_from_a_voxel_without_a_value() -> None:
    values = np.full(SHAPE, np.nan, np.float32)
    with pytest.raises(Refused, match="not a number"):
        checked(Volume(values, VOLUME.affine), Grow((1, 1, 1), 0, 1))


def test_the_difference_is_the_smallest_box_that_differs() -> None:
    rng = np.random.default_rng(5)
    old = np.zeros(SHAPE, bool)
    old[5:10, 5:20, 5:30] = rng.random((5, 15, 25)) > 0.5
    new = old.copy()
    new[6, 7:9, 8:12] ^= True
    box = editing.difference(Mask.from_full(old), Mask.from_full(new))
    assert (box.offset, box.voxels.shape) == ((6, 7, 8), (1, 2, 4))
    again = old.copy()
    again[box.slices] = box.voxels
    assert np.array_equal(again, new)
    assert editing.difference(Mask.from_full(old), Mask.from_full(old)).voxels.size == 0
    gone = editing.difference(Mask.from_full(old), NOTHING)
    assert gone.empty
    assert gone.voxels.size > 0


def test_overlap_and_difference_of_boxes_are_those_of_the_volumes() -> None:
    rng = np.random.default_rng(7)
    a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    a[2:9, 3:14, 4:20] = rng.random((7, 11, 16)) > 0.4
    b[5:15, 10:25, 15:35] = rng.random((10, 15, 20)) > 0.4
    one, other = Mask.from_full(a), Mask.from_full(b)
    assert editing.overlap(one, other) == (a & b).sum()
    assert np.array_equal(editing.without(one, other).full(), a & ~b)
    assert np.array_equal(editing.joined(one, other).full(), a | b)
