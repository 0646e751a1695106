"""The classical engine, with the network's answer where the reader asks for the other one.

Until then nothing of the network is loaded: it and the library that runs it take 200 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from core_models.segmentation.engine import Alternative, Prompt, Segmentation, never
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.watershed_engine import WatershedEngine
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.segmentation.clicks.click_engine import ClickEngine
    from core_models.segmentation.clicks.click_engine import Prepared as OfBoth


@dataclass
class Prepared:
    """A scan as both engines hold it; the network's part from when it is first asked for."""

    grid: Grid
    both: OfBoth | None = None


class WatershedFirst:
    """`WatershedEngine`; a row of prompts that holds an `Alternative` is answered by `ClickEngine`, which begins as it.

    Args:
        both: makes that engine; the one that ships where none is given.
    """

    name, version, licence = WatershedEngine.name, WatershedEngine.version, WatershedEngine.licence
    alternatives = True

    def __init__(self, both: Callable[[], ClickEngine] | None = None) -> None:
        self._make = both or _both
        self._classical = WatershedEngine()

    @cached_property
    def _engine(self) -> ClickEngine:
        return self._make()

    def prepare(self, volume: Volume) -> Prepared:
        """Build the coarse grid; 1 to 2 s for a chest CT on two cores."""
        return Prepared(self._classical.prepare(volume))

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Answer all prompts, at native resolution.

        Raises:
            Refused: a click outside the volume, or no positive click.  Cancelled.
            ModelMissing: the network's answer is asked for, and its weights are not there.
        """
        if not any(isinstance(p, Alternative) for p in prompts):
            return self._classical.segment(prepared.grid, prompts, cancelled)
        if prepared.both is None:
            prepared.both = self._engine.prepared(prepared.grid)
        return self._engine.segment(prepared.both, prompts, cancelled)


def _both() -> ClickEngine:
    from core_models.segmentation.clicks.click_engine import ClickEngine

    return ClickEngine(classical=True)
