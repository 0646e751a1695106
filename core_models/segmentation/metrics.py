"""Masks and reference labels → Dice, and clicks as a careful reader would set them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Click, Engine
from core_models.segmentation.morphology import distance
from core_models.study.volume import Volume


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice, "Measures of the amount of ecologic association between species", 1945: 2|A∩B| / (|A|+|B|), 0 to 1.

    Two empty masks agree (1.0).
    """
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a bool array (z, y, x); an empty one stays empty."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8))))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax()) if sizes.any() else np.zeros_like(mask)


def deepest(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """(i, j, k) of the voxel farthest from the mask's surface; the array's border counts as surface."""
    box = tuple(
        slice(int(line[0]), int(line[-1]) + 1)
        for line in (np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3))
    )
    depth = distance(np.pad(mask[box], 1), spacing)[1:-1, 1:-1, 1:-1]
    z, y, x = (int(s.start + c) for s, c in zip(box, np.unravel_index(np.argmax(depth), depth.shape), strict=True))
    return x, y, z


def next_click(target: np.ndarray, answer: np.ndarray | None, spacing: tuple[float, float, float]) -> Click | None:
    """The reader's next click: the deepest point of the largest error; None when there is no error."""
    if answer is None:
        return Click(deepest(target, spacing), True)
    missed, extra = largest_part(target & ~answer), largest_part(answer & ~target)
    sizes = int(missed.sum()), int(extra.sum())
    if max(sizes) == 0:
        return None
    positive = sizes[0] >= sizes[1]
    return Click(deepest(missed if positive else extra, spacing), positive)


def simulate(
    engine: Engine, prepared: Any, target: np.ndarray, spacing: tuple[float, float, float], clicks: int
) -> tuple[list[float], list[float]]:
    """Dice after 1, 2, ... `clicks` simulated clicks, and the seconds each answer took."""
    given: tuple[Click, ...] = ()
    answer: np.ndarray | None = None
    scores: list[float] = []
    seconds: list[float] = []
    for _ in range(clicks):
        click = next_click(target, answer, spacing)
        if click is not None:
            given = (*given, click)
            start = perf_counter()
            found = engine.segment(prepared, given).mask
            seconds.append(perf_counter() - start)
            answer = found.full()
        scores.append(dice(answer, target))
    return scores, seconds


def evaluate(
    volume: Volume,
    labels: np.ndarray,
    targets: Mapping[str, Sequence[int]],
    engine: Engine,
    clicks: Sequence[int] = (1, 3, 5),
) -> dict[str, Any]:
    """Dice of one engine on one labelled scan, by simulated clicks.

    Args:
        labels: integer label map (z, y, x) on the volume's grid; `targets` maps a name to the labels it joins.
            Only the largest part of a target is asked for; a target that is not in the map is left out.

    Returns:
        {"default": engine's name, "engines": {name: {"dice": {"1": mean, ...}, "targets": {target: {"1": ...}},
        "first_click_s", "next_click_s" (medians), "prepare_s"}}}.
    """
    start = perf_counter()
    prepared = engine.prepare(volume)
    prepare_s = perf_counter() - start
    rows: dict[str, dict[str, float]] = {}
    first: list[float] = []
    later: list[float] = []
    for name, values in targets.items():
        target = np.isin(labels, list(values))
        if not target.any():
            continue
        scores, seconds = simulate(engine, prepared, largest_part(target), volume.spacing, max(clicks))
        rows[name] = {str(n): round(scores[n - 1], 4) for n in clicks}
        first.append(seconds[0])
        later += seconds[1:]
    mean = {str(n): round(float(np.mean([r[str(n)] for r in rows.values()])), 4) for n in clicks} if rows else {}
    result = {
        "dice": mean,
        "targets": rows,
        "prepare_s": round(prepare_s, 3),
        "first_click_s": round(float(np.median(first)), 3) if first else None,
        "next_click_s": round(float(np.median(later)), 3) if later else None,
    }
    return {"default": engine.name, "engines": {engine.name: result}}
