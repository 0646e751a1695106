"""Prompts on slices → masks on slices, for models that see one slice at a time.

Each prompted slice is answered by itself; from there the mask wanders up and down: the next slice is asked with the
mask before it as a box and a point in its depth, until a slice answers with something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from core_models.errors import Cancelled, Refused
from core_models.segmentation.engine import Box, Click, Index, Lasso, Prompt, Scribble
from core_models.segmentation.prompts import as_clicks, plane_of, thinned
from core_models.segmentation.voxels.morphology import distance
from core_models.study.volume import Volume

MARGIN = 2  # pixels around the mask before, for the next slice's box
ALIKE = 0.4  # overlap over union with the mask before, below which the structure has ended or the mask leaked
SMALLEST = 6  # pixels; less is taken for the structure's end

Rectangle = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, both ends inside."""


@dataclass(frozen=True)
class Asked:
    """What is asked of one slice: points (x, y) with their sides, and a rectangle around the structure or none."""

    points: tuple[tuple[int, int], ...] = ()
    sides: tuple[bool, ...] = ()
    box: Rectangle | None = None

    @property
    def begins(self) -> bool:
        """Whether it says where the structure is, not only where it is not."""
        return self.box is not None or any(self.sides)


@dataclass
class Plan:
    """All prompts by slice.

    Attributes:
        axis: index axis (0 = i, 1 = j, 2 = k) along which the slices lie.
        asked: slice → what is asked of it.
        first, last: slices that the structure may reach, both inside.
    """

    axis: int
    asked: dict[int, Asked] = field(default_factory=dict)
    first: int = 0
    last: int = 0

    @property
    def across(self) -> tuple[int, int]:
        """Index axes of a slice's columns (x) and rows (y)."""
        x, y = (a for a in range(3) if a != self.axis)
        return x, y


def plan(volume: Volume, prompts: tuple[Prompt, ...]) -> Plan:
    """Prompts → what to ask of the slices in which the scan was made; what was drawn across them becomes clicks.

    Raises:
        Refused: a prompt outside the volume, or none that says where the structure is.
    """
    axis = 2 - volume.layout.axes.index(0)
    out = Plan(axis, first=0, last=volume.shape[2 - axis] - 1)
    for prompt in prompts:
        clicks = as_clicks(volume, (prompt,))  # checks that it lies inside
        if isinstance(prompt, Scribble) and plane_of(prompt.points) == axis:
            clicks = tuple(Click(p, prompt.positive) for p in thinned(volume, prompt.points))
        elif isinstance(prompt, Box):
            if (around := _rectangle(out, prompt)) is not None:
                at, box = around
                _ask(out, at, box=box)
                continue
        elif isinstance(prompt, Lasso) and plane_of(prompt.points) == axis:
            corners = np.asarray(prompt.points)
            _, box = _rectangle(out, Box(tuple(corners.min(0)), tuple(corners.max(0)))) or (0, None)
            _ask(out, int(corners[0, axis]), box=box)
        for click in clicks:
            _ask(out, click.index[axis], click=click)
    if not any(asked.begins for asked in out.asked.values()):
        raise Refused("A segment needs at least one positive click; negative clicks only take away from one.")
    return out


def _rectangle(out: Plan, box: Box) -> tuple[int, Rectangle] | None:
    """(slice, rectangle) of a box that lies in a slice or spans some; None where it lies across the slices."""
    low, high = np.minimum(box.first, box.last), np.maximum(box.first, box.last)
    x, y = out.across
    if low[x] == high[x] or low[y] == high[y]:
        return None
    if low[out.axis] < high[out.axis]:
        out.first, out.last = max(out.first, int(low[out.axis])), min(out.last, int(high[out.axis]))
    return int(low[out.axis] + high[out.axis]) // 2, (int(low[x]), int(low[y]), int(high[x]), int(high[y]))


def _ask(out: Plan, at: int, *, click: Click | None = None, box: Rectangle | None = None) -> None:
    before = out.asked.get(at, Asked())
    if box is not None:
        old = before.box or box
        joined = (min(old[0], box[0]), min(old[1], box[1]), max(old[2], box[2]), max(old[3], box[3]))
        before = replace(before, box=joined)
    if click is not None:
        x, y = out.across
        point = (int(click.index[x]), int(click.index[y]))
        kept = [(p, s) for p, s in zip(before.points, before.sides, strict=True) if p != point]  # the last one counts
        kept.append((point, click.positive))
        before = replace(before, points=tuple(p for p, _ in kept), sides=tuple(s for _, s in kept))
    out.asked[at] = before


Answer = Callable[[int, Asked], tuple[np.ndarray, float]]
"""(slice, what is asked) → (bool (rows, columns), the model's own confidence 0 to 1)."""


def wander(out: Plan, answer: Answer, cancelled: Callable[[], bool]) -> dict[int, tuple[np.ndarray, float]]:
    """Ask slice after slice, away from those that prompts are on; slice → (mask, confidence).

    Between two prompted slices each goes half the way.

    Raises:
        Cancelled: the reader did not wait; asked before every slice.
    """

    def ask(at: int, what: Asked) -> tuple[np.ndarray, float]:
        if cancelled():
            raise Cancelled("Another click came before this one was answered.")
        return answer(at, what)

    seeds = sorted(at for at, asked in out.asked.items() if asked.begins)
    found = {at: ask(at, out.asked[at]) for at in seeds}
    for n, seed in enumerate(seeds):
        for step in (-1, 1):
            other = seeds[n + step] if 0 <= n + step < len(seeds) else None
            at, before = seed + step, found[seed][0]
            while out.first <= at <= out.last and (other is None or abs(at - seed) < abs(other - at)):
                if before.sum() < SMALLEST:
                    break
                mask, sure = ask(at, _next(before, out.asked.get(at, Asked())))
                union = np.count_nonzero(mask | before)
                if not union or np.count_nonzero(mask & before) / union < ALIKE:
                    break
                found[at] = (mask, sure)
                before, at = mask, at + step
    return found


def _next(before: np.ndarray, own: Asked) -> Asked:
    """What is asked of the slice beside a mask: its box, a point in its depth, and the clicks that remove there."""
    y, x = np.nonzero(before)
    height, width = before.shape
    box = (
        max(int(x.min()) - MARGIN, 0),
        max(int(y.min()) - MARGIN, 0),
        min(int(x.max()) + MARGIN, width - 1),
        min(int(y.max()) + MARGIN, height - 1),
    )
    depth = distance(np.pad(before, 1)[None], (1.0, 1.0, 1.0))[0, 1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return Asked(((int(column), int(row)), *own.points), (True, *own.sides), box)


def stacked(volume: Volume, out: Plan, found: dict[int, np.ndarray], clicks: tuple[Click, ...]) -> np.ndarray:
    """Masks by slice → whole-volume bool (z, y, x), every clicked voxel on its own side."""
    full = np.zeros(volume.shape, bool)
    planes = np.moveaxis(full, 2 - out.axis, 0)  # a view: (slice, rows, columns)
    for at, mask in found.items():
        planes[at] = mask
    for click in clicks:
        full[index_of(click.index)] = click.positive
    return full


def index_of(index: Index) -> Index:
    """(i, j, k) → (z, y, x)."""
    i, j, k = index
    return k, j, i
