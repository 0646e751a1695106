"""Pools → training batches, drawn anew each step from the seed and the step's number alone: a resumed run goes on as if
it had not stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from core_models.errors import Refused
from core_models.foundation.augment import PLAIN, Strength, invert, tone, warp, warp_grid
from core_models.foundation.batch import Batch
from core_models.foundation.data import MASK_ANATOMY, Pool
from core_models.foundation.images import normalised
from core_models.foundation.labels import GATE, IGNORE, STRUCTURES
from core_models.foundation.recipe import Stage

SIDED = frozenset({"rocov2-cxr", "jsrt"})
"""Sources whose captions or masks know left from right: never mirrored."""
SOURCE_NUMBERS = {"nih-cxr14-1000": 0, "rocov2-cxr": 1, "covid-chestxray": 2, "jsrt": 3, "acdc": 4}
KEEP_CONTEXT = 0.5
"""How often view, age and sex are shown: the model must do without them, and may not lean on the view."""
PSEUDO_WEIGHT = 0.4


@dataclass
class Sampler:
    """Draws the batches of one side of the pools.

    Attributes:
        tokens: makes tokens of captions (the text tower's own); None where no task reads text.
        like: pool name → (n, 384) plain text vectors.
        pseudo: pool name → float16 (n, structures, s, s) probabilities of an earlier model.
    """

    pools: dict[str, Pool]
    stage: Stage
    seed: int
    tokens: object | None = None
    like: dict[str, torch.Tensor] = field(default_factory=dict)
    pseudo: dict[str, torch.Tensor] = field(default_factory=dict)
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        self.rows = {name: pool.rows("train") for name, pool in self.pools.items()}
        for name, count in self.stage.rows.items():
            if count and not len(self.rows[name]):
                raise Refused(f"The source {name!r} has no picture on the training side.")

    def batch(self, step: int) -> Batch:
        """The batch of a step; the same for the same seed, step and rank."""
        number = step * self.world + self.rank
        generator = torch.Generator().manual_seed((self.seed << 32) + number)
        parts = [self._part(name, count, number, generator) for name, count in self.stage.rows.items() if count]
        if self.stage.altered:
            parts.append(self._altered(self.stage.altered, generator))
        return _joined([p for p in parts if p is not None], self)

    def _chosen(self, name: str, count: int, number: int) -> np.ndarray:
        """Rows in shuffled passes over the pool: each picture is seen once before any is seen again."""
        rows = self.rows[name]
        first, last = number * count, (number + 1) * count
        out = []
        for epoch in range(first // len(rows), (last - 1) // len(rows) + 1):
            order = np.random.default_rng((self.seed, epoch, SOURCE_NUMBERS[name])).permutation(rows)
            start, stop = max(first - epoch * len(rows), 0), min(last - epoch * len(rows), len(rows))
            out.append(order[start:stop])
        return np.concatenate(out)

    def _part(self, name: str, count: int, number: int, generator: torch.Generator) -> _Part:
        pool, rows = self.pools[name], self._chosen(name, count, number)
        mirror = 0.0 if name in SIDED or name in self.pseudo else self.stage.mirror
        how = replace(Strength(), mirror=mirror)
        if pool.mask_kind == MASK_ANATOMY:
            how = how.spread(self.stage.spread)
        images = torch.from_numpy(pool.images[rows]).float()[:, None] / 255
        grid = warp_grid(len(rows), self.stage.size, how, generator)
        masks = weight = None
        if pool.mask_kind == MASK_ANATOMY and pool.masks is not None:
            masks = warp(bit_planes(pool.masks[rows]), grid).round()
            weight = torch.ones(len(rows))
        elif name in self.pseudo:
            masks = warp(self.pseudo[name][torch.from_numpy(rows)].float(), grid)
            weight = torch.full((len(rows),), PSEUDO_WEIGHT) * (masks.amax((1, 2, 3)) > 0.5)
        pictures, turned = invert(tone(warp(images, grid), how, generator), how, generator)
        gate = torch.from_numpy(pool.gate[rows]).clone()
        column = GATE.index("inverted")
        gate[:, column] = torch.where(gate[:, column] >= 0, turned.float(), gate[:, column])
        context = torch.from_numpy(pool.context[rows])
        context = context * (torch.rand(len(rows), 1, generator=generator) < KEEP_CONTEXT)
        captions = [pool.captions[r] for r in rows] if self.tokens is not None and name in self.like else []
        return _Part(
            pictures,
            torch.from_numpy(pool.findings[rows]),
            torch.from_numpy(pool.finding_weight[rows]),
            torch.full((len(rows),), SOURCE_NUMBERS[name]),
            context,
            gate,
            captions,
            self.like[name][torch.from_numpy(rows)] if captions else None,
            masks,
            weight,
            [pool.captions[r] for r in rows],
        )

    def _altered(self, count: int, generator: torch.Generator) -> _Part:
        """Pictures for the gate alone: turned by quarters, inverted, or of something else."""
        names = [n for n in self.pools if len(self.rows[n])]
        images, gates = [], []
        for _ in range(count):
            name = names[int(torch.randint(len(names), (), generator=generator))]
            row = self.rows[name][int(torch.randint(len(self.rows[name]), (), generator=generator))]
            picture = torch.from_numpy(self.pools[name].images[row]).float()[None, None] / 255
            gate = torch.from_numpy(self.pools[name].gate[row]).clone()
            choice = int(torch.randint(8, (), generator=generator))
            if choice >= 5:  # 5, 6, 7: a quarter, a half, three quarters
                picture = torch.rot90(picture, choice - 4, (2, 3))
                gate[3] = torch.where(gate[0] == 1, torch.tensor(1.0), gate[3])
            if choice in (3, 4, 5):
                picture = 1 - picture
                gate[2] = torch.where(gate[0] == 1, torch.tensor(1.0), gate[2])
            if choice == 0:
                picture, gate = _texture(picture.shape[-1], generator), torch.tensor([0.0, 0.0, IGNORE, IGNORE])
            how = replace(Strength(), invert=0.0, tone=0.6)
            grid = warp_grid(1, self.stage.size, how, generator)
            images.append(tone(warp(picture, grid), how, generator))
            gates.append(gate)
        n = len(images)
        none = torch.zeros(n, next(iter(self.pools.values())).findings.shape[1])
        return _Part(
            torch.cat(images), none, none, torch.zeros(n, dtype=torch.long),
            torch.zeros(n, 6), torch.stack(gates), [], None, None, None, [""] * n,
        )  # fmt: skip


@dataclass
class _Part:
    images: torch.Tensor
    findings: torch.Tensor
    weight: torch.Tensor
    source: torch.Tensor
    context: torch.Tensor
    gate: torch.Tensor
    captions: list[str]
    like: torch.Tensor | None
    masks: torch.Tensor | None
    mask_weight: torch.Tensor | None
    words: list[str]


def _joined(parts: Sequence[_Part], sampler: Sampler) -> Batch:
    starts = np.cumsum([0, *[len(p.images) for p in parts]])

    def rows(chosen: Sequence[bool]) -> torch.Tensor:
        spans = [torch.arange(a, b) for a, b, c in zip(starts[:-1], starts[1:], chosen, strict=True) if c]
        return torch.cat(spans) if spans else torch.zeros(0, dtype=torch.long)

    captions = [c for p in parts for c in p.captions]
    masked = [p for p in parts if p.masks is not None]
    words = [w for p in parts for w in p.words]
    return Batch(
        images=normalised(torch.cat([p.images for p in parts])),
        findings=torch.cat([p.findings for p in parts]),
        finding_weight=torch.cat([p.weight for p in parts]),
        source=torch.cat([p.source for p in parts]),
        context=torch.cat([p.context for p in parts]),
        gate=torch.cat([p.gate for p in parts]),
        text_rows=rows([bool(p.captions) for p in parts]),
        tokens=sampler.tokens(captions) if captions else {},
        text_like=torch.cat([p.like for p in parts if p.like is not None]) if captions else None,
        captions=tuple(w for w in words if w),
        caption_rows=torch.tensor([row for row, w in enumerate(words) if w], dtype=torch.long),
        mask_rows=rows([p.masks is not None for p in parts]) if masked else None,
        masks=torch.cat([p.masks for p in masked]) if masked else None,
        mask_weight=torch.cat([p.mask_weight for p in masked]) if masked else None,
    )


def bit_planes(masks: np.ndarray | torch.Tensor) -> torch.Tensor:
    """JSRT bit flags (n, h, w) → float (n, 5, h, w) in the order of `labels.STRUCTURES`."""
    flags = torch.as_tensor(masks).to(torch.int64)
    return torch.stack([(flags >> bit) & 1 for bit in range(len(STRUCTURES))], 1).float()


def plain(pool: Pool, rows: np.ndarray, size: int) -> torch.Tensor:
    """(n, 1, size, size) in -1..1 without augmentation."""
    images = torch.from_numpy(pool.images[rows]).float()[:, None] / 255
    if images.shape[-1] != size:
        generator = torch.Generator().manual_seed(0)
        images = warp(images, warp_grid(len(rows), size, PLAIN, generator))
    return normalised(images)


def _texture(size: int, generator: torch.Generator) -> torch.Tensor:
    """A picture that is no radiograph: smooth noise at a few scales, or flat."""
    out = torch.zeros(1, 1, size, size)
    for cells in (2, 5, 16, 64):
        coarse = torch.rand(1, 1, cells, cells, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
        out += fine * torch.rand((), generator=generator)
    return (out - out.min()) / (out.max() - out.min() + 1e-6)
