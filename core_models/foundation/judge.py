"""A model → figures on the validation side, while it trains: what chooses between recipes, never the test side."""

from __future__ import annotations

import numpy as np
import torch

from core_models.foundation.anatomy import GROUPS, dice, probabilities
from core_models.foundation.data import Pool
from core_models.foundation.labels import NAMES
from core_models.foundation.metrics import auroc, recall_at
from core_models.foundation.model import FoundationModel
from core_models.foundation.sampler import bit_planes, plain

VALIDATED = ("Pneumonia", "Infiltration", "Atelectasis", "Edema", "Effusion", "Consolidation")
"""NIH labels with at least 30 positive images among the 1,000 at hand."""


@torch.inference_mode()
def pooled(
    model: FoundationModel, pool: Pool, rows: np.ndarray, size: int, context: bool = False, batch: int = 32
) -> torch.Tensor:
    """(n, hidden) float32 pooled vectors of some rows."""
    parts = []
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        known = torch.from_numpy(pool.context[chosen]) if context else None
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(model.encoder(plain(pool, chosen, size), context=known).pooler_output.float())
    return torch.cat(parts) if parts else torch.zeros(0, model.encoder.config.hidden_size)


@torch.inference_mode()
def validate(model: FoundationModel, pools: dict[str, Pool], size: int, side: str = "validation") -> dict[str, float]:
    """Macro AUROC of findings, mean Dice by structure group, image→text recall@10, on one side of the pools."""
    out: dict[str, float] = {}
    if "findings" in model.tasks and "nih-cxr14-1000" in pools:
        pool = pools["nih-cxr14-1000"]
        rows = pool.rows(side)
        logits = model.tasks["findings"](pooled(model, pool, rows, size)).detach().numpy()
        each = [auroc(pool.findings[rows, NAMES.index(n)], logits[:, NAMES.index(n)]) for n in VALIDATED]
        out["auroc"] = float(np.nanmean(each))
    if "segmentation" in model.tasks and "jsrt" in pools and (rows := pools["jsrt"].rows(side)).size:
        pool = pools["jsrt"]
        truth = bit_planes(pool.masks[rows]).bool().numpy()
        p = torch.cat([probabilities(model, plain(pool, rows[i : i + 16], size), truth.shape[-1])
                       for i in range(0, len(rows), 16)]).numpy()  # fmt: skip
        for name, group in GROUPS.items():
            out[name] = float(np.mean([dice(p[i, list(group)] > 0.5, truth[i, list(group)]) for i in range(len(rows))]))
    if "contrastive" in model.tasks and "rocov2-cxr" in pools:
        pool, head = pools["rocov2-cxr"], model.tasks["contrastive"]
        rows = pool.rows(side)
        images = head.image(pooled(model, pool, rows, size))
        parts = [[pool.captions[r] for r in rows[i : i + 64]] for i in range(0, len(rows), 64)]
        texts = torch.cat([head.text(head.text.tokens(part)) for part in parts])
        out["recall@10"] = recall_at((images @ texts.T).numpy(), (10,))[10]
    return out
