"""First clicks in the training side's scans, answered by both engines → the chooser between them.

The network was trained on the same scans and is better in them than it will be elsewhere; what the chooser learns from
are therefore mostly things that hold for both (sizes, agreement, compactness, tissue), and its weights are kept small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core_models.errors import Refused
from core_models.segmentation import choice, click_samples, cohorts, looking, watershed_engine
from core_models.segmentation import grid as grids
from core_models.segmentation.choice import Chooser
from core_models.segmentation.click_net import ClickNet
from core_models.segmentation.engine import Click, never
from core_models.segmentation.metrics import dice

CASES = {"demo-ct": 1, "totalseg-example": 1, "la2018": 12, "acdc": 24}  # of each cohort's training side
CLICKS = 2  # for each target: its deepest place, and another deep one
LEAST = 60  # grid voxels
PENALTY = 3.0
FOLDS = 5


@dataclass(frozen=True)
class Pair:
    """Two answers to one first click: their features, and the Dice of the network's and of the classical one."""

    target: str
    features: np.ndarray
    learned: float
    classical: float


def pairs(cases: Iterable[cohorts.Case], net: ClickNet, say: Callable[[int, int, str], None]) -> list[Pair]:
    """Both engines' answers to first clicks in the training side."""
    counts: dict[str, int] = {}
    chosen = []
    for case in cases:
        counts[case.cohort] = counts.get(case.cohort, 0) + (case.side == "train")
        if case.side == "train" and counts[case.cohort] <= CASES.get(case.cohort, 0):
            chosen.append(case)
    found: list[Pair] = []
    for number, case in enumerate(chosen):
        say(number, len(chosen), case.cohort)
        found += _of_case(case, net)
    return found


def _of_case(case: cohorts.Case, net: ClickNet) -> list[Pair]:
    volume, labels = case.load()
    grid = grids.build(volume)
    pyramid = looking.levels(grid)
    rng = np.random.default_rng(0)
    found = []
    for label, mask in click_samples.planes(case, click_samples.on_grid(grid, labels)).items():
        target = click_samples.largest(mask)
        if np.count_nonzero(target) < LEAST:
            continue
        for place in click_samples.deep_places(target, grid.spacing, CLICKS, rng):
            index = tuple(int((c + 0.5) * f) for c, f in zip(place, grid.factor, strict=True))[::-1]
            click = Click(index)  # type: ignore[arg-type]
            learned = looking.look(grid, pyramid, net, [click], 1, None, never)
            other = choice.classical(grid, *watershed_engine.coarse(grid, [click]))
            scores = (dice(a.full(grid.shape) > 0.5, target) for a in (learned, other))
            found.append(Pair(f"{case.cohort} {label}", choice.features(grid, click, learned, other), *scores))
    return found


def fit(found: list[Pair]) -> tuple[Chooser, dict[str, float]]:
    """The chooser, and what it reaches on targets that it was not fitted to: mean Dice of a first click.

    Raises:
        Refused: there are too few pairs.
    """
    names = sorted({p.target for p in found})
    if len(names) < FOLDS:
        raise Refused("There are too few training targets to learn which engine to believe.")
    x = np.stack([p.features for p in found]).astype(float)
    learned, classical = (np.array([getattr(p, k) for p in found]) for k in ("learned", "classical"))
    fold = np.array([names.index(p.target) % FOLDS for p in found])
    picked = np.zeros(len(found), bool)
    for n in range(FOLDS):
        kept = fold != n
        picked[~kept] = _ridge(x[kept], (learned - classical)[kept]).gain(x[~kept]) > 0
    figures = {
        "clicks": len(found),
        "targets": len(names),
        "network": float(learned.mean()),
        "classical": float(classical.mean()),
        "chosen": float(np.where(picked, learned, classical).mean()),
        "oracle": float(np.maximum(learned, classical).mean()),
    }
    return _ridge(x, learned - classical), {k: round(v, 4) for k, v in figures.items()}


def _ridge(x: np.ndarray, y: np.ndarray) -> Chooser:
    """Ridge regression on standardised features (Hoerl & Kennard, 1970); forests did no better on other targets."""
    middle, scale = x.mean(0), x.std(0) + 1e-3
    z = (x - middle) / scale
    weights = np.linalg.solve(z.T @ z + PENALTY * np.eye(z.shape[1]), z.T @ (y - y.mean())) / scale
    bias = np.array([y.mean() - middle @ weights])
    return Chooser(weights.astype(np.float32), bias.astype(np.float32))


def ship(chooser: Chooser, folder: Path) -> None:
    """Write the chooser's weights."""
    save_file({"weights": chooser.weights, "bias": chooser.bias}, folder / choice.FILE)
