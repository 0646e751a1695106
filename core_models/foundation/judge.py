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
    model: FoundationModel,
    pool: Pool,
    rows: np.ndarray,
    size: int,
    context: np.ndarray | None = None,
    batch: int = 32,
) -> torch.Tensor:
    """(n, hidden) float32 pooled vectors of some rows, on the CPU.

    Args:
        context: (n, 6) of these rows, zeros where nothing is known, as the findings head is given it; None leaves the
            mean of the map alone, as the shared space is made of.
    """
    device = model.encoder.device
    parts = []
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        known = None if context is None else torch.from_numpy(context[start : start + batch]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            out = model.encoder(plain(pool, chosen, size).to(device), context=known)
        parts.append(out.pooler_output.float().cpu())
    return torch.cat(parts) if parts else torch.zeros(0, model.encoder.config.hidden_size)


def contexts(pool: Pool, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What may be known beside the pictures of some rows, each (n, 6): nothing; view, age and sex."""
    return np.zeros_like(pool.context[rows]), pool.context[rows]


@torch.inference_mode()
def validate(model: FoundationModel, pools: dict[str, Pool], size: int, side: str = "validation") -> dict[str, float]:
    """Macro AUROC of findings, mean Dice by structure group, image→text recall@10, on one side of the pools."""
    out: dict[str, float] = {}
    if "findings" in model.tasks and "nih-cxr14-1000" in pools:
        pool = pools["nih-cxr14-1000"]
        rows = pool.rows(side)
        vectors = pooled(model, pool, rows, size, np.zeros_like(pool.context[rows]))
        head = model.tasks["findings"]
        logits = head(vectors.to(head.linear.weight.device)).cpu().numpy()
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
        device = model.encoder.device
        images = head.image(pooled(model, pool, rows, size).to(device))
        parts = [[pool.captions[r] for r in rows[i : i + 64]] for i in range(0, len(rows), 64)]
        tokens = [{k: v.to(device) for k, v in head.text.tokens(part).items()} for part in parts]
        texts = torch.cat([head.text(one) for one in tokens])
        out["recall@10"] = recall_at((images @ texts.T).cpu().numpy(), (10,))[10]
    return out
