"""Two answers to the same clicks → the one that stands, by what each says of itself and whether it heeds the clicks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core_models.segmentation import watershed_engine
from core_models.segmentation.engine import Click
from core_models.segmentation.grid import Grid
from core_models.segmentation.looking import Answer, grid_point
from core_models.segmentation.morphology import Box


def heeded(grid: Grid, answer: Answer, clicks: Sequence[Click]) -> float:
    """Share of the clicks that are on their side of the answer."""
    right = 0
    for click in clicks:
        at = tuple(c - s.start for c, s in zip(grid_point(grid, click), answer.box, strict=True))
        within = all(0 <= c < n for c, n in zip(at, answer.inside.shape, strict=True))
        right += bool(within and answer.inside[at] > 0.5) is click.positive
    return right / len(clicks)


def classical(grid: Grid, mask: np.ndarray, box: Box) -> Answer:
    """The classical engine's mask as an answer, with a soft rim."""
    return Answer(box, mask.astype(np.float16), watershed_engine.confidence(grid, mask, box), "watershed")


def better(grid: Grid, clicks: Sequence[Click], learned: Answer, other: Answer) -> Answer:
    """The answer that stands."""
    return max((learned, other), key=lambda a: (heeded(grid, a, clicks), a.expected))
