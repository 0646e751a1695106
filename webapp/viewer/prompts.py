"""The JSON of a prompt or an edit, checked for its form → the dataclass that the service takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, StrictInt

from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import Alternative, Box, Click, Lasso, Scribble
from core_models.segmentation.history import Action

MOST_POINTS = 4000  # of one line

Index = Annotated[list[StrictInt], Field(min_length=3, max_length=3)]
Points = Annotated[list[Index], Field(min_length=1, max_length=MOST_POINTS)]
Axis = Literal[0, 1, 2]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ClickBody(_Body):
    kind: Literal["click"]
    index: Index
    positive: StrictBool = True

    def action(self) -> Action:
        return Click(tuple(self.index), self.positive)


class ScribbleBody(_Body):
    kind: Literal["scribble"]
    points: Points
    positive: StrictBool = True

    def action(self) -> Action:
        return Scribble(_points(self.points), self.positive)


class BoxBody(_Body):
    kind: Literal["box"]
    first: Index
    last: Index

    def action(self) -> Action:
        return Box(tuple(self.first), tuple(self.last))


class LassoBody(_Body):
    kind: Literal["lasso"]
    points: Points

    def action(self) -> Action:
        return Lasso(_points(self.points))


class AlternativeBody(_Body):
    kind: Literal["alternative"]

    def action(self) -> Action:
        return Alternative()


class StrokeBody(_Body):
    kind: Literal["stroke"]
    points: Points
    radius_mm: FiniteFloat
    axis: Axis
    positive: StrictBool = True

    def action(self) -> Action:
        return Stroke(_points(self.points), self.radius_mm, self.axis, self.positive)


class InterpolationBody(_Body):
    kind: Literal["interpolation"]
    axis: Axis

    def action(self) -> Action:
        return Interpolation(self.axis)


class GrowBody(_Body):
    kind: Literal["grow"]
    seed: Index
    low: FiniteFloat
    high: FiniteFloat
    positive: StrictBool = True

    def action(self) -> Action:
        return Grow(tuple(self.seed), self.low, self.high, self.positive)


ActionBody = Annotated[
    ClickBody | ScribbleBody | BoxBody | LassoBody | AlternativeBody | StrokeBody | InterpolationBody | GrowBody,
    Field(discriminator="kind"),
]


def _points(points: list[list[int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((i, j, k) for i, j, k in points)
