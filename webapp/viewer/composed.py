"""A base, a reader's prompts and edits in their order → the mask, a function of these alone.

Prompts up to the first edit are answered by the engine together; an edit changes the mask that is there; prompts after
it correct what stands then, as they correct a model's drawing (`drawn.corrected`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from core_models.segmentation.editing import applied
from core_models.segmentation.edits import Edit, Stroke
from core_models.segmentation.engine import Mask, Prompt, Segmentation
from core_models.segmentation.history import Action
from core_models.study.volume import Volume
from webapp.viewer.drawn import corrected

Segment = Callable[[tuple[Prompt, ...]], Segmentation]


def composed(
    volume: Volume,
    base: Mask | None,
    confidence: float,
    actions: tuple[Action, ...],
    segment: Segment,
    recall: Callable[[int], Segmentation | None] = lambda number: None,
    keep: Callable[[int, Segmentation], None] = lambda number, answer: None,
) -> Segmentation:
    """The mask of all actions on the base, or on nothing.

    Args:
        confidence: of the base; of what the reader painted it is 1.
        segment: the engine's answer to prompts alone.
        recall, keep: what is known of the first `number` actions; asked for only where that saves work.
    """
    if (known := recall(len(actions))) is not None:
        return known
    start, answer = 0, None if base is None else Segmentation(base, confidence, 0)
    for number in range(len(actions) - 1, 0, -1):
        # Prompts are answered together, so one may begin only where an edit is on one side.
        apart = isinstance(actions[number - 1], Edit) or isinstance(actions[number], Edit)
        if apart and (known := recall(number)) is not None:
            start, answer = number, known
            break
    for edits, group in groupby(range(start, len(actions)), key=lambda n: isinstance(actions[n], Edit)):
        numbers = list(group)
        if edits:
            for n in numbers:
                answer = _edited(volume, answer, actions, n)
                keep(n + 1, answer)
            continue
        prompts: tuple[Prompt, ...] = tuple(actions[n] for n in numbers)  # type: ignore[misc]
        if answer is None:
            answer = segment(prompts)
        else:
            answer = corrected(volume, answer.mask, prompts, segment, answer.confidence)
        keep(numbers[-1] + 1, answer)
    return answer if answer is not None else Segmentation(nothing(volume), 0.0, 0)


def _edited(volume: Volume, before: Segmentation | None, actions: Sequence[Action], n: int) -> Segmentation:
    strokes = tuple(a for a in actions[:n] if isinstance(a, Stroke))
    mask, note = applied(volume, before.mask if before else nothing(volume), actions[n], strokes)  # type: ignore
    if before is None:
        return Segmentation(mask, 1.0, n + 1, note)
    return Segmentation(mask, before.confidence, n + 1, note, label=before.label)


def nothing(volume: Volume) -> Mask:
    return Mask((0, 0, 0), np.zeros((0, 0, 0), bool), volume.shape)


def digests(actions: Sequence[Action]) -> list[bytes]:
    """One digest for each number of first actions, from none to all of them."""
    whole = hashlib.blake2b(digest_size=16)
    out = [whole.digest()]
    for action in actions:
        whole.update(repr(action).encode())
        out.append(whole.digest())
    return out
