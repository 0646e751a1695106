"""The learned engine: a network and the classical engine answer, and what is likelier right stands.

The network knows shapes (a vertebra among vertebrae, a bowel loop) but sees no farther than a cube around the click;
the classical engine follows one tissue as far as it goes.  The network works on the answer so far, cube by cube around
the newest click; on CT it also finishes what the classical engine answers.  Which answer stands is decided by `choice`;
what the classical one has begun on CT it goes on with.

Every answer is a function of the prompts alone: the states kept between clicks are a memo of what the same first clicks
gave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from core_models.errors import Cancelled, Refused
from core_models.foundation.reading import Structure
from core_models.segmentation import watershed_engine
from core_models.segmentation.clicks import choice, looking, running
from core_models.segmentation.clicks.cues import FLAT, SIDE
from core_models.segmentation.clicks.looking import Answer, Level
from core_models.segmentation.clicks.running import Running
from core_models.segmentation.engine import Alternative, Click, Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks, confined
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels import native
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import bounds
from core_models.segmentation.watershed_engine import IN_TURN
from core_models.study.volume import Volume

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "segmentation"
RADIOGRAPHS = frozenset({"CR", "DX", "RG", "OT", "SC", "XC"})  # a picture may be one: the model's own gate decides
KEPT = 64  # answers in memory for each scan


@dataclass(frozen=True)
class Drawn:
    """A structure that a model of whole radiographs drew: its native mask, and the same as an answer on the grid."""

    mask: Mask
    answer: Answer

    def holds(self, click: Click) -> bool:
        """Whether a click lies in it."""
        at = tuple(c - o for c, o in zip(click.index[::-1], self.mask.offset, strict=True))
        inside = all(0 <= c < n for c, n in zip(at, self.mask.voxels.shape, strict=True))
        return inside and bool(self.mask.voxels[at])


@dataclass(frozen=True)
class Prepared:
    """A scan as the engine holds it between clicks.

    Attributes:
        structures: of a frontal chest radiograph, the smallest first.
        answers: a memo of rows of prompts, and of what either engine alone made of them.
    """

    grid: Grid
    pyramid: tuple[Level, Level]
    structures: tuple[Drawn, ...] = ()
    answers: OrderedDict[tuple[str, tuple[Prompt, ...]], Answer] = field(
        default_factory=OrderedDict, compare=False, repr=False
    )


class ClickEngine:
    """See the module's docstring.

    Args:
        folder: of the network's weights.
        anatomy: a radiograph → its structures; the shipped model of radiographs where none is given.
    """

    name = "click"
    alternatives = True
    version = "8"
    licence = "Apache-2.0; the weights on the terms of their training data (assets/segmentation/README.md)"

    def __init__(
        self,
        folder: Path = FOLDER,
        anatomy: Callable[[Volume], tuple[Structure, ...]] | None = None,
    ) -> None:
        self.folder = folder
        self._anatomy = anatomy or _anatomy

    def prepare(self, volume: Volume) -> Prepared:
        """Build the grid and load the weights; 1 to 2 s for a chest CT on two cores.

        Raises:
            ModelMissing: weights are not there, of clicks, or for a radiograph of its structures.
        """
        watershed_engine.ready()
        grid = grids.build(volume)
        _chooser(self.folder)
        side = FLAT if grid.shape[0] == 1 else (SIDE, SIDE, SIDE)
        self.network.compiled(tuple(n // 2 for n in side))  # type: ignore[arg-type]
        return Prepared(grid, looking.levels(grid), tuple(self._drawn(volume, grid)))

    @property
    def network(self) -> Running:
        return _net(self.folder)

    def _drawn(self, volume: Volume, grid: Grid) -> list[Drawn]:
        if volume.shape[0] != 1 or volume.modality not in RADIOGRAPHS:
            return []
        try:
            structures = self._anatomy(volume)
        except Refused:  # a radiograph of another kind than the model reads: clicks alone, as in any scan
            return []
        found = []
        for one in sorted(structures, key=lambda s: s.mask.count):
            if not one.mask.empty:
                share = grids.averaged(one.mask.full().astype(np.float32), grid.shape)
                box = bounds(share > 0, [], 4.0, grid.spacing)
                answer = Answer(box, share[box].astype(np.float16), one.confidence, "anatomy", one.label)
                found.append(Drawn(one.mask, answer))
        return found

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Answer all prompts, at native resolution.

        Raises:
            Refused: a prompt outside the volume, or none that adds.  Cancelled.
        """
        grid = prepared.grid
        clicks, notes = watershed_engine.settle(as_clicks(grid.volume, prompts))
        answer = self._answer(prepared, prompts, cancelled)
        inside, outside = ([c.index[::-1] for c in clicks if c.positive is side] for side in (True, False))
        if answer.author == "watershed" or (grid.hounsfield and grid.shape[0] > 1):
            level = watershed_engine.level(grid, clicks)
            mask = native.upsample(grid, answer.mask, answer.box, inside, outside, level)
        else:
            mask = native.upsample_probability(grid, answer.inside.astype(np.float32), answer.box, inside, outside)
        mask = confined(grid.volume, prompts, mask)
        if watershed_engine.in_outer_air(grid, clicks):
            notes.append(watershed_engine.OUTER_AIR)
        # Whether another click would help was not measured: `settled` stays False.
        hint = choice.hint(grid, answer)
        return Segmentation(mask, answer.expected, len(clicks), " ".join(notes), hint, label=answer.name)

    def _answer(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool], by: str = ""
    ) -> Answer:
        """The answer to all prompts, each on top of the answer to those before it; at least one click of them adds.

        Args:
            by: "network" or "watershed", whose own it is then, whatever the other or a drawn structure says.
        """
        known = prepared.answers
        begin = self._anew(prepared, prompts, cancelled, by)
        start = next((n for n in range(len(prompts), begin, -1) if (by, prompts[:n]) in known), begin)
        answer = known[by, prompts[:start]] if start > begin else None
        for n in range(start + 1, len(prompts) + 1):
            if not any(c.positive for c in as_clicks(prepared.grid.volume, prompts[:n])):
                continue  # clicks that remove mean nothing before one that adds: they are answered together with it
            if cancelled():
                raise Cancelled(watershed_engine.CANCELLED)
            if isinstance(prompts[n - 1], Alternative):
                answer = self._alternative(prepared, prompts[:n], cancelled)
            else:
                own = by or ("watershed" if answer is None and begin else "")
                answer = self._next(prepared, prompts[:n], answer, cancelled, own)
            known[by, prompts[:n]] = answer
            while len(known) > KEPT:
                known.popitem(last=False)
        assert answer is not None, "settle() refuses prompts of which none adds"
        return answer

    def _anew(self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool], by: str) -> int:
        """How many of a row's first prompts are answered together with the next one instead of one after the other.

        A row of 500 must not take minutes when a study is opened again, where the classical engine answers them.
        """
        if len(prompts) <= IN_TURN or by == "network" or any(isinstance(p, Alternative) for p in prompts):
            return 0
        if not by:
            grid = prepared.grid
            adds = (any(c.positive for c in as_clicks(grid.volume, (p,))) for p in prompts)
            first = prompts[: 1 + next(n for n, positive in enumerate(adds) if positive)]
            if not grid.hounsfield or self._answer(prepared, first, cancelled).author != "watershed":
                return 0
        return (len(prompts) - 1) // IN_TURN * IN_TURN

    def _next(
        self,
        prepared: Prepared,
        prompts: tuple[Prompt, ...],
        before: Answer | None,
        cancelled: Callable[[], bool],
        by: str,
    ) -> Answer:
        """The answer to all prompts on top of `before`, that to all but the last; None where nothing added yet."""
        grid = prepared.grid
        latest = as_clicks(grid.volume, prompts[-1:])
        clicks, _ = watershed_engine.settle((*as_clicks(grid.volume, prompts[:-1]), *latest))
        newest = len(latest) if before is not None else len(clicks)
        if before is None and not by and (drawn := self._under(prepared, clicks)) is not None:
            return drawn
        net = self.network
        other = None
        if (not prepared.structures and (before is None or by != "network")) or by == "watershed":
            # On CT the network finishes what the classical engine answers.
            other = choice.classical(grid, clicks, clicks[-newest:], before, cancelled)
            other = looking.finished(grid, prepared.pyramid, net, clicks, newest, other, cancelled)
        if other is not None and (by == "watershed" or choice.led(grid, before)):
            answer = other
        else:
            answer = looking.learned(grid, prepared.pyramid, net, clicks, newest, before, other, cancelled)
            if other is not None and not by:
                answer = choice.better(grid, clicks, before, answer, other, _chooser(self.folder))
        return answer if before is None else replace(answer, name=before.name)

    def _alternative(self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool]) -> Answer:
        """What another engine than that which gave the answer before makes of all clicks by itself.

        Of a structure that was drawn by the model of radiographs, and clicks on it, that is the network; of the
        network's answer the classical engine's, and the other way round.  A second `Alternative` goes back.
        """
        if isinstance(prompts[-2], Alternative):
            return self._answer(prepared, prompts[:-2], cancelled)
        stands = self._answer(prepared, prompts[:-1], cancelled)
        places = tuple(p for p in prompts if not isinstance(p, Alternative))
        own = "watershed" if stands.author == "network" and not stands.name else "network"
        return self._answer(prepared, places, cancelled, own)

    def _under(self, prepared: Prepared, clicks: list[Click]) -> Answer | None:
        """The smallest structure of a radiograph that lies under the click that adds."""
        begun = next(c for c in reversed(clicks) if c.positive)
        return next((s.answer for s in prepared.structures if s.holds(begun)), None)


def _anatomy(volume: Volume) -> tuple[Structure, ...]:
    from core_models import registry

    return registry.eyes_for(volume.modality, "", grids.THREADS).read(volume).structures


@cache
def _chooser(folder: Path) -> choice.Chooser:
    return choice.load(folder)


@cache
def _net(folder: Path) -> Running:
    return running.load(folder)
