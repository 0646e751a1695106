"""A TOML file → a training recipe, checked.  The recipe names the tasks, the sources and the stages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
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
        freeze: stages of the trunk that stay as they are, see `RadiographEncoder.freeze`; default: the recipe's.
        tasks: those that learn in this stage; empty for all of the recipe's.
        queue: vectors that the contrastive task remembers.  Only a trunk that changes slowly may use old ones.
        spread: factor on turns, zooms and shifts of pictures with outlines, so that these hold on films framed unlike
            the few that were outlined.
    """

    size: int
    steps: int
    rows: dict[str, int]
    rate: float = 2e-3
    trunk_rate: float = 0.5
    altered: int = 4
    pseudo: tuple[str, ...] = ()
    mirror: float = 0.0
    freeze: int | None = None
    queue: int = 1024
    tasks: tuple[str, ...] = ()
    spread: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a run does.

    Attributes:
        tasks: task → weight of its loss.
        start: "imagenet", "scratch", or a folder with an encoder.
        store_size: side at which pictures are held in memory.
        freeze: stages of the trunk that stay as the start has them, see `RadiographEncoder.freeze`.
        average: decay of the averaged weights, which are what is kept.
    """

    tasks: dict[str, float]
    stages: tuple[Stage, ...]
    start: str = "imagenet"
    dimensions: int = 256
    store_size: int = 384
    freeze: int = 0
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

    def size_of(self, task: str) -> int:
        """Side of the pictures in the last stage in which a task learns: what its head is read at."""
        return [s.size for s in self.stages if not s.tasks or task in s.tasks][-1]

    def stage_at(self, step: int) -> Stage:
        """The stage that step 1 to `steps` belongs to."""
        for stage in self.stages:
            if step <= stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    @property
    def digest(self) -> str:
        """Names the recipe."""
        return self.digest_to(self.steps)

    def digest_to(self, step: int) -> str:
        """Names all that decided the first steps: a run goes on with a recipe that began the same, so that stages may
        be added to one that is done."""
        begun, left = [], step
        for stage in self.stages:
            if begun and left <= 0:
                break
            begun.append(stage)
            left -= stage.steps
        text = json.dumps(dataclasses.asdict(dataclasses.replace(self, stages=tuple(begun))), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    unknown = sorted(set(recipe.tasks) - set(TASK_NAMES))
    if unknown or not recipe.tasks:
        found = f"names the task {unknown[0]!r}" if unknown else "names no task"
        raise Refused(f"The recipe {path.name} {found}; there are {', '.join(TASK_NAMES)}.")
    for stage in built:
        if set(stage.tasks) - set(recipe.tasks):
            raise Refused(f"A stage of {path.name} names a task that the recipe does not have.")
        if stage.size % 32 or not 32 <= stage.size <= 2048 or stage.steps < 1 or not sum(stage.rows.values()):
            raise Refused(
                f"A stage of {path.name} needs a size that is a multiple of 32, steps of 1 or more, and rows."
            )
    return recipe


_LIMITS = {"average": 1.0, "mirror": 1.0, "trunk_rate": 1.0}
"""The greatest value of what is a share; every number of a recipe is at least 0."""
_KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "tuple[str, ...]": "a list of names"}


def _fill(kind: Any, values: dict[str, Any], name: str) -> Any:
    if not isinstance(values, dict):
        raise Refused(f"The recipe {name} has stages that are no tables: each begins with [[stages]].")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    odd = sorted(set(values) - set(fields))
    if odd:
        raise Refused(f"The recipe {name} has the unknown key {odd[0]!r}; known are {', '.join(sorted(fields))}.")
    lacking = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in values]
    if lacking:
        raise Refused(f"The recipe {name} lacks the key {lacking[0]!r}.")
    for key, value in values.items():
        _check(key, value, str(fields[key].type).removesuffix(" | None"), name)
    return kind(**{k: tuple(v) if k in ("pseudo", "tasks") and isinstance(v, list) else v for k, v in values.items()})


def _check(key: str, value: Any, kind: str, name: str) -> None:
    """Raises Refused where a value is not of the kind that its key has, or a number is negative or not finite."""
    if kind.startswith("dict"):  # a table of numbers: tasks, rows
        entries = value.items() if isinstance(value, dict) else [("", None)]
        for inner, one in entries:
            _check(f"{key}.{inner}".rstrip("."), one, "int" if kind.endswith("int]") else "float", name)
        return
    numbers = (int, float) if kind == "float" else (int,) if kind == "int" else ()
    fits = {
        "str": isinstance(value, str),
        "tuple[str, ...]": isinstance(value, list) and all(isinstance(v, str) for v in value),
    }.get(kind, True)
    if numbers:
        fits = isinstance(value, numbers) and not isinstance(value, bool)
    if not fits:
        raise Refused(f"The recipe {name} has {key} = {value!r}, which is not {_KINDS[kind]}.")
    if numbers and not 0 <= value <= _LIMITS.get(key, math.inf):
        raise Refused(f"The recipe {name} has {key} = {value!r}, which is out of range.")
