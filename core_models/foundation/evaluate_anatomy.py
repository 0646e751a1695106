"""The shipped model on JSRT's even images → Dice of lungs, heart, clavicles, and the cardiothoracic ratio's error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core_models.foundation.anatomy import GROUPS, dice
from core_models.foundation.data import load
from core_models.foundation.labels import STRUCTURES
from core_models.foundation.measures import measure
from core_models.foundation.metrics import bootstrap
from core_models.foundation.reading import Eyes
from core_models.foundation.sampler import bit_planes
from core_models.segmentation.engine import Mask
from core_models.study.intake import read_scan

Progress = Callable[[int, int, str], None]
SOURCE = "jsrt"
SIZE = 512
"""Masks are compared at this size, the one at hand."""


def run(root: Path, eyes: Eyes, say: Progress, limit: int = 0) -> dict[str, Any]:
    """Read every test image as the page would and compare its structures with the masks.

    A structure that is not offered (the masks were not plausible, or the quality gate refused the image) counts as
    Dice 0.  Baseline: the mean mask of the training images, the same for every image.
    """
    pool = load([SOURCE], root, SIZE)[SOURCE]
    rows = pool.rows("test")[: limit or None]
    mean = bit_planes(pool.masks[pool.rows("train")]).mean(0).numpy() > 0.5
    scores = {name: [] for name in GROUPS}
    lazy = {name: [] for name in GROUPS}
    ratio, seconds, refused = [], [], 0
    for at, row in enumerate(rows):
        volume = read_scan([root / SOURCE / "images" / f"{pool.files[row]}.jpg"])[0].series[0].volume
        reading = eyes.read(volume)
        seconds.append(reading.seconds)
        refused += not reading.structures
        truth = bit_planes(pool.masks[row][None])[0].bool().numpy()
        found = np.zeros_like(truth)
        for structure in reading.structures:
            if structure.label in STRUCTURES:
                found[STRUCTURES.index(structure.label)] = structure.mask.full()[0]
        for name, group in GROUPS.items():
            scores[name].append(dice(found[list(group)], truth[list(group)]))
            lazy[name].append(dice(mean[list(group)], truth[list(group)]))
        own = _ratio(found)
        if own is not None:
            ratio.append((own, _ratio(truth)))
        say(at + 1, len(rows), "radiographs")
    keys = [pool.keys[r] for r in rows]
    errors = np.array([abs(a - b) for a, b in ratio])
    return {
        "dice": {name: float(np.mean(v)) for name, v in scores.items()},
        "dice_ci": {name: _interval(keys, v) for name, v in scores.items()},
        "dice_lowest": {name: float(np.min(v)) for name, v in scores.items()},
        "baselines": {"mean_mask": {name: float(np.mean(v)) for name, v in lazy.items()}},
        "cardiothoracic_ratio": {
            "mean_absolute_error": float(errors.mean()) if len(errors) else float("nan"),
            "p95": float(np.percentile(errors, 95)) if len(errors) else float("nan"),
            "cases": len(errors),
        },
        "cases": len(rows),
        "not_offered": int(refused),
        "seconds_median": float(np.median(seconds)),
        "seconds_p95": float(np.percentile(seconds, 95)),
        "data": "JSRT, even image numbers; trained on odd ones",
        "model": f"{eyes.name}/{eyes.version}",
    }


def _interval(keys: list[str], values: list[float]) -> tuple[float, float]:
    column = np.array(values)
    return bootstrap(keys, lambda rows: float(column[rows].mean()))


def _ratio(masks: np.ndarray) -> float | None:
    """The cardiothoracic ratio of (5, h, w) masks; None where a structure is missing."""
    named = {label: Mask.from_full(mask[None]) for label, mask in zip(STRUCTURES, masks, strict=True)}
    found = {m.key: m.value for m in measure(named, None)}
    return found.get("cardiothoracic_ratio")
