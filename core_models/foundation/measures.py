"""Masks of heart and lungs on one frontal radiograph → cardiothoracic ratio, lung areas and their ratio.

Pure geometry on the masks as they are now, whoever drew them: nothing here reads the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core_models.errors import Refused
from core_models.foundation.reading import Caliper, Measured
from core_models.segmentation.engine import Mask

HEART, RIGHT_LUNG, LEFT_LUNG = "heart", "right lung", "left lung"
STRUCTURES = (HEART, RIGHT_LUNG, LEFT_LUNG)
MM2_PER_CM2 = 100.0


def measure(masks: Mapping[str, Mask], spacing_mm: tuple[float, float] | None) -> tuple[Measured, ...]:
    """What follows from the structures that are there; what a missing or empty one is needed for is left out.

    Args:
        masks: by label; `heart`, `right lung` and `left lung` are used, each (1, y, x) of the same image.
        spacing_mm: (row, column) pixel edges in mm, or None where they are not to be trusted.

    Returns:
        some of, in this order:
        `cardiothoracic_ratio`: a plain ratio, see `cardiothoracic_ratio`;
        `lung_area_right`, `lung_area_left`: projected areas in cm², only where the spacing is known;
        `lung_area_ratio`: right area over left, a plain ratio (1 where both sides are of one size).  Its words leave
            out "area": with it the language model took the ratio for an area.

    Raises:
        Refused: the masks are of images of different sizes, or of a stack of images.
    """
    drawn = {label: masks[label] for label in STRUCTURES if label in masks and not masks[label].empty}
    shapes = {mask.shape for mask in drawn.values()}
    if len(shapes) > 1:
        raise Refused(f"The structures were drawn on images of different sizes: {sorted(shapes)}.")
    if any(shape[0] != 1 for shape in shapes):
        raise Refused("A cardiothoracic ratio is measured on one radiograph, not on a stack of images.")
    out = []
    if all(label in drawn for label in STRUCTURES):
        out.append(cardiothoracic_ratio(drawn[HEART], drawn[RIGHT_LUNG], drawn[LEFT_LUNG]))
    if spacing_mm is not None:
        row, column = spacing_mm
        for label, key in ((RIGHT_LUNG, "lung_area_right"), (LEFT_LUNG, "lung_area_left")):
            if label in drawn:
                area = drawn[label].count * row * column / MM2_PER_CM2
                out.append(Measured(key, f"{label} area", "lungs", area, "cm²", _middle(drawn[label])))
    if RIGHT_LUNG in drawn and LEFT_LUNG in drawn:
        ratio = drawn[RIGHT_LUNG].count / drawn[LEFT_LUNG].count
        out.append(Measured("lung_area_ratio", "right to left ratio", "lungs", ratio))
    return tuple(out)


def cardiothoracic_ratio(heart: Mask, right_lung: Mask, left_lung: Mask) -> Measured:
    """Transverse diameter of the heart over the greatest inner diameter of the thorax, both across the image.

    The heart's transverse diameter is the sum of its greatest extents to the right and to the left of the midline,
    which may lie at different levels, so it is the mask's whole extent across.  The thorax is measured from the outer
    border of one lung to that of the other, in the image row where they are farthest apart.  Both are in pixels of one
    row, so the pixel size drops out.

    Source: Danzer CS, "The cardiothoracic ratio: an index of cardiac enlargement", Am J Med Sci 1919;157:513-521.

    Args:
        heart, right_lung, left_lung: (1, y, x), none empty.

    Returns:
        `cardiothoracic_ratio`, with the centre of the heart's extent as its point and both lengths as calipers: the
        thorax in its row, the heart's extent at the height of its middle.
    """
    first, last = _extents(heart)
    lungs = [_extents(lung) for lung in (right_lung, left_lung)]
    rows = heart.shape[1]
    outer_first, outer_last = np.full(rows, np.iinfo(np.int64).max), np.full(rows, -1)
    for lung_first, lung_last in lungs:
        seen = lung_last >= 0
        outer_first[seen] = np.minimum(outer_first, lung_first)[seen]
        outer_last[seen] = np.maximum(outer_last, lung_last)[seen]
    both = (lungs[0][1] >= 0) & (lungs[1][1] >= 0)
    # Lungs that share no row are no thorax to measure in one row: then from border to border, wherever they lie.
    if both.any():
        row = int(np.argmax(np.where(both, outer_last - outer_first, -1)))
        from_left, to_right = int(outer_first[row]), int(outer_last[row])
    else:
        row = int(np.flatnonzero(outer_last >= 0).mean())
        from_left, to_right = int(outer_first.min()), int(outer_last.max())
    thorax = to_right - from_left + 1
    seen = last >= 0
    left, right = int(first[seen].min()), int(last[seen].max())
    j = float(np.flatnonzero(seen).mean())
    calipers = (
        Caliper("heart", (left, j), (right, j)),
        Caliper("thorax", (from_left, row), (to_right, row)),
    )
    value = (right - left + 1) / thorax
    point = ((left + right) / 2, j)
    return Measured("cardiothoracic_ratio", "cardiothoracic ratio", "heart", value, point=point, calipers=calipers)


def _extents(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """(first, last) set column of every image row, (y,) each; a row without a pixel has the greatest int and −1."""
    _, dy, dx = mask.voxels.shape
    plane = mask.voxels[0]  # (dy, dx)
    first = np.full(mask.shape[1], np.iinfo(np.int64).max)
    last = np.full(mask.shape[1], -1)
    _, y, x = mask.offset
    seen = plane.any(axis=1)
    rows = np.arange(y, y + dy)[seen]
    first[rows] = x + plane[seen].argmax(axis=1)
    last[rows] = x + dx - 1 - plane[seen, ::-1].argmax(axis=1)
    return first, last


def _middle(mask: Mask) -> tuple[float, float]:
    """(i, j) of the middle of the widest set row, which lies inside a lung's outline or between its parts."""
    first, last = _extents(mask)
    j = int(np.argmax(np.where(last >= 0, last - first, -1)))
    return (float(first[j] + last[j]) / 2, float(j))
