"""An image → the same with its noise smoothed and its edges kept: curvature anisotropic diffusion.

Whitaker & Xue, "Variable-conductance, level-set curvature for image denoising", ICIP 2001, in the discretisation that
ITK uses, to which a test holds it.  Written here because a reader waits for it: a few slices at a time stay in the
processor's cache, and each face between two voxels is computed once, which takes a fraction of the library's time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

CONDUCTANCE = 2.0
PIECE = 120_000  # voxels of the slices that one thread has in hand
LEAST = 1e-10  # keeps a flat place from dividing by nothing


def curvature_diffusion(
    values: np.ndarray, spacing: tuple[float, float, float], step: float, iterations: int, threads: int
) -> np.ndarray:
    """Smoothed values, float32.

    Args:
        values: (z, y, x) float32; its rim goes on beyond.
        spacing: (z, y, x), in the unit in which `step` was chosen.
        step: of time; stable up to a sixteenth of the least spacing in three dimensions.
    """
    now = np.pad(values.astype(np.float32), 1, mode="edge")
    after = np.empty_like(now)
    depth, height, width = values.shape
    each = max(1, PIECE // (height * width))
    starts = range(0, depth, each)
    inverse = tuple(np.float32(1 / s) for s in spacing)
    with ThreadPoolExecutor(threads) as pool:

        def over(task, *more) -> list:
            return list(pool.map(lambda start: task(now[start : start + each + 2], *more, start), starts))

        def moved(slab: np.ndarray, scale: np.float32, start: int) -> None:
            inner = slab[1:-1, 1:-1, 1:-1]
            np.add(inner, _change(slab, inverse, scale) * np.float32(step), out=_inner(after, start, len(inner)))

        for _ in range(iterations):
            mean = sum(over(lambda slab, start: _squares(slab, inverse))) / values.size
            over(moved, np.float32(-1 / (2 * max(mean, LEAST) * CONDUCTANCE**2)))
            _continue_rim(after)
            now, after = after, now
    return np.ascontiguousarray(now[1:-1, 1:-1, 1:-1])


def _inner(padded: np.ndarray, start: int, count: int) -> np.ndarray:
    return padded[start + 1 : start + 1 + count, 1:-1, 1:-1]


def _continue_rim(padded: np.ndarray) -> None:
    for axis in range(3):
        line = np.moveaxis(padded, axis, 0)
        line[0], line[-1] = line[1], line[-2]


def _centred(slab: np.ndarray, axis: int, inverse: float) -> np.ndarray:
    """Central differences along an axis, which becomes two shorter."""
    line = np.moveaxis(slab, axis, 0)
    out = line[2:] - line[:-2]
    out *= np.float32(0.5 * inverse)
    return np.moveaxis(out, 0, axis)


def _squares(slab: np.ndarray, inverse: tuple[float, ...]) -> float:
    """Sum of the squared gradient over a slab without its rim."""
    total = 0.0
    for axis in range(3):
        across = tuple(slice(None) if a == axis else slice(1, -1) for a in range(3))
        line = _centred(slab[across], axis, inverse[axis]).ravel()
        total += float(np.dot(line, line))
    return total


def _change(slab: np.ndarray, inverse: tuple[float, ...], scale: np.float32) -> np.ndarray:
    """What a slab without its rim changes by in a unit of time."""
    centred = [_centred(slab, axis, inverse[axis]) for axis in range(3)]
    speed, rise, fall = None, None, None
    for axis in range(3):
        low, high = (slice(None, -1), slice(1, None))
        across = [slice(None) if a == axis else slice(1, -1) for a in range(3)]
        line = slab[tuple(across)]
        at = [slice(None)] * 3
        before, behind = list(at), list(at)
        before[axis], behind[axis] = low, high
        face = line[tuple(behind)] - line[tuple(before)]
        face *= inverse[axis]
        norm = face * face
        for other in range(3):
            if other == axis:
                continue
            inside = tuple(slice(None) if a in (axis, other) else slice(1, -1) for a in range(3))
            own = centred[other][inside]
            both = own[tuple(before)] + own[tuple(behind)]
            both *= both
            both *= np.float32(0.25)
            norm += both
        flux = np.exp(norm * scale)
        flux *= face
        norm += np.float32(LEAST)
        flux /= np.sqrt(norm, out=norm)
        gain = flux[tuple(behind)] - flux[tuple(before)]
        upward, downward = np.maximum(face, 0), np.minimum(face, 0)
        upward *= upward
        downward *= downward
        up = upward[tuple(behind)] + downward[tuple(before)]
        down = upward[tuple(before)] + downward[tuple(behind)]
        if speed is None:
            speed, rise, fall = gain, up, down
        else:
            speed += gain
            rise += up
            fall += down
    steep = np.where(speed > 0, rise, fall)
    speed *= np.sqrt(steep, out=steep)
    return speed
