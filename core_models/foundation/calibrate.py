"""A trained model and the validation side → how logits become probabilities, and from where something is present.

Temperature scaling (Guo et al., ICML 2017) per label, with a shift for the prevalence; both are drawn towards "no
change" because a label has few positive patients on the validation side.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from core_models.foundation.augment import Strength, tone, warp, warp_grid
from core_models.foundation.data import Pool
from core_models.foundation.images import normalised
from core_models.foundation.judge import VALIDATED, contexts, pooled
from core_models.foundation.labels import GATE, NAMES
from core_models.foundation.model import FoundationModel
from core_models.foundation.weights import Calibration, LabelCalibration

SHOWN_FROM = 30
"""Positive training images from which a label may be proposed to a reader."""
SPECIFICITY = 0.8
"""A finding is proposed from where, on validation, at least this share of the images without it stays without a card:
cards that are mostly wrong teach a reader to look past all of them."""
PULL = 2.0
"""Weight of the pull towards temperature 1 and shift 0, in validation images."""


def calibrate(model: FoundationModel, pools: dict[str, Pool], size: int, anatomy_size: int) -> Calibration:
    """Fit on NIH's validation patients, and the gate's thresholds on validation pictures as they are and altered.

    Args:
        pools: loaded at the anatomy's size, so that the pictures are those that a reading makes.
    """
    pool = pools["nih-cxr14-1000"]
    rows = pool.rows("validation")
    with torch.inference_mode():  # every picture without and with its view, age and sex: the page may have either
        vectors = [pooled(model, pool, rows, size, context) for context in contexts(pool, rows)]
        logits = model.tasks["findings"](torch.cat(vectors))
    logits = logits.clone()  # out of inference mode, for the fit's gradients
    learnt = pool.findings[pool.rows("train")].sum(0)
    labels = {}
    for i, name in enumerate(NAMES):
        truth = torch.from_numpy(np.tile(pool.findings[rows, i], len(vectors)))
        known = name in VALIDATED
        temperature, shift = fit(logits[:, i], truth) if known else (1.0, 0.0)
        p = torch.sigmoid(logits[:, i] / temperature + shift).numpy()
        threshold = youden(truth.numpy(), p, SPECIFICITY) if known else 1.0
        labels[name] = LabelCalibration(temperature, shift, threshold, bool(known and learnt[i] >= SHOWN_FROM))
    patients = len({pool.keys[r] for r in rows})
    data = f"{len(rows)} NIH ChestX-ray14 images of {patients} patients, half of them with pneumonia"
    return Calibration(size, anatomy_size, labels, gate_thresholds(model, pools, size), data)


def fit(logits: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Temperature and shift of (n,) logits by maximum likelihood with a pull towards (1, 0)."""
    free = torch.zeros(2, requires_grad=True)  # log temperature, shift
    optimiser = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits / free[0].exp() + free[1], truth, reduction="sum")
        loss = loss + PULL * (free**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(free[0].detach().exp()), float(free[1].detach())


def youden(truth: np.ndarray, p: np.ndarray, specificity: float = 0.0) -> float:
    """The probability whose sensitivity + specificity is greatest, midway to the next lower score, among those with at
    least so much specificity; above all scores where there is none."""
    order = np.unique(p)
    if len(order) < 2 or truth.min() == truth.max():
        return 0.5
    cuts = (order[1:] + order[:-1]) / 2
    positive = truth > 0.5
    false = np.array([(p[~positive] >= cut).mean() for cut in cuts])
    scores = np.array([(p[positive] >= cut).mean() for cut in cuts]) - false
    scores[false > 1 - specificity] = -np.inf
    best = int(np.argmax(scores))
    return float(cuts[best]) if np.isfinite(scores[best]) else float(np.nextafter(order[-1], np.inf))


@torch.inference_mode()
def gate_pictures(pools: dict[str, Pool], size: int, side: str, per_pool: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures as they are, inverted and turned, with what the gate should say.

    Returns:
        (n, 1, size, size) in -1..1 and (n, 4) 0/1, -1 unknown, in the order of `labels.GATE`.
    """
    generator = torch.Generator().manual_seed(1)
    images, truth = [], []
    for pool in pools.values():
        rows = pool.rows(side)
        rows = np.random.default_rng(0).permutation(rows)[:per_pool]
        pictures = torch.from_numpy(pool.images[rows]).float()[:, None] / 255
        how = Strength(invert=0, erase=0.1, tone=0.5)
        pictures = tone(warp(pictures, warp_grid(len(rows), size, how, generator)), how, generator)
        gate = pool.gate[rows]
        for change in ("", "invert", "turn"):
            altered, wanted = pictures, gate.copy()
            known = wanted[:, 0] == 1
            if change == "invert":
                altered = 1 - pictures
                wanted[:, 2] = np.where(known, 1, wanted[:, 2])
            if change == "turn":
                altered = torch.stack([torch.rot90(p, 1 + i % 3, (1, 2)) for i, p in enumerate(pictures)])
                wanted[:, 3] = np.where(known, 1, wanted[:, 3])
            images.append(normalised(altered))
            truth.append(wanted)
    return torch.cat(images), np.concatenate(truth)


@torch.inference_mode()
def gate_answers(model: FoundationModel, images: torch.Tensor, batch: int = 32) -> np.ndarray:
    """(n, 4) probabilities of the gate's questions."""
    parts = []
    for start in range(0, len(images), batch):
        with torch.autocast("cpu", torch.bfloat16):
            top = model.encoder(images[start : start + batch]).grid_map
        parts.append(model.tasks["gate"](top.float().mean((2, 3))).sigmoid())
    return torch.cat(parts).numpy()


def gate_thresholds(model: FoundationModel, pools: dict[str, Pool], size: int) -> dict[str, float]:
    """Where each question's answer turns, by Youden's J on validation, kept between 0.2 and 0.8."""
    images, truth = gate_pictures(pools, size, "validation")
    p = gate_answers(model, images)
    out = {}
    for i, name in enumerate(GATE):
        known = truth[:, i] >= 0
        out[name] = float(np.clip(youden(truth[known, i], p[known, i]), 0.2, 0.8))
    return out
