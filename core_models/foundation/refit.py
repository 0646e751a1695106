"""A trained encoder → its findings head fitted anew on frozen features, kept where validation says it is better.

A linear head on a few hundred patients wants a stronger pull towards small weights than the trunk does; frozen features
make trying several pulls cheap (as in "decoupled" training, Kang et al., ICLR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from core_models.foundation.augment import Strength, tone, warp, warp_grid
from core_models.foundation.data import Pool
from core_models.foundation.images import normalised
from core_models.foundation.judge import VALIDATED, contexts, pooled
from core_models.foundation.labels import NAMES
from core_models.foundation.metrics import auroc
from core_models.foundation.model import FoundationModel

SOURCE = "nih-cxr14-1000"
DRAWS = 4
PULLS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
HOW = Strength(invert=0.0, erase=0.1, tone=0.6)


@dataclass(frozen=True)
class Refit:
    """What was tried: the trained head's macro AUROC on validation, and that of each pull; which one was kept."""

    trained: float
    tried: dict[float, float]
    kept: str


def refit_findings(model: FoundationModel, pools: dict[str, Pool], size: int, seed: int = 0) -> Refit:
    """Fit, compare on NIH's validation patients, and put the better head into the model.

    Half of the draws, and one of two comparisons, know view, age and sex: the page may have them or not.

    Args:
        pools: loaded at the anatomy's size, so that the pictures are those that a reading makes.
    """
    pool, head = pools[SOURCE], model.tasks["findings"]
    rows = pool.rows("train")
    known = contexts(pool, rows)
    features = torch.cat([_features(model, pool, rows, size, seed + d, known[d % len(known)]) for d in range(DRAWS)])
    targets = torch.from_numpy(np.tile(pool.findings[rows], (DRAWS, 1)))
    held = pool.rows("validation")
    with torch.inference_mode():
        asked = [pooled(model, pool, held, size, context) for context in contexts(pool, held)]
        before = float(np.mean([macro(pool, held, head(one).numpy()) for one in asked]))
    mean, spread = features.mean(0), features.std(0) + 1e-4
    best, tried, kept = before, {}, "trained"
    for pull in PULLS:
        weight, bias = fit((features - mean) / spread, targets, pull)
        weight = weight / spread[:, None]
        bias = bias - mean @ weight
        tried[pull] = float(np.mean([macro(pool, held, (one.clone() @ weight + bias).numpy()) for one in asked]))
        if tried[pull] > best:
            best, kept = tried[pull], str(pull)
            chosen = (weight.T.contiguous(), bias)
    if kept != "trained":
        with torch.no_grad():
            head.linear.weight.copy_(chosen[0])
            head.linear.bias.copy_(chosen[1])
            head.offset.zero_()
    return Refit(before, tried, kept)


def fit(features: torch.Tensor, targets: torch.Tensor, pull: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge logistic regression of (n, d) on (n, labels): (d, labels) weights and (labels,) biases."""
    weight = torch.zeros(features.shape[1], targets.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(features @ weight + bias, targets) + pull * weight.pow(2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


def macro(pool: Pool, rows: np.ndarray, logits: np.ndarray) -> float:
    """Mean AUROC of the validated labels."""
    columns = [NAMES.index(name) for name in VALIDATED]
    return float(np.nanmean([auroc(pool.findings[rows, c], logits[:, c]) for c in columns]))


@torch.inference_mode()
def _features(
    model: FoundationModel, pool: Pool, rows: np.ndarray, size: int, seed: int, context: np.ndarray
) -> torch.Tensor:
    """(n, hidden) pooled vectors of gently augmented pictures with what is known beside them, (n, 6)."""
    device = model.encoder.device
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(rows), 32):
        images = torch.from_numpy(pool.images[rows[start : start + 32]]).float()[:, None] / 255
        pictures = tone(warp(images, warp_grid(len(images), size, HOW, generator)), HOW, generator)
        known = torch.from_numpy(context[start : start + 32]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            out = model.encoder(normalised(pictures).to(device), context=known)
        parts.append(out.pooler_output.float().cpu())
    return torch.cat(parts).clone()
