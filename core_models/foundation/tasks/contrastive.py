"""Contrastive: an image and its caption near, others apart, captions that mean the same not pushed apart.

InfoNCE in both directions (Radford et al., ICML 2021) over the batch and a queue of recent vectors (He et al.,
CVPR 2020), since a small batch has few negatives.  Two captions that plain MiniLM finds nearly equal are no negatives
of each other, and those that are alike share some of the target (soft targets, as in Gao et al., SoftCLIP, AAAI 2024).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder
from core_models.foundation.text import WIDTH, TextTower

SAME = 0.9
"""Cosine of plain MiniLM above which two captions say the same."""
SOFT_SHARE, SOFT_TEMPERATURE = 0.2, 0.07


class Contrastive(nn.Module):
    """Projections into the shared space with the text tower.

    Args:
        dimensions: of the shared space; `queue`: vectors remembered.
    """

    def __init__(self, hidden: int, dimensions: int = 256, queue: int = 1024, text: TextTower | None = None) -> None:
        super().__init__()
        self.text = text if text is not None else TextTower(dimensions)
        self.projection = nn.Sequential(nn.Dropout(0.1), nn.Linear(hidden, dimensions))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.queue = queue
        self.register_buffer("old_images", torch.zeros(0, dimensions), persistent=False)
        self.register_buffer("old_texts", torch.zeros(0, dimensions), persistent=False)
        self.register_buffer("old_like", torch.zeros(0, WIDTH), persistent=False)

    def image(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, hidden) → (n, dimensions) float32 unit vectors."""
        return F.normalize(self.projection(pooled).float(), dim=-1)

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput) -> torch.Tensor | None:
        if len(batch.text_rows) < 2:
            return None
        images = self.image(out.grid_map[batch.text_rows].mean((2, 3)))
        texts = self.text(batch.tokens)
        like = batch.text_like
        if like is None:
            raise ValueError("a batch with captions needs their plain vectors")
        scale = self.scale.exp().clamp(max=100.0)
        all_texts, all_images = torch.cat((texts, self.old_texts)), torch.cat((images, self.old_images))
        target, barred = soft_targets(like, torch.cat((like, self.old_like)))
        to_text = (images @ all_texts.T * scale).masked_fill(barred, -1e4)
        to_image = (texts @ all_images.T * scale).masked_fill(barred, -1e4)
        loss = -(target * to_text.log_softmax(1)).sum(1).mean() - (target * to_image.log_softmax(1)).sum(1).mean()
        if self.training:
            self._remember(images.detach(), texts.detach(), like)
        return loss / 2

    def remember(self, queue: int) -> None:
        """Remember so many vectors from now on; 0 forgets all and takes the batch's own negatives alone."""
        self.queue = queue
        self.old_images, self.old_texts = self.old_images[:queue], self.old_texts[:queue]
        self.old_like = self.old_like[:queue]

    def _remember(self, images: torch.Tensor, texts: torch.Tensor, like: torch.Tensor) -> None:
        self.old_images = torch.cat((images, self.old_images))[: self.queue]
        self.old_texts = torch.cat((texts, self.old_texts))[: self.queue]
        self.old_like = torch.cat((like, self.old_like))[: self.queue]


def soft_targets(like: torch.Tensor, every: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (n, m) whose rows sum to 1, and (n, m) bool: pairs that are neither positive nor negative.

    Args:
        like: (n, 384) unit vectors of the batch's captions; `every`: (m, 384), of which the first n are the batch's.
    """
    n = len(like)
    alike = like @ every.T
    barred = alike > SAME
    own = torch.zeros_like(alike)
    own[:, :n] = torch.eye(n, device=like.device)
    barred = barred & (own == 0)
    soft = (alike / SOFT_TEMPERATURE).masked_fill(barred, -1e4).softmax(1)
    return (1 - SOFT_SHARE) * own + SOFT_SHARE * soft, barred
