"""A cube of the grid and the clicks in it → what the click network is told, in plain arrays.

Training and the page take the same functions; nothing here needs torch.  Lengths are nominal mm of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core_models.segmentation.clicks.tissue_maps import MAPS, maps
from core_models.segmentation.voxels.grid import RELATIVE_RANGE

SIDE = 48  # voxels along a cube
FLAT = (2, 96, 96)  # a picture: two equal slices, which stand for equal ones without end
CUES = 8 + MAPS
ALIKE = 6  # the first of the two cues that come of the embedding
TIGHT, BROAD = 1.0, 4.0  # voxels of the half-size cube: widths of a click as the decoder sees it
SOFT = (50.0, 125.0)  # HU: centre and scale of the soft-tissue channel
WIDE = 500.0  # HU: scale of the channel that tells air, tissue and bone
NEAR = 2  # voxels of the half-size cube around a click that tell its grey level


def sample(
    values: np.ndarray, spacing: Sequence[float], centre: Sequence[float], step: float, shape: Sequence[int]
) -> np.ndarray:
    """A cube out of a grid, linearly interpolated; beyond the grid's rim its last value goes on.

    Args:
        values: (z, y, x); `spacing`: of its voxels; `centre`: of the cube, in its voxels.
        step: edge of the cube's voxels; `shape`: (z, y, x) of the cube.

    Returns:
        float32, of that shape.
    """
    return linear(
        values,
        [(np.arange(n) - (n - 1) / 2) * step / s + c for n, s, c in zip(shape, spacing, centre, strict=True)],
    )


def linear(values: np.ndarray, lines: Sequence[np.ndarray]) -> np.ndarray:
    """`values` (z, y, x) interpolated at every meeting of three lines of voxel places, float32; the rim goes on."""
    out = np.asarray(values)
    shares = []
    for axis, line in enumerate(lines):
        size = values.shape[axis]
        at = np.clip(line, 0, size - 1)
        low = np.minimum(np.floor(at).astype(int), max(0, size - 2))
        first, last = int(low.min()), min(size, int(low.max()) + 2)
        out = out[(slice(None),) * axis + (slice(first, last),)]
        shares.append((low - first, (at - low).astype(np.float32)))
    out = out.astype(np.float32, copy=False)
    for axis, (low, share) in enumerate(shares):
        share = share.reshape([-1 if a == axis else 1 for a in range(3)])
        near, far = out.take(low, axis), out.take(np.minimum(low + 1, out.shape[axis] - 1), axis)
        out = near + share * (far - near)
    return out


def halved(values: np.ndarray) -> np.ndarray:
    """(..., z, y, x) averaged over blocks of 2 × 2 × 2; axes of one voxel stay, an odd last voxel is left out."""
    for axis in range(-3, 0):
        n = values.shape[axis] // 2 * 2
        if n:
            even = [slice(None)] * values.ndim
            odd = [slice(None)] * values.ndim
            even[axis], odd[axis] = slice(0, n, 2), slice(1, n, 2)
            values = (values[tuple(even)] + values[tuple(odd)]) * np.float32(0.5)
    return values


def channels(values: np.ndarray, hounsfield: bool) -> np.ndarray:
    """Grid values (z, y, x) → (2, z, y, x) float32: soft tissue and the whole range, each of about unit size."""
    if hounsfield:
        return np.stack([np.clip((values - SOFT[0]) / SOFT[1], -2, 2), np.clip(values / WIDE, -2, 3)]).astype(
            np.float32
        )
    middle = (values - RELATIVE_RANGE / 2) / (RELATIVE_RANGE / 4)
    return np.stack([np.clip(middle, -2, 2), np.clip(middle, -2, 3)]).astype(np.float32)


def values_of(cube: np.ndarray, hounsfield: bool) -> np.ndarray:
    """The inverse of `channels`, as far as their ranges reach: (z, y, x) in HU, or 0 to RELATIVE_RANGE."""
    if hounsfield:
        return np.where(np.abs(cube[0]) < 2, cube[0] * SOFT[1] + SOFT[0], cube[1] * WIDE)
    return cube[1] * (RELATIVE_RANGE / 4) + RELATIVE_RANGE / 2


def tissue_cues(cube: np.ndarray, hounsfield: bool, inside: np.ndarray, step: float) -> np.ndarray:
    """`tissue_maps.maps` of the clicks that add, as cues: (MAPS, z/2, y/2, x/2).  A slab's slices are one picture."""
    shape = cube.shape[1:]
    values = values_of(cube, hounsfield)
    points = voxels(inside, shape)
    if shape[0] == FLAT[0]:
        middle = shape[0] // 2
        flat = maps(values[middle : middle + 1], hounsfield, [(0, y, x) for _, y, x in points], step)
        found = np.broadcast_to(flat, (MAPS, *shape))
    else:
        found = maps(values, hounsfield, points, step)
    return halved(found)


def cues(
    values: np.ndarray,
    embedding: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    before: np.ndarray,
    tissue: np.ndarray,
) -> np.ndarray:
    """What the decoder is told of the clicks in one cube.

    Args:
        values: (2, z, y, x) of `channels`.
        embedding: (e, z/2, y/2, x/2) unit vectors.
        inside, outside: (n, 3) float clicks in the cube's voxels (z, y, x); either may be empty.
        before: (z, y, x) probabilities of the answer so far, zeros without one.
        tissue: `tissue_cues` of the clicks that add.

    Returns:
        (CUES, z/2, y/2, x/2) float32.
    """
    half = halved(np.concatenate([values, before[None]]))
    shape = half.shape[1:]
    out = []
    alike = []
    for points in (inside, outside):
        near = (np.asarray(points, np.float32) - 0.5) / 2  # centres of 2 × 2 × 2 blocks
        squared = _squared(near, shape)
        out += [np.exp(-squared / (2 * TIGHT**2)), np.exp(-np.sqrt(squared) / BROAD)]
        alike.append(_alike(embedding, near))
    likely = (
        _likely(half[0], (np.asarray(inside, np.float32) - 0.5) / 2) if len(inside) else np.zeros(shape, np.float32)
    )
    return np.concatenate([np.stack([*out, half[2], likely, *alike]), tissue]).astype(np.float32)


def voxels(points: np.ndarray, shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """The voxels that hold points, those outside moved to the rim."""
    return [tuple(int(min(max(round(float(c)), 0), n - 1)) for c, n in zip(p, shape, strict=True)) for p in points]  # type: ignore[misc]


def _squared(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Squared distance of every voxel to the nearest point; very far without one."""
    out = np.full(tuple(shape), 1e6, np.float32)
    lines = [np.arange(n, dtype=np.float32) for n in shape]
    for p in points:
        z, y, x = ((line - c) ** 2 for line, c in zip(lines, p, strict=True))
        np.minimum(out, z[:, None, None] + y[:, None] + x, out=out)
    return out


def _alike(embedding: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Greatest cosine of every voxel's embedding with a clicked one's; -1 without clicks."""
    shape = embedding.shape[1:]
    if not len(points):
        return np.full(shape, -1.0, np.float32)
    clicked = np.stack([embedding[(slice(None), *v)] for v in voxels(points, shape)])
    return (clicked @ embedding.reshape(len(embedding), -1)).max(0).reshape(shape)


def _likely(soft: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How alike each voxel's grey level is to what was clicked, 0 to 1: the best of the clicks, robust to a rim."""
    best = np.zeros(soft.shape, np.float32)
    for z, y, x in voxels(points, soft.shape):
        box = tuple(slice(max(0, c - NEAR), c + NEAR + 1) for c in (z, y, x))
        around = soft[box].ravel()
        centre = _median(soft[tuple(slice(max(0, c - 1), c + 2) for c in (z, y, x))].ravel())
        kept = around[np.abs(around - centre) < 1.0]
        middle = _median(kept) if len(kept) else centre
        spread = 1.4826 * _median(np.abs(kept - middle)) if len(kept) else 0.0
        spread = min(max(spread, 0.11), 0.7)
        np.maximum(best, np.exp(-0.5 * ((soft - middle) / np.float32(2 * spread)) ** 2), out=best)
    return best


def _median(values: np.ndarray) -> float:
    """The lower of the two in the middle, as torch has it: the shipped weights were trained on that."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])
