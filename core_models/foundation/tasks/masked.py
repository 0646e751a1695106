"""Masked image modelling: most patches are hidden, a small decoder paints them; the loss counts the hidden ones only.

After He et al., CVPR 2022 and, for convolutions that see the hidden patches as grey, Xie et al. (SimMIM), CVPR 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder

PATCH = 32
HIDDEN = 0.6
CELL = 8
"""Each 32 × 32 patch is painted as 8 × 8 grey levels."""


class Masked(nn.Module):
    """The decoder of the task; it makes its own pass through the encoder, with patches hidden."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.paint = nn.Sequential(nn.Conv2d(hidden, 256, 1), nn.ReLU(), nn.Conv2d(256, CELL * CELL, 1))

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput | None) -> torch.Tensor | None:
        images = batch.images
        n, _, h, w = images.shape
        hidden = (torch.rand(n, 1, h // PATCH, w // PATCH, device=images.device) < HIDDEN).float()
        covered = images * (1 - F.interpolate(hidden, size=(h, w), mode="nearest"))
        painted = self.paint(encoder(covered).grid_map).float()  # (n, 64, h/32, w/32)
        small = F.adaptive_avg_pool2d(images.float(), (h // PATCH * CELL, w // PATCH * CELL))
        target = F.pixel_unshuffle(small, CELL)  # (n, 64, h/32, w/32)
        spread = target.std(1, keepdim=True) + 0.05
        target = (target - target.mean(1, keepdim=True)) / spread  # each patch on its own scale, as MAE does
        error = (painted - target).abs().mean(1, keepdim=True)
        return (error * hidden).sum() / hidden.sum().clamp(min=1)
