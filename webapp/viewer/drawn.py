"""A mask that a model drew and the reader's clicks on it → the mask as corrected, a function of the two alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core_models.segmentation.engine import Click, Mask, Segmentation
from core_models.segmentation.measure import deepest_index
from core_models.study.volume import Volume

NEAR = 5  # voxels: a removing click this close to the drawing's middle is about the middle itself


def corrected(
    volume: Volume,
    base: Mask,
    clicks: tuple[Click, ...],
    segment: Callable[[tuple[Click, ...]], Segmentation],
    confidence: float,
) -> Segmentation:
    """The drawing with what the adding clicks find, less what the removing ones find.

    Each kind of click holds the other back, as markers do; a removing click is also held back by the drawing's middle,
    so that it takes off a part of the rim and not the structure.

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
        found = segment((*wanted, *others, *_middle(volume, base, removes)))
        full[found.mask.slices] &= ~found.mask.voxels
        notes.append(found.note)
    note = next((text for text in notes if text), "")
    return Segmentation(Mask.from_full(full), confidence, len(clicks), note)


def _middle(volume: Volume, base: Mask, removes: tuple[Click, ...]) -> tuple[Click, ...]:
    if base.empty:
        return ()
    middle = deepest_index(volume, base)
    far = all(np.abs(np.subtract(middle, c.index)).max() > NEAR for c in removes)
    return (Click(middle, False),) if far else ()
