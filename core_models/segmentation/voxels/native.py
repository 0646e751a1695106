"""A coarse mask → a native-resolution Mask with a smooth surface that honours every click.

On CT the surface moves, by less than a grid step, to where the native values cross from those inside to those outside:
local means of both sides, as of Lankton & Tannenbaum, "Localizing region-based active contours", IEEE Trans Image
Process 2008;17:2029-2039, in one step instead of an evolving contour.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numba import njit

from core_models.segmentation.engine import Mask
from core_models.segmentation.voxels.grid import THREADS, Grid
from core_models.segmentation.voxels.morphology import Box, Spacing, signed_distance

BAND = 2.0  # nominal mm on both sides of the coarse surface in which native values have a say
SHELL, WIDTH = 3.0, 2.0  # mm from that surface whose values count for a side; standard deviation of their weights
CONTRAST = 60.0  # HU between both sides at which values count half as much as they do at most ...
WEIGHT = 3.0  # ... mm for a value that is that of a side


def upsample(
    grid: Grid,
    coarse: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
    level: float = 0.5,
) -> Mask:
    """Trilinear zero crossing of the signed distance, in native voxels; on CT moved to where the values part.

    Args:
        coarse: bool, the grid's mask inside `box` (grid slices).
        inside, outside: clicked native voxels (z, y, x); they end up in and out whatever the mask says.
        level: where they part, 0 being the values outside and 1 those inside.
    """
    if grid.hounsfield and grid.shape[0] > 1:
        return _clicked(grid, coarse, box, inside, outside, partial(_at_values, level=level))
    # edt gives a voxel's distance to the nearest *centre* on the other side; the surface is half-way, at zero.
    signed = signed_distance(coarse, grid.spacing)
    return _clicked(grid, coarse, box, inside, outside, lambda *where: _above_zero(signed, *where))


def upsample_probability(
    grid: Grid,
    probability: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
) -> Mask:
    """Where the grid's trilinear probability is over a half, in native voxels; arguments as of `upsample`."""
    over = probability - 0.5
    return _clicked(grid, over > 0, box, inside, outside, lambda *where: _above_zero(over, *where))


def _clicked(
    grid: Grid,
    coarse: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
    drawn: Callable[[Grid, np.ndarray, Box, np.ndarray, np.ndarray], np.ndarray],
) -> Mask:
    """What is drawn of a coarse mask in native voxels, with those that were clicked on their side."""
    if not coarse.any():  # what was clicked is thinner than the grid: the clicks alone
        coarse = coarse.copy()
        for p in inside:
            at = tuple(c - s.start for c, s in zip(grid.from_native(p), box, strict=True))
            if all(0 <= c < n for c, n in zip(at, coarse.shape, strict=True)):
                coarse[at] = True
    start, stop = _native_box(grid, coarse, box)
    found = drawn(grid, coarse, box, start, stop)
    for points, side in ((outside, False), (inside, True)):
        for p in points:
            at = tuple(c - s for c, s in zip(p, start, strict=True))
            if all(0 <= c < n for c, n in zip(at, found.shape, strict=True)):
                found[at] = side
    inner = Mask.from_full(found)
    offset = tuple(int(s + o) for s, o in zip(start, inner.offset, strict=True))
    return Mask(offset, inner.voxels, grid.volume.shape)  # type: ignore[arg-type]


def _native_box(grid: Grid, coarse: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """First native voxel of the mask's surroundings and one past the last, (z, y, x) each."""
    start, stop = [], []
    for axis in range(3):
        line = np.flatnonzero(coarse.any(axis=tuple(a for a in range(3) if a != axis)))
        factor, n = grid.factor[axis], grid.volume.shape[axis]
        start.append(max(0, int((box[axis].start + line[0] - 1) * factor)))
        stop.append(min(n, int(np.ceil((box[axis].start + line[-1] + 2) * factor))))
    return np.array(start), np.array(stop)


def _above_zero(
    values: np.ndarray, grid: Grid, coarse: np.ndarray, box: Box, start: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    """Whether trilinear samples of grid `values` at native voxel centres are over zero; edge values go on outwards."""
    padded = np.pad(values.astype(np.float32), 1, mode="edge")
    lower, share = _between(grid, box, start, stop, padded.shape)
    out = np.zeros(stop - start, bool)

    def planes(a: int, b: int) -> None:
        _sampled(padded, lower[0][a:b], share[0][a:b], lower[1], share[1], lower[2], share[2], out[a:b])

    _halved(len(out), planes)
    return out


def _between(
    grid: Grid, box: Box, start: np.ndarray, stop: np.ndarray, shape: tuple[int, ...]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each axis: the voxels of a box, padded by one, below the native ones, and how far these are to the next."""
    lower, share = [], []
    for axis in range(3):
        native = np.arange(start[axis], stop[axis])
        at = (native + 0.5) / grid.factor[axis] - 0.5 - box[axis].start + 1  # in voxels of the padded array
        below = np.clip(np.floor(at), 0, shape[axis] - 2)
        lower.append(below.astype(np.int64))
        share.append((at - below).astype(np.float32))
    return lower, share


def _at_values(
    grid: Grid, coarse: np.ndarray, box: Box, start: np.ndarray, stop: np.ndarray, level: float
) -> np.ndarray:
    """bool, native: inside the coarse surface, moved within `BAND` to where the values part."""
    margin = [int(np.ceil((SHELL + BAND) / mm)) for mm in grid.spacing]
    wide = tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, grid.shape, strict=True)
    )
    mask = np.zeros([s.stop - s.start for s in wide], bool)
    mask[tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))] = coarse
    signed = signed_distance(mask, grid.spacing).astype(np.float32)
    middle, contrast = np.zeros_like(signed), np.zeros_like(signed)
    reach = BAND + float(np.linalg.norm(grid.spacing))  # the farthest grid voxel beside a native one in the band
    smooth, weights = np.ascontiguousarray(grid.smooth[wide]), _weights(grid.spacing)
    _halved(len(signed), lambda a, b: _sides(smooth, signed, *weights, reach, level, a, b, middle, contrast))
    padded = [np.pad(a, 1, mode="edge") for a in (signed, middle, contrast)]
    lower, share = _between(grid, wide, start, stop, padded[0].shape)  # type: ignore[arg-type]
    out = np.zeros(stop - start, bool)
    rows, columns = (slice(int(a), int(b)) for a, b in zip(start[1:], stop[1:], strict=True))

    def planes(first: int, last: int) -> None:
        for z in range(first, last):
            image = np.ascontiguousarray(grid.volume.array[int(start[0]) + z, rows, columns], np.float32)
            _plane(*padded, lower[0][z], share[0][z], lower[1], share[1], lower[2], share[2], image, out[z])

    _halved(len(out), planes)
    return out


def _halved(count: int, work: Callable[[int, int], None]) -> None:
    """Do `work(first, last)` for so many planes, in `THREADS` parts at once."""
    cuts = np.linspace(0, count, THREADS + 1).astype(int)
    with ThreadPoolExecutor(THREADS) as pool:
        for part in [pool.submit(work, int(a), int(b)) for a, b in itertools.pairwise(cuts)]:
            part.result()


def _weights(spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) steps to the voxels around one, and (n,) their weights."""
    reach = [int(2.5 * WIDTH / mm) for mm in spacing]
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    apart = ((steps * np.asarray(spacing)) ** 2).sum(1)
    near = apart <= (2.5 * WIDTH) ** 2
    return steps[near], np.exp(-apart[near] / (2 * WIDTH**2)).astype(np.float32)


@njit(cache=True, nogil=True)
def _sides(smooth, signed, steps, weights, reach, level, first, last, middle, contrast):  # type: ignore[no-untyped-def]
    """Fill planes of `middle` and `contrast`, zeros so far, within `reach` of a surface: what lies at `level` between
    the values on both of its sides, and inside less outside; 0 where one is missing."""
    depth, height, width = smooth.shape
    for z in range(first, last):
        for y in range(height):
            for x in range(width):
                if abs(signed[z, y, x]) > reach:
                    continue
                inner, outer, ins, outs = 0.0, 0.0, 0.0, 0.0
                for n in range(len(weights)):
                    k, j, i = z + steps[n, 0], y + steps[n, 1], x + steps[n, 2]
                    if 0 <= k < depth and 0 <= j < height and 0 <= i < width:
                        if 0 < signed[k, j, i] < SHELL:
                            inner += weights[n] * smooth[k, j, i]
                            ins += weights[n]
                        elif -SHELL < signed[k, j, i] <= 0:
                            outer += weights[n] * smooth[k, j, i]
                            outs += weights[n]
                if ins > 0 and outs > 0:
                    middle[z, y, x] = level * inner / ins + (1 - level) * outer / outs
                    contrast[z, y, x] = inner / ins - outer / outs


@njit(cache=True, nogil=True)
def _plane(  # type: ignore[no-untyped-def]
    signed, middle, contrast, z, z_share, y_lower, y_share, x_lower, x_share, image, out
):
    """Fill a plane of `out`: over zero, or within `BAND` of it by the native value."""
    width = signed.shape[2]
    row = np.empty(width, np.float32)
    for y in range(len(y_lower)):
        j, b, a = y_lower[y], y_share[y], z_share
        most = np.float32(-np.inf)
        for x in range(width):
            below = signed[z, j, x] + b * (signed[z, j + 1, x] - signed[z, j, x])
            above = signed[z + 1, j, x] + b * (signed[z + 1, j + 1, x] - signed[z + 1, j, x])
            row[x] = below + a * (above - below)
            most = max(most, row[x])
        if most <= -BAND:
            continue
        for x in range(len(x_lower)):
            i, c = x_lower[x], x_share[x]
            apart = row[i] + c * (row[i + 1] - row[i])
            if apart >= BAND:
                out[y, x] = True
            elif apart > -BAND:
                between, against = np.float32(0), np.float32(0)
                for dz in range(2):
                    for dy in range(2):
                        part = (a if dz else 1 - a) * (b if dy else 1 - b)
                        between += part * ((1 - c) * middle[z + dz, j + dy, i] + c * middle[z + dz, j + dy, i + 1])
                        against += part * ((1 - c) * contrast[z + dz, j + dy, i] + c * contrast[z + dz, j + dy, i + 1])
                said = np.float32(0)
                if abs(against) >= 1 and image[y, x] == image[y, x]:  # where there is a value
                    off = min(max((image[y, x] - between) / against, -1.0), 1.0)
                    said = 2 * WEIGHT * off * abs(against) / (abs(against) + CONTRAST)
                out[y, x] = apart + said > 0


@njit(cache=True, nogil=True)
def _sampled(values, z_lower, z_share, y_lower, y_share, x_lower, x_share, out):  # type: ignore[no-untyped-def]
    """Fill `out` with True where a sample is over zero: axis by axis, a row only where it reaches over it."""
    _, height, width = values.shape
    plane = np.empty((height, width), np.float32)
    row = np.empty(width, np.float32)
    for z in range(len(z_lower)):
        below, above, share = values[z_lower[z]], values[z_lower[z] + 1], z_share[z]
        for y in range(height):
            for x in range(width):
                plane[y, x] = below[y, x] + share * (above[y, x] - below[y, x])
        for y in range(len(y_lower)):
            before, behind, share = plane[y_lower[y]], plane[y_lower[y] + 1], y_share[y]
            most = np.float32(0)
            for x in range(width):
                row[x] = before[x] + share * (behind[x] - before[x])
                most = max(most, row[x])
            if most > 0:
                for x in range(len(x_lower)):
                    left = row[x_lower[x]]
                    out[z, y, x] = left + x_share[x] * (row[x_lower[x] + 1] - left) > 0


def ready() -> None:
    """Compile what is compiled here, or load it, so that no click waits for it."""
    line, share = np.zeros(1, np.int64), np.zeros(1, np.float32)
    cube = np.zeros((2, 2, 2), np.float32)
    _sampled(cube, line, share, line, share, line, share, np.zeros((1, 1, 1), bool))
    _sides(cube, cube, *_weights((2.0, 2.0, 2.0)), 1.0, 0.5, 0, 2, cube.copy(), cube.copy())
    _plane(cube, cube, cube, line[0], share[0], line, share, line, share, cube[0], np.zeros((1, 1), bool))
