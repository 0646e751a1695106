"""What the classical engine answers simulated readers of a training scan: what the network learns to finish.

A reader clicks well inside the target, then well inside the largest error, up to five times; every answer on the way is
kept.  All of it is on the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import edt as euclidean
import numpy as np
from scipy import ndimage

from core_models.segmentation import watershed_engine
from core_models.segmentation.engine import Click, never
from core_models.segmentation.voxels.grid import Grid
from core_models.segmentation.voxels.morphology import Box, joined

CLICKS = 5
DEEP = 0.5  # a click lies at least this deep in what it means, as a part of the deepest there is
LEAST = 60  # grid voxels of a target


@dataclass(frozen=True)
class Rough:
    """One answer of the classical engine, and the clicks that it was given.

    Attributes:
        box: of the grid; `packed`: the bool mask in it, packed by bits.
        clicks: (n, 3) grid voxels (z, y, x); `adds`: (n,) bool.
    """

    box: Box
    packed: np.ndarray
    clicks: np.ndarray
    adds: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """bool, in the box."""
        shape = [s.stop - s.start for s in self.box]
        return np.unpackbits(self.packed, count=int(np.prod(shape))).reshape(shape).astype(bool)


def answers(grid: Grid, masks: Mapping[int, np.ndarray], readers: int, seed: int) -> dict[int, list[Rough]]:
    """Label → the answers to `readers` simulated readers of it; labels of less than `LEAST` voxels have none."""
    found: dict[int, list[Rough]] = {}
    for label, mask in masks.items():
        if np.count_nonzero(mask) < LEAST:
            continue
        whole = ndimage.find_objects(mask.astype(np.uint8))[0]
        target, own = largest(mask[whole]), tuple(whole)
        found[label] = []
        for number in range(readers):
            found[label] += _read(grid, target, own, np.random.default_rng((seed, label, number)))
    return found


def _read(grid: Grid, target: np.ndarray, own: Box, rng: np.random.Generator) -> list[Rough]:
    """The answers to one reader, who sees the target in its box."""
    clicks: list[Click] = []
    places: list[np.ndarray] = []
    found = []
    error, adds, box = target, True, own
    for _ in range(CLICKS):
        place = _inside(error, grid.spacing, rng) + [s.start for s in box]
        places.append(place)
        clicks.append(_native(grid, place, adds))
        mask, region = watershed_engine.in_turn(grid, tuple(clicks), never)
        sides = np.array([c.positive for c in clicks])
        found.append(Rough(region, np.packbits(mask), np.array(places, np.float32), sides))
        box = joined([region, own])
        wanted, given = (_within(m, b, box) for m, b in ((target, own), (mask, region)))
        parts = [largest(wanted & ~given), largest(given & ~wanted)]
        sizes = [np.count_nonzero(p) for p in parts]
        if not any(sizes):
            break
        adds = sizes[0] >= sizes[1]
        error = parts[0 if adds else 1]
    grid.answers.clear()
    return found


def _inside(mask: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """(z, y, x) of a voxel deep inside a mask."""
    depth = euclidean.edt(np.pad(mask, 1), anisotropy=spacing)[1:-1, 1:-1, 1:-1]
    places = np.argwhere(depth >= rng.uniform(DEEP, 1.0) * depth.max())
    return places[rng.integers(len(places))]


def _native(grid: Grid, place: np.ndarray, positive: bool) -> Click:
    z, y, x = (int(min(n - 1, (c + 0.5) * f)) for c, f, n in zip(place, grid.factor, grid.volume.shape, strict=True))
    return Click((x, y, z), positive)


def _within(mask: np.ndarray, own: Box, box: Box) -> np.ndarray:
    out = np.zeros([s.stop - s.start for s in box], bool)
    out[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(own, box, strict=True))] = mask
    return out


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a bool array."""
    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
