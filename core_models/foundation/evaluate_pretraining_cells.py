"""The grid's cells, and the file that keeps the finished ones: a line each, so that an interruption costs one cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from core_models.foundation.evaluate_pretraining_tasks import Scores


@dataclass(frozen=True)
class Unit:
    """One thing to do: train a proxy (`task` is ""), or one cell of the grid."""

    start: str
    task: str = ""
    share: float = 0.0
    seed: int = 0

    @property
    def key(self) -> str:
        return f"{self.start}-{self.task}-{self.share:g}-{self.seed}" if self.task else f"{self.start}-proxy"


@dataclass(frozen=True)
class Cell:
    """A unit that is done: its scores, how many labelled pictures it had and how long it took."""

    unit: Unit
    scores: Scores | None
    pictures: int
    seconds: float


class Journal:
    """The finished cells, a JSON object a line; a line that an interruption cut short counts as not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, cell: Cell) -> None:
        record: dict[str, Any] = {"unit": vars(cell.unit), "pictures": cell.pictures, "seconds": round(cell.seconds, 2)}
        if cell.scores is not None:
            record["scores"] = vars(cell.scores) | {"each": np.round(cell.scores.each, 5).tolist()}
        text = json.dumps(record) + "\n"
        with FileLock(self.path.with_suffix(".lock")), self.path.open("ab+") as file:
            if file.tell() and not self.path.read_bytes().endswith(b"\n"):
                file.write(b"\n")  # close a line that was cut short
            file.write(text.encode())

    def cells(self) -> dict[str, Cell]:
        """Key → cell."""
        out: dict[str, Cell] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            unit = Unit(**record["unit"])
            found = record.get("scores")
            scores = Scores(**found | {"each": np.array(found["each"])}) if found else None
            out[unit.key] = Cell(unit, scores, record["pictures"], record["seconds"])
        return out


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the unit to itself; another that has it is not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
