"""What a reader paints, fills in between slices or grows by value: plain data; `editing` makes masks of it.

Planes are named by the axis through them (0 = i, 1 = j, 2 = k of a canonical volume).
"""

from __future__ import annotations

from dataclasses import dataclass

from core_models.segmentation.engine import Index


@dataclass(frozen=True)
class Stroke:
    """A line painted on one slice with a round brush, or erased with it where not `positive`.

    `points` are (i, j, k) in the order they were drawn, straight between two; `axis` is the one through the plane.
    """

    points: tuple[Index, ...]
    radius_mm: float
    axis: int = 2
    positive: bool = True


@dataclass(frozen=True)
class Interpolation:
    """Fill in what strokes changed, between each two neighbouring slices they were drawn on along `axis`."""

    axis: int = 2


@dataclass(frozen=True)
class Grow:
    """All that is connected to `seed` with low <= value <= high; taken away where not `positive`."""

    seed: Index
    low: float
    high: float
    positive: bool = True


Edit = Stroke | Interpolation | Grow
