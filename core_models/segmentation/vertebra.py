"""A CT click in the body of a vertebra → all of it: the body by a star-shaped surface, the arch by what joins it.

No value tells one vertebra from the next: cortex and marrow are the same, discs are thin, joints are closed at the
grid's resolution.  Its shape does.  From the click, rays look for where marrow ends: a rise into the cortex, a fall out
of it; neighbouring rays are held together, so that a surface closes where the cortex is thin and over the pedicles.
What is bone behind it belongs to the body from which the way through bone is shortest.  A click is taken for one in a
vertebra only where a canal lies behind the body, encased in bone.

The surface is the idea of Li, Wu, Chen & Sonka, "Optimal surface segmentation in volumetric images" (IEEE TPAMI
2006;28:119-134), with the smoothness of a Markov random field and its descent by iterated conditional modes (Besag,
J R Stat Soc B 1986;48:259-302).  All constants are chosen on the training CTs.  Offsets are (z, y, x) in
nominal mm (`voxels.grid`) from the click: up, to the back, to the left, as volumes are canonical.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from core_models.segmentation.voxels.flooding import watershed
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import Box, Point, Spacing, ball, distance

MARROW = (50.0, 190.0)  # HU at the middle of a body: above lies cortex, or contrast in a vessel
SAMPLED = 4.0  # mm around the click of which that is the median
RAYS, NEAREST, FARTHEST = 642, 5, 36  # directions; mm from the middle at which a body may end
REACH = 3  # mm over which a rise into the cortex and a fall out of it are seen
STEEPEST = 150.0  # HU: what rises or falls more counts as this
LATER = 0.8  # of the best edge passed: what a later one must be better by
SOFT = 40.0  # HU: beyond is no vertebra
START, SIZE = 13.0, 12.0  # mm: the radius begun with; that for which the tension is given
TENSION, TORN, ROUNDS = 0.4, 9.0, 60  # of neighbouring rays; mm² from which more costs no more; rounds of descent
AROUND = (80.0, 95.0, 62.0)  # mm that are looked at on each side
CORTEX = 150.0  # HU: bone
SMALLEST = 8.5  # mm: radius of a body
SHELL = 35.0  # HU: what its cortex is brighter by than its marrow, in most directions
CANAL = (90.0, -20.0)  # HU that a canal has at most and at least
ENCASED = (0.7, 0.5)  # share of directions in which a canal meets bone: at the best of three levels, at the middle one
CASE = 180.0  # HU of that bone
GAP = 5.0  # mm between a body and the next
ARCH = (0.55, 1.0)  # heights of the body above and below its middle between which its arch lies
BEHIND = 75.0  # mm from the middle of a body to the end of its spinous process
WIDE = (1.6, 10.0)  # times the body's radius, and mm more: half the width of its transverse processes
FOOT = 3.0  # mm by which the next bodies may be wider
RIBS = (1.1, 3.0, 2.0)  # beside the body at this many radii, up to these mm behind it and from these mm off, is no arch


def found(grid: Grid, point: Point) -> tuple[Box, np.ndarray] | None:
    """The vertebra in whose body a grid voxel lies, as a bool mask in a box of the grid; None where it lies in none."""
    if not grid.hounsfield or not grid.volume.spacing_known or min(grid.shape) < 8:
        return None
    if not MARROW[0] < _median(grid.smooth, grid.spacing, np.asarray(point, float)) < MARROW[1]:
        return None
    middle = np.asarray(point, float)
    radii = _surface(grid.smooth, grid.spacing, middle)
    middle = middle + (_rays() * radii[:, None] ** 4).sum(0) / (radii**3).sum() * 0.75 / np.asarray(grid.spacing)
    radii = _surface(grid.smooth, grid.spacing, middle)
    level = np.abs(_rays()[:, 0]) < 0.5
    ends = _rays() * radii[:, None]
    radius = float(np.median(np.hypot(ends[level, 1], ends[level, 2])))
    back = float(np.percentile(ends[level, 1], 95))
    if radius < SMALLEST or not _has_cortex(grid.smooth, grid.spacing, middle, radii):
        return None
    if not _has_canal(grid.smooth, grid.spacing, middle, back):
        return None
    box, body, mask = _whole(grid.smooth, grid.spacing, middle, radii, radius, back)
    return (box, mask) if body[tuple(c - s.start for c, s in zip(point, box, strict=True))] else None


def _median(values: np.ndarray, spacing: Spacing, middle: np.ndarray) -> float:
    return float(np.median(_at(values, spacing, middle, _rays() * SAMPLED)))


def _at(values: np.ndarray, spacing: Spacing, middle: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Values (...) at offsets (..., 3) in mm from a grid position; beyond the scan those of its border."""
    places = np.moveaxis(middle + offsets / np.asarray(spacing), -1, 0)
    return map_coordinates(values, places, order=1, mode="nearest")


@cache
def _rays() -> np.ndarray:
    """(RAYS, 3) directions, evenly spread: points on a Fibonacci spiral."""
    turn = np.arange(RAYS) + 0.5
    polar, around = np.arccos(1 - 2 * turn / RAYS), np.pi * (1 + 5**0.5) * turn
    return np.stack([np.cos(polar), np.sin(around) * np.sin(polar), np.cos(around) * np.sin(polar)], 1)


@cache
def _neighbours() -> np.ndarray:
    """(RAYS, 6) the nearest other directions."""
    return cKDTree(_rays()).query(_rays(), k=7)[1][:, 1:]


def _surface(values: np.ndarray, spacing: Spacing, middle: np.ndarray) -> np.ndarray:
    """How far from the middle the marrow and its cortex reach along each ray: (RAYS,) mm."""
    steps = np.arange(NEAREST - REACH, FARTHEST + REACH, dtype=float)
    seen = _at(values, spacing, middle, _rays()[:, None, :] * steps[None, :, None])
    seen = np.clip(seen, SOFT - 100, 3 * STEEPEST)
    here, inside, outside = seen[:, REACH:-REACH], seen[:, : -2 * REACH], seen[:, 2 * REACH :]
    edge = np.clip(here - inside, 0, STEEPEST) + np.clip(here - outside, 0, STEEPEST)
    passed = np.pad(np.maximum.accumulate(edge, 1)[:, :-REACH], ((0, 0), (REACH, 0)))
    beyond = np.pad(np.maximum.accumulate(here < SOFT, 1)[:, :-2], ((0, 0), (2, 0)))
    cost = (LATER * passed - edge) / STEEPEST + 1.5 * beyond
    distances = np.arange(NEAREST, FARTHEST, dtype=float)
    radii = np.full(RAYS, START)
    rng = np.random.default_rng(0)  # half of the rays move at a time: all at once, neighbours would chase each other
    for turn in range(ROUNDS):
        tension = TENSION * min(1.0, 0.3 + 0.035 * turn) * (SIZE / radii.mean()) ** 2
        apart = np.minimum((distances - radii[_neighbours()][:, :, None]) ** 2, TORN).mean(1)
        moved = distances[(cost + tension * apart).argmin(1)]
        radii = np.where(rng.random(RAYS) < 0.5, moved, radii)
    return radii


def _has_cortex(values: np.ndarray, spacing: Spacing, middle: np.ndarray, radii: np.ndarray) -> bool:
    """Whether what is within the surface is encased in something brighter: muscle between bones is not."""
    rim = _at(values, spacing, middle, _rays()[:, None] * (radii[:, None] + np.array([-1.0, 0.0, 1.0]))[..., None])
    return float(np.median(rim.max(1))) - _median(values, spacing, middle) >= SHELL


def _has_canal(values: np.ndarray, spacing: Spacing, middle: np.ndarray, back: float) -> bool:
    """Whether behind the body lies something soft that bone encloses, at three levels."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rays = np.stack([0 * turn, np.sin(turn), np.cos(turn)], 1)
    disc = np.concatenate([rays * r for r in (0, 2, 4)])
    case = rays[None] * np.arange(4.0, 20.0, 2.0)[:, None, None]
    y, x = np.meshgrid(back + np.arange(4.0, 20.0, 2.0), np.arange(-6.0, 7.0, 3.0), indexing="ij")
    best = []
    for level in (-6.0, 0.0, 6.0):
        tried = np.stack([np.full(y.size, level), y.ravel(), x.ravel()], 1)
        soft = _at(values, spacing, middle, tried[:, None] + disc).mean(1)
        encased = (_at(values, spacing, middle, tried[:, None, None] + case).max(1) > CASE).mean(1)
        unlike = np.maximum(0, soft - CANAL[0]) / 100 + np.maximum(0, CANAL[1] - soft) / 50
        best.append(float((encased - unlike).max()))
    return max(best) >= ENCASED[0] and sorted(best)[1] >= ENCASED[1]


def _whole(
    values: np.ndarray, spacing: Spacing, middle: np.ndarray, radii: np.ndarray, radius: float, back: float
) -> tuple[Box, np.ndarray, np.ndarray]:
    """(a box, the body within the surface, the same with what is nearer to it, through bone, than to another one)."""
    box: Box = tuple(
        slice(max(0, int(c - reach / s)), min(n, int(c + reach / s) + 1))
        for c, reach, s, n in zip(middle, AROUND, spacing, values.shape, strict=True)
    )  # type: ignore[assignment]
    ends = _rays() * radii[:, None]
    top, bottom = (_plane(ends[_rays()[:, 0] * side > 0.8]) for side in (1, -1))
    axis = np.array([1.0, *(-(top + bottom) / 2)])
    axis /= np.linalg.norm(axis)
    above = float(np.median(ends[_rays()[:, 0] > 0.8] @ axis))
    below = float(-np.median(ends[_rays()[:, 0] < -0.8] @ axis))
    z, y, x = ((a - c) * s for a, c, s in zip(np.ogrid[box], middle, spacing, strict=True))
    along = z * axis[0] + y * axis[1] + x * axis[2]
    y, x = y - along * axis[1], x - along * axis[2]
    body = np.zeros([s.stop - s.start for s in box], bool)
    _fill(body, box, spacing, middle, radii)

    column = np.hypot(y, x) <= radius + FOOT
    bone = values[box] > CORTEX
    off = ~_near(body, RIBS[2], spacing)
    bone &= ~(off & (y < back + RIBS[1]) & (np.abs(x) > RIBS[0] * radius)) | column
    bone |= body
    bone &= (y < BEHIND) & (along < ARCH[0] * 2 * above) & (along > -ARCH[1] * 2 * below) | body
    markers = np.zeros(body.shape, np.int32)
    markers[bone & column & ((along > above + GAP) | (along < -below - GAP))] = 2
    markers[bone & (np.abs(x) > WIDE[0] * radius + WIDE[1])] = 2
    markers[body] = 1
    return box, body, watershed(np.zeros(body.shape, np.float32), markers, mask=bone) == 1


def _plane(points: np.ndarray) -> np.ndarray:
    """(2,) slope of z over y and x of the plane through most of the points (n, 3)."""
    across = np.c_[points[:, 1:], np.ones(len(points))]
    weight = np.ones(len(points))
    for _ in range(5):  # least absolute deviations by reweighting: a lip at the rim does not tilt the plane
        fit = np.linalg.lstsq(across * weight[:, None], points[:, 0] * weight, rcond=None)[0]
        weight = np.maximum(np.abs(points[:, 0] - across @ fit), 1.0) ** -0.5
    return fit[:2]


def _fill(mask: np.ndarray, box: Box, spacing: Spacing, middle: np.ndarray, radii: np.ndarray) -> None:
    """Set what lies within the surface."""
    local = middle - [s.start for s in box]
    near, _ = ball(mask.shape, tuple(round(float(c)) for c in local), float(radii.max()) + 3.0, spacing)  # type: ignore
    places = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in near), indexing="ij"), -1)
    offsets = (places - local) * np.asarray(spacing)
    far = np.linalg.norm(offsets, axis=-1)
    within = far <= radii.max() + 0.5
    apart, which = cKDTree(_rays()).query(offsets[within] / np.maximum(far[within], 1e-6)[:, None], k=3)
    weight = 1 / (apart + 1e-3)
    reach = (radii[which] * weight).sum(-1) / weight.sum(-1)
    inside = np.zeros(far.shape, bool)
    inside[within] = far[within] <= reach + 0.5
    mask[near] |= inside


def _near(mask: np.ndarray, reach: float, spacing: Spacing) -> np.ndarray:
    return distance(~mask, spacing) <= reach
