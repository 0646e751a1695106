"""Structures that a model drew at once → the one that a prompt means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.draw import polygon

from core_models.errors import Refused
from core_models.segmentation.engine import Box, Click, Lasso, Mask, Prompt, Scribble, Segmentation
from core_models.segmentation.prompts import as_clicks, plane_of
from core_models.study.volume import Volume

OWN = 0.9  # the models drew these without the prompt and say nothing of how sure they are


@dataclass(frozen=True)
class Structure:
    """One structure as a model named it."""

    name: str
    mask: Mask


def structures(labels: np.ndarray, names: Mapping[int, str], parts: bool = False) -> tuple[Structure, ...]:
    """Label map (z, y, x) of whole numbers, 0 for background → its structures.

    Args:
        parts: each connected part (26 neighbours) is a structure of its own, as with tumours.
    """
    out = []
    for value, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None or value not in names:
            continue
        here = labels[box] == value
        if not parts:
            out.append(Structure(names[value], Mask(_start(box), here, labels.shape)))
            continue
        numbered, _ = ndimage.label(here, np.ones((3, 3, 3)))
        for part, inner in enumerate(ndimage.find_objects(numbered), 1):
            offset = tuple(a + b for a, b in zip(_start(box), _start(inner), strict=True))
            out.append(Structure(names[value], Mask(offset, numbered[inner] == part, labels.shape)))
    return tuple(out)


def _start(box: tuple[slice, ...]) -> tuple[int, int, int]:
    return tuple(int(s.start) for s in box)  # type: ignore[return-value]


def pick(volume: Volume, found: tuple[Structure, ...], prompts: tuple[Prompt, ...], model: str) -> Segmentation:
    """The union of the structures that adding prompts mean, less those that removing ones mean; the last counts.

    A click means the smallest structure that holds it; a scribble the one with most of its points; a box or a ring the
    one with most voxels inside.

    Raises:
        Refused: a prompt outside the volume, or none that adds.
    """
    as_clicks(volume, prompts)  # checks that they lie inside
    if not any(getattr(p, "positive", True) for p in prompts):
        raise Refused("A segment needs at least one positive click; negative clicks only take away from one.")
    chosen: dict[int, None] = {}
    missed = 0
    for prompt in prompts:
        at = _meant(volume, found, prompt)
        if at is None:
            missed += getattr(prompt, "positive", True)
        elif getattr(prompt, "positive", True):
            chosen[at] = None
        else:
            chosen.pop(at, None)
    full = np.zeros(volume.shape, bool)
    for at in chosen:
        full[found[at].mask.slices] |= found[at].mask.voxels
    note = f"{model} drew no structure at {'this place' if missed == 1 else 'these places'}." if missed else ""
    names = list(dict.fromkeys(found[at].name for at in chosen))
    return Segmentation(
        Mask.from_full(full), OWN if chosen else 0.0, len(prompts), note, label=names[0] if len(names) == 1 else ""
    )


def _meant(volume: Volume, found: tuple[Structure, ...], prompt: Prompt) -> int | None:
    """The index of the structure that a prompt means, or None."""
    points = None if isinstance(prompt, Box) else _points(volume, prompt)
    best: tuple[int, int, int] | None = None
    for n, one in enumerate(found):
        inside = _in_box(one.mask, prompt) if isinstance(prompt, Box) else _under(one.mask, points)
        if inside and (best is None or (inside, -one.mask.count) > best[:2]):
            best = (inside, -one.mask.count, n)
    return best[2] if best else None


def _in_box(mask: Mask, box: Box) -> int:
    """How many of the mask's voxels lie in a box."""
    low, high = np.minimum(box.first, box.last)[::-1], np.maximum(box.first, box.last)[::-1] + 1
    start = np.maximum(low - mask.offset, 0)
    stop = np.maximum(high - mask.offset, 0)
    return int(mask.voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].sum())


def _under(mask: Mask, points: np.ndarray) -> int:
    """How many of the points (n, 3) of (z, y, x) the mask holds."""
    at = points - np.asarray(mask.offset)
    at = at[((at >= 0) & (at < mask.voxels.shape)).all(axis=1)]
    return int(mask.voxels[tuple(at.T)].sum())


def _points(volume: Volume, prompt: Click | Scribble | Lasso) -> np.ndarray:
    """All voxels that a prompt covers, (n, 3) of (z, y, x)."""
    if isinstance(prompt, Click):
        return np.asarray([prompt.index], int)[:, ::-1]
    if isinstance(prompt, Scribble):
        return np.asarray(prompt.points, int)[:, ::-1]
    return ring(prompt, volume)


def ring(lasso: Lasso, volume: Volume) -> np.ndarray:
    """All voxels inside a ring, its rim among them, (n, 3) of (z, y, x)."""
    axis = plane_of(lasso.points)
    a, b = (n for n in range(3) if n != axis)
    points = np.asarray(lasso.points)
    shape = np.asarray(volume.shape[::-1])
    u, v = polygon(points[:, a], points[:, b], shape=(int(shape[a]), int(shape[b])))
    out = np.empty((u.size, 3), int)
    out[:, axis], out[:, a], out[:, b] = points[0, axis], u, v
    return np.unique(np.concatenate([out, points])[:, ::-1], axis=0)
