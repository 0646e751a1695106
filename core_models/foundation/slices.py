"""Labelled CT volumes and cardiac MR pictures → square slices with one label map each, split so that sides are apart.

MR is split by patient.  Of CT there are two volumes at hand, so each is split into slabs with a gap between: figures on
its test slabs say how well organs of a volume seen in part are found, not how well those of an unseen patient are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from core_models.errors import Refused
from core_models.foundation.augment import Strength
from core_models.foundation.data import MASK_CARDIAC, Pool
from core_models.foundation.images import square
from core_models.foundation.split import Side
from core_models.study.intake import read_scan

CARDIAC = ("right ventricle", "myocardium", "left ventricle")
"""Labels 1 to 3 of ACDC."""
ORGANS: dict[str, tuple[int, ...]] = {
    "lungs": (10, 11, 12, 13, 14),
    "heart": (51,),
    "liver": (5,),
    "spleen": (1,),
    "kidneys": (2, 3),
    "aorta": (52,),
}
"""Organs of the CT task and TotalSegmentator's numbers for them (version 2)."""
WINDOW = (-160.0, 240.0)
"""HU that become black and white: the abdominal window, centre 40, width 400."""
TRAIN_MM, TEST_MM, GAP_MM = 45.0, 20.0, 7.5
"""Thickness of the slabs along z, in turn: training, gap, test, gap."""
AUGMENT = {
    "ct": Strength(rotate=10.0, tone=0.3, invert=0.0),
    "mr": Strength(rotate=45.0, mirror=0.5, tone=0.7, invert=0.0),  # some ACDC slices are turned against others
}


@dataclass(frozen=True)
class Slices:
    """Slices of one modality.

    Attributes:
        name: of the expert, "ct" or "mr".
        structures: names of the labels 1, 2, ...
        images: uint8 (n, s, s); masks: uint8 (n, s, s) labels, 0 is none of them.
        keys: what overlap is counted over: the patient, or the volume.
        sides: of each slice; None lies in a gap.
    """

    name: str
    structures: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    keys: tuple[str, ...]
    sides: tuple[Side | None, ...]

    def rows(self, wanted: Side) -> np.ndarray:
        """Row numbers of one side."""
        return np.flatnonzero(np.array([s == wanted for s in self.sides]))

    def planes(self, rows: np.ndarray) -> torch.Tensor:
        """float (n, structures, s, s): one mask a structure."""
        labels = torch.from_numpy(self.masks[rows])[:, None]
        return (labels == torch.arange(1, len(self.structures) + 1)[None, :, None, None]).float()


@dataclass(frozen=True)
class LabelledCt:
    """A CT and its organs: `hu`, `labels` (z, y, x) on one grid, canonical (LPS, axial); `step_mm` between slices."""

    name: str
    hu: np.ndarray
    labels: np.ndarray
    step_mm: float


def read_ct(name: str, scan: Path, labels: Path) -> LabelledCt:
    """A CT file with its label map.  Raises Refused where they are not of one grid, or cannot be read."""
    volume = read_scan([scan])[0].series[0].volume
    organs = read_scan([labels])[0].series[0].volume
    if volume.array.shape != organs.array.shape or not np.allclose(volume.affine, organs.affine, atol=1e-2):
        raise Refused(f"The label map {labels.name} is on another grid than {scan.name}.")
    return LabelledCt(name, volume.array, organs.array, float(np.linalg.norm(volume.affine[:3, 2])))


def ct_slices(volumes: Sequence[LabelledCt], size: int) -> Slices:
    """Axial slices of CTs in the abdominal window, padded to squares.

    Raises:
        Refused: no volume, or none of the organs in them.
    """
    images, masks, keys, sides = [], [], [], []
    for volume in volumes:
        numbers = np.zeros(int(max(volume.labels.max(), 117)) + 1, np.uint8)
        for label, values in enumerate(ORGANS.values(), start=1):
            numbers[list(values)] = label
        for z, (plane, organs) in enumerate(zip(volume.hu, volume.labels, strict=True)):
            grey = np.clip((plane.astype(np.float32) - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0.0, 1.0)
            images.append((square(_padded(grey), size)[0].numpy() * 255 + 0.5).astype(np.uint8))
            masks.append(_nearest(_padded(numbers[organs.astype(np.int64)]), size))
            keys.append(volume.name)
            sides.append(slab_side(z * volume.step_mm))
    if not volumes or not any(mask.any() for mask in masks):
        raise Refused("The CT expert needs at least one CT with a label map that holds its organs.")
    return Slices("ct", tuple(ORGANS), np.stack(images), np.stack(masks), tuple(keys), tuple(sides))


def slab_side(z_mm: float) -> Side | None:
    """The side of a slice by its distance from the first one; None in a gap between slabs."""
    at = z_mm % (TRAIN_MM + TEST_MM + 2 * GAP_MM)
    if at < TRAIN_MM:
        return "train"
    return "test" if TRAIN_MM + GAP_MM <= at < TRAIN_MM + GAP_MM + TEST_MM else None


def mr_slices(pool: Pool) -> Slices:
    """The pictures of the source "acdc" with their masks.  Raises Refused for another source."""
    if pool.mask_kind != MASK_CARDIAC or pool.masks is None:
        raise Refused(f"The MR expert is trained on acdc, not on {pool.name!r}.")
    sides = tuple(s if usable else None for s, usable in zip(pool.sides, pool.usable, strict=True))
    return Slices("mr", CARDIAC, pool.images, pool.masks, pool.keys, sides)


def _padded(plane: np.ndarray) -> np.ndarray:
    """(h, w) → a square with zeros (air, no organ) around."""
    side = max(plane.shape)
    rows, columns = ((side - n) // 2 for n in plane.shape)
    out = np.zeros((side, side), plane.dtype)
    out[rows : rows + plane.shape[0], columns : columns + plane.shape[1]] = plane
    return out


def _nearest(labels: np.ndarray, size: int) -> np.ndarray:
    tensor = torch.from_numpy(labels)[None, None].float()
    return F.interpolate(tensor, size=(size, size), mode="nearest-exact")[0, 0].to(torch.uint8).numpy()
