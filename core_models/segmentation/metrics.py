"""Two masks → Dice and the 95% Hausdorff distance; scores after each click → what more clicks gave."""

from __future__ import annotations

from collections.abc import Sequence

import edt as euclidean
import numpy as np

from core_models.segmentation.engine import Mask
from core_models.segmentation.voxels.morphology import distance

RESAMPLES = 2000
Spacing = tuple[float, float, float]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice, "Measures of the amount of ecologic association between species", 1945: 2|A∩B| / (|A|+|B|), 0 to 1.

    Two empty masks agree (1.0).
    """
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def together(*masks: Mask) -> tuple[tuple[int, int, int], list[np.ndarray]]:
    """Masks of one volume → (offset, bool arrays) of the box that holds them all.

    The box is a voxel wider than they are wherever the volume goes on, so that what reaches its border reaches the
    volume's.
    """
    held = [m for m in masks if m.voxels.size] or list(masks[:1])
    shape = masks[0].shape
    low = [max(0, min(m.offset[a] for m in held) - 1) for a in range(3)]
    high = [min(shape[a], max(m.offset[a] + m.voxels.shape[a] for m in held) + 1) for a in range(3)]
    arrays = []
    for mask in masks:
        array = np.zeros([b - a for a, b in zip(low, high, strict=True)], bool)
        array[tuple(slice(s.start - o, s.stop - o) for s, o in zip(mask.slices, low, strict=True))] = mask.voxels
        arrays.append(array)
    return tuple(low), arrays  # type: ignore[return-value]


def rim(mask: np.ndarray) -> np.ndarray:
    """The voxels of a bool array (z, y, x) with a face neighbour outside; the array's border counts as continuing."""
    inner = mask.copy()
    for axis in range(3):
        ahead, behind = ([slice(None)] * 3 for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        inner[tuple(behind)] &= mask[tuple(ahead)]
        inner[tuple(ahead)] &= mask[tuple(behind)]
    return mask & ~inner


def hausdorff95(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> float | None:
    """95% Hausdorff distance in the unit of `spacing`: the 95th percentile of all surface distances, pooled.

    From the centre of every surface voxel of A to the nearest one of B and the other way round, both sets of distances
    thrown together (Huttenlocher et al., "Comparing images using the Hausdorff distance", 1993, with the percentile
    that challenges take for robustness).  Surface voxels have a face neighbour outside the mask; where the volume ends
    there is no surface, since no engine could know how the structure goes on.

    Args:
        a, b: bool (z, y, x) on one grid, in a box as of `together` (or the whole volume).

    Returns:
        None where one of them has no surface.
    """
    edges = rim(a), rim(b)
    if not (edges[0].any() and edges[1].any()):
        return None
    far = [distance(~edge, spacing)[other] for edge, other in (edges, edges[::-1])]
    return float(np.percentile(np.concatenate(far), 95))


def depths(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance of every True voxel to the nearest False one; beyond the array everything is False.

    But for axes of one voxel: nothing in a picture is deeper than its one slice, and its midst is what is asked for.
    """
    rim = [(int(n > 1),) * 2 for n in mask.shape]
    inner = tuple(slice(before, before + n) for (before, _), n in zip(rim, mask.shape, strict=True))
    return euclidean.edt(np.pad(mask, rim), anisotropy=spacing, parallel=2)[inner]


def best_so_far(scores: Sequence[float]) -> list[float]:
    """After each click the best score up to it."""
    return np.maximum.accumulate(np.asarray(scores, float)).tolist() if len(scores) else []


def reached(scores: Sequence[float], level: float) -> int | None:
    """The number of clicks after which the score first is at least `level`; None where it never is."""
    return next((n for n, score in enumerate(scores, 1) if score >= level), None)


def drops(scores: Sequence[float]) -> list[float]:
    """After each click how far the score is below the best up to it (0 at a new best)."""
    return [best - score for best, score in zip(best_so_far(scores), scores, strict=True)]


def interval(values: np.ndarray, owners: Sequence[str], seed: int = 0) -> list[list[float]] | None:
    """95 % intervals of means by drawing owners (patients, or targets) with replacement.

    Args:
        values: (n, measures), nan where there is none; owners: of each row; rows of one owner are drawn together.

    Returns:
        [low, high] for each measure; None with fewer than two owners, of whom no spread can be told.
    """
    keys = list(dict.fromkeys(owners))
    if len(keys) < 2:
        return None
    at = np.asarray([keys.index(owner) for owner in owners])
    known = np.isfinite(values)
    sums, counts = (np.zeros((len(keys), values.shape[1])) for _ in range(2))
    np.add.at(sums, at, np.where(known, values, 0.0))
    np.add.at(counts, at, known)
    drawn = np.random.default_rng(seed).integers(0, len(keys), (RESAMPLES, len(keys)))
    often = np.stack([np.bincount(row, minlength=len(keys)) for row in drawn])  # (draws, owners)
    below = often @ counts
    means = np.where(below > 0, (often @ sums) / np.maximum(below, 1), np.nan)
    out = []
    for column in means.T:
        finite = column[np.isfinite(column)]
        out.append([float(v) for v in np.percentile(finite, (2.5, 97.5))] if finite.size else [None, None])
    return out
