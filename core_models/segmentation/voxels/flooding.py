"""Marker watershed and flood of a 3D grid, compiled: a reader waits for both.

The watershed is Meyer's by priority flooding (Beucher & Meyer, 1993), as scikit-image's is, to which a test holds it on
costs of whole steps.  A queue for each step of cost takes the place of a heap, so that it is linear in the voxels.
The first use on a machine compiles for a few seconds; numba keeps the result beside this file or in its own cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

STEPS = 32_000  # of cost at most
FINE = 0.02  # of cost: what is told apart
DONE = 2


def watershed(cost: np.ndarray, markers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels flooded from markers in order of cost, then of arrival, through face neighbours within the mask.

    Args:
        cost: (z, y, x) float32; told apart in steps of `FINE`, or coarser where its range would need over `STEPS`;
            infinite ones count as the lowest or highest of the others, and so does NaN as the lowest.
        markers: (z, y, x) int, 0 where there is none, labels up to 127; those outside the mask are ignored.
        mask: (z, y, x) bool.

    Returns:
        (z, y, x) int8, 0 where nothing reached.
    """
    labels = np.full([n + 2 for n in mask.shape], -1, np.int8)
    levels = np.empty(labels.shape, np.int16)
    _levelled(cost.astype(np.float32, copy=False), markers, mask, levels, labels)
    _by_level(levels.reshape(-1), labels.reshape(-1), _steps(labels.shape))
    return np.maximum(labels[1:-1, 1:-1, 1:-1], 0)


def reached(mask: np.ndarray, seeds: list[tuple[int, int, int]]) -> np.ndarray:
    """bool (z, y, x): what of the mask the seeds reach through face neighbours; seeds outside it reach nothing."""
    state = np.pad(mask, 1).view(np.uint8)
    _, height, width = state.shape
    starts = np.array([((z + 1) * height + y + 1) * width + x + 1 for z, y, x in seeds], np.int64)
    _spread(state.reshape(-1), starts, _steps(state.shape))
    return state[1:-1, 1:-1, 1:-1] == DONE


def ready() -> None:
    """Compile both, or load what was compiled, so that no click waits for it."""
    cells = np.ones((2, 2, 2), bool)
    watershed(np.zeros(cells.shape, np.float32), np.eye(2, dtype=np.int32)[None].repeat(2, 0), cells)
    reached(cells, [(0, 0, 0)])


def _steps(shape: tuple[int, ...]) -> np.ndarray:
    """From a voxel of a flat array to its face neighbours, in the order of their places."""
    plane, row = shape[1] * shape[2], shape[2]
    return np.array([-plane, -row, -1, 1, row, plane], np.int64)


@njit(cache=True, nogil=True)
def _levelled(cost, markers, mask, levels, labels):  # type: ignore[no-untyped-def]
    """Fill the inside of `levels` and `labels`, both with a rim of one voxel."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if mask[z, y, x] and np.isfinite(cost[z, y, x]):
                    low, high = min(low, cost[z, y, x]), max(high, cost[z, y, x])
    fine = max(np.float32(FINE), (high - low) / np.float32(STEPS - 1))
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if mask[z, y, x]:
                    # Depth is infinite in a mask without a rim.  What that is as an integer depends on the processor,
                    # and a level beyond the queues would never end.
                    if cost[z, y, x] > low:
                        level = (min(cost[z, y, x], high) - low) / fine + np.float32(0.5)
                        levels[z + 1, y + 1, x + 1] = np.int16(level)
                    else:
                        levels[z + 1, y + 1, x + 1] = 0
                    labels[z + 1, y + 1, x + 1] = markers[z, y, x]


@njit(cache=True, nogil=True)
def _queue(n, levels, first, last, after):  # type: ignore[no-untyped-def]
    """Put a voxel at the end of its level's queue; returns the level."""
    at = levels[n]
    if first[at] < 0:
        first[at] = n
    else:
        after[last[at]] = n
    after[n] = -1
    last[at] = n
    return at


@njit(cache=True, nogil=True)
def _by_level(levels, labels, steps):  # type: ignore[no-untyped-def]
    """Fill the zeros of `labels`, flat; -1 is never entered."""
    first = np.full(STEPS, -1, np.int32)  # queue of a level: its head, its tail, and what follows each voxel
    last = np.full(STEPS, -1, np.int32)
    after = np.empty(labels.size, np.int32)
    level = STEPS
    for n in range(labels.size):
        if labels[n] > 0:
            level = min(level, _queue(n, levels, first, last, after))
    while level < STEPS:
        here = first[level]
        if here < 0:
            level += 1
            continue
        first[level] = after[here]
        for step in steps:
            n = here + step
            if labels[n] == 0:
                labels[n] = labels[here]
                level = min(level, _queue(n, levels, first, last, after))


@njit(cache=True, nogil=True)
def _spread(state, starts, steps):  # type: ignore[no-untyped-def]
    """Turn the ones of `state`, flat, that the starts reach into `DONE`."""
    waiting = np.empty(state.size, np.int32)
    count = 0
    for n in starts:
        if state[n] == 1:
            state[n] = DONE
            waiting[count] = n
            count += 1
    while count:
        count -= 1
        here = waiting[count]
        for step in steps:
            n = here + step
            if state[n] == 1:
                state[n] = DONE
                waiting[count] = n
                count += 1
