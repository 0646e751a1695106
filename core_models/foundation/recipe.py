"""A TOML file → a training recipe, checked.  The recipe names the tasks, the sources and the stages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_models.errors import Refused

TASK_NAMES = ("findings", "segmentation", "contrastive", "masked", "gate", "generation")
DEFAULT = Path(__file__).resolve().parents[2] / "assets" / "foundation" / "recipe.toml"


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Attributes:
        size: side of the pictures, a multiple of 32.
        steps: optimiser steps.
        rows: source → pictures of it in each step.
        rate: peak learning rate of new layers; the trunk's is `trunk_rate` times that.
        pseudo: source → share of its pictures that get the anatomy masks of the averaged model at the stage's start.
        mirror: probability of a left-right turn for sources that say nothing of sides.
    """

    size: int
    steps: int
    rows: dict[str, int]
    rate: float = 2e-3
    trunk_rate: float = 0.5
    altered: int = 4
    pseudo: tuple[str, ...] = ()
    mirror: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What a run does.

    Attributes:
        tasks: task → weight of its loss.
        start: "imagenet", "scratch", or a folder with an encoder.
        store_size: side at which pictures are held in memory.
        average: decay of the averaged weights, which are what is kept.
    """

    tasks: dict[str, float]
    stages: tuple[Stage, ...]
    start: str = "imagenet"
    dimensions: int = 256
    store_size: int = 384
    average: float = 0.998
    decay: float = 0.02
    seed: int = 0
    checkpoint_every: int = 100
    accumulate: int = 1
    mixed_precision: str = "bf16"

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source of any stage, in order of first use."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.rows))

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def digest(self) -> str:
        """Names the recipe: a run goes on only with the one it began with."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path = DEFAULT) -> Recipe:
    """Parse a recipe.

    Raises:
        Refused: no such file, not TOML, an unknown key, task or a number out of range; the message names it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"The recipe {path.name} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"The recipe {path.name} is not TOML: {error}.") from error
    stages = raw.pop("stages", [])
    if not isinstance(stages, list) or not stages:
        raise Refused(f"The recipe {path.name} has no [[stages]].")
    built = tuple(_fill(Stage, stage, path.name) for stage in stages)
    recipe = _fill(Recipe, raw | {"stages": built}, path.name)
    unknown = set(recipe.tasks) - set(TASK_NAMES)
    if unknown:
        raise Refused(f"The recipe {path.name} names the task {unknown.pop()!r}; there are {', '.join(TASK_NAMES)}.")
    for stage in built:
        if stage.size % 32 or not 32 <= stage.size <= 2048 or stage.steps < 1 or not stage.rows:
            raise Refused(
                f"A stage of {path.name} needs a size that is a multiple of 32, steps of 1 or more, and rows."
            )
    return recipe


def _fill(kind: Any, values: dict[str, Any], name: str) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    odd = set(values) - known
    if odd:
        raise Refused(f"The recipe {name} has the unknown key {odd.pop()!r}; known are {', '.join(sorted(known))}.")
    values = {k: tuple(v) if k == "pseudo" else v for k, v in values.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise Refused(f"The recipe {name} lacks a key: {error}.") from error
