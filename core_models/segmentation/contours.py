"""Mask → closed contours in the slices of its scan, which enclose the same pixel centres as the mask sets.

Contours run half-way between set and unset pixels (marching squares at a half), so that a reader that fills the pixel
centres inside gets the mask back.  Holes are cut by the keyhole technique (DICOM PS3.3 C.8.8.6.3): one contour goes in
along a channel of no width, around the hole, and out again, which plain CLOSED_PLANAR readers understand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume


@dataclass(frozen=True)
class Contour:
    """One closed contour; the last point is joined to the first.

    Attributes:
        slice: of the source's own order.
        points: (n, 3) LPS mm.
    """

    slice: int
    points: np.ndarray


def contours(volume: Volume, mask: Mask) -> Iterator[Contour]:
    """One contour for each connected part (4 neighbours) of the mask in each slice of the source, in their order."""
    axis = volume.layout.axes.index(0)  # array axis along which the source's slices lie
    planes = np.moveaxis(mask.voxels, axis, 0)
    rest = [a for a in range(3) if a != axis]
    count, flipped = volume.shape[axis], volume.layout.flips[axis]
    order = range(planes.shape[0])
    for n in reversed(order) if flipped else order:
        at = n + mask.offset[axis]
        for part in parts(planes[n]):
            zyx = np.empty((len(part), 3))
            zyx[:, axis] = at
            zyx[:, rest] = part + [mask.offset[a] for a in rest]
            yield Contour(count - 1 - at if flipped else at, volume.to_world(zyx[:, ::-1]))


def parts(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Bool (rows, columns) → one ring (n, 2) of (row, column) for each connected part, its holes joined to it."""
    labelled, _ = ndimage.label(plane)
    for n, (rows, columns) in enumerate(ndimage.find_objects(labelled), 1):
        part = np.pad(labelled[rows, columns] == n, 1).astype(float)
        rings = [ring[:-1] for ring in find_contours(part, 0.5)]
        # By their leftmost points: the outer ring is first, and a hole's channel leads to what is joined already.
        rings.sort(key=lambda ring: ring[:, 1].min())
        joined = rings[0]
        for hole in rings[1:]:
            joined = _joined(joined, hole)
        yield _straight(joined) + np.array((rows.start - 1, columns.start - 1))


def _joined(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The hole's leftmost point is joined to the nearest point of the ring on its left, along their row of pixels."""
    first = int(np.lexsort((hole[:, 0], hole[:, 1]))[0])
    row, column = hole[first]
    on_row = np.flatnonzero((ring[:, 0] == row) & (ring[:, 1] < column))
    at = int(on_row[np.argmax(ring[on_row, 1])])
    around = np.roll(hole, -first, axis=0)
    return np.concatenate([ring[: at + 1], around, around[:1], ring[at:]])


def _straight(ring: np.ndarray) -> np.ndarray:
    """The ring without the points that lie on the line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0  # a channel's end turns around on its own line
    return ring[(turn != 0) | back]
