"""A target and an engine → clicks as a careful reader would set them, and how good the answers are.

The first click is the deepest point of the target; every other one the deepest point of the largest error, adding where
that is missing and removing where it is too much.  Everything is worked out in the box around the target and the
answer, at the volume's own resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Alternative, Click, Engine, Mask, Prompt
from core_models.segmentation.metrics import Spacing, depths, dice, hausdorff95, together
from core_models.segmentation.settling import WORTH, change

CLICKS = 10
REPORTED = (1, 3, 5, 10)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a bool array (z, y, x); an empty one stays empty."""
    return _largest(mask)[0]


def _largest(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """(the largest component, its voxels); of two of one size that which comes first in memory."""
    out = np.zeros(mask.shape, bool)
    found = Mask.from_full(mask)
    if found.empty:
        return out, 0
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(found.voxels.view(np.uint8)))
    labels = sitk.GetArrayViewFromImage(image)
    sizes = np.bincount(labels[found.voxels])
    wanted = int(sizes.argmax())
    out[found.slices] = labels == wanted
    return out, int(sizes[wanted])


def deepest(mask: np.ndarray, spacing: Spacing) -> tuple[int, int, int]:
    """(i, j, k) of the voxel farthest from the mask's surface; the array's border counts as surface."""
    found = Mask.from_full(mask)
    depth = depths(found.voxels, spacing)
    at = np.unravel_index(np.argmax(depth), depth.shape)
    z, y, x = (int(o + c) for o, c in zip(found.offset, at, strict=True))
    return x, y, z


def next_click(target: Mask, answer: Mask | None, spacing: Spacing) -> Click | None:
    """The reader's next click; None when there is no error."""
    if answer is None:
        offset, (wanted,) = together(target)
        return _moved(Click(deepest(wanted, spacing), True), offset)
    offset, (wanted, given) = together(target, answer)
    return _correction(wanted, given, offset, spacing)


def _correction(wanted: np.ndarray, given: np.ndarray, offset: tuple[int, int, int], spacing: Spacing) -> Click | None:
    """The click on the largest connected error; what is missing wins a tie."""
    missed, extra = wanted & ~given, given & ~wanted
    numbers = int(np.count_nonzero(missed)), int(np.count_nonzero(extra))
    if not any(numbers):
        return None
    # The side with more voxels is looked at first: if its largest part outnumbers the other side, that is all.
    positive = numbers[0] >= numbers[1]
    part, size = _largest(missed if positive else extra)
    if size < numbers[1 if positive else 0] + (not positive):
        other, count = _largest(extra if positive else missed)
        if count > size or (count == size and not positive):
            part, positive = other, not positive
    return _moved(Click(deepest(part, spacing), positive), offset)


def _moved(click: Click, offset: tuple[int, int, int]) -> Click:
    return Click(tuple(int(c + o) for c, o in zip(click.index, offset[::-1], strict=True)), click.positive)


@dataclass(frozen=True)
class Trace:
    """What a simulated reader saw.

    Attributes:
        dice: after click 1, 2, ...; where nothing was left to correct, no click is given and the answer stays.
        hausdorff95: number of clicks → 95% Hausdorff distance in the spacing's unit, None where it is not defined.
        seconds: of each answer that was asked for; the reader's own work is not in it.
        clicks: those that were given.
        changes: of each answer after the first, how much of it differs from the one before (`settling.change`).
        others: how often the other answer was kept.
    """

    dice: tuple[float, ...]
    hausdorff95: dict[int, float | None]
    seconds: tuple[float, ...]
    clicks: tuple[Click, ...]
    changes: tuple[float, ...] = ()
    others: int = 0


def read(
    engine: Engine,
    prepared: Any,
    target: Mask,
    spacing: Spacing,
    clicks: int = CLICKS,
    reported: Sequence[int] = REPORTED,
    clicked: Callable[[int], None] = lambda n: None,
    either: bool = False,
) -> Trace:
    """One target, `clicks` clicks.

    Args:
        target: one connected structure; reported: after which clicks the Hausdorff distance is computed.
        clicked: told the number of clicks done, after each.
        either: after each click the reader also looks at the other answer, and keeps it where that is worth it.
    """
    given: tuple[Prompt, ...] = ()
    click = next_click(target, None, spacing)
    scores: list[float] = []
    seconds: list[float] = []
    far: dict[int, float | None] = {}
    changes: list[float] = []
    before: Mask | None = None
    offset, boxed = together(target, target)
    for n in range(1, clicks + 1):
        if click is not None:
            given = (*given, click)
            start = perf_counter()
            answer = engine.segment(prepared, given).mask
            seconds.append(perf_counter() - start)
            offset, boxed = together(target, answer)
            if either:
                asked = (*given, Alternative())
                other = engine.segment(prepared, asked).mask
                there, boxes = together(target, other)
                if dice(*boxes) > dice(*boxed) + WORTH:
                    given, answer, offset, boxed = asked, other, there, boxes
            if before is not None:
                changes.append(change(before, answer))
            before = answer
        scores.append(dice(*boxed))
        if n in reported:
            far[n] = hausdorff95(*boxed, spacing)
        if n < clicks and click is not None:
            click = _correction(*boxed, offset, spacing)
        clicked(n)
    clicked_at = tuple(p for p in given if isinstance(p, Click))
    return Trace(tuple(scores), far, tuple(seconds), clicked_at, tuple(changes), len(given) - len(clicked_at))
