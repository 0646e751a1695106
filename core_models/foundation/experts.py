"""A feature map and a modality → the map moved by that modality's adapter; other modalities' adapters are not touched.

One residual bottleneck per stage of the trunk and modality (after Rebuffi, Bilen, Vedaldi, CVPR 2018), so that adding
a modality trains new weights only.  The last layer of each starts at zero: a new expert is the trunk itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from core_models.errors import Conflict, NotFound

if TYPE_CHECKING:
    from core_models.foundation.encoder import RadiographEncoder

_OF_MODALITY = {
    **dict.fromkeys(("CR", "DX", "RG", "RF", "XR", "PX", "MG")),  # None: the trunk alone
    "CT": "ct",
    "MR": "mr",
}


def expert_of(modality: str) -> str | None:
    """The router: a DICOM modality → the name of its expert, None for radiographs, which the trunk alone is for.

    Raises:
        NotFound: no part of the encoder is meant for this modality.
    """
    key = modality.strip().upper()
    if key not in _OF_MODALITY:
        raise NotFound(f"The image encoder has no expert for the modality {key[:16] or 'unknown'!r}.")
    return _OF_MODALITY[key]


class Experts(nn.Module):
    """The adapters of all modalities.

    Args:
        widths: channels that each stage puts out, see `stage_widths`.
        names: modalities that have an adapter.
        rank: channels of the bottleneck.
    """

    def __init__(self, widths: tuple[int, ...], names: tuple[str, ...], rank: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({name: adapters(widths, rank) for name in names})

    def forward(self, x: torch.Tensor, stage: int, name: str) -> torch.Tensor:
        """(n, c, h, w) after `stage` → the same shape."""
        return x + self.adapters[name][stage](x)


def add_expert(encoder: RadiographEncoder, name: str, rank: int | None = None) -> nn.ModuleList:
    """Give a trained encoder one more expert, in place; as long as it is not trained it changes nothing.

    Args:
        rank: channels of the bottleneck; None takes the configuration's.

    Returns:
        the expert's adapters, one a stage.

    Raises:
        Conflict: there is one of this name, or the others have another rank.
    """
    if name in encoder.config.experts:
        raise Conflict(f"The encoder has an expert for {name!r} already.")
    if encoder.experts is None:
        encoder.config.expert_rank = rank or encoder.config.expert_rank
        encoder.experts = Experts((), (), encoder.config.expert_rank)
    elif rank not in (None, encoder.config.expert_rank):
        raise Conflict(f"The encoder's experts have rank {encoder.config.expert_rank}, not {rank}.")
    made = adapters(stage_widths(encoder.blocks), encoder.config.expert_rank).to(encoder.stem[0].weight)
    encoder.experts.adapters[name] = made
    encoder.config.experts = [*encoder.config.experts, name]
    return made


def stage_widths(blocks: nn.Module) -> tuple[int, ...]:
    """Channels that each stage of the trunk puts out."""
    return tuple([m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features for stage in blocks)


def adapters(widths: tuple[int, ...], rank: int) -> nn.ModuleList:
    """One adapter a stage: 1 × 1 down, 3 × 3 depthwise, 1 × 1 up, the last of zeros."""
    return nn.ModuleList(_adapter(width, rank) for width in widths)


def _adapter(width: int, rank: int) -> nn.Sequential:
    down = nn.Conv2d(width, rank, 1)
    mid = nn.Conv2d(rank, rank, 3, padding=1, groups=rank)
    up = nn.Conv2d(rank, width, 1)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return nn.Sequential(down, nn.ReLU(inplace=True), mid, nn.ReLU(inplace=True), up)
