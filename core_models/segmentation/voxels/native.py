"""A coarse mask → a native-resolution Mask with a smooth surface that honours every click."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from core_models.segmentation.engine import Mask
from core_models.segmentation.voxels.grid import THREADS, Grid
from core_models.segmentation.voxels.morphology import Box, signed_distance


def upsample(
    grid: Grid,
    coarse: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
) -> Mask:
    """Trilinear zero crossing of the signed distance, in native voxels.

    Args:
        coarse: bool, the grid's mask inside `box` (grid slices).
        inside, outside: clicked native voxels (z, y, x); they end up in and out whatever the mask says.
    """
    signed = signed_distance(coarse, grid.spacing)
    # edt gives a voxel's distance to the nearest *centre* on the other side; the surface is half-way, at zero.
    return _crossing(grid, signed, coarse, box, inside, outside)


def upsample_probability(
    grid: Grid,
    probability: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
) -> Mask:
    """Where the grid's trilinear probability is over a half, in native voxels; arguments as of `upsample`."""
    return _crossing(grid, probability - 0.5, probability > 0.5, box, inside, outside)


def _crossing(
    grid: Grid,
    signed: np.ndarray,
    coarse: np.ndarray,
    box: Box,
    inside: list[tuple[int, int, int]],
    outside: list[tuple[int, int, int]],
) -> Mask:
    if not coarse.any():  # what was clicked is thinner than the grid: the clicks alone
        coarse = coarse.copy()
        for p in inside:
            at = tuple(c - s.start for c, s in zip(grid.from_native(p), box, strict=True))
            if all(0 <= c < n for c, n in zip(at, coarse.shape, strict=True)):
                coarse[at] = True
    start, stop = _native_box(grid, coarse, box)
    found = _above_zero(signed, grid, box, start, stop)
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


def _above_zero(values: np.ndarray, grid: Grid, box: Box, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Whether trilinear samples of grid `values` at native voxel centres are over zero; edge values go on outwards."""
    padded = np.pad(values.astype(np.float32), 1, mode="edge")
    lower, share = [], []
    for axis in range(3):
        native = np.arange(start[axis], stop[axis])
        at = (native + 0.5) / grid.factor[axis] - 0.5 - box[axis].start + 1  # in voxels of the padded array
        below = np.clip(np.floor(at), 0, padded.shape[axis] - 2)
        lower.append(below.astype(np.int64))
        share.append((at - below).astype(np.float32))
    out = np.zeros(stop - start, bool)
    cuts = np.linspace(0, len(out), THREADS + 1).astype(int)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [
            pool.submit(
                _sampled, padded, lower[0][a:b], share[0][a:b], lower[1], share[1], lower[2], share[2], out[a:b]
            )
            for a, b in itertools.pairwise(cuts)
        ]
        for part in parts:
            part.result()
    return out


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
    _sampled(np.zeros((2, 2, 2), np.float32), line, share, line, share, line, share, np.zeros((1, 1, 1), bool))
