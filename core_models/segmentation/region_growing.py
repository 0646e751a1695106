"""The lazy engine that evaluations compare with: everything connected to a click with nearly its value.

Adams & Bischof, "Seeded region growing", IEEE TPAMI 1994;16:641-647, in its simplest form (a fixed interval).  It is
not offered to readers.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from core_models.segmentation.engine import Click, Mask, Segmentation
from core_models.study.volume import Volume

INTERVAL = 40.0  # value units to either side of the seed's 3 × 3 × 3 median


class RegionGrowing:
    """Regions of the adding clicks, less those of the removing ones."""

    name, version, licence = "region growing", "1", "Apache-2.0 (no weights)"

    def prepare(self, volume: Volume) -> sitk.Image:
        smooth = sitk.GetImageFromArray(np.asarray(volume.array, dtype=np.float32))
        return sitk.Median(smooth, (1, 1, 1))

    def segment(self, prepared: sitk.Image, clicks: tuple[Click, ...]) -> Segmentation:
        full = np.zeros(prepared.GetSize()[::-1], dtype=bool)
        for click in clicks:
            at = float(prepared[click.index])
            grown = sitk.ConnectedThreshold(prepared, [click.index], at - INTERVAL, at + INTERVAL)
            region = sitk.GetArrayViewFromImage(grown).astype(bool)
            full = full | region if click.positive else full & ~region
        return Segmentation(Mask.from_full(full), 0.0, len(clicks))
