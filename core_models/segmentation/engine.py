"""Volume and prompts in → mask out: the one interface behind which every engine stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from core_models.study.volume import Volume


@dataclass(frozen=True)
class Click:
    """A point prompt.  `index` is (i, j, k) = (column, row, slice) of the canonical volume."""

    index: tuple[int, int, int]
    positive: bool = True


Index = tuple[int, int, int]


@dataclass(frozen=True)
class Scribble:
    """A freehand line through one plane: every point of it is inside, or outside where not `positive`.

    `points` are (i, j, k) in the order they were drawn; all share one index along the plane's axis.
    """

    points: tuple[Index, ...]
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle on one plane around the structure, or a cuboid: nothing outside it belongs there on those slices.

    `first` and `last` are opposite corners (i, j, k), both inside; on one axis they are equal for a rectangle.
    """

    first: Index
    last: Index


@dataclass(frozen=True)
class Lasso:
    """A closed freehand ring on one plane around the structure; `points` (i, j, k) share one index."""

    points: tuple[Index, ...]


@dataclass(frozen=True)
class Alternative:
    """The other of two answers to the prompts before it; a second one brings the first answer back.

    It says nothing of a place.  Engines that know of no other answer never see it.
    """


Prompt = Click | Scribble | Box | Lasso | Alternative


@dataclass(frozen=True)
class Mask:
    """A binary mask as its bounding box.

    Attributes:
        offset: (z, y, x) of the box's first voxel in the volume.
        voxels: bool (dz, dy, dx); may be empty (size 0) for an empty mask.
        shape: (z, y, x) of the whole volume.
    """

    offset: tuple[int, int, int]
    voxels: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def from_full(cls, full: np.ndarray) -> Mask:
        """Crop a whole-volume bool array (z, y, x) to its bounding box."""
        full = np.asarray(full, dtype=bool)
        if not full.any():
            return cls((0, 0, 0), np.zeros((0, 0, 0), bool), full.shape)
        box = []
        for axis in range(3):
            line = np.flatnonzero(full.any(axis=tuple(a for a in range(3) if a != axis)))
            box.append(slice(int(line[0]), int(line[-1]) + 1))
        return cls(tuple(s.start for s in box), full[tuple(box)].copy(), full.shape)

    def full(self) -> np.ndarray:
        """The whole-volume bool array (z, y, x)."""
        out = np.zeros(self.shape, dtype=bool)
        out[self.slices] = self.voxels
        return out

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as slices into the volume."""
        return tuple(slice(o, o + n) for o, n in zip(self.offset, self.voxels.shape, strict=True))

    @property
    def empty(self) -> bool:
        return not self.voxels.any()

    @property
    def count(self) -> int:
        """Number of voxels set."""
        return int(np.count_nonzero(self.voxels))


@dataclass(frozen=True)
class Segmentation:
    """What an engine answers.

    Attributes:
        confidence: 0 to 1, the engine's own, uncalibrated unless the engine's card says so.
        used: how many of the prompts shaped the mask.
        note: one sentence for the reader when something is off ("the click is outside the body"), else "".
        hint: where the next click would tell the engine most and whether it takes that place for inside; None when
            it expects nothing of another click, or does not know.
        settled: the engine expects no gain from another click.
        label: what the engine takes the structure for, "" where it does not know; suggested to the reader, as any name.
    """

    mask: Mask
    confidence: float
    used: int
    note: str = ""
    hint: Click | None = None
    settled: bool = False
    label: str = ""


def never() -> bool:
    """The `cancelled` of work that nobody stops."""
    return False


class Engine(Protocol):
    """One way to turn prompts into a mask.

    `prepare` does the work that depends on the volume alone and may take seconds (it is run once per series, in the
    background); `segment` is run on every prompt and must be deterministic in (prepared, prompts).  An engine that
    knows clicks alone takes the other prompts through `prompts.as_clicks`.  One with an attribute `alternatives` that
    is true has a second answer to the same prompts, and gives it where an `Alternative` comes after them.

    `cancelled` is asked between steps; where it answers True, `segment` raises `errors.Cancelled` and leaves
    `prepared` as it was.
    """

    name: str
    version: str
    licence: str

    def prepare(self, volume: Volume) -> Any: ...

    def segment(
        self, prepared: Any, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation: ...
