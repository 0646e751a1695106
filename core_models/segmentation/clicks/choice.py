"""Two answers to the same clicks → the one that stands, by what each says of itself and whether it heeds the clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from safetensors import SafetensorError
from safetensors.numpy import load_file

from core_models.errors import ModelMissing
from core_models.segmentation import watershed_engine
from core_models.segmentation.clicks.looking import Answer, grid_point
from core_models.segmentation.engine import Click, never
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import distance, joined

OPENED = watershed_engine.FOLLOWED + 1
FEATURES, HOUNSFIELD = 20 + OPENED, 12
FILE = "choice.safetensors"
ENDLESS = 1e3  # mm
UNSURE = (0.25, 0.75)  # probabilities between which the network does not know
AHEAD = 0.05  # of Dice that a first answer of the network on CT must be expected to gain, to stand
LARGE = 0.08  # a largest unsure region below this share of the answer is no place for a click


def heeded(grid: Grid, answer: Answer, clicks: Sequence[Click]) -> float:
    """Share of the clicks that are on their side of the answer."""
    right = 0
    for click in clicks:
        at = tuple(c - s.start for c, s in zip(grid_point(grid, click), answer.box, strict=True))
        within = all(0 <= c < n for c, n in zip(at, answer.inside.shape, strict=True))
        right += bool(within and answer.inside[at] > 0.5) is click.positive
    return right / len(clicks)


def classical(
    grid: Grid,
    clicks: Sequence[Click],
    newest: Sequence[Click],
    before: Answer | None,
    cancelled: Callable[[], bool] = never,
) -> Answer:
    """What the classical engine makes of all clicks, on top of the answer to those before the `newest`.

    Raises:
        Cancelled.
    """
    mask, box = watershed_engine.coarse(grid, list(clicks), cancelled)
    if before is not None:
        so_far = watershed_engine.Answered(before.mask, before.box)
        after = watershed_engine.on_top(grid, so_far, (mask, box), clicks, newest)
        mask, box = after.mask, after.box
    return Answer(box, mask.astype(np.float16), watershed_engine.confidence(grid, mask, box), "watershed")


def features(grid: Grid, click: Click, before: Answer | None, learned: Answer, other: Answer) -> np.ndarray:
    """(FEATURES,) float32 of two answers to one click: what tells which of them is right.

    What each says of itself, how much the network's probabilities agree with either, how large they are, whether the
    classical one is a compact body or a spread-out leak, and what tissue was clicked; for a later click also how much
    of the answer before (0 without one) each keeps, who gave that, and how right it was thought to be.  Where a click
    adds, one of the last `OPENED` numbers is 1: how far the classical candidate had to be opened.
    """
    voxel = float(np.prod(grid.spacing))
    point = grid_point(grid, click)
    region = joined([a.box for a in (learned, other, before) if a is not None])
    probability = learned.within(region)
    network, tissue = probability > 0.5, other.within(region) > 0.5
    sizes = [max(1, int(np.count_nonzero(m))) for m in (network, tissue)]
    both = int(np.count_nonzero(network & tissue))
    depth = distance(other.mask, grid.spacing)
    around = tuple(
        slice(max(0, c - b.start - 3), max(1, c - b.start + 4)) for c, b in zip(point, other.box, strict=True)
    )
    near = depth[around]
    ball = max(float(near.max()) if near.size else 0.0, min(grid.spacing))
    ball = min(ball, ENDLESS)  # what fills the whole grid has no surface
    value = float(grid.smooth[point])
    unsure = np.count_nonzero((probability > UNSURE[0]) & (probability < UNSURE[1]))
    mass = float(probability.sum())
    earlier = np.zeros_like(network) if before is None else before.within(region) > 0.5
    return np.array(
        [
            learned.expected,
            watershed_engine.confidence(grid, learned.mask, learned.box) if learned.mask.any() else 0.0,
            other.expected,
            np.log(sizes[0] * voxel),
            np.log(sizes[1] * voxel),
            both / sizes[0],
            both / sizes[1],
            2 * float(probability[tissue].sum()) / (mass + sizes[1]),
            2 * float(probability[network].sum()) / (mass + sizes[0]),
            unsure / sizes[0],
            np.log(ball),
            np.log(sizes[1] * voxel / (4 / 3 * np.pi * ball**3)),
            float(grid.hounsfield),
            float(grid.hounsfield and value > watershed_engine.BONE),
            float(grid.hounsfield and value < watershed_engine.AIR),
            dice(network, earlier),
            dice(tissue, earlier),
            float(before is not None and before.author == "watershed"),
            0.0 if before is None else before.expected,
            float(click.positive),
            *(np.eye(OPENED)[watershed_engine.held(grid, point)] if click.positive else np.zeros(OPENED)),
        ],
        np.float32,
    )


@dataclass(frozen=True)
class Chooser:
    """`features` → by how much Dice the network's answer is better than the classical one's: four linear models.

    Attributes:
        weights: (4, FEATURES) float32, of a first and of a later click without HU, then of both with; `bias`: (4,).
    """

    weights: np.ndarray
    bias: np.ndarray

    def gain(self, features: np.ndarray, later: bool) -> np.ndarray:
        """(..., FEATURES) → (...) of expected Dice."""
        number = 2 * (features[..., HOUNSFIELD] > 0.5).astype(int) + int(later)
        return (features * self.weights[number]).sum(-1) + self.bias[number]


def led(grid: Grid, before: Answer | None) -> bool:
    """Whether what comes next is the classical engine's, without a choice: on CT what it began it goes on with.

    Fifth answers on the 32 structures of the training CTs that were kept from the network reach a Dice of .748 so, and
    .730 where each click is a choice anew; third ones .65 both ways.
    """
    return grid.hounsfield and before is not None and before.author == "watershed"


def better(
    grid: Grid, clicks: Sequence[Click], before: Answer | None, learned: Answer, other: Answer, chooser: Chooser
) -> Answer:
    """Of two answers to all clicks that which the chooser takes for better, among those that heed the last one."""
    heeding = [a for a in (learned, other) if a.mask.any() and heeded(grid, a, clicks[-1:]) == 1.0]
    if len(heeding) == 1:
        return heeding[0]
    if not learned.mask.any() or not other.mask.any():
        return learned if learned.mask.any() else other
    row = features(grid, clicks[-1], before, learned, other)
    least = AHEAD if grid.hounsfield and before is None else 0.0
    return learned if chooser.gain(row, before is not None) > least else other


def load(folder: Path) -> Chooser:
    """The chooser whose weights lie in `folder`.  Raises ModelMissing."""
    try:
        stored = load_file(folder / FILE)
        chooser = Chooser(stored["weights"], stored["bias"])
        if chooser.weights.shape != (4, FEATURES) or chooser.bias.shape != (4,):
            raise ValueError("another chooser")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ModelMissing(
            "The weights that choose between segmentations are missing or damaged; `python app.py train segmenter` "
            "makes them."
        ) from error
    return chooser


def hint(grid: Grid, answer: Answer) -> Click | None:
    """The middle of the largest region that the network does not know, and whether it takes it for inside.

    None where that region is small against the answer, and where another than the network answered: that knows yes and
    no alone.
    """
    unsure = (answer.inside > UNSURE[0]) & (answer.inside < UNSURE[1])
    if answer.author != "network" or not unsure.any():
        return None
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(unsure.astype(np.uint8))))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    if sizes.max() < LARGE * max(1, np.count_nonzero(answer.mask)):
        return None
    region = parts == int(sizes.argmax())
    depth = distance(np.pad(region, 1), grid.spacing)[1:-1, 1:-1, 1:-1]
    at = np.unravel_index(int(np.argmax(depth)), depth.shape)
    z, y, x = (
        int(min(n - 1, (c + s.start + 0.5) * f))
        for c, s, f, n in zip(at, answer.box, grid.factor, grid.volume.shape, strict=True)
    )
    return Click((x, y, z), bool(answer.inside[at] > 0.5))
