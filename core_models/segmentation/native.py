"""A coarse mask → a native-resolution Mask with a smooth surface that honours every click."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Mask
from core_models.segmentation.grid import THREADS, Grid
from core_models.segmentation.morphology import Box, signed_distance


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
    found = _resample(signed, grid, box, start, stop) > 0
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


def _resample(values: np.ndarray, grid: Grid, box: Box, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Trilinear samples of grid `values` at native voxel centres, float32; edge values continue outwards."""
    padded = np.pad(values.astype(np.float32), 1, mode="edge")
    factor = np.asarray(grid.factor)
    origin = (np.array([s.start for s in box]) - 1 + 0.5) * factor - 0.5  # native index of the padded array's first
    image = sitk.GetImageFromArray(padded)
    image.SetSpacing([float(f) for f in factor[::-1]])
    image.SetOrigin([float(o) for o in origin[::-1]])
    resample = sitk.ResampleImageFilter()
    resample.SetSize([int(n) for n in (stop - start)[::-1]])
    resample.SetOutputOrigin([float(s) for s in start[::-1]])
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(-1.0)
    resample.SetNumberOfWorkUnits(THREADS)
    return sitk.GetArrayFromImage(resample.Execute(image))
