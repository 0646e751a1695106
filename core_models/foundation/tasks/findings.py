"""Supervised findings: the pooled vector → one logit a label; labels that are unknown or weak count less or not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder

SMOOTHING = 0.03


class Findings(nn.Module):
    """Multi-label head.

    Each source has an own offset per label: how often a source names a finding is not a property of the image.
    Source 0 is the one that the head is calibrated on, and the one used outside training.
    """

    def __init__(self, hidden: int, labels: int, sources: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, labels)
        self.offset = nn.Parameter(torch.zeros(sources, labels))
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.constant_(self.linear.bias, -1.5)

    def forward(self, pooled: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        """(n, hidden) → (n, labels) logits."""
        logits = self.linear(self.dropout(pooled)).float()
        return logits + (self.offset[source] if source is not None else self.offset[0])

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput) -> torch.Tensor | None:
        """Weighted binary cross-entropy; None where nothing is labelled."""
        total = batch.finding_weight.sum()
        if total <= 0:
            return None
        logits = self(out.pooler_output, batch.source)
        target = batch.findings * (1 - 2 * SMOOTHING) + SMOOTHING
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (each * batch.finding_weight).sum() / total
