"""Clicks answered by both engines → the chooser between them.

Of the two CTs that train the network all structures are clicked, those that were kept from it (`cohorts.KEPT_BACK`)
among them, to see whether it is better on what it was trained on than elsewhere; of other cohorts the validation side.
No test side is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from core_models.errors import Refused
from core_models.segmentation import cohorts
from core_models.segmentation.clicks import choice, click_samples, looking, rough
from core_models.segmentation.clicks.choice import Chooser
from core_models.segmentation.clicks.looking import Answer
from core_models.segmentation.clicks.running import Running
from core_models.segmentation.engine import Click, Mask, never
from core_models.segmentation.judging import judged, reader
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels.grid import Grid

CASES = {"demo-ct": 1, "totalseg-example": 1, "la2018": 5, "acdc": 40}
PLACES = 3  # for each target: its deepest place, and other deep ones
CLICKS = 4  # from each place
LEAST = 60  # grid voxels
# Ribs and vertebrae are half of what is labelled on a CT and not half of what readers click.
BONES, OF_BONES = frozenset({*range(26, 51), *range(92, 116)}), 0.25
PENALTY = 3.0
FOLDS = 5


@dataclass(frozen=True)
class Pair:
    """Two answers to one click: their features, and the Dice of the network's and of the classical one.

    Attributes:
        target: patient and structure; `kept_back`: the network was not trained on that structure.
        weight: how much it counts in the fit: on CT by its size, and a rib or a vertebra less.
    """

    target: str
    later: bool
    kept_back: bool
    features: np.ndarray
    learned: float
    classical: float
    weight: float = 1.0


def pairs(cases: Iterable[cohorts.Case], net: Running, say: Callable[[int, int, str], None]) -> list[Pair]:
    """Both engines' answers to clicks on the training side's CTs and on the validation side of other cohorts."""
    apart: dict[str, list[cohorts.Case]] = {}
    for case in cases:
        if case.cohort in CASES and case.side == ("train" if case.cohort in cohorts.KEPT_BACK else "validation"):
            apart.setdefault(case.cohort, []).append(case)
    chosen = []
    for cohort, own in apart.items():  # as many patients as there are: a heart's slices follow one another
        at = np.linspace(0, len(own) - 1, min(CASES[cohort], len(own))).round().astype(int)
        chosen += [own[n] for n in at]
    found: list[Pair] = []
    for number, case in enumerate(chosen):
        say(number, len(chosen), case.cohort)
        found += _of_case(case, net)
    return found


def _of_case(case: cohorts.Case, net: Running) -> list[Pair]:
    volume, labels = case.load()
    grid = grids.build(volume)
    pyramid = looking.levels(grid)
    rng = np.random.default_rng(0)
    found: list[Pair] = []
    for label, mask in click_samples.planes(case, click_samples.on_grid(grid, labels)).items():
        target = rough.largest(mask)
        if np.count_nonzero(target) < LEAST:
            continue
        weight = _weight(label, np.count_nonzero(target) * float(np.prod(grid.spacing))) if grid.hounsfield else 1.0
        for place in click_samples.deep_places(target, grid.spacing, PLACES, rng):
            clicks = [_native(grid, place[::-1], True)]
            before: Answer | None = None
            for number in range(CLICKS):
                other = choice.classical(grid, clicks, clicks[-1:], before)
                other = looking.finished(grid, pyramid, net, clicks, 1, other, never)
                learned = looking.learned(grid, pyramid, net, clicks, 1, before, other, never)
                scores = [dice(a.full(grid.shape) > 0.5, target) for a in (learned, other)]
                row = choice.features(grid, clicks[-1], before, learned, other)
                back = case.side != "train" or cohorts.kept_back(case, label)
                found.append(Pair(f"{judged.patient_of(case)} {label}", number > 0, back, row, *scores, weight))
                # Mostly the better one goes on, now and then the other, as it will happen; on CT what the classical
                # engine began leaves nothing to choose.
                goes_on = grid.hounsfield or (scores[0] >= scores[1]) is (rng.random() < 0.8)
                before = learned if goes_on else other
                answer = Mask.from_full(before.full(grid.shape) > 0.5)
                step = reader.next_click(Mask.from_full(target), answer, grid.spacing)
                if step is None:
                    break
                clicks = [*clicks, _native(grid, step.index, step.positive)]
    return found


def _weight(label: int, volume: float) -> float:
    """Of a CT's structure of so many mm³: 1 for 1 ml, 10 for 10 litres, a quarter of it for a rib or a vertebra."""
    return (volume / 1e3) ** 0.25 * (OF_BONES if label in BONES else 1.0)


def _native(grid: Grid, place: tuple[int, ...], positive: bool) -> Click:
    """A click in the middle of a grid voxel (i, j, k)."""
    index = (int((c + 0.5) * f) for c, f in zip(place, grid.factor[::-1], strict=True))
    return Click(tuple(index), positive)  # type: ignore[arg-type]


def fit(found: list[Pair]) -> tuple[Chooser, dict[str, Any]]:
    """The chooser, and what it reaches on targets that it was not fitted to: mean Dice of first and of later clicks, on
    CT and elsewhere.

    Raises:
        Refused: there are too few pairs.
    """
    models: dict[tuple[bool, bool], tuple[np.ndarray, float]] = {}
    figures: dict[str, Any] = {}
    for hounsfield, later in itertools.product((False, True), (False, True)):
        own = [p for p in found if p.later is later and bool(p.features[choice.HOUNSFIELD]) is hounsfield]
        if len({p.target for p in own}) >= FOLDS:
            name = f"{'CT' if hounsfield else 'other'}, {'later' if later else 'first'}"
            models[hounsfield, later], figures[name] = _fit(own)
    for later in (False, True):
        known = [models[h, later] for h in (False, True) if (h, later) in models]
        if not known:
            raise Refused("There are too few training targets to learn which engine to believe.")
        for hounsfield in (False, True):
            models.setdefault((hounsfield, later), known[0])  # nothing to learn from: as on the other kind of scan
    weights, biases = zip(*(models[k] for k in sorted(models)), strict=True)
    return Chooser(np.stack(weights).astype(np.float32), np.array(biases, np.float32)), figures


def _fit(own: list[Pair]) -> tuple[tuple[np.ndarray, float], dict[str, Any]]:
    """One linear model, and what it reaches by cross-validation over patients, or over targets where those are few."""
    names = [p.target.rsplit(" ", 1)[0] for p in own]
    names = names if len(set(names)) >= FOLDS else [p.target for p in own]
    order = sorted(set(names))
    fold = np.array([order.index(name) % FOLDS for name in names])
    x = np.stack([p.features for p in own]).astype(float)
    learned, classical = (np.array([getattr(p, k) for p in own]) for k in ("learned", "classical"))
    weight = np.array([p.weight for p in own])
    picked = np.zeros(len(own), bool)
    for n in range(FOLDS):
        kept = fold != n
        weights, bias = _ridge(x[kept], (learned - classical)[kept], weight[kept])
        picked[~kept] = x[~kept] @ weights + bias > 0
    chosen = np.where(picked, learned, classical)
    means = {"network": learned, "classical": classical, "chosen": chosen, "oracle": np.maximum(learned, classical)}
    back = np.array([p.kept_back for p in own])

    def told(some: np.ndarray) -> dict[str, float]:
        return {"clicks": int(some.sum())} | {k: round(float(v[some].mean()), 4) for k, v in means.items()}

    figures: dict[str, Any] = {"targets": len({p.target for p in own})} | told(np.ones(len(own), bool))
    if len(set(weight)) > 1:
        figures["weighted"] = {k: round(float(np.average(v, weights=weight)), 4) for k, v in means.items()}
    if 0 < back.sum() < len(back):  # whether the network is better on what trained it than elsewhere
        figures |= {"kept_back": told(back), "trained_on": told(~back)}
    return _ridge(x, learned - classical, weight), figures


def _ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weighted ridge regression on standardised features (Hoerl & Kennard, 1970); forests did no better on other
    targets."""
    weight = weight / weight.mean()
    middle, scale = np.average(x, 0, weight), x.std(0) + 1e-3
    z = (x - middle) / scale
    mean = np.average(y, weights=weight)
    normal = (z * weight[:, None]).T @ z + PENALTY * np.eye(z.shape[1])
    weights = np.linalg.solve(normal, (z * weight[:, None]).T @ (y - mean)) / scale
    return weights, float(mean - middle @ weights)


def ship(chooser: Chooser, folder: Path) -> None:
    """Write the chooser's weights."""
    save_file({"weights": chooser.weights, "bias": chooser.bias}, folder / choice.FILE)
