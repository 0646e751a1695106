"""Grid and clicks → mask, without any training: window, inscribed balls, and a marker watershed for the edge.

For a positive click: the values around it give a robust window; what is connected through that window is the
candidate; negative clicks cut it by a watershed on its distance map, in which every click floods from the largest
ball inscribed around it (so two organs that touch part at their neck); an opening at a radius proportional to that
ball sheds the thin bridges to everything else.  A second watershed, on the gradient, then moves the rim to the edge
in the image.  Clicks are combined in order; all of them are answered anew with each one, but a click that adds takes
nothing away, nor the other way round; what a click that removes cannot part by shape it parts at the image's edges.  A
vertebra and a rib, which no value parts from their neighbours, are told by
their shape (`vertebra`, `rib`), and a vessel that an opening does not part from them is followed (`tube`).  The answer
depends on nothing but the volume and the prompts.

Sources: Beucher & Meyer, "The morphological approach to segmentation: the watershed transformation" (1993) for
marker watersheds; the distance-map flooding is the usual separation of touching particles.  Lengths are nominal mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core_models.errors import Cancelled, Refused
from core_models.segmentation import rib, vertebra
from core_models.segmentation import tube as tubes
from core_models.segmentation.engine import Click, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks, confined
from core_models.segmentation.tube import Tube
from core_models.segmentation.voxels import flooding, native
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels.flooding import reached, watershed
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import (
    Box,
    Point,
    Spacing,
    ball,
    balls,
    bounds,
    close,
    deepest_near,
    depth_of,
    dilate,
    distance,
    flood,
    grown,
    joined,
    shifted,
    signed_distance,
)
from core_models.study.volume import Volume

SAMPLE_RADIUS = 4.0  # values within this of a click tell what tissue it is in
CLICK_RADIUS = 3.0  # this much around a click is always on the click's side
SIDE_REACH = 9.0  # a click this near to what is there already corrects the rim instead of adding a new part
RIM_RADIUS = 8.0  # such a correction reaches at least this far ...
RIM_REACH = 45.0  # ... at most this far ...
RIM_BALLS = 3.0  # ... and otherwise this many radii of the missing piece at the click
OPENINGS = (0.45, 0.6, 0.75, 0.9)  # opening radius over the inscribed ball's; the next one where the last leaked
MAX_OPENING = 8.0  # of the first, gentle opening
GROWTH = 2.0  # a further positive click may add at most this many times what is already there
LEAP, LATE = 2.0, 3  # one that adds more all the same mends the place clicked alone: after a negative one, or from here
LOCAL_BALLS = (8.0, 3.0)  # inscribed radii around the click that are kept when all leaks: of what is thin, of the rest
THIN = 6.0  # radius
MAX_BALLS = 40  # a structure of more than this many inscribed balls is a leak ...
TUBES = 2.0  # ... and one of more than this many tubes of that radius along its whole length
THICKER = 1.4  # times the radius where it was clicked: another structure, where all leaks
THIN_OPENINGS = (0.3, 0.45, 0.6)  # of that radius, once what is thicker is cut off
CUT, LEAKED = len(OPENINGS), len(OPENINGS) + 1  # where no opening held: what is thicker was cut off, or all leaked
TOLD, FOLLOWED = LEAKED + 1, LEAKED + 2  # a bone told by its shape, a tube: nothing was opened
BESIDE = 0.5  # of a tube's width: as far reaches a click beside it
FOLLOW = 3  # what had to be opened so far, or leaked, is followed as a tube where it is one
LITTLE = 0.2  # of the mask: where a negative click takes away less by shape, edges have a say ...
CAP, STOUT = 0.3, 7.0  # ... but take no more of it, and nothing of what has no ball of this radius
CERTAIN, DEEPER = 4.0, 2.0  # they leave what lies deeper than this, and than so many times the click, ...
FARTHER = 3.0  # ... and what is farther from the click than so many radii of the largest ball in the mask
CAST = 0.8  # of the click's depth: the ball that goes with it for certain
ENDLESS = 500.0  # the depth of what fills the whole grid, which has no surface
BAND = (4.0, 15.0)  # half-width, from and to, of the band in which the second watershed decides ...
BANDS = 2.0  # ... between them half the radius of a ball as large as the mask ...
SURE = 2.0  # ... but for what lies so deep in the core
EDGE_WEIGHT = 0.15  # of the gradient against depth when clicks compete
AIR, BONE = -500.0, 150.0  # HU
MARROW = (50.0, 150.0)  # HU of a click that may be marrow ...
CASE_RADIUS, CASE_BRIGHT, CASE_SHARE = 16.0, 200.0, 0.1  # ... when so much within this is so bright
ENCASED_BELOW = 30.0
BONE_LEVEL = 0.7
SOFT_BONE, BONE_RIM = 90.0, 6.0  # HU, mm: what a further click adds to a bone told by its shape, and how far at least
CACHED = 8
KEPT = 16  # answers in memory for each scan, some megabytes each
IN_TURN = 50  # prompts that build on each other: a row of 500 must not take minutes when a study is opened again
OUTER_AIR = "The click is in the air around the patient."
CANCELLED = "Another click came before this one was answered."


@dataclass(frozen=True)
class Tissue:
    """What a click stands on: robust centre and spread of the values around it."""

    centre: float
    spread: float
    hounsfield: bool
    encased: bool = False  # marrow in its cortex, medulla in an enhanced rim: the brighter tissue around belongs to it

    def window(self, width: float = 2.6) -> tuple[float, float]:
        """Inclusive value range of the same tissue; air and cortical bone are open-ended where there is HU."""
        if self.hounsfield and self.centre > BONE:
            return max(120.0, self.centre - 3 * self.spread - 150), np.inf
        if self.hounsfield and self.centre < AIR:
            return -np.inf, AIR
        if self.encased:
            return self.centre - ENCASED_BELOW, np.inf
        half = width * self.spread + 25
        return self.centre - half, self.centre + half

    def narrow(self) -> tuple[float, float]:
        """Inclusive value range that a tube keeps to; of air that of `window`."""
        if self.centre < AIR:
            return self.window()
        half = 2 * self.spread + 18 + (0.25 * (self.centre - 50) if self.centre > BONE else 0.0)
        return self.centre - half, self.centre + half


@dataclass(frozen=True)
class Candidate:
    """All that is connected to one positive click through its window, in its own box, before any negative click.

    Attributes:
        whole: it is a bone already, told by its shape: nothing is to be opened.
        tube: what was followed from the click instead, where that is one.
    """

    box: Box
    mask: np.ndarray
    depth: np.ndarray
    tissue: Tissue
    whole: bool = False
    tube: Tube | None = None


class WatershedEngine:
    """The classical engine: deterministic, without weights, CPU only; see the module's docstring."""

    name = "watershed"
    version = "7"
    licence = "Apache-2.0 (no weights)"

    def prepare(self, volume: Volume) -> Grid:
        """Build the coarse grid; 1 to 2 s for a chest CT on two cores."""
        ready()
        return grids.build(volume)

    def segment(
        self, prepared: Grid, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Answer all prompts, at native resolution.

        Raises:
            Refused: a click outside the volume, or no positive click.  Cancelled.
        """
        kept, notes = settle(as_clicks(prepared.volume, prompts))
        mask, box = in_turn(prepared, prompts, cancelled)
        points = [[c.index[::-1] for c in kept if c.positive is side] for side in (True, False)]
        native_mask = native.upsample(prepared, mask, box, *points, level=level(prepared, kept))  # type: ignore[arg-type]
        native_mask = confined(prepared.volume, prompts, native_mask)
        if in_outer_air(prepared, kept):
            notes.append(OUTER_AIR)
        return Segmentation(native_mask, confidence(prepared, mask, box), len(kept), " ".join(notes))


def ready() -> None:
    """Compile what is compiled, or load it, so that no click waits for it."""
    flooding.ready()
    native.ready()
    tubes.ready()


def in_turn(grid: Grid, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool]) -> tuple[np.ndarray, Box]:
    """All prompts, each on top of the answer to those before it; at least one click of them adds.

    After every `IN_TURN` prompts the next one is answered anew with all before it, and what follows builds on that.
    """
    known = grid.answers
    begin = (len(prompts) - 1) // IN_TURN * IN_TURN
    start = next((n for n in range(len(prompts), begin, -1) if prompts[:n] in known), begin)
    answer = known[prompts[:start]] if start > begin else None
    for n in range(start + 1, len(prompts) + 1):
        try:
            clicks, _ = settle(as_clicks(grid.volume, prompts[:n]))
        except Refused:  # nothing adds yet
            answer = None
            continue
        now = coarse(grid, clicks, cancelled)
        newest = as_clicks(grid.volume, prompts[n - 1 : n])
        answer = Answered(*now) if answer is None else on_top(grid, answer, now, clicks, newest)
        known[prompts[:n]] = answer
        while len(known) > KEPT:
            known.pop(next(iter(known)))
    assert answer is not None, "settle() refuses prompts of which none adds"
    return answer.mask, answer.box


@dataclass(frozen=True)
class Answered:
    """The answer to the first prompts of a row: a bool mask in a box of the grid.

    Attributes:
        gone: what was parted from it at edges, in a box of its own; a click that adds brings back what is near alone.
    """

    mask: np.ndarray
    box: Box
    gone: tuple[np.ndarray, Box] | None = None


def on_top(
    grid: Grid, before: Answered, now: tuple[np.ndarray, Box], clicks: Sequence[Click], newest: Sequence[Click]
) -> Answered:
    """`now`, the answer to all `clicks`, without what the `newest` of them do not ask for: where all of these add, it
    keeps what was there, where all remove, it adds nothing.

    Without it a click could lose what was right: the example CT's median fell back by .05, and does not with it.
    """
    sides = {c.positive for c in newest}
    if len(sides) != 1:
        return Answered(*now)
    inside, points = (
        [grid.from_native(c.index[::-1]) for c in some]  # type: ignore[arg-type]
        for some in ([c for c in clicks if c.positive], newest)
    )
    reach = [ball(grid.shape, p, RIM_REACH, grid.spacing)[0] for p in points]
    box = joined([before.box, now[1], *reach, *([before.gone[1]] if before.gone else [])])
    old, new = (_within(mask, own, box) for mask, own in ((before.mask, before.box), now))
    gone = _within(*before.gone, box) if before.gone else np.zeros_like(old)
    if sides == {False}:
        mask = _removed(grid, box, old, old & new, clicks, newest)
        gone |= old & new & ~mask
    else:
        mask = old | (new & ~gone)
        leapt = np.count_nonzero(mask) > (1 + LEAP) * np.count_nonzero(old)
        if leapt and (len(clicks) >= LATE or not all(c.positive for c in clicks)):
            # A bone told by its shape may well be much more than what was there.
            mask = mask if any(_candidate(grid, p).whole for p in points) else old
        for point in points:
            (at,) = shifted([point], box)
            if not mask[at]:
                around = np.zeros(grid.shape, bool)
                around[box] = mask
                _extend(grid, around, point, _tissue(grid, point), False, RIM_REACH)
                mask = around[box] | balls(mask.shape, [at], CLICK_RADIUS, grid.spacing)
        gone &= ~mask
    return _trimmed(grid, reached(mask, shifted(inside, box)), gone, box, points)


def _trimmed(grid: Grid, mask: np.ndarray, gone: np.ndarray, box: Box, points: list[Point]) -> Answered:
    """Both masks of `box` in boxes no larger than they need: answers are kept in memory."""

    def own(part: np.ndarray, points: list[Point]) -> tuple[np.ndarray, Box]:
        inner = bounds(part, shifted(points, box), RIM_RADIUS, grid.spacing)
        outer = tuple(slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True))
        return part[inner].copy(), outer  # type: ignore[return-value]

    return Answered(*own(mask, points), own(gone, []) if gone.any() else None)


def _removed(
    grid: Grid, box: Box, old: np.ndarray, new: np.ndarray, clicks: Sequence[Click], newest: Sequence[Click]
) -> np.ndarray:
    """What the `newest` clicks leave of `old` in `box`, given what they leave of it by shape: `new`.

    The distance map parts organs that touch at a neck.  A layer of a neighbour along a whole side has no neck, and next
    to nothing is taken away; then what edges of the image part goes as well, unless that is more than a layer.
    """
    before = np.count_nonzero(old)
    if np.count_nonzero(new) <= (1 - LITTLE) * before:
        return new
    depth = depth_of(old, grid.spacing)
    if depth.max() < STOUT:
        return new
    left = new & parted(grid, box, depth, clicks, newest)
    return left if np.count_nonzero(left) >= (1 - CAP) * before else new


def parted(grid: Grid, box: Box, depth: np.ndarray, clicks: Sequence[Click], newest: Sequence[Click]) -> np.ndarray:
    """What edges leave of a mask when the `newest` of `clicks` remove, by a marker watershed on the gradient.

    It floods from the clicks, and from what is deep in the mask or far from them.  A reader clicks about the middle of
    what is too much, so that a layer reaches as far again as the click is deep.

    Args:
        depth: of the mask's voxels in `box`, in nominal mm; 0 outside it.
    """
    inside, outside = (
        shifted([grid.from_native(c.index[::-1]) for c in some], box)  # type: ignore[arg-type]
        for some in ([c for c in clicks if c.positive], newest)
    )
    mask = depth > 0
    depth = np.minimum(depth, ENDLESS)
    sure = depth > max(CERTAIN, DEEPER * max(float(depth[p]) for p in outside))
    sure |= ~balls(mask.shape, outside, FARTHER * float(depth.max()), grid.spacing)
    markers = sure.astype(np.int32)
    for points, side in ((inside, 1), (outside, 2)):
        for p in points:
            radius = CLICK_RADIUS if side == 1 else max(CLICK_RADIUS, CAST * float(depth[p]))
            around, within = ball(mask.shape, p, radius, grid.spacing)
            markers[around][within] = side
    return mask & (watershed(grid.edges[box], markers, mask=mask) != 2)


def _within(mask: np.ndarray, own: Box, box: Box) -> np.ndarray:
    """A mask of its own box in a larger one."""
    out = np.zeros([s.stop - s.start for s in box], bool)
    out[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(own, box, strict=True))] = mask
    return out


def coarse(grid: Grid, clicks: list[Click], cancelled: Callable[[], bool] = never) -> tuple[np.ndarray, Box]:
    """All clicks, at least one of them positive → (bool mask in a box of the grid, that box).

    Raises:
        Cancelled.
    """
    inside, outside = (
        [grid.from_native(c.index[::-1]) for c in clicks if c.positive is side]
        for side in (True, False)  # type: ignore
    )
    mask, core, tissues, drawn = _grow(grid, inside, outside)
    if cancelled():
        raise Cancelled(CANCELLED)
    if drawn:
        box = bounds(mask, [*inside, *outside], RIM_RADIUS, grid.spacing)
        return reached(mask[box], shifted(inside, box)), box
    return _refine(grid, mask, core, tissues, inside, outside)


def settle(clicks: tuple[Click, ...]) -> tuple[list[Click], list[str]]:
    """The clicks that count: the last one at each voxel, in order, and what to tell the reader.

    Raises:
        Refused: none of them is positive.
    """
    last: dict[tuple[int, ...], Click] = {}
    contradicted = False
    for click in clicks:
        index = tuple(int(c) for c in click.index)
        earlier = last.pop(index, None)
        contradicted |= earlier is not None and earlier.positive is not click.positive
        last[index] = click
    if not any(c.positive for c in last.values()):
        raise Refused("A segment needs at least one positive click; negative clicks only take away from one.")
    notes = ["Two clicks at the same voxel contradict each other; the last one counts."] if contradicted else []
    return list(last.values()), notes


def _tissue(grid: Grid, point: Point) -> Tissue:
    box, inside = ball(grid.shape, point, SAMPLE_RADIUS, grid.spacing)
    values = grid.smooth[box][inside]
    near = grid.smooth[tuple(slice(max(0, c - 1), c + 2) for c in point)]
    centre = float(np.median(near))
    values = values[np.abs(values - centre) < 120]  # a click near an edge must not learn the neighbour
    if values.size == 0:
        return Tissue(centre, 20.0, grid.hounsfield)
    centre = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - centre)))  # median absolute deviation as a normal's sigma
    return Tissue(centre, float(np.clip(spread, 14.0, 90.0)), grid.hounsfield, _encased(grid, point, centre))


def _encased(grid: Grid, point: Point, centre: float) -> bool:
    """Whether a CT click of soft-tissue value has bone-bright tissue around it, as marrow has."""
    if not grid.hounsfield or not MARROW[0] < centre <= MARROW[1]:
        return False
    box, inside = ball(grid.shape, point, CASE_RADIUS, grid.spacing)
    return bool((grid.smooth[box][inside] > CASE_BRIGHT).mean() > CASE_SHARE)


def _candidate(grid: Grid, point: Point) -> Candidate:
    """Memoised per click, so that the second click does not pay for the first one again."""
    if point in grid.cache:
        return grid.cache[point]
    tissue = _tissue(grid, point)
    shaped = vertebra.found(grid, point)
    if shaped is not None:
        box, mask = shaped
    else:
        low, high = tissue.window()
        around, inside = ball(grid.shape, point, CLICK_RADIUS, grid.spacing)
        offset = np.array([s.start for s in around])
        mask = flood(grid.smooth, [tuple(o + offset) for o in np.argwhere(inside)], low, high)
        mask[around] |= inside
        box = bounds(mask, [point], 6.0, grid.spacing)
        mask = close(mask[box])
    found = Candidate(box, mask, distance(mask, grid.spacing), tissue, shaped is not None)
    rod = None if found.whole else rib.found(grid, point)
    if rod is not None:
        # What is no brighter than marrow and holds together by itself is a vessel.
        alone = tissue.centre <= BONE and _core(found.depth, *shifted([point], box), grid.spacing, np.inf)[2] < CUT
        found = found if alone else Candidate(*rod, distance(rod[1], grid.spacing), tissue, whole=True)
    if not found.whole:
        found = replace(found, tube=_tube(grid, point, found))
    clicks = list(grid.cache)
    if len(clicks) >= CACHED:
        grid.cache.pop(clicks[0], None)
    grid.cache[point] = found
    return found


def _tube(grid: Grid, point: Point, candidate: Candidate) -> Tube | None:
    """What can be followed from a click whose candidate does not hold together by itself."""
    (at,) = shifted([point], candidate.box)
    if not grid.hounsfield or _core(candidate.depth, at, grid.spacing, np.inf)[2] < FOLLOW:
        return None
    return tubes.found(grid, point, *candidate.tissue.narrow())


def _grow(grid: Grid, inside: list[Point], outside: list[Point]) -> tuple[np.ndarray, np.ndarray, list[Tissue], bool]:
    """The union of what every positive click claims, on the whole grid.

    Returns:
        (mask, its sure core, the tissues clicked, whether it is a bone told by its shape or a tube, with its rim in
        place).
    """
    mask, core = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    tissues = []
    told, width = False, 0.0
    for point in inside:
        tissue = _tissue(grid, point)
        tissues.append(tissue)
        if mask[point]:
            continue
        near, within = ball(grid.shape, point, SIDE_REACH, grid.spacing)
        if (mask[near] & within).any():
            _extend(grid, mask, point, tissue, told, BESIDE * width or RIM_REACH)
            continue
        candidate = _candidate(grid, point)
        if told and not candidate.whole:  # what is missing of a bone hangs together with all other bones
            _extend(grid, mask, point, tissue, told, RIM_REACH)
            continue
        told |= candidate.whole
        # A click that adds to a segment does not multiply it: four times what is there, or a 30 mm ball, is a leak.
        limit = max(GROWTH * np.count_nonzero(mask), 14_000 / np.prod(grid.spacing)) if mask.any() else np.inf
        if candidate.tube is not None:
            box, piece = _drawn(grid, candidate.tube, point, outside)
            if np.count_nonzero(piece) <= limit:
                mask[box] |= piece
                width = max(width, candidate.tube.width)
                continue
        part, heart = _part(grid, candidate, point, inside, outside, float(limit))
        mask[candidate.box] |= part
        core[candidate.box] |= heart
    mask &= ~balls(grid.shape, [p for p in outside if mask[p]], CLICK_RADIUS, grid.spacing)
    return mask, core, tissues, told or width > 0


def _drawn(grid: Grid, tube: Tube, point: Point, outside: list[Point]) -> tuple[Box, np.ndarray]:
    """A tube without what clicks remove of it: (a box of the grid, bool in it)."""
    for p in outside:
        tube = tube.cut(grid, p)
    box, mask = tube.drawn(grid)
    depth = distance(mask, grid.spacing)
    for p in shifted(outside, box):
        if mask[p]:
            around, within = ball(mask.shape, p, max(CLICK_RADIUS, float(depth[p]) + 1.5), grid.spacing)
            mask[around] &= ~within
    at = shifted([point], box)
    for p in at:
        around, within = ball(mask.shape, p, CLICK_RADIUS, grid.spacing)
        mask[around] |= within
    return box, reached(mask, at)


def _extend(grid: Grid, mask: np.ndarray, point: Point, tissue: Tissue, bone: bool, most: float) -> None:
    """Correct the rim in place: add the missing tissue around a click that lies beside what is there already.

    How far it reaches follows from how thick the missing piece is at the click, so a sliver stays a sliver.

    Args:
        bone: the mask is a bone told by its shape: what is missing of it is bone, too.
        most: mm that it reaches at most, but for the least that it always does.
    """
    box, _ = ball(grid.shape, point, RIM_REACH, grid.spacing)
    (at,) = shifted([point], box)
    low, high = (SOFT_BONE, np.inf) if bone else tissue.window()
    missing = (grid.smooth[box] >= low) & (grid.smooth[box] <= high) & ~mask[box]
    missing[at] = True
    rim = BONE_RIM if bone else RIM_RADIUS
    depth = distance(missing, grid.spacing)
    centre = deepest_near(depth, at, 3.0, grid.spacing)
    gap = float(distance(~mask[box], grid.spacing)[at])  # a reader clicks the middle of what is missing
    radius = min(float(depth[centre]), gap)
    around, within = ball(missing.shape, at, float(np.clip(RIM_BALLS * radius, rim, max(rim, most))), grid.spacing)
    near = np.zeros_like(missing)
    near[around] = within
    core = reached(near & (depth > OPENINGS[0] * radius), [centre])
    close_by = np.zeros_like(missing)
    around, within = ball(missing.shape, at, rim, grid.spacing)
    close_by[around] = within
    piece = near & (distance(~core, grid.spacing) <= OPENINGS[0] * radius * 1.15) if core.any() else close_by
    mask[box] |= missing & (piece | close_by)


def _part(
    grid: Grid, candidate: Candidate, point: Point, inside: list[Point], outside: list[Point], limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """One click's claim, at most about `limit` voxels, within its candidate's box: (mask, core)."""
    box, mask, depth = candidate.box, candidate.mask, candidate.depth
    (at,) = shifted([point], box)
    against = shifted(outside, box)
    if against:
        mask = _compete(mask, depth, grid.edges[box], grid.spacing, shifted(inside, box), against)
        around, within = ball(mask.shape, at, CLICK_RADIUS, grid.spacing)
        mask[around] |= within
        depth = depth_of(mask, grid.spacing)
    if candidate.whole:
        core = reached(mask, [at])
        return core, core
    core, opening, number = _core(depth, at, grid.spacing, limit)
    part = grown(core, opening * 1.15, grid.spacing) & mask
    if number == LEAKED and np.isfinite(limit):  # the rims of what leaked may lie far apart
        near = balls(part.shape, [at], (limit * np.prod(grid.spacing) / (4 / 3 * np.pi)) ** (1 / 3), grid.spacing)
        return part & near, core & near
    return part, core


def told(grid: Grid, clicks: Sequence[Click]) -> bool:
    """Whether one of the clicks that add is on a bone told by its shape."""
    return any(_candidate(grid, grid.from_native(c.index[::-1])).whole for c in clicks if c.positive)  # type: ignore


def level(grid: Grid, clicks: Sequence[Click]) -> float:
    """Where the values at a segment's surface part, between those outside (0) and inside (1).

    The cortex of a bone is thin against the blur of a scan: the middle lies beyond it.  On the native voxels of the
    demo CT's training half bones told by their shape gain by it: ribs .788 to .800 of Dice, vertebrae .658 to .659.
    """
    return BONE_LEVEL if told(grid, clicks) else 0.5


def held(grid: Grid, point: Point) -> int:
    """How far the candidate of a click that adds had to be opened until it held together alone: the number of the
    opening, `CUT`, `LEAKED`, `TOLD` or `FOLLOWED`.  A small number tells of a body with a rim of its own."""
    candidate = _candidate(grid, point)
    if candidate.whole:
        return TOLD
    if candidate.tube is not None:
        return FOLLOWED
    (at,) = shifted([point], candidate.box)
    return _core(candidate.depth, at, grid.spacing, np.inf)[2]


def _core(depth: np.ndarray, at: Point, spacing: Spacing, limit: float) -> tuple[np.ndarray, float, int]:
    """What stays of a candidate around its inscribed ball once thin bridges are opened: (bool, opening radius, the
    number of the opening as of `held`).

    The opening grows until what is left is not `_leaked`.  Where it always is, what is much thicker than the place
    clicked is cut off first (a rib from its vertebra, a vein from the heart), and where that does not help either, the
    neighbourhood of the click is kept, for the next clicks to extend: more of what is thin, which goes far.
    """
    box, within = _inscribed(depth, at, 5.0, spacing)
    peaks = np.where(within, depth[box], -1.0)
    top = tuple(int(s.start + c) for s, c in zip(box, np.unravel_index(np.argmax(peaks), peaks.shape), strict=True))
    radius = max(1.0, float(depth[top]))
    core = np.zeros(depth.shape, bool)
    opening = 0.0
    for number, fraction in enumerate(OPENINGS):
        opening = fraction * radius if core.any() else min(fraction * radius, MAX_OPENING)
        core = reached(depth > np.float32(opening), [top])
        if not _leaked(core, radius, spacing, limit):
            core[top] = True
            return core, opening, number
    found = _no_thicker(depth, top, radius, spacing, limit)
    if found is not None:
        return *found, CUT
    core &= balls(core.shape, [top], LOCAL_BALLS[radius >= THIN] * radius, spacing)
    core[top] = True
    return core, opening, LEAKED


def _no_thicker(
    depth: np.ndarray, top: Point, radius: float, spacing: Spacing, limit: float
) -> tuple[np.ndarray, float] | None:
    """As `_core`, without all that lies in balls of over `THICKER` radii; None where that leaks too."""
    thick = grown(depth > THICKER * radius, THICKER * radius, spacing)
    if thick[top]:
        return None
    for fraction in THIN_OPENINGS:
        core = reached((depth > np.float32(fraction * radius)) & ~thick, [top])
        if core.any() and not _leaked(core, radius, spacing, limit):
            return core, fraction * radius
    return None


def _leaked(core: np.ndarray, radius: float, spacing: Spacing, limit: float) -> bool:
    """Whether a candidate's core is too large for the ball inscribed where it was clicked.

    An organ is at most some tens of times that ball (measured: liver 4, kidney 5, cord 24, aorta 45), and no larger
    than `TUBES` round tubes of the ball's radius and its own length.
    """
    count, voxel = np.count_nonzero(core), float(np.prod(spacing))
    if count > min(limit, MAX_BALLS * 4 / 3 * np.pi * radius**3 / voxel):
        return True
    box = bounds(core, [], 0.0, spacing) if count else ()
    longest = max((2 * radius, *((s.stop - s.start) * mm for s, mm in zip(box, spacing, strict=False))))
    return bool(count * voxel > TUBES * np.pi * radius**2 * longest)


def _compete(
    mask: np.ndarray, depth: np.ndarray, edges: np.ndarray, spacing: Spacing, inside: list[Point], outside: list[Point]
) -> np.ndarray:
    """Cut `mask` between the clicks: each floods the negated distance map from its inscribed ball."""
    mask = mask.copy()
    markers = np.zeros(mask.shape, np.int32)
    shallow = [p for p in outside if depth[p] < 4.5]
    deep = [p for p in outside if depth[p] >= 4.5]
    for p in shallow:  # on the rim or outside: shave locally, do not claim half of the organ
        around, within = ball(mask.shape, p, max(3.0, float(depth[p]) + 1.5), spacing)
        mask[around] &= ~within
    if not deep:
        return mask
    for p in deep:
        around, within = _inscribed(depth, p, 2.0, spacing)
        markers[around][within] = 2
    for p in inside:
        if mask[p]:
            around, within = _inscribed(depth, p, 5.0, spacing)
            free = markers[around]
            free[within & (free == 0)] = 1
    for points, side in ((inside, 1), (outside, 2)):
        for p in points:
            around, within = ball(mask.shape, p, CLICK_RADIUS, spacing)
            markers[around][within] = side
    return watershed(-depth + EDGE_WEIGHT * edges, markers, mask=mask) == 1


def _inscribed(depth: np.ndarray, point: Point, reach: float, spacing: Spacing) -> tuple[Box, np.ndarray]:
    """Most of the largest ball that fits around the deepest voxel within `reach` of a click."""
    centre = deepest_near(depth, point, reach, spacing)
    return ball(depth.shape, centre, max(2.5, min(40.0, 0.85 * float(depth[centre]))), spacing)


def to_edges(grid: Grid, mask: np.ndarray, clicks: Sequence[Click]) -> tuple[np.ndarray, Box]:
    """A mask of the whole grid that something else drew → (bool in a box, that box) with its rim at the image's edge.

    What lies deeper than `SURE` stays, where it hangs together with a click that adds: thin bones have no middle that
    is farther from their rim.  How far the rim may go follows from the mask's size.
    """
    inside, outside = (
        [grid.from_native(c.index[::-1]) for c in clicks if c.positive is side]
        for side in (True, False)  # type: ignore
    )
    tissues = [_tissue(grid, point) for point in inside]
    return _refine(grid, mask, mask, tissues, inside, outside)


def _refine(
    grid: Grid, mask: np.ndarray, core: np.ndarray, tissues: list[Tissue], inside: list[Point], outside: list[Point]
) -> tuple[np.ndarray, Box]:
    """Move the rim to the image's edge: a watershed on the gradient inside a band; (bool in box, box)."""
    radius = (np.count_nonzero(mask) * np.prod(grid.spacing) / (4 / 3 * np.pi)) ** (1 / 3)
    band = float(np.clip(radius / BANDS, *BAND))
    box = bounds(mask, [*inside, *outside], 3 * band, grid.spacing)
    rough = mask[box]
    inner = signed_distance(rough, grid.spacing)
    smooth = grid.smooth[box]
    alike = np.zeros(rough.shape, bool)
    for tissue in tissues:
        low, high = tissue.window(4.0)
        alike |= (smooth >= low) & (smooth <= high)
    sure = (
        (inner > band)
        | (core[box] & (inner > SURE))
        | balls(rough.shape, shifted(inside, box), CLICK_RADIUS, grid.spacing)
    )
    against = balls(rough.shape, shifted(outside, box), CLICK_RADIUS, grid.spacing)
    sure &= ~against
    for p in shifted(inside, box):
        sure[p] = True
    other = ((inner < -band) | against | (~alike & ~rough)) & ~sure
    markers = np.where(sure, 1, np.where(other, 2, 0)).astype(np.int32)
    # Only markers that touch an undecided voxel can flood one; the others would but fill the queue.
    settled = sure.copy()
    settled |= watershed(grid.edges[box], markers, mask=dilate(markers == 0)) == 1
    return reached(settled, shifted(inside, box)), box


def in_outer_air(grid: Grid, clicks: list[Click]) -> bool:
    """Whether every positive CT click is in air that reaches the scan's front, back or sides."""
    return all(_outside_body(grid, grid.from_native(c.index[::-1])) for c in clicks if c.positive)  # type: ignore


def _outside_body(grid: Grid, point: Point) -> bool:
    """Whether a CT click is in air that reaches the scan's front, back or sides."""
    if not grid.hounsfield or _tissue(grid, point).centre > -700 or grid.shape[0] * grid.shape[1] < 4:
        return False
    candidate = _candidate(grid, point)
    return any(
        (s.start == 0 and candidate.mask.take(0, axis).any()) or (s.stop == n and candidate.mask.take(-1, axis).any())
        for axis, (s, n) in enumerate(zip(candidate.box, grid.shape, strict=True))
        if axis
    )


def confidence(grid: Grid, mask: np.ndarray, box: Box) -> float:
    """Share of the surface that lies on an edge of the image, 0 to 1; uncalibrated.

    A gradient of 8 grey levels (HU) per mm counts a half.
    """
    surface = grid.edges[box][mask & ~_inner(mask, grid.spacing)]
    return float(np.mean(surface / (surface + 8.0))) if surface.size else 0.0


def _inner(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Voxels whose neighbours are of the mask too, along the axes that are no coarser than those of the slice."""
    out = mask.copy()
    for axis in range(3):
        if spacing[axis] <= 1.01 * max(spacing[1:]):
            line, own = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
            line[1:] &= own[:-1]
            line[:-1] &= own[1:]
    return out
