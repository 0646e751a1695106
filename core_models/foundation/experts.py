"""A feature map and a modality → the map moved by that modality's adapter; other modalities' adapters are not touched.

One residual bottleneck per stage of the trunk and modality (parallel adapters: Rebuffi, Bilen, Vedaldi, CVPR 2018), so
that adding a modality trains new weights only.  The last layer of each starts at zero: a new expert is the trunk itself.
"""

from __future__ import annotations

import torch
from torch import nn

from core_models.errors import NotFound

_OF_MODALITY = {
    **dict.fromkeys(("CR", "DX", "RG", "RF", "XR", "PX", "MG"), "radiograph"),
    "CT": "ct",
    "MR": "mr",
}


def expert_of(modality: str) -> str | None:
    """The router: a DICOM modality → the name of its expert, None where no expert is meant for it."""
    return _OF_MODALITY.get(modality.strip().upper())


class Experts(nn.Module):
    """The adapters of all modalities.

    Args:
        widths: channels that each stage puts out.
        names: modalities that have an adapter.
        rank: channels of the bottleneck.
    """

    def __init__(self, widths: tuple[int, ...], names: tuple[str, ...], rank: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({name: nn.ModuleList(_adapter(w, rank) for w in widths) for name in names})

    def forward(self, x: torch.Tensor, stage: int, name: str) -> torch.Tensor:
        """(n, c, h, w) after `stage` → the same shape.  Raises NotFound for a modality without an adapter."""
        if name not in self.adapters:
            raise NotFound(f"There is no expert for {name!r}; there are {', '.join(self.adapters) or 'none'}.")
        return x + self.adapters[name][stage](x)


def _adapter(width: int, rank: int) -> nn.Sequential:
    """1 × 1 down, 3 × 3 depthwise, 1 × 1 up."""
    down = nn.Conv2d(width, rank, 1)
    mid = nn.Conv2d(rank, rank, 3, padding=1, groups=rank)
    up = nn.Conv2d(rank, width, 1)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return nn.Sequential(down, nn.ReLU(inplace=True), mid, nn.ReLU(inplace=True), up)
