"""A start, a share of the labels and a seed → what is learnt from them, scored on test patients.

Two tasks: structures of JSRT (a short fine-tuning; mean Dice of lungs, heart, clavicles) and findings of NIH (a linear
probe of the frozen encoder; macro AUROC).  The labelled
part of a seed is the same for every start, by patient, and a larger share holds the smaller ones.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core_models.foundation.anatomy import GROUPS, dice, probabilities
from core_models.foundation.data import Pool
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.evaluate_pretraining_starts import JSRT, NEVER, NIH, Budget, Start, only
from core_models.foundation.judge import VALIDATED
from core_models.foundation.labels import NAMES
from core_models.foundation.metrics import auroc
from core_models.foundation.model import FoundationModel
from core_models.foundation.recipe import Recipe, Stage
from core_models.foundation.sampler import bit_planes, plain
from core_models.foundation.train import train

CHUNK = 32
COLUMNS = [NAMES.index(name) for name in VALIDATED]


@dataclass(frozen=True)
class Scores:
    """What one run reaches.

    Attributes:
        test, validation: the task's figure on either side; nothing is chosen on the test side.
        parts: the figure's parts on the test side, by structure or finding.
        each: (test images, k) what the figure is made of, for the bootstrap: Dice per structure group, or scores per
            finding.
    """

    test: float
    validation: float
    parts: dict[str, float]
    each: np.ndarray


def labelled(pool: Pool, share: float, seed: int) -> np.ndarray:
    """Training rows of the first `share` of the patients, in the seed's order; at least one patient."""
    rows = pool.rows("train")
    patients = sorted({pool.keys[row] for row in rows})
    order = np.random.default_rng(seed).permutation(len(patients))
    chosen = {patients[i] for i in order[: max(1, math.ceil(share * len(patients)))]}
    return np.array([row for row in rows if pool.keys[row] in chosen])


def anatomy(start: Start, pool: Pool, rows: np.ndarray, seed: int, budget: Budget) -> Scores:
    """A short fine-tuning of encoder and decoder for the structures of JSRT, without context.

    Args:
        rows: of `pool`, the labelled ones: the only ones that training is given.
    """
    encoder = start.encoder(seed)
    torch.manual_seed(seed)
    model = FoundationModel(encoder, ("segmentation",))
    model.tasks.load_state_dict(start.decoder(), strict=False)
    rows_each_step = {pool.name: budget.anatomy_batch}
    stage = Stage(
        budget.size, budget.anatomy_steps, rows_each_step, budget.anatomy_rate, budget.anatomy_trunk_rate, altered=0
    )
    recipe = Recipe({"segmentation": 1.0}, (stage,), store_size=budget.size, seed=seed, checkpoint_every=NEVER)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = train(recipe, {pool.name: only(pool, rows)}, Path(folder), model=model, log=lambda _: None)
    test, validation = (_overlap(model, pool, pool.rows(side), budget.size) for side in ("test", "validation"))
    parts = dict(zip(GROUPS, test.mean(0).tolist(), strict=True))
    return Scores(float(test.mean()), float(validation.mean()), parts, test)


def findings(start: Start, pool: Pool, rows: np.ndarray, seed: int, budget: Budget) -> Scores:
    """A linear probe of the frozen encoder for the findings of NIH.

    On the validation side a short fine-tuning after the probe (20 steps) lost to the probe alone, 0.63 against 0.75
    with all labels from ImageNet at 128 px, so the probe is what is compared.
    """
    encoder = start.encoder(seed).eval()
    known = vectors(encoder, pool, rows, budget.size)
    weight, bias = ridge(known, pool.findings[rows][:, COLUMNS], budget.ridge)
    test, validation = pool.rows("test"), pool.rows("validation")
    given = {side: vectors(encoder, pool, own, budget.size) @ weight + bias
             for side, own in (("test", test), ("validation", validation))}  # fmt: skip
    truth = pool.findings[:, COLUMNS]
    each = [auroc(truth[test, i], given["test"][:, i]) for i in range(len(COLUMNS))]
    return Scores(
        macro(truth[test], given["test"]),
        macro(truth[validation], given["validation"]),
        dict(zip(VALIDATED, each, strict=True)),
        given["test"],
    )


@dataclass(frozen=True)
class Downstream:
    """A task that the starts are compared on: its source, its figure and what runs it."""

    name: str
    source: str
    figure: str
    run: Callable[[Start, Pool, np.ndarray, int, Budget], Scores]


DOWNSTREAM = {
    "jsrt": Downstream("jsrt", JSRT, "mean Dice of lungs, heart and clavicles", anatomy),
    "nih": Downstream("nih", NIH, f"macro AUROC of {len(VALIDATED)} findings", findings),
}


def macro(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the columns that have both classes; nan where none has."""
    each = np.array([auroc(truth[:, i], scores[:, i]) for i in range(truth.shape[1])])
    return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else float("nan")


def ridge(known: np.ndarray, truth: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of 0/1 labels on standardised vectors, in its dual form: (n, n) for n pictures.

    Args:
        known: (n, hidden); truth: (n, labels).

    Returns:
        Weight (hidden, labels) and bias (labels,) for vectors as they are.
    """
    mean, spread = known.mean(0), known.std(0)
    spread = spread + 1e-3 * known.std() + 1e-9
    x, frequency = (known - mean) / spread, truth.mean(0)
    dual = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), truth - frequency)
    weight = x.T @ dual / spread[:, None]
    return weight, frequency - mean @ weight


def vectors(encoder: RadiographEncoder, pool: Pool, rows: np.ndarray, size: int) -> np.ndarray:
    """(rows, hidden) float64 pooled vectors of an encoder in evaluation mode, nothing told beside the picture."""
    parts = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for at in range(0, len(rows), CHUNK):
            parts.append(encoder(plain(pool, rows[at : at + CHUNK], size)).pooler_output.double())
    return torch.cat(parts).numpy()


@torch.inference_mode()
def _overlap(model: FoundationModel, pool: Pool, rows: np.ndarray, size: int) -> np.ndarray:
    """(rows, groups) Dice of each picture."""
    out = np.zeros((len(rows), len(GROUPS)))
    truth = bit_planes(pool.masks[rows]).bool().numpy()
    for at in range(0, len(rows), CHUNK):
        found = probabilities(model, plain(pool, rows[at : at + CHUNK], size), truth.shape[-1]).numpy() > 0.5
        for i, one in enumerate(found, at):
            out[i] = [dice(one[list(group)], truth[i, list(group)]) for group in GROUPS.values()]
    return out
