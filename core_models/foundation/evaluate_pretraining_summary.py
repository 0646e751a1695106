"""Finished cells → means with spread, paired differences to ImageNet: one object of plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import t as student

from core_models.foundation.data import Pool
from core_models.foundation.evaluate_pretraining_cells import Cell, Unit
from core_models.foundation.evaluate_pretraining_starts import BATCH, PROXIES, Budget, proxy_pools
from core_models.foundation.evaluate_pretraining_tasks import COLUMNS, DOWNSTREAM, labelled, macro
from core_models.foundation.metrics import bootstrap

LOW = 0.1
"""Shares of the labels up to here are few labels: 5 and 10 %."""
BASE = "imagenet"
REPEATS = 300


def summary(
    cells: Mapping[str, Cell],
    pools: Mapping[str, Pool],
    seeds: Sequence[int],
    shares: Sequence[float],
    budget: Budget,
    names: Sequence[str],
) -> dict[str, Any]:
    """All figures of a finished grid, ready for JSON; None where a figure cannot be had."""
    grid = _Grid(cells, seeds, shares)
    low = [share for share in shares if share <= LOW]
    proxies = [name for name in names if name in PROXIES]
    best: dict[str, Any] = {"chosen_on": "mean of the validation side over the low shares and seeds"}
    beats: dict[str, Any] = {}
    for task in DOWNSTREAM:
        beats[task] = {n: grid.difference(n, task, low) for n in proxies} if BASE in names else {}
        best[task] = max(proxies, key=lambda n, task=task: grid.validation(n, task, low), default=None)
        if best[task] is not None and beats[task]:
            beats[task][best[task]]["interval_over_test_patients"] = grid.over_patients(best[task], task, low, pools)
    return {
        "starts": {name: {task: grid.row(name, task) for task in DOWNSTREAM} for name in names},
        "best_at_5_10": best | {"beats_imagenet": beats},
        "budget": asdict(budget)
        | {
            "digest": budget.digest,
            "pictures_per_proxy": budget.proxy_steps * BATCH,
            "pretrainings_per_proxy": 1,
            "seeds": list(seeds),
            "context": "none: view, age and sex are not told",
        },
        "cases": _cases(pools, seeds, shares, proxies),
        "seconds": round(sum(cell.seconds for cell in cells.values()), 1),
        "seconds_by_part": {
            "pretraining": {n: round(cells[Unit(n).key].seconds, 1) for n in proxies if Unit(n).key in cells},
            **{task: round(sum(c.seconds for c in cells.values() if c.unit.task == task), 1) for task in DOWNSTREAM},
        },
    }


class _Grid:
    """Looks cells up by start, task, share and seed."""

    def __init__(self, cells: Mapping[str, Cell], seeds: Sequence[int], shares: Sequence[float]) -> None:
        self.cells, self.seeds, self.shares = cells, seeds, shares

    def scores(self, name: str, task: str, share: float, seed: int) -> Any:
        return self.cells[Unit(name, task, share, seed).key].scores

    def row(self, name: str, task: str) -> dict[str, Any]:
        """Share → mean, sd (of a sample) and values over the seeds, with the figure's parts."""
        out = {}
        for share in self.shares:
            scores = [self.scores(name, task, share, seed) for seed in self.seeds]
            values = [s.test for s in scores]
            out[f"{share:g}"] = {
                "mean": _number(np.mean(values)),
                "sd": _number(np.std(values, ddof=1)) if len(values) > 1 else None,
                "values": [_number(v) for v in values],
                "validation": _number(np.mean([s.validation for s in scores])),
                "parts": {k: _number(np.mean([s.parts[k] for s in scores])) for k in scores[0].parts},
            }
        return out

    def validation(self, name: str, task: str, shares: Sequence[float]) -> float:
        """Mean on the validation side; -1 where it cannot be had."""
        values = [self.scores(name, task, share, seed).validation for share in shares for seed in self.seeds]
        return float(np.mean(values)) if np.isfinite(values).all() and values else -1.0

    def difference(self, name: str, task: str, shares: Sequence[float]) -> dict[str, Any]:
        """Start minus ImageNet with the same labelled pictures, at each share and as the mean of the shares."""

        def at(share: float) -> np.ndarray:
            return np.array([self.scores(name, task, share, s).test - self.scores(BASE, task, share, s).test
                             for s in self.seeds])  # fmt: skip

        each = {f"{share:g}": at(share) for share in shares}
        both = np.mean(list(each.values()), axis=0) if each else np.array([])
        return paired(both) | {"at": {share: paired(values) for share, values in each.items()}}

    def over_patients(self, name: str, task: str, shares: Sequence[float], pools: Mapping[str, Pool]) -> dict[str, Any]:
        """95 % interval of that mean difference when test patients are drawn anew, the runs kept."""
        pool = pools[DOWNSTREAM[task].source]
        rows = pool.rows("test")
        figure = _figure_of(task, pool.findings[rows][:, COLUMNS])
        pairs = [(self.scores(name, task, share, seed).each, self.scores(BASE, task, share, seed).each)
                 for share in shares for seed in self.seeds]  # fmt: skip

        def score(drawn: np.ndarray) -> float:
            return float(np.mean([figure(a[drawn], drawn) - figure(b[drawn], drawn) for a, b in pairs]))

        low, high = bootstrap([pool.keys[row] for row in rows], score, REPEATS)
        return {"interval": [_number(low), _number(high)], "excludes_zero": bool(low > 0 or high < 0)}


def _figure_of(task: str, truth: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """(scores of drawn rows, drawn rows) → the task's figure."""
    if task == "jsrt":
        return lambda each, _: float(each.mean())
    return lambda each, drawn: macro(truth[drawn], each)


def paired(values: np.ndarray) -> dict[str, Any]:
    """Differences of the seeds → mean, sd, 95 % interval (Student's t) and whether it leaves 0 out."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    sd = float(np.std(values, ddof=1)) if n > 1 else float("nan")
    half = float(student.ppf(0.975, n - 1)) * sd / n**0.5 if n > 1 else float("nan")
    return {
        "mean": _number(mean),
        "sd": _number(sd),
        "values": [_number(v) for v in values],
        "interval": [_number(mean - half), _number(mean + half)],
        "excludes_zero": bool(np.isfinite(half) and abs(mean) > half),
        "better_in": f"{int((values > 0).sum())} of {n} seeds",
    }


def _cases(
    pools: Mapping[str, Pool], seeds: Sequence[int], shares: Sequence[float], proxies: Sequence[str]
) -> dict[str, Any]:
    """Pictures and patients on either side, labelled at each share, and shown to each proxy."""
    out: dict[str, Any] = {}
    for task in DOWNSTREAM.values():
        pool = pools[task.source]
        sides = {side: pool.rows(side) for side in ("train", "validation", "test")}
        out[task.name] = {
            **{side: {"pictures": len(r), "patients": len({pool.keys[i] for i in r})} for side, r in sides.items()},
            "labelled": {f"{s:g}": [len(labelled(pool, s, seed)) for seed in seeds] for s in shares},
        }
    out["proxies"] = {n: {source: len(pool) for source, pool in proxy_pools(n, dict(pools)).items()} for n in proxies}
    return out


def _number(value: Any) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
