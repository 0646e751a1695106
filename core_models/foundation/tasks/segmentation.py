"""Segmentation: the feature pyramid → one logit map a structure, through a small U-Net decoder.

Structures may overlap (a clavicle lies over a lung), so each has a map of its own.  Loss: binary cross-entropy plus
soft Dice (Milletari, Navab, Ahmadi, 3DV 2016).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder

WIDTHS = (24, 32, 48, 64, 128)


class Decoder(nn.Module):
    """U-Net decoder (Ronneberger, Fischer, Brox, MICCAI 2015) over strides 2 to 32; answers at half resolution.

    Args:
        channels: widths of the pyramid at strides 2, 4, 8, 16, 32.
        structures: maps to answer.
    """

    def __init__(self, channels: tuple[int, ...], structures: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(c, w, 1) for c, w in zip(channels, WIDTHS, strict=True))
        self.merge = nn.ModuleList(
            nn.Sequential(_conv(low + high, low, 3), _conv(low, low, 3)) for low, high in pairwise(WIDTHS)
        )
        self.out = nn.Conv2d(WIDTHS[0], structures, 1)

    def forward(self, pyramid: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Maps (n, c, h/s, w/s) → logits (n, structures, h/2, w/2)."""
        levels = [layer(x) for layer, x in zip(self.lateral, pyramid, strict=True)]
        x = levels[-1]
        for level in range(len(self.merge) - 1, -1, -1):
            x = F.interpolate(x, size=levels[level].shape[-2:], mode="bilinear", align_corners=False)
            x = self.merge[level](torch.cat((levels[level], x), 1))
        return self.out(x)


class Segmentation(nn.Module):
    """The decoder as a task."""

    def __init__(self, channels: tuple[int, ...], structures: int) -> None:
        super().__init__()
        self.decoder = Decoder(channels, structures)

    def forward(self, pyramid: tuple[torch.Tensor, ...], size: tuple[int, int]) -> torch.Tensor:
        """Logits (n, structures, *size) float32."""
        logits = self.decoder(pyramid).float()
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput) -> torch.Tensor | None:
        if batch.mask_rows is None or batch.masks is None or not len(batch.mask_rows):
            return None
        pyramid = tuple(level[batch.mask_rows] for level in out.pyramid)
        logits = self(pyramid, batch.masks.shape[-2:])
        return mask_loss(logits, batch.masks, batch.mask_weight)


def mask_loss(logits: torch.Tensor, masks: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy plus 1 - soft Dice per structure, (n, c, h, w) each; `weight` (n,) of each picture.

    Targets may be soft.  A structure that is not in the picture counts in the cross-entropy only.
    """
    weight = torch.ones(len(logits), device=logits.device) if weight is None else weight
    weight = weight / weight.sum().clamp(min=1e-6)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))
    p = logits.sigmoid()
    both = (p * masks).sum((2, 3))
    size = masks.sum((2, 3))
    dice = 1 - (2 * both + 1) / (p.sum((2, 3)) + size + 1)
    present = (size > 0).float()
    dice = (dice * present).sum(1) / present.sum(1).clamp(min=1)
    return ((2 * entropy + dice) * weight).sum()


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
