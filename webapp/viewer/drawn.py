"""A mask that a model drew and the reader's clicks on it → the mask as corrected, a function of the two alone."""

from __future__ import annotations

from collections.abc import Callable

import edt as euclidean
import numpy as np

from core_models.segmentation.engine import Click, Mask, Segmentation
from core_models.study.volume import Volume

EQUAL = 0.98  # of the greatest depth counts as it
NEAR = 5  # voxels: a removing click this close to the drawing's middle is about the middle itself


def corrected(
    volume: Volume,
    base: Mask,
    clicks: tuple[Click, ...],
    segment: Callable[[tuple[Click, ...]], Segmentation],
    confidence: float,
) -> Segmentation:
    """The drawing with what the adding clicks find, less what the removing ones find.

    Each kind of click holds the other back, as markers do; a removing click is also held back by the drawing's middle
    and takes nothing that lies nearer to it than to the click, so that it takes off a part and not the structure.

    Args:
        segment: the click engine's answer to clicks of which one at least is positive.
        confidence: of the drawing; clicks are the reader's own and do not change it.
    """
    if not clicks:
        return Segmentation(base, confidence, 0)
    full = base.full()
    adds = tuple(c for c in clicks if c.positive)
    removes = tuple(c for c in clicks if not c.positive)
    notes = []
    if adds:
        found = segment((*adds, *removes))
        full[found.mask.slices] |= found.mask.voxels
        notes.append(found.note)
    if removes:
        wanted = tuple(Click(c.index) for c in removes)
        others = tuple(Click(c.index, False) for c in adds)
        middle = _middle(volume, base, removes)
        found = segment((*wanted, *others, *middle))
        taken = found.mask.voxels
        if middle and not found.mask.empty:
            taken = taken & (_distance(volume, found.mask, removes) <= _distance(volume, found.mask, middle))
        full[found.mask.slices] &= ~taken
        notes.append(found.note)
    note = next((text for text in notes if text), "")
    return Segmentation(Mask.from_full(full), confidence, len(clicks), note)


def _middle(volume: Volume, base: Mask, removes: tuple[Click, ...]) -> tuple[Click, ...]:
    if base.empty:
        return ()
    middle = deepest(volume, base)
    far = all(np.abs(np.subtract(middle, c.index)).max() > NEAR for c in removes)
    return (Click(middle, False),) if far else ()


def deepest(volume: Volume, mask: Mask) -> tuple[int, int, int]:
    """(i, j, k) of the voxel farthest from the rim of its slice; of several such, the one in their midst."""
    _, row, column = volume.spacing
    depth = np.stack([euclidean.edt(np.pad(plane, 1), anisotropy=(row, column))[1:-1, 1:-1] for plane in mask.voxels])
    deep = np.argwhere(depth >= EQUAL * depth.max())  # (n, 3)
    at = deep[np.argmin(((deep - deep.mean(axis=0)) ** 2).sum(axis=1))]
    z, y, x = (int(o + c) for o, c in zip(mask.offset, at, strict=True))
    return x, y, z


def _distance(volume: Volume, mask: Mask, clicks: tuple[Click, ...]) -> np.ndarray:
    """Squared mm from every voxel of the mask's box to the nearest click, (dz, dy, dx)."""
    grids = np.ogrid[mask.slices]
    each = [
        sum(((g - at) * mm) ** 2 for g, at, mm in zip(grids, c.index[::-1], volume.spacing, strict=True))
        for c in clicks
    ]
    return np.minimum.reduce(each)
