"""A mask and an edit → the next mask, exact in native voxels; no engine is asked."""

from __future__ import annotations

from itertools import pairwise

import edt as euclidean
import numpy as np
from skimage.draw import line

from core_models.errors import Refused
from core_models.segmentation.edits import Edit, Grow, Stroke
from core_models.segmentation.engine import Mask
from core_models.segmentation.voxels.flooding import reached
from core_models.study.volume import Volume

MOST_RADIUS = 100.0  # mm of a brush
REACH = 100.0  # mm from its seed, along each axis, that a range grows at most
FAR = 1e6  # a distance from a shape that is not there
ROUNDING = 1e-6  # of the radius, so that a voxel exactly on the rim is inside on every machine


def checked(volume: Volume, edit: Edit) -> None:
    """Whether the edit can be made on this volume at all.

    Raises:
        Refused: it reaches outside the volume, its points leave its plane, or its numbers are no brush or range.
    """
    nz, ny, nx = volume.shape
    if not isinstance(edit, Grow) and edit.axis not in (0, 1, 2):
        raise Refused("A plane is named by its axis: 0, 1 or 2.")
    points = edit.points if isinstance(edit, Stroke) else (edit.seed,) if isinstance(edit, Grow) else ()
    for point in points:
        if not all(0 <= c < n for c, n in zip(point, (nx, ny, nz), strict=True)):
            raise Refused(f"The point {tuple(point)} is outside the scan of {nx} × {ny} × {nz} voxels.")
    if isinstance(edit, Stroke):
        if not points:
            raise Refused("A stroke needs at least one point.")
        if len({p[edit.axis] for p in points}) > 1:
            raise Refused("A stroke is drawn on one slice; these points lie on several.")
        if not 0 < edit.radius_mm <= MOST_RADIUS:
            raise Refused(f"A brush has a radius above 0 and at most {MOST_RADIUS:.0f} mm.")
    if isinstance(edit, Grow):
        i, j, k = edit.seed
        value = float(volume.array[k, j, i])
        if not np.isfinite(value):
            raise Refused("The value at this voxel is not a number: start where the scan has one.")
        if not edit.low <= value <= edit.high:
            raise Refused("The range does not hold the value it was started from.")


def applied(volume: Volume, mask: Mask, edit: Edit, strokes: tuple[Stroke, ...] = ()) -> tuple[Mask, str]:
    """The mask after an edit, and a sentence for the reader where something is off, else "".

    Args:
        strokes: those drawn before, which say between which slices an `Interpolation` fills in.
    """
    if isinstance(edit, Stroke):
        region, note = painted(volume, edit), ""
    elif isinstance(edit, Grow):
        region, note = grown(volume, edit)
    else:
        return interpolated(volume, mask, edit.axis, strokes), ""
    return (joined if edit.positive else without)(mask, region), note


def painted(volume: Volume, stroke: Stroke) -> Mask:
    """The voxels of the stroke's slice whose centres lie within its radius of a voxel on its line."""
    a, b = (n for n in range(3) if n != stroke.axis)
    mm = np.asarray(volume.spacing[::-1])[[a, b]]
    size = np.asarray(volume.shape[::-1])
    at = np.asarray([(p[a], p[b]) for p in stroke.points], int)
    pad = np.floor(stroke.radius_mm / mm).astype(int) + 1
    low = np.maximum(at.min(axis=0) - pad, 0)
    high = np.minimum(at.max(axis=0) + pad + 1, size[[a, b]])
    drawn = np.zeros(high - low, bool)
    for first, last in zip(at, at[1:] if len(at) > 1 else at, strict=False):
        drawn[line(*(first - low), *(last - low))] = True
    near = euclidean.edt(~drawn, anisotropy=tuple(mm)) <= stroke.radius_mm * (1 + ROUNDING)
    inside = np.expand_dims(near | drawn, stroke.axis)  # (i, j, k), one voxel thick
    offset = [0, 0, 0]
    offset[a], offset[b], offset[stroke.axis] = int(low[0]), int(low[1]), int(stroke.points[0][stroke.axis])
    return tight(tuple(offset[::-1]), inside.transpose(2, 1, 0), volume.shape)


def grown(volume: Volume, grow: Grow) -> tuple[Mask, str]:
    """What is connected to the seed through face neighbours within the range, at most `REACH` mm away on each axis."""
    box = tuple(
        slice(max(0, int(np.ceil(c - REACH / mm))), min(n, int(c + REACH / mm) + 1))
        for c, mm, n in zip(grow.seed[::-1], volume.spacing, volume.shape, strict=True)
    )
    part = np.asarray(volume.array[box])
    within = (part >= grow.low) & (part <= grow.high)
    seed = tuple(c - s.start for c, s in zip(grow.seed[::-1], box, strict=True))
    found = tight(tuple(s.start for s in box), reached(within, [seed]), volume.shape)
    cut = any(
        (f.start == s.start > 0) or (f.stop == s.stop < n)
        for f, s, n in zip(found.slices, box, volume.shape, strict=True)
    )
    return found, f"The region was cut {REACH:.0f} mm from where it began; a narrower range may hold it." if cut else ""


def interpolated(volume: Volume, mask: Mask, axis: int, strokes: tuple[Stroke, ...]) -> Mask:
    """The mask with the slices between painted ones filled in, where strokes on both sides reach.

    Shape-based interpolation: between two slices the signed distances to the shapes' rims are mixed linearly, and the
    shape is where the mix is positive (Raya & Udupa, IEEE Trans Med Imaging 1990;9:32-42).  It is done twice: with the
    areas that the strokes touched, which says where anything may change, and with the mask itself, which says to what.
    So a mend at the rim on two slices is carried on between them and the rest of the structure stays as it was.
    """
    touched: dict[int, Mask] = {}
    for stroke in strokes:
        if stroke.axis == axis:
            k = stroke.points[0][axis]
            area = painted(volume, stroke)
            touched[k] = joined(touched[k], area) if k in touched else area
    keys = sorted(touched)
    if len(keys) < 2:
        raise Refused("Paint or erase on at least two slices of this plane first; what lies between them is filled in.")
    through = 2 - axis  # the array's axis
    mm = tuple(s for n, s in enumerate(volume.spacing) if n != through)
    every = joined(mask, _union([touched[k] for k in keys]))
    planes = np.moveaxis(every.voxels.copy(), through, 0)  # a view: what is set here is set in `out`
    out = np.moveaxis(planes, 0, through)
    planes[:] = False
    out[_within(mask, every)] = mask.voxels
    first = every.offset[through]
    for k0, k1 in pairwise(keys):
        if k1 - k0 < 2:
            continue
        areas = [_plane(touched[k], every, through) for k in (k0, k1)]
        shapes = [planes[k - first].copy() for k in (k0, k1)]
        area = [_signed(a, mm) for a in areas]
        shape = [_signed(s, mm) for s in shapes]
        for k in range(k0 + 1, k1):
            t = (k - k0) / (k1 - k0)
            where = (1 - t) * area[0] + t * area[1] > 0
            what = (1 - t) * shape[0] + t * shape[1] > 0
            planes[k - first][where] = what[where]
    return tight(every.offset, out, mask.shape)


def _signed(shape: np.ndarray, mm: tuple[float, float]) -> np.ndarray:
    """mm to the shape's rim, positive inside; −FAR everywhere where there is no shape."""
    if not shape.any():
        return np.full(shape.shape, -FAR)
    padded = np.pad(shape, 1)
    signed = euclidean.edt(padded, anisotropy=mm) - euclidean.edt(~padded, anisotropy=mm)
    return signed[1:-1, 1:-1].astype(np.float64)


def _plane(area: Mask, every: Mask, through: int) -> np.ndarray:
    """A mask of one slice as a plane of the box of `every`."""
    out = np.zeros(tuple(n for a, n in enumerate(every.voxels.shape) if a != through), bool)
    out[tuple(s for a, s in enumerate(_within(area, every)) if a != through)] = area.voxels.any(axis=through)
    return out


# ---- masks as boxes ------------------------------------------------------------------------------------------------


def tight(offset: tuple[int, int, int], voxels: np.ndarray, shape: tuple[int, int, int]) -> Mask:
    """A box of voxels anywhere in the volume → the mask, its box cut to what is set."""
    inner = Mask.from_full(voxels)
    if inner.empty:
        return Mask((0, 0, 0), np.zeros((0, 0, 0), bool), shape)
    return Mask(tuple(o + i for o, i in zip(offset, inner.offset, strict=True)), inner.voxels, shape)  # type: ignore


def joined(a: Mask, b: Mask) -> Mask:
    """Voxels of either; the boxes' union, not cut down where both are tight already."""
    if a.empty or b.empty:
        return b if a.empty else a
    offset = tuple(min(o, p) for o, p in zip(a.offset, b.offset, strict=True))
    stop = tuple(max(s.stop, t.stop) for s, t in zip(a.slices, b.slices, strict=True))
    both = Mask(offset, np.zeros(tuple(e - o for e, o in zip(stop, offset, strict=True)), bool), a.shape)
    both.voxels[_within(a, both)] = a.voxels
    both.voxels[_within(b, both)] |= b.voxels
    return both


def without(a: Mask, b: Mask) -> Mask:
    """Voxels of `a` that are not of `b`."""
    common = _common(a, b)
    if common is None:
        return a
    voxels = a.voxels.copy()
    voxels[common[0]] &= ~b.voxels[common[1]]
    return tight(a.offset, voxels, a.shape)


def overlap(a: Mask, b: Mask) -> int:
    """How many voxels both have."""
    common = _common(a, b)
    return int(np.count_nonzero(a.voxels[common[0]] & b.voxels[common[1]])) if common else 0


def difference(old: Mask, new: Mask) -> Mask:
    """The new mask's voxels in the smallest box that holds every voxel in which the two differ; empty where none."""
    every = joined(old, new)
    if every.empty:
        return every
    whole = np.zeros(every.voxels.shape, bool)
    whole[_within(new, every)] = new.voxels
    changed = whole.copy()
    changed[_within(old, every)] ^= old.voxels
    box = Mask.from_full(changed)
    offset = tuple(o + i for o, i in zip(every.offset, box.offset, strict=True))
    return Mask(offset if not box.empty else (0, 0, 0), whole[box.slices], new.shape)  # type: ignore[arg-type]


def _union(masks: list[Mask]) -> Mask:
    out = masks[0]
    for mask in masks[1:]:
        out = joined(out, mask)
    return out


def _within(inner: Mask, outer: Mask) -> tuple[slice, slice, slice]:
    """The box of `inner` in the indices of `outer`, which holds it."""
    return tuple(slice(s.start - o, s.stop - o) for s, o in zip(inner.slices, outer.offset, strict=True))  # type: ignore


def _common(a: Mask, b: Mask) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    low = [max(s.start, t.start) for s, t in zip(a.slices, b.slices, strict=True)]
    high = [min(s.stop, t.stop) for s, t in zip(a.slices, b.slices, strict=True)]
    if any(h <= lo for lo, h in zip(low, high, strict=True)):
        return None
    return tuple(
        tuple(slice(lo - o, h - o) for lo, h, o in zip(low, high, mask.offset, strict=True)) for mask in (a, b)
    )  # type: ignore[return-value]
