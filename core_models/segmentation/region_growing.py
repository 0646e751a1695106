"""The lazy engine that evaluations compare with: everything connected to a click with nearly its value.

Adams & Bischof, "Seeded region growing", IEEE TPAMI 1994;16:641-647, in its simplest form (a fixed interval).  It is
not offered to readers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Index, Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume

KEPT = 16
INTERVAL = 40.0  # value units to either side of the seed's 3 × 3 × 3 median


@dataclass(frozen=True)
class Smoothed:
    """The scan, its 3 × 3 × 3 median, and the regions of the latest clicks: a memo that never changes an answer."""

    volume: Volume
    image: sitk.Image
    regions: dict[Index, Mask] = field(default_factory=dict, compare=False, repr=False)


class RegionGrowing:
    """Regions of the adding clicks, less those of the removing ones."""

    name, version, licence = "region growing", "1", "Apache-2.0 (no weights)"

    def prepare(self, volume: Volume) -> Smoothed:
        smooth = sitk.GetImageFromArray(np.asarray(volume.array, dtype=np.float32))
        return Smoothed(volume, sitk.Median(smooth, (1, 1, 1)))

    def segment(
        self, prepared: Smoothed, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        clicks = as_clicks(prepared.volume, prompts)
        full = np.zeros(prepared.volume.shape, dtype=bool)
        for click in clicks:
            region = _region(prepared, click.index)
            if click.positive:
                full[region.slices] |= region.voxels
            else:
                full[region.slices] &= ~region.voxels
        return Segmentation(Mask.from_full(full), 0.0, len(clicks))


def _region(prepared: Smoothed, index: Index) -> Mask:
    """What is connected to a voxel through values near its own."""
    found = prepared.regions.get(index)
    if found is None:
        at = float(prepared.image[index])
        grown = sitk.ConnectedThreshold(prepared.image, [index], at - INTERVAL, at + INTERVAL)
        found = Mask.from_full(sitk.GetArrayViewFromImage(grown))
        if len(prepared.regions) >= KEPT:
            prepared.regions.pop(next(iter(prepared.regions)))
        prepared.regions[index] = found
    return found
