"""Pools of synthetic pictures, a recipe of a few steps and batches, for the tests of the training room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core_models.foundation.batch import Batch
from core_models.foundation.data import MASK_ANATOMY, MASK_CARDIAC, MASK_NONE, Pool
from core_models.foundation.labels import GATE, NAMES
from core_models.foundation.recipe import Recipe, Stage

SIZE = 64
CAPTIONS = ("normal chest radiograph", "large left pleural effusion", "right upper lobe mass", "heart is enlarged")


def pool(name: str, n: int = 24, size: int = SIZE, seed: int = 0, side: str = "train") -> Pool:
    """Pictures with a bright square at the left or right; the first finding is "at the right", the mask the square."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 110, (n, size, size)).astype(np.uint8)
    masks = np.zeros_like(images)
    right = np.arange(n) % 2 == 1
    for row in range(n):
        top, left = int(rng.integers(size // 4, size // 2)), size * 5 // 8 if right[row] else size // 8
        images[row, top : top + size // 4, left : left + size // 4] = 240
        masks[row, top : top + size // 4, left : left + size // 4] = 1
    findings = np.zeros((n, len(NAMES)), np.float32)
    findings[:, 0] = right
    kind = {"jsrt": MASK_ANATOMY, "acdc": MASK_CARDIAC}.get(name, MASK_NONE)
    gate = np.tile(np.array([1, 1, 0, 0], np.float32), (n, 1))
    return Pool(
        name=name,
        files=tuple(f"{name}{row}" for row in range(n)),
        images=images,
        keys=tuple(f"patient{row // 2}" for row in range(n)),
        sides=(side,) * n,
        usable=np.ones(n, bool),
        findings=findings,
        finding_weight=np.ones((n, len(NAMES)), np.float32),
        context=np.zeros((n, 6), np.float32),
        gate=gate[:, : len(GATE)],
        captions=tuple(CAPTIONS[row % 4] for row in range(n)) if name == "rocov2-cxr" else ("",) * n,
        masks=masks if kind else None,
        mask_kind=kind,
        has_mask=np.ones(n, bool) if kind else None,
    )


def on_side(one: Pool, side: str) -> Pool:
    return replace(one, sides=(side,) * len(one))


def recipe(steps: int = 6, tasks: tuple[str, ...] = ("findings",), **changes: object) -> Recipe:
    """A few float32 steps at 64 pixels."""
    rows = {"nih-cxr14-1000": 6}
    if "segmentation" in tasks:
        rows["jsrt"] = 4
    if {"contrastive", "generation"} & set(tasks):
        rows["rocov2-cxr"] = 4
    stage = Stage(size=SIZE, steps=steps, rows=rows, rate=2e-3, altered=0)
    built = Recipe(
        tasks=dict.fromkeys(tasks, 1.0), stages=(stage,), start="scratch", dimensions=16, average=0.5,
        checkpoint_every=2, mixed_precision="no",
    )  # fmt: skip
    return replace(built, **changes)


def pools_of(some: Recipe) -> dict[str, Pool]:
    return {name: pool(name, seed=seed) for seed, name in enumerate(some.sources)}


def batch(n: int = 2, captions: tuple[str, ...] = (), size: int = SIZE) -> Batch:
    """Noise with nothing known beside it but captions of the first pictures."""
    noise = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    none = torch.zeros(n, len(NAMES))
    return Batch(
        images=noise,
        findings=none,
        finding_weight=none,
        source=torch.zeros(n, dtype=torch.long),
        context=torch.zeros(n, 6),
        gate=-torch.ones(n, len(GATE)),
        text_rows=torch.zeros(0, dtype=torch.long),
        captions=captions,
        caption_rows=torch.arange(len(captions)),
    )
