"""A mask that was drawn and the reader's prompts on it → the mask as corrected, a function of the two alone.

It was drawn by a model, or by the reader's own brush.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import edt as euclidean
import numpy as np

from core_models.segmentation.editing import joined, without
from core_models.segmentation.engine import Alternative, Box, Click, Lasso, Mask, Prompt, Segmentation
from core_models.segmentation.history import begins
from core_models.segmentation.prompts import as_clicks, confined, holds_some
from core_models.study.volume import Volume

EQUAL = 0.98  # of the greatest depth counts as it
NEAR = 5  # voxels: a removing click this close to the drawing's middle is about the middle itself


def corrected(
    volume: Volume,
    base: Mask,
    prompts: tuple[Prompt, ...],
    segment: Callable[[tuple[Prompt, ...]], Segmentation],
    confidence: float,
) -> Segmentation:
    """The drawing with what adding prompts find, less what removing ones find and what boxes and rings shut out.

    Each kind holds the other back, as markers do; a removing prompt is also held back by the drawing's middle and
    takes nothing that lies nearer to it than to the prompt, so that it takes off a part and not the structure.  There
    is one such answer, and no alternative to it.

    Args:
        segment: the click engine's answer to prompts of which one at least adds.
        confidence: of the drawing; prompts are the reader's own and do not change it.
    """
    prompts = tuple(p for p in prompts if not isinstance(p, Alternative))
    if not prompts:
        return Segmentation(base, confidence, 0)
    wanted = tuple(p for p in prompts if begins(p))
    unwanted = tuple(p for p in prompts if not begins(p))
    mask = base
    notes = []
    if wanted:
        found = segment((*wanted, *unwanted))
        # A ring around the structure says that nothing of it lies outside; one beside it is about what it lacks.
        about = tuple(p for p in wanted if not isinstance(p, Box | Lasso) or holds_some(p, base))
        mask = confined(volume, about, joined(mask, found.mask))
        notes.append(found.note)
    if unwanted:
        places = as_clicks(volume, unwanted)
        middle = _middle(volume, base, places)
        held = tuple(_against(volume, p) for p in wanted)
        found = segment((*(replace(p, positive=True) for p in unwanted), *held, *middle))
        taken = found.mask
        if middle and not taken.empty:
            near = _distance(volume, taken, places) <= _distance(volume, taken, middle)
            taken = Mask(taken.offset, taken.voxels & near, taken.shape)
        mask = without(mask, taken)
        notes.append(found.note)
    note = next((text for text in notes if text), "")
    return Segmentation(mask, confidence, len(prompts), note)


def _against(volume: Volume, prompt: Prompt) -> Prompt:
    """An adding prompt as one that holds back; of a box or a lasso that is the click in its midst."""
    if isinstance(prompt, Box | Lasso):
        return replace(as_clicks(volume, (prompt,))[0], positive=False)
    return replace(prompt, positive=False)


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
