"""Cases → a trained and calibrated Fusion, in seconds on one core.

Two passes in each step: with all that a case has, and with a random part of it dropped.  Three losses: the diagnosis in
both passes; completion of what was dropped (M3AE, see `fusion`); and agreement, the reduced pass taught by the full one
(the second stage of M3AE is such a self-distillation).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core_models.foundation.fusion import PATTERNS, Fusion, FusionConfig, pattern
from core_models.foundation.fusion_data import INPUTS, Cases

SUBSETS: tuple[tuple[str, ...], ...] = tuple(
    c for n in range(len(INPUTS), 0, -1) for c in combinations(INPUTS, n)
)  # all, pairs, singles
FOLDS = 4
TEMPERATURES = torch.linspace(-1.5, 2.0, 141)


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        dropout: whether inputs are dropped; without it completion and agreement have nothing to work on.
        completion, agreement: weights of those losses.
    """

    steps: int = 120
    rate: float = 6e-3
    decay: float = 1.0
    dropout: bool = True
    completion: float = 0.1
    agreement: float = 0.5


def fit(cases: Cases, config: FusionConfig, how: Training, seed: int) -> Fusion:
    """Train on all of the cases; temperatures stay 1.  The same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Fusion(config)
        model.fit_summaries(cases)
        _descend(model, cases, how)
    return model.eval()


def _descend(model: Fusion, cases: Cases, how: Training) -> None:
    summaries, has = model.summaries(cases)
    truth, weight = torch.from_numpy(cases.truth), torch.from_numpy(patient_weights(cases))
    optimiser = torch.optim.AdamW(model.parameters(), how.rate, weight_decay=how.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.rate, total_steps=how.steps, pct_start=0.1)
    model.train()
    for _ in range(how.steps):
        out = model(summaries, has)
        loss = _mean(F.binary_cross_entropy_with_logits(out.logit, truth, reduction="none"), weight)
        if how.dropout:
            kept = drop(has)
            part = model(summaries, kept)
            loss = loss + _mean(F.binary_cross_entropy_with_logits(part.logit, truth, reduction="none"), weight)
            teacher = torch.sigmoid(out.logit.detach())
            agree = F.binary_cross_entropy_with_logits(part.logit, teacher, reduction="none")
            loss = loss + how.agreement * _mean(agree, weight) + how.completion * completion(part, summaries, has, kept)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def drop(has: torch.Tensor) -> torch.Tensor:
    """(n, 3) bool → the same with a random part taken away, each possible non-empty remainder alike; never all."""
    subsets = torch.tensor([[name in s for name in INPUTS] for s in SUBSETS])  # (7, 3)
    left = has[:, None] & subsets  # (n, 7, 3)
    weight = left.any(2).float()  # a row without any input keeps none
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, torch.ones_like(weight))
    choice = torch.multinomial(weight, 1)[:, 0]
    return left[torch.arange(len(has)), choice]


def completion(out: object, summaries: tuple[torch.Tensor, ...], has: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mean squared error of what was guessed of dropped inputs, over those that were there."""
    parts = []
    for i, guess in enumerate(out.guesses):  # type: ignore[attr-defined]
        gone = has[:, i] & ~kept[:, i] & kept.any(1)
        if gone.any():
            parts.append((guess[gone] - summaries[i][gone]).square().mean())
    return torch.stack(parts).mean() if parts else torch.zeros(())


def patient_weights(cases: Cases) -> np.ndarray:
    """(n,) float32 with mean 1: a patient with many pictures counts like one with a single one."""
    number = {p: cases.patients.count(p) for p in set(cases.patients)}
    weight = np.array([1.0 / number[p] for p in cases.patients], np.float32)
    return weight / weight.mean()


def _mean(loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (loss * weight).mean()


def folds(cases: Cases, number: int = FOLDS) -> np.ndarray:
    """(n,) fold of each case; a patient is in one fold, and both classes are dealt out evenly."""
    out: dict[str, int] = {}
    for label in (0.0, 1.0):
        mine = sorted(
            {p for p, t in zip(cases.patients, cases.truth, strict=True) if t == label} - set(out),
            key=lambda p: hashlib.sha256(f"fusion:{p}".encode()).digest(),
        )
        out |= {p: i % number for i, p in enumerate(mine)}
    return np.array([out[p] for p in cases.patients])


@torch.inference_mode()
def out_of_fold(cases: Cases, config: FusionConfig, how: Training, seed: int) -> dict[tuple[str, ...], np.ndarray]:
    """Subset of inputs → (n,) logits of each case by a network that did not see its patient."""
    of, out = folds(cases), {s: np.zeros(len(cases), np.float32) for s in SUBSETS}
    for k in range(FOLDS):
        with torch.inference_mode(False):
            model = fit(cases.take(np.flatnonzero(of != k)), config, how, seed)
        rows = np.flatnonzero(of == k)
        for subset in SUBSETS:
            summaries, has = model.summaries(cases.take(rows).only(subset))
            out[subset][rows] = model(summaries, has).logit.numpy()
    return out


def calibrate(model: Fusion, cases: Cases, logits: dict[tuple[str, ...], np.ndarray]) -> None:
    """Set a temperature for each pattern, the one of least log loss on out-of-fold logits (Guo et al., ICML 2017).

    The validation side alone will not do: it has one picture of the rarer class.
    """
    z, has, truth, weight = [], [], [], []
    for subset, values in logits.items():
        z.append(torch.from_numpy(values))
        has.append(torch.from_numpy(cases.only(subset).has))
        truth.append(torch.from_numpy(cases.truth))
        weight.append(torch.from_numpy(patient_weights(cases)))
    logit, target, w, number = torch.cat(z), torch.cat(truth), torch.cat(weight), pattern(torch.cat(has))
    for p in range(PATTERNS):
        rows = number == p
        if rows.sum() < 20:
            continue
        scaled = logit[rows] / TEMPERATURES.exp()[:, None]  # (temperatures, rows)
        loss = F.binary_cross_entropy_with_logits(scaled, target[rows].expand_as(scaled), reduction="none")
        model.log_temperature[p] = TEMPERATURES[(loss * w[rows]).mean(1).argmin()]


def train(cases: Cases, config: FusionConfig, how: Training, seed: int) -> Fusion:
    """Fit on all cases and calibrate by folds: `FOLDS` + 1 trainings."""
    model = fit(cases, config, how, seed)
    calibrate(model, cases, out_of_fold(cases, config, how, seed))
    return model
