"""A CT click on a vessel, or another long round body → that body, followed slice by slice.

A vessel without contrast medium hangs together, through the values it has, with all that it passes; what tells it is
that from one slice to the next its outline hardly changes.  From the click the outline is followed both ways, in slices
across one axis of the grid, each time as the closed contour that lies on edges of the image and near the contour
before: the cheapest path around the middle in polar coordinates, by dynamic programming (Sun & Pallottino, "Circular
shortest path in images", Pattern Recognition 2003;36:709-719, treat such paths).  It ends where the outline changes
its size, its edges or its values.  The constants are chosen on the training CTs.  Lengths are nominal mm
(`voxels.grid`); a contour's radii run from its middle at `ANGLES` equal angles, from the plane's second axis on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from skimage.draw import polygon

from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import Box, Point, shifted

ANGLES = 32
STEP = 1.0  # mm between the radii that are tried
EDGE = 5.0  # HU per mm that count as half an edge
FORMER = 0.25  # weight of the contour before ...
LOOSE = (0.25, 1.5)  # ... from which a quarter of the radius and so many mm are a usual way off
FIRST = 0.5  # times that weight in the slice of the click, where only a circle is known
OTHER = 0.5  # cost of each mm of other values inside
TURNING = 0.05  # cost of a step of the radius from one angle to the next
CIRCLES = (4.0, 6.0, 9.0, 13.0, 18.0)  # radii that are tried in the slice of the click
LEAST, LEAST_AIR = 0.55, 0.85  # mean strength of its edges there: the lung has weaker ones than the windpipe
WEAKER, FEW = 0.1, 3  # so many slices running with edges weaker than that by so much are its end
USUAL = 15  # slices whose median area is the usual one
LARGER = 1.8  # times the usual area, or a part of it: another body
INNER = 0.7  # of the radii: what lies inside tells the values
JUMP, JUMP_SHARE = 40.0, 0.1  # HU, and share of the first value, by which they may change from a slice to the next
SETTLING = 0.1  # weight of a new slice's value
BEYOND = 10.0  # HU outside the window where it ends
LONG = 2.0  # times as long as wide: less is no tube
FARTHEST = 400.0  # mm that are followed each way
ON_AXIS = 0.5  # of the radius: a click that removes and lies so near to the middle cuts the tube off ...
CUT = 1.5  # ... at most so many widths before the click

_ANGLES = np.arange(ANGLES) * 2 * np.pi / ANGLES
_SIN, _COS = np.sin(_ANGLES), np.cos(_ANGLES)


@dataclass(frozen=True)
class Section:
    """A contour in one slice: its middle in voxels of the slice's plane, and (ANGLES,) radii in mm."""

    middle: tuple[float, float]
    radii: np.ndarray

    @property
    def area(self) -> float:
        """mm²."""
        return float(abs((self.radii * np.roll(self.radii, -1)).sum() * np.sin(2 * np.pi / ANGLES) / 2))

    def drawn(self, shape: tuple[int, ...], spacing: tuple[float, float], share: float = 1.0) -> np.ndarray:
        """bool of the plane's `shape`: what lies within so much of the radii."""
        inside = np.zeros(shape, bool)
        rows = self.middle[0] + share * self.radii * _SIN / spacing[0]
        columns = self.middle[1] + share * self.radii * _COS / spacing[1]
        inside[polygon(rows, columns, shape)] = True
        return inside


@dataclass(frozen=True)
class Tube:
    """Sections in a run of slices across one axis of the grid.

    Attributes:
        first: the number of the first one's slice; `begun`: of the slice that was clicked.
    """

    axis: int
    first: int
    begun: int
    sections: tuple[Section, ...]

    @property
    def width(self) -> float:
        """Diameter in mm of a circle of the median area."""
        return 2 * float(np.sqrt(np.median([s.area for s in self.sections]) / np.pi))

    def drawn(self, grid: Grid) -> tuple[Box, np.ndarray]:
        """It as a bool mask in a box of the grid."""
        across = _without(self.axis, grid.shape)
        plane = np.stack([s.drawn(across, _without(self.axis, grid.spacing)) for s in self.sections])  # type: ignore[arg-type]
        mask = np.moveaxis(plane, 0, self.axis)
        box = [slice(0, n) for n in grid.shape]
        box[self.axis] = slice(self.first, self.first + len(self.sections))
        for axis in range(3):
            if axis != self.axis:
                line = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
                if line.size:
                    box[axis] = slice(max(0, int(line[0]) - 3), min(grid.shape[axis], int(line[-1]) + 4))
        own = tuple(slice(None) if a == self.axis else s for a, s in enumerate(box))
        return tuple(box), mask[own].copy()  # type: ignore[return-value]

    def cut(self, grid: Grid, point: Point) -> Tube:
        """Without the end on which a click that removes lies about its axis.

        A reader clicks the middle of what is too much, so that it is cut as far before the click as it goes on beyond.
        """
        number = point[self.axis] - self.first
        away = point[self.axis] - self.begun
        if not away or not 0 <= number < len(self.sections):
            return self
        section, spacing = self.sections[number], _without(self.axis, grid.spacing)
        apart = [(c - m) * mm for c, m, mm in zip(_without(self.axis, point), section.middle, spacing, strict=True)]
        if np.hypot(*apart) > ON_AXIS * np.sqrt(section.area / np.pi):
            return self
        beyond = len(self.sections) - 1 - number if away > 0 else number
        before = min(beyond, CUT * self.width / grid.spacing[self.axis], abs(away) / 2)
        if away > 0:
            return replace(self, sections=self.sections[: max(1, number - int(before))])
        last = min(len(self.sections) - 1, number + int(before) + 1)
        return replace(self, first=self.first + last, sections=self.sections[last:])


def found(grid: Grid, point: Point, low: float, high: float) -> Tube | None:
    """The tube in whose midst a grid voxel lies; None where there is none.

    Args:
        low, high: the values of its tissue; an endless `low` is air's.
    """
    if not grid.hounsfield or min(grid.shape) < 8:
        return None
    best: Tube | None = None
    most = 0.0
    for axis in range(3):
        tube, strength = _along(grid, point, axis, low, high)
        if tube is not None:
            long = len(tube.sections) * grid.spacing[axis] / tube.width
            if long >= LONG and long * strength > most:
                best, most = tube, long * strength
    if best is None:
        return None
    box, mask = best.drawn(grid)
    at = shifted([point], box)
    return best if at and mask[at[0]] else None  # what was found may lie beside the click


def ready() -> None:
    """Compile what follows the contour, or load what was compiled."""
    _contour(np.zeros((4, 4), np.float32), 1.0, 1.0, np.full(ANGLES, 2.0), 0.0, 1.0, 1.0, 1.0, 1.0)


def _along(grid: Grid, point: Point, axis: int, low: float, high: float) -> tuple[Tube | None, float]:
    """What is followed across one axis, and how strong its edges are in the slice of the click."""
    slices = np.moveaxis(grid.smooth, axis, 0)
    spacing: tuple[float, float] = _without(axis, grid.spacing)  # type: ignore[assignment]
    begun = point[axis]
    middle: tuple[float, float] = tuple(float(c) for c in _without(axis, point))  # type: ignore[assignment]
    starts = []
    for radius in CIRCLES:
        section = Section(middle, np.full(ANGLES, radius))
        for _ in range(2):
            section, edges = _section(slices[begun], section, low, high, spacing, FIRST)
        starts.append((edges, section))
    strength, section = max(starts, key=lambda s: s[0])
    if strength < (LEAST if np.isfinite(low) else LEAST_AIR):
        return None, strength
    level = _value(slices[begun], section, spacing)
    if level is None:
        return None, strength
    areas = [section.area]
    sides: list[list[Section]] = []
    for step in (1, -1):
        side = _followed(slices, begun, step, section, areas, level, low, high, spacing, grid.spacing[axis])
        sides.append(side)
    sections = (*reversed(sides[1]), section, *sides[0])
    return Tube(axis, begun - len(sides[1]), begun, sections), strength


def _followed(
    slices: np.ndarray,
    begun: int,
    step: int,
    section: Section,
    areas: list[float],
    first: float,
    low: float,
    high: float,
    spacing: tuple[float, float],
    along: float,
) -> list[Section]:
    """The sections after that in the slice of the click, one way; their areas are added to `areas`."""
    kept: list[Section] = []
    level, weak = first, 0
    moved = np.zeros(2)
    for n in range(1, int(FARTHEST / along)):
        number = begun + step * n
        if not 0 <= number < len(slices):
            break
        ahead = replace(section, middle=tuple(np.asarray(section.middle) + moved / 2))
        now, edges = _section(slices[number], ahead, low + level - first, high + level - first, spacing, 1.0)
        usual = float(np.median(areas[-USUAL:]))
        now = replace(now, radii=_smoothed(now.radii))
        value = _value(slices[number], now, spacing)
        weak = weak + 1 if edges < LEAST - WEAKER else 0
        if value is None or weak >= FEW or not usual / LARGER <= now.area <= usual * LARGER:
            break
        if abs(value - level) > JUMP + JUMP_SHARE * abs(first) or not low - BEYOND <= value <= high + BEYOND:
            break
        moved = np.asarray(now.middle) - section.middle if n > 1 else moved
        section = now
        level += SETTLING * (value - level)
        areas.append(now.area)
        kept.append(now)
    return kept


def _section(
    image: np.ndarray, near: Section, low: float, high: float, spacing: tuple[float, float], weight: float
) -> tuple[Section, float]:
    """The contour of a slice near another one, about its own middle, and the mean strength of its edges (0 to 1)."""
    plane = np.ascontiguousarray(image)
    radii, edges = _contour(plane, *near.middle, near.radii, float(low), float(high), weight, *spacing)
    y, x = radii * _SIN, radii * _COS
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    total = 3 * cross.sum()
    dx, dy = ((c + np.roll(c, -1)) @ cross / total for c in (x, y))
    angles = np.arctan2(y - dy, x - dx) % (2 * np.pi)
    order = angles.argsort()
    around = np.concatenate([angles[order] + turn for turn in (-2 * np.pi, 0.0, 2 * np.pi)])
    radii = np.interp(_ANGLES, around, np.tile(np.hypot(y - dy, x - dx)[order], 3))
    middle = (near.middle[0] + dy / spacing[0], near.middle[1] + dx / spacing[1])
    return Section(middle, radii), float(edges)


def _value(image: np.ndarray, section: Section, spacing: tuple[float, float]) -> float | None:
    """The median inside a contour; None where it holds no voxel."""
    inside = image[section.drawn(image.shape, spacing, INNER)]
    return float(np.median(inside)) if inside.size else None


def _smoothed(radii: np.ndarray) -> np.ndarray:
    return (np.roll(radii, 1) + 2 * radii + np.roll(radii, -1)) / 4


def _without(axis: int, of: tuple) -> tuple:  # type: ignore[type-arg]
    return tuple(c for a, c in enumerate(of) if a != axis)


@njit(cache=True, nogil=True)
def _contour(image, row, column, former, low, high, weight, mm_row, mm_column):  # type: ignore[no-untyped-def]
    """(ANGLES,) radii of the cheapest closed contour around a place, and the mean strength of its edges."""
    angles = len(former)
    count = int((1.5 * former.max() + 4) / STEP) + 1
    height, width = image.shape
    strength = np.empty((angles, count))
    cost = np.empty((angles, count))
    line = np.empty(count)
    for a in range(angles):
        turn = 2 * np.pi * a / angles
        for n in range(count):
            y = min(max(row + n * STEP * np.sin(turn) / mm_row, 0.0), height - 1.0)
            x = min(max(column + n * STEP * np.cos(turn) / mm_column, 0.0), width - 1.0)
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            dy, dx = y - top, x - left
            line[n] = (
                image[top, left] * (1 - dy) * (1 - dx)
                + image[top, left + 1] * (1 - dy) * dx
                + image[top + 1, left] * dy * (1 - dx)
                + image[top + 1, left + 1] * dy * dx
            )
        other = 0.0
        for n in range(count):
            before, after = max(n - 1, 0), min(n + 1, count - 1)
            slope = abs(line[after] - line[before]) / ((after - before) * STEP)
            strength[a, n] = slope / (slope + EDGE)
            off = (n * STEP - former[a]) / (LOOSE[0] * former[a] + LOOSE[1])
            cost[a, n] = FORMER * weight * off * off - strength[a, n] + OTHER * STEP * other
            if n < 2:
                cost[a, n] += 10.0
            if line[n] < low or line[n] > high:
                other += 1.0
    # Three times around, of which the middle one counts: what it begins and ends with is forgotten.
    back = np.zeros((3 * angles, count), np.int8)
    total = cost[0].copy()
    following = np.empty(count)
    for a in range(1, 3 * angles):
        for n in range(count):
            best, way = np.inf, 0
            for step in range(-1, 2):
                m = n + step
                if 0 <= m < count and total[m] + abs(step) * TURNING < best:
                    best, way = total[m] + abs(step) * TURNING, step
            following[n] = best + cost[a % angles, n]
            back[a, n] = way
        total[:] = following
    radii = np.empty(angles)
    edges = 0.0
    n = int(total.argmin())
    for a in range(3 * angles - 1, angles - 1, -1):
        if a < 2 * angles:
            radii[a - angles] = n * STEP
            edges += strength[a - angles, n]
        n += back[a, n]
    return radii, edges / angles
