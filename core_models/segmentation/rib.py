"""A CT click on a rib, or another rod of bone → that bone, followed along its own axis until it joins another.

Through the values that bones have, every rib hangs together with the spine and the breastbone.  What tells it is that
it is long and thin: from the click the axis is followed step by step, each time through the middle of the bone's
cross-section, until the cross-section becomes much larger (the joint), or ends (the cartilage).  Tubes are followed by
their local axis since long (Aylward & Bullitt, IEEE Trans Med Imaging 2002;21:61-75); the constants are chosen on the
training CTs.  Lengths are nominal mm (`voxels.grid`); directions are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core_models.segmentation.voxels.flooding import reached
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import Box, Point, Spacing, ball, close

# HU from which it is bone: at a grid step of 2 mm the cortex of a rib is no brighter than the first everywhere, and a
# liver with contrast is as bright, so that the next are tried.
BONE = (105.0, 140.0, 180.0)
NEAR = 4.0  # mm from the click to bone: marrow lies between
AROUND, BEGIN = 11.0, 14.0  # mm within which the axis is told at each step, and at the first one
LONG = 1.8  # times as far spread along the axis as across it (variances)
STEP, SLAB = 3.0, 3.0  # mm from one cross-section to the next; half a cross-section's thickness
LARGER = 1.9  # times the usual cross-section: another bone
WIDEST = 170.0  # mm² of a usual cross-section
OFF = 6.0  # mm by which its middle may jump
FARTHEST = 400.0  # mm that are followed each way
SHORTEST = 30.0  # mm: less is no rod
TURN = 9.0  # mm on each side of a cross-section that tell where the axis goes


def found(grid: Grid, point: Point) -> tuple[Box, np.ndarray] | None:
    """The rod of bone on which a grid voxel lies, as a bool mask in a box of the grid; None where it lies on none."""
    if not grid.hounsfield or not grid.volume.spacing_known or min(grid.shape) < 8:
        return None
    rods = [rod for bone in BONE if (rod := _rod(grid, point, bone)) is not None]
    return max(rods, key=lambda rod: np.count_nonzero(rod[1]), default=None)


def _rod(grid: Grid, point: Point, bone: float) -> tuple[Box, np.ndarray] | None:
    spacing = np.asarray(grid.spacing)
    start = np.asarray(point, float)
    near = _bone(grid, start, AROUND, bone)
    if near is None:
        return None
    offsets = (near - start) * spacing
    start = start + offsets[(offsets**2).sum(1) < (AROUND / 1.6) ** 2].mean(0) / spacing
    near = _bone(grid, start, BEGIN, bone)
    axis = None if near is None else _axis((near - near.mean(0)) * spacing, LONG)
    if axis is None:
        return None
    areas: list[float] = []
    parts: list[np.ndarray] = []
    steps = 0
    for direction in (axis, -axis):
        for voxels in _followed(grid, start, direction, areas, bone):
            parts.append(voxels)
            steps += 1
    if steps * STEP < SHORTEST or np.median(areas) > WIDEST:
        return None
    every = np.concatenate(parts)
    low = np.maximum(every.min(0) - 2, 0)
    mask = np.zeros(np.minimum(every.max(0) + 3, grid.shape) - low, bool)
    mask[tuple((every - low).T)] = True
    mask = close(mask)
    at = tuple(int(c - o) for c, o in zip(point, low, strict=True))
    if not all(0 <= c < n for c, n in zip(at, mask.shape, strict=True)) or not _held(mask, at, grid.spacing):
        return None
    box: Box = tuple(slice(int(o), int(o + n)) for o, n in zip(low, mask.shape, strict=True))  # type: ignore[assignment]
    return box, mask


def _followed(grid: Grid, start: np.ndarray, axis: np.ndarray, areas: list[float], bone: float) -> Iterator[np.ndarray]:
    """The grid voxels (n, 3) of one cross-section after the other; their areas in mm² are added to `areas`."""
    spacing = np.asarray(grid.spacing)
    here = start
    for _ in range(int(FARTHEST / STEP)):
        near = _bone(grid, here, AROUND, bone)
        if near is None:
            return
        offsets = (near - here) * spacing
        along = offsets @ axis
        section = np.abs(along) <= SLAB
        area = float(np.count_nonzero(section) * spacing.prod() / (2 * SLAB))
        usual = float(np.median(areas)) if len(areas) > 2 else WIDEST
        if not area or area > LARGER * usual or usual > WIDEST:
            return
        middle = (offsets[section] - along[section, None] * axis).mean(0)
        if np.linalg.norm(middle) > OFF:
            return
        areas.append(area)
        yield near[section]
        turned = _axis(offsets[np.abs((offsets - middle) @ axis) < TURN] - middle, 1.5)
        if turned is not None:
            axis = axis + turned * np.sign(turned @ axis)
            axis = axis / np.linalg.norm(axis)
        here = here + (middle + STEP * axis) / spacing


def _bone(grid: Grid, middle: np.ndarray, reach: float, least: float) -> np.ndarray | None:
    """(n, 3) grid voxels of the bone that hangs together around a place, within `reach` of it, of voxels over
    `least` HU; None where there is none."""
    centre: Point = tuple(round(float(c)) for c in middle)  # type: ignore[assignment]
    if not all(0 <= c < n for c, n in zip(centre, grid.shape, strict=True)):
        return None
    box, inside = ball(grid.shape, centre, reach, grid.spacing)
    bone = (grid.smooth[box] > least) & inside
    corner = np.array([s.start for s in box])
    every = np.argwhere(bone)
    if not len(every):
        return None
    apart = (((every + corner - middle) * np.asarray(grid.spacing)) ** 2).sum(1)
    nearest = int(apart.argmin())
    if apart[nearest] > NEAR**2:
        return None
    return np.argwhere(reached(bone, [tuple(int(c) for c in every[nearest])])) + corner  # type: ignore[list-item]


def _axis(offsets: np.ndarray, longer: float) -> np.ndarray | None:
    """The direction in which voxels (n, 3) spread most; None where the variance is less than so many times the next."""
    if len(offsets) < 6:
        return None
    spread, directions = np.linalg.eigh(np.cov(offsets.T))
    return directions[:, 2] if spread[2] >= longer * spread[1] else None


def _held(mask: np.ndarray, at: Point, spacing: Spacing) -> bool:
    """Whether a voxel is of the mask, or of its marrow: bone on most sides, near by."""
    box, inside = ball(mask.shape, at, NEAR, spacing)
    return bool(mask[at]) or bool((mask[box] & inside).mean() > 0.25)
