"""The quality gate: is it a chest radiograph, is it frontal, inverted, turned.  Learnt from known and altered ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder


class Gate(nn.Module):
    """One hidden layer on the pooled vector; what it learns does not bend the trunk, whose gradient it stops."""

    def __init__(self, hidden: int, questions: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden, 128), nn.ReLU(), nn.Linear(128, questions))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, hidden) → (n, 4) logits in the order of `labels.GATE`."""
        return self.layers(pooled.float())

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput) -> torch.Tensor | None:
        known = (batch.gate >= 0).float()
        if known.sum() == 0:
            return None
        logits = self(out.grid_map.mean((2, 3)).detach())
        each = F.binary_cross_entropy_with_logits(logits, batch.gate.clamp(min=0), reduction="none")
        return (each * known).sum() / known.sum()
