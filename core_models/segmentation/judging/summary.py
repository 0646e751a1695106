"""What simulated readers saw of one engine in one cohort → means with intervals, by click and by target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core_models.segmentation import metrics
from core_models.segmentation.judging.reader import REPORTED
from core_models.segmentation.settling import LITTLE, WORTH

LEVELS = (0.80, 0.90)
GROUPS = {
    "bones": ("vertebra 31", "vertebra 32", "rib 101", "rib 112"),
    "organs": ("spleen", "right kidney", "left kidney", "liver", "left lung"),
}
"""Targets of the demo CT for which something of their own is aimed at."""


@dataclass(frozen=True)
class Row:
    """One target of one case: `dice` after each click, `hausdorff95` by the number of clicks as text, seconds of each
    answer, how much of each but the first differs from the one before, and how often the other answer was kept."""

    cohort: str
    case: str
    patient: str
    target: str
    dice: list[float]
    hausdorff95: Mapping[str, float | None]
    seconds: list[float]
    changes: Sequence[float] = ()
    others: int = 0


def summary(rows: Sequence[Row], prepare_s: Sequence[float]) -> dict[str, Any]:
    """The figures of one engine in one cohort.

    Returns:
        dice, hausdorff95: "1", "3", "5", "10" → mean; dice_ci, hausdorff95_ci: the same → 95 % interval, by drawing
        patients, or targets where all are of fewer than five patients (`drawn` says which), None of a single one.
        hausdorff95_missing: how many have none, the answer being empty.
        curve, curve_ci, best_so_far: mean Dice after click 1, 2, ..., its interval, and that of the best up to there.
        drop: after each click the median over targets of how far Dice is below the best so far; drop_largest: the
        median over targets of their largest such drop.
        clicks_to: "0.80", "0.90" → median number of clicks to reach it (None where half never do), reached, of.
        click_s: median and 95th percentile of all answers, and the median of the first; prepare_s: median.
        settled: `settling`'s word on answers that another click followed: how many, how often it said that the next one
            is not worth it, and how often that next one gained `WORTH` all the same, or where it did not say so.
        others: share of the answers of which the reader kept the other one.
        targets: target → n, dice "1", ..., hausdorff95, clicks_to; groups: name → mean dice of some targets.
    """
    empty: dict[str, Any] = {"n": 0, "dice": {}, "targets": {}}
    if not rows:
        return empty
    patients = len({r.patient for r in rows})
    few = patients < 5
    owners = [f"{r.case}/{r.target}" if few else r.patient for r in rows]
    scores = np.asarray([r.dice for r in rows])  # (rows, clicks)
    best = np.asarray([metrics.best_so_far(r.dice) for r in rows])
    drops = np.asarray([metrics.drops(r.dice) for r in rows])
    far = np.asarray([[_number(r.hausdorff95[str(n)]) for n in REPORTED] for r in rows])
    spans = metrics.interval(scores, owners)
    far_spans = metrics.interval(far, owners)
    seconds = np.concatenate([r.seconds for r in rows])
    names = list(dict.fromkeys(r.target for r in rows))
    return {
        "n": len(rows),
        "cases": len({r.case for r in rows}),
        "patients": patients,
        "drawn": "targets" if few else "patients",
        "dice": {str(n): _round(scores[:, n - 1].mean()) for n in REPORTED},
        "dice_ci": {str(n): _ends(spans[n - 1]) if spans else None for n in REPORTED},
        "targets": {name: _target([r for r in rows if r.target == name]) for name in names},
        "groups": {
            group: _mean_dice([r for r in rows if r.target in members])
            for group, members in GROUPS.items()
            if any(r.target in members for r in rows)
        },
        "hausdorff95": {str(n): _mean(far[:, k]) for k, n in enumerate(REPORTED)},
        "hausdorff95_ci": {str(n): _ends(far_spans[k]) if far_spans else None for k, n in enumerate(REPORTED)},
        "hausdorff95_missing": {str(n): int(np.isnan(far[:, k]).sum()) for k, n in enumerate(REPORTED)},
        "curve": [_round(v) for v in scores.mean(0)],
        "curve_ci": [_ends(one) for one in spans] if spans else None,
        "best_so_far": [_round(v) for v in best.mean(0)],
        "drop": [_round(v) for v in np.median(drops, axis=0)],
        "drop_largest": _round(np.median(drops.max(axis=1))),
        "clicks_to": {f"{level:.2f}": clicks_to(rows, level) for level in LEVELS},
        "click_s": {
            "median": _round(np.median(seconds)),
            "p95": _round(np.percentile(seconds, 95)),
            "first_median": _round(np.median([r.seconds[0] for r in rows])),
            "clicks": len(seconds),
        },
        "settled": said(rows),
        "others": _round(sum(r.others for r in rows) / len(seconds)),
        "prepare_s": _round(np.median(prepare_s)) if len(prepare_s) else None,
    }


def said(rows: Sequence[Row]) -> dict[str, Any]:
    """See `summary`, `settled`."""
    pairs = [
        (row.changes[n] <= LITTLE, row.dice[n + 2] - row.dice[n + 1] > WORTH)
        for row in rows
        for n in range(len(row.changes) - 1)  # the last answer has no next one
    ]
    gained = {word: [gain for told, gain in pairs if told is word] for word in (True, False)}
    return {
        "answers": len(pairs),
        "said": len(gained[True]),
        "gained_then": _round(np.mean(gained[True])) if gained[True] else None,
        "gained_else": _round(np.mean(gained[False])) if gained[False] else None,
    }


def clicks_to(rows: Sequence[Row], level: float) -> dict[str, Any]:
    """Median clicks to a Dice, those that never reach it counted as more than any; how many reach it, of how many."""
    found = [metrics.reached(r.dice, level) for r in rows]
    middle = float(np.median([np.inf if n is None else n for n in found]))
    return {
        "median": middle if np.isfinite(middle) else None,
        "reached": sum(n is not None for n in found),
        "of": len(found),
    }


def _target(rows: Sequence[Row]) -> dict[str, Any]:
    far = np.asarray([[_number(r.hausdorff95[str(n)]) for n in REPORTED] for r in rows])
    return _mean_dice(rows) | {
        "n": len(rows),
        "hausdorff95": {str(n): _mean(far[:, k]) for k, n in enumerate(REPORTED)},
        "clicks_to": {f"{level:.2f}": clicks_to(rows, level)["median"] for level in LEVELS},
    }


def _mean_dice(rows: Sequence[Row]) -> dict[str, float]:
    return {str(n): _round(np.mean([r.dice[n - 1] for r in rows])) for n in REPORTED}


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return _round(known.mean()) if known.size else None


def _round(value: Any) -> float:
    return round(float(value), 4)


def _ends(ends: list[float]) -> list[float | None]:
    return [None if v is None else _round(v) for v in ends]
