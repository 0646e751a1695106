"""The lazy engine that evaluations compare with: everything connected to a click with nearly its value.

Adams & Bischof, "Seeded region growing", IEEE TPAMI 1994;16:641-647, in its simplest form (a fixed interval).  It is
not offered to readers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume

INTERVAL = 40.0  # value units to either side of the seed's 3 × 3 × 3 median


class RegionGrowing:
    """Regions of the adding clicks, less those of the removing ones."""

    name, version, licence = "region growing", "1", "Apache-2.0 (no weights)"

    def prepare(self, volume: Volume) -> tuple[Volume, sitk.Image]:
        smooth = sitk.GetImageFromArray(np.asarray(volume.array, dtype=np.float32))
        return volume, sitk.Median(smooth, (1, 1, 1))

    def segment(
        self, prepared: tuple[Volume, sitk.Image], prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        volume, smooth = prepared
        clicks = as_clicks(volume, prompts)
        full = np.zeros(volume.shape, dtype=bool)
        for click in clicks:
            at = float(smooth[click.index])
            grown = sitk.ConnectedThreshold(smooth, [click.index], at - INTERVAL, at + INTERVAL)
            region = sitk.GetArrayViewFromImage(grown).astype(bool)
            full = full | region if click.positive else full & ~region
        return Segmentation(Mask.from_full(full), 0.0, len(clicks))
