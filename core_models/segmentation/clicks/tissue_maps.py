"""A cube and its clicks that add → what the classical engine would take: maps that the network reads beside the image.

What is connected to a click through its tissue's window, how deep each voxel lies in that, and what is left of it when
bridges thinner than a part of the ball inscribed at the click are cut.  A network needs long to learn to follow a
tissue as far as it goes and to stop at a neck; these maps tell it at once, and it learns where they are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core_models.segmentation.voxels.flooding import reached
from core_models.segmentation.voxels.morphology import ball, close, deepest_near, distance, flood, grown
from core_models.segmentation.watershed_engine import CLICK_RADIUS, SAMPLE_RADIUS, Tissue

MAPS = 3
OPENINGS = (0.3, 0.5, 0.75)  # of the inscribed ball's radius
SLACK = 1.15  # an opened part reaches this much farther than what was taken off its core
REACH = 5.0  # mm from a click to the middle of the ball inscribed there
Point = tuple[int, int, int]


def maps(values: np.ndarray, hounsfield: bool, points: Sequence[Point], step: float) -> np.ndarray:
    """(MAPS, z, y, x) float32 of 0 to 1: share of the openings that keep a voxel, connectedness, depth over the ball's.

    Args:
        values: (z, y, x) in HU, or 0 to grid.RELATIVE_RANGE.
        points: clicked voxels of the cube; `step`: edge of its voxels in mm.
    """
    out = np.zeros((MAPS, *values.shape), np.float32)
    for point in points:
        np.maximum(out, _of_one(values, hounsfield, point, step), out=out)
    return out


def _of_one(values: np.ndarray, hounsfield: bool, point: Point, step: float) -> np.ndarray:
    spacing = (step, step, step)
    tissue = _tissue(values, hounsfield, point, spacing)
    low, high = tissue.window()
    around, within = ball(values.shape, point, max(CLICK_RADIUS, step), spacing)
    seeds = [tuple(int(c + s.start) for c, s in zip(p, around, strict=True)) for p in np.argwhere(within)]
    mask = flood(values, seeds, low, high)  # type: ignore[arg-type]
    mask[around] |= within
    mask = close(mask)
    depth = distance(mask, spacing)
    depth = np.minimum(depth, 1e3)  # a cube that is one tissue throughout has no surface
    top = deepest_near(depth, point, max(REACH, step), spacing)
    radius = max(step, float(depth[top]))
    out = np.zeros((MAPS, *values.shape), np.float32)
    for share in OPENINGS:
        opening = share * radius
        core = reached(depth > opening, [top])
        if core.any():
            near = grown(core, max(opening * SLACK, step), spacing)
            out[0] += (near & mask) / np.float32(len(OPENINGS))
    out[1] = mask
    out[2] = np.minimum(depth / radius, 1.0)
    return out


def _tissue(values: np.ndarray, hounsfield: bool, point: Point, spacing: tuple[float, float, float]) -> Tissue:
    """As the classical engine measures it, on the cube's voxels."""
    box, inside = ball(values.shape, point, max(SAMPLE_RADIUS, spacing[0]), spacing)
    around = values[box][inside]
    centre = float(np.median(values[tuple(slice(max(0, c - 1), c + 2) for c in point)]))
    around = around[np.abs(around - centre) < 120]
    if around.size == 0:
        return Tissue(centre, 20.0, hounsfield)
    centre = float(np.median(around))
    spread = 1.4826 * float(np.median(np.abs(around - centre)))
    return Tissue(centre, float(np.clip(spread, 14.0, 90.0)), hounsfield)
