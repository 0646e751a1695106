"""Proxy tasks compared: what pretraining is worth where few labels are at hand.

Folder of public images → for each start (from scratch, ImageNet, five proxies), share of the labels and seed one run,
as a cell of a grid.  A finished cell is a line of a file in the work folder and is not run again, so an
interruption costs one cell.  Several processes may work on one folder: each cell has a lock, which a process that dies
lets go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_models.foundation.data import Pool, Progress, load
from core_models.foundation.evaluate_pretraining_cells import Cell, Journal, Unit, claimed
from core_models.foundation.evaluate_pretraining_report import markdown, plot
from core_models.foundation.evaluate_pretraining_starts import (
    ACDC,
    COVID,
    JSRT,
    NIH,
    PROXIES,
    ROCO,
    STARTS,
    Budget,
    prepare,
)
from core_models.foundation.evaluate_pretraining_summary import summary
from core_models.foundation.evaluate_pretraining_tasks import DOWNSTREAM, labelled

SOURCES = (ROCO, NIH, COVID, JSRT, ACDC)
SHARES = (0.05, 0.1, 0.25, 1.0)
SEEDS = (0, 1, 2)
QUICK = Budget(size=64, proxy_steps=1, anatomy_steps=2, anatomy_batch=2)
QUICK_PICTURES = 48
WAIT_S = 1.0
"""How long a process waits where all that is left is in another's hands."""


def run(
    data: Path,
    work: Path,
    say: Progress,
    seeds: Sequence[int] = SEEDS,
    shares: Sequence[float] = SHARES,
    quick: bool = False,
) -> dict[str, Any]:
    """The whole comparison, or what is left of it.

    Args:
        data: folder of the sources; work: folder for starts and cells.
        quick: a few pictures and steps, to see that it runs; its figures mean nothing.

    Returns:
        `starts` → start → "jsrt" or "nih" → share → mean, sd, values; `best_at_5_10`; `cases`; `budget`; `seconds`.

    Raises:
        Refused: the data are not there.  ModelMissing: weights to start from are not installed.
    """
    budget = QUICK if quick else Budget()
    pools = load(SOURCES, data, budget.size, say, QUICK_PICTURES if quick else 0)
    return compare(pools, work, say, seeds, shares, budget)


def compare(
    pools: dict[str, Pool],
    work: Path,
    say: Progress,
    seeds: Sequence[int] = SEEDS,
    shares: Sequence[float] = SHARES,
    budget: Budget | None = None,
    names: Sequence[str] = STARTS,
) -> dict[str, Any]:
    """Like `run`, on pools at hand and some of the starts."""
    budget = budget or Budget()
    folder = work / budget.digest
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "cells.jsonl")
    units = [Unit(name) for name in names if name in PROXIES]
    units += [Unit(n, task, share, seed) for n in names for task in DOWNSTREAM for seed in seeds for share in shares]
    while left := _left(units, journal):
        if not any(_tried(unit, pools, folder, journal, budget, _Counted(say, len(units))) for unit in left):
            time.sleep(WAIT_S)
    return summary(journal.cells(), pools, seeds, shares, budget, names)


def _left(units: Sequence[Unit], journal: Journal) -> list[Unit]:
    done = journal.cells()
    return [unit for unit in units if unit.key not in done]


@dataclass
class _Counted:
    """Progress of the whole grid."""

    say: Progress
    total: int
    done: int = 0

    def __call__(self, text: str) -> None:
        self.say(self.done, self.total, text)


def _tried(unit: Unit, pools: dict[str, Pool], folder: Path, journal: Journal, budget: Budget, say: _Counted) -> bool:
    """Do a unit unless it is done, another process has it or its proxy is not trained yet; whether it was done here."""
    with claimed(folder / "locks" / unit.key) as mine:
        done = journal.cells()
        waits = unit.task and unit.start in PROXIES and Unit(unit.start).key not in done
        if not mine or unit.key in done or waits:
            return False
        say.done = len(done)
        cell = perform(unit, pools, folder, budget, say)
        journal.append(cell)
        say.done += 1
        say(f"{unit.key}: {cell.seconds:.0f} s" + (f", {cell.scores.test:.3f}" if cell.scores is not None else ""))
    return True


def perform(unit: Unit, pools: dict[str, Pool], folder: Path, budget: Budget, say: Callable[[str], None]) -> Cell:
    """Train a proxy, or fine-tune and score one cell."""
    begun = time.monotonic()
    start = prepare(unit.start, pools, folder / "starts" / unit.start, budget, 0, say)
    if not unit.task:
        return Cell(
            unit, None, budget.proxy_steps * sum(PROXIES[unit.start].sources.values()), time.monotonic() - begun
        )
    task = DOWNSTREAM[unit.task]
    pool = pools[task.source]
    rows = labelled(pool, unit.share, unit.seed)
    scores = task.run(start, pool, rows, unit.seed, budget)
    return Cell(unit, scores, len(rows), time.monotonic() - begun)


__all__ = ["compare", "markdown", "plot", "run"]
