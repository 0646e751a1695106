"""Scribbles, boxes and lassos → the clicks that say the same, for engines that know clicks alone.

A rectangle or a ring says "inside is the structure, outside is not": that is a click that adds in its midst and a line
of clicks that remove just outside it, on the plane it was drawn in.
"""

from __future__ import annotations

import numpy as np
from skimage.draw import polygon

from core_models.errors import Refused
from core_models.segmentation.engine import Alternative, Box, Click, Index, Lasso, Mask, Prompt, Scribble
from core_models.segmentation.voxels.morphology import distance
from core_models.study.volume import Volume

APART = 6.0  # mm between the clicks that a line becomes
MOST = 32  # clicks that one line becomes
OUTSIDE = 3.0  # mm from a box or a ring to the clicks around it


def as_clicks(volume: Volume, prompts: tuple[Prompt, ...]) -> tuple[Click, ...]:
    """All prompts as clicks, in order; an `Alternative` is none.

    Raises:
        Refused: a prompt reaches outside the volume, a line has no points, or a ring encloses nothing.
    """
    out: list[Click] = []
    for prompt in prompts:
        if isinstance(prompt, Click):
            out.append(Click(_checked(volume, (prompt.index,))[0], prompt.positive))
        elif isinstance(prompt, Scribble):
            points = _checked(volume, prompt.points)
            out += [Click(p, prompt.positive) for p in thinned(volume, points)]
        elif isinstance(prompt, Lasso):
            out += _ring(volume, _checked(volume, prompt.points))
        elif not isinstance(prompt, Alternative):
            out += _box(volume, prompt)
    return tuple(out)


def confined(volume: Volume, prompts: tuple[Prompt, ...], mask: Mask) -> Mask:
    """The mask without what lies outside a box or a ring on the slices that it was drawn on.

    A later click or line that adds outside takes that back: the latest word counts.
    """
    if not any(isinstance(p, Box | Lasso) for p in prompts):
        return mask
    voxels = mask.voxels.copy()
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, Box | Lasso):
            continue
        later = as_clicks(volume, tuple(p for p in prompts[number + 1 :] if not isinstance(p, Box | Lasso)))
        allowed = _allowed(prompt, mask)
        outside = [c for c in later if c.positive and not _holds(allowed, mask, c.index)]
        if not outside:
            voxels &= allowed
    inner = Mask.from_full(voxels)
    offset = tuple(o + i for o, i in zip(mask.offset, inner.offset, strict=True))
    return Mask(offset, inner.voxels, mask.shape)  # type: ignore[arg-type]


def holds_some(prompt: Box | Lasso, mask: Mask) -> bool:
    """Whether any of a mask lies inside a box or a ring, on the slices that it was drawn on."""
    on, inside = _on_slices(prompt, mask)
    return bool((mask.voxels & on & inside).any())


def _allowed(prompt: Box | Lasso, mask: Mask) -> np.ndarray:
    """bool, in the mask's box: everything but what is outside on the prompt's own slices."""
    on, inside = _on_slices(prompt, mask)
    return ~on | inside


def _on_slices(prompt: Box | Lasso, mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Two bool arrays in the mask's box: the prompt's own slices, and what it encloses there."""
    points = np.asarray((prompt.first, prompt.last) if isinstance(prompt, Box) else prompt.points)
    low, high = points.min(axis=0), points.max(axis=0)
    on, enclosed = (np.zeros(mask.voxels.shape[::-1], bool) for _ in range(2))  # (i, j, k)
    origin = np.asarray(mask.offset[::-1])
    size = np.asarray(on.shape)
    flat = [axis for axis in (2, 1, 0) if low[axis] == high[axis]]
    axis = flat[0] if flat else 2
    a, b = (n for n in range(3) if n != axis)
    inside = np.zeros(size[[a, b]], bool)
    if isinstance(prompt, Box):
        first, last = (np.clip(e - origin, 0, size) for e in (low, high + 1))
        inside[first[a] : last[a], first[b] : last[b]] = True
    else:
        corners = points[:, [a, b]] - origin[[a, b]]
        inside[polygon(*corners.T, shape=tuple(inside.shape))] = True
    for k in range(max(0, low[axis] - origin[axis]), min(size[axis], high[axis] + 1 - origin[axis])):
        np.moveaxis(on, axis, 0)[k] = True
        np.moveaxis(enclosed, axis, 0)[k] = inside
    return on.transpose(2, 1, 0), enclosed.transpose(2, 1, 0)


def _holds(allowed: np.ndarray, mask: Mask, index: Index) -> bool:
    """Whether a voxel (i, j, k) is not forbidden; outside the mask's box there is nothing to forbid."""
    at = tuple(c - o for c, o in zip(index[::-1], mask.offset, strict=True))
    within = all(0 <= c < n for c, n in zip(at, allowed.shape, strict=True))
    return bool(allowed[at]) if within else True


def plane_of(points: tuple[Index, ...]) -> int:
    """The axis (0 = i, 1 = j, 2 = k) along which all points are the same; the last such one.

    Raises:
        Refused: the points lie on no plane of the volume.
    """
    for axis in (2, 1, 0):
        if len({p[axis] for p in points}) == 1:
            return axis
    raise Refused("A line is drawn on one plane; these points lie on several.")


def thinned(volume: Volume, points: tuple[Index, ...]) -> list[Index]:
    """Some of a line's points, at least `APART` mm from one another, both ends kept, at most `MOST`."""
    spacing = np.asarray(volume.spacing[::-1])
    at = np.asarray(points, float) * spacing
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(at, axis=0), axis=1))])
    number = int(np.clip(round(along[-1] / APART) + 1, 1, MOST))
    if number == 1:
        return [points[len(points) // 2]]
    wanted = np.linspace(0.0, along[-1], number)
    chosen = np.searchsorted(along, wanted - 1e-6).clip(0, len(points) - 1)
    return [points[i] for i in dict.fromkeys(int(c) for c in chosen)]


def _checked(volume: Volume, points: tuple[Index, ...]) -> tuple[Index, ...]:
    nz, ny, nx = volume.shape
    if not points:
        raise Refused("A line needs at least one point.")
    for point in points:
        if not all(0 <= c < n for c, n in zip(point, (nx, ny, nz), strict=True)):
            raise Refused(
                f"The click at {tuple(point)} is outside the volume of {nx} × {ny} × {nz} voxels (column, row, slice)."
            )
    return tuple(tuple(int(c) for c in p) for p in points)  # type: ignore[misc]


def _box(volume: Volume, box: Box) -> list[Click]:
    first, last = _checked(volume, (box.first, box.last))
    low, high = np.minimum(first, last), np.maximum(first, last)
    flat = [axis for axis in (2, 1, 0) if low[axis] == high[axis]]
    # A cuboid is said by the rectangle in the middle of its slices: an engine of clicks grows from there.
    axis = flat[0] if flat else 2
    low[axis] = high[axis] = (low[axis] + high[axis]) // 2
    a, b = (n for n in range(3) if n != axis)
    corners = []
    for u, v in ((low[a], low[b]), (high[a], low[b]), (high[a], high[b]), (low[a], high[b])):
        corner = low.copy()
        corner[a], corner[b] = u, v
        corners.append(tuple(int(c) for c in corner))
    return _ring(volume, tuple(corners))


def _ring(volume: Volume, points: tuple[Index, ...]) -> list[Click]:
    """A click in the deepest place of a closed ring, and clicks that remove around it."""
    axis = plane_of(points)
    a, b = (n for n in range(3) if n != axis)
    spacing = np.asarray(volume.spacing[::-1])
    corners = np.asarray([(p[a], p[b]) for p in points], int)
    low = corners.min(axis=0)
    size = corners.max(axis=0) - low + 1
    area = np.zeros((1, *size), bool)
    area[0][polygon(*(corners - low).T, shape=tuple(size))] = True
    area[0][tuple((corners - low).T)] = True
    depth = distance(np.pad(area, ((0, 0), (1, 1), (1, 1))), (1.0, spacing[a], spacing[b]))[0, 1:-1, 1:-1]
    if min(size) < 2:
        raise Refused("The ring encloses nothing; draw around the structure.")
    middle = np.asarray(points[0])
    middle[[a, b]] = low + np.unravel_index(int(np.argmax(depth)), depth.shape)
    # The ring grown outwards: the polygon's own rim at a fixed distance.
    pad = [int(np.ceil(OUTSIDE / spacing[n])) + 1 for n in (a, b)]
    wide = np.pad(area, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    outer = distance(~wide, (1.0, spacing[a], spacing[b]))[0]
    step = float(max(spacing[a], spacing[b]))
    rim = np.argwhere((outer >= OUTSIDE - step / 2) & (outer <= OUTSIDE + step)) + low - pad
    shape = np.asarray(volume.shape[::-1])[[a, b]]
    rim = rim[((rim >= 0) & (rim < shape)).all(axis=1)]
    centre = middle[[a, b]]
    order = np.argsort(np.arctan2(*((rim - centre) * spacing[[a, b]]).T))
    clicks = [Click(tuple(int(c) for c in middle))]
    if not order.size:
        return clicks
    line = []
    for u, v in rim[order]:
        p = middle.copy()
        p[a], p[b] = u, v
        line.append(tuple(int(c) for c in p))
    return clicks + [Click(p, False) for p in thinned(volume, tuple(line))]
