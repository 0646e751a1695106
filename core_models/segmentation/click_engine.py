"""The default engine: a learned network and the classical engine answer, and what is likelier right stands.

The network knows shapes (a vertebra among vertebrae, a bowel loop) but sees no farther than a cube around the click;
the classical engine follows one tissue as far as it goes.  The network works on the answer so far, cube by cube around
the newest click.  Which answer stands is decided by `choice`.

Every answer is a function of the prompts alone: the states kept between clicks are a memo of what the same first clicks
gave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from core_models.errors import Cancelled
from core_models.segmentation import choice, click_net, looking, native, watershed_engine
from core_models.segmentation import grid as grids
from core_models.segmentation.click_net import ClickNet
from core_models.segmentation.engine import Click, Prompt, Segmentation, never
from core_models.segmentation.grid import Grid
from core_models.segmentation.looking import Answer, Level
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "segmentation"
KEPT = 16  # answers in memory for each scan


@dataclass(frozen=True)
class Prepared:
    """A scan as the engine holds it between clicks; `answers` is a memo of the first clicks of each row."""

    grid: Grid
    pyramid: tuple[Level, Level]
    answers: OrderedDict[tuple[Click, ...], Answer] = field(default_factory=OrderedDict, compare=False, repr=False)


class ClickEngine:
    """See the module's docstring.

    Args:
        folder: of the network's weights.
    """

    name = "click"
    version = "1"
    licence = "Apache-2.0; the weights on the terms of their training data, see assets/segmentation/README.md"

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def prepare(self, volume: Volume) -> Prepared:
        """Build the grid and load the network; 1 to 2 s for a chest CT on two cores.  Raises ModelMissing."""
        _net(self.folder)
        grid = grids.build(volume)
        return Prepared(grid, looking.levels(grid))

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Answer all prompts, at native resolution.

        Raises:
            Refused: a prompt outside the volume, or none that adds.  Cancelled.
        """
        grid = prepared.grid
        clicks, notes = watershed_engine.settle(as_clicks(grid.volume, prompts))
        answer = self._answer(prepared, tuple(clicks), cancelled)
        inside, outside = ([c.index[::-1] for c in clicks if c.positive is side] for side in (True, False))
        mask = native.upsample_probability(grid, answer.inside.astype(np.float32), answer.box, inside, outside)
        if watershed_engine.in_outer_air(grid, clicks):
            notes.append(watershed_engine.OUTER_AIR)
        hint = choice.hint(grid, answer, clicks)
        return Segmentation(mask, answer.expected, len(clicks), " ".join(notes), hint, hint is None)

    def _answer(self, prepared: Prepared, clicks: tuple[Click, ...], cancelled: Callable[[], bool]) -> Answer:
        """The answer to all clicks, built on that to all but the last."""
        known = prepared.answers.get(clicks)
        if known is not None:
            prepared.answers.move_to_end(clicks)
            return known
        # Clicks that remove mean nothing before one that adds: they are answered together with it.
        begun = any(c.positive for c in clicks[:-1])
        before = self._answer(prepared, clicks[:-1], cancelled) if begun else None
        if cancelled():
            raise Cancelled(watershed_engine.CANCELLED)
        answer = looking.look(prepared.grid, prepared.pyramid, _net(self.folder), clicks, before, cancelled)
        other = watershed_engine.coarse(prepared.grid, list(clicks), cancelled)
        answer = choice.better(prepared.grid, clicks, before, answer, choice.classical(prepared.grid, *other))
        prepared.answers[clicks] = answer
        while len(prepared.answers) > KEPT:
            prepared.answers.popitem(last=False)
        return answer


@cache
def _net(folder: Path) -> ClickNet:
    return click_net.load(folder)
