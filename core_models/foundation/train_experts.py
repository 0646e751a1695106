"""A trained encoder and labelled slices → one more expert and its segmentation head; the trunk is not touched.

The trunk's weights and running statistics are frozen, and only the new expert's adapters and head are given to the
optimiser, so what other modalities get is the same to the last bit.  `fit` also does what that is compared with: the
head alone on the frozen trunk, and the lazy way, training the whole trunk on the new modality.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core_models.errors import ModelMissing, Refused
from core_models.foundation.augment import PLAIN, tone, warp, warp_grid
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.experts import add_expert
from core_models.foundation.images import normalised
from core_models.foundation.model import read_into
from core_models.foundation.slices import AUGMENT, Slices
from core_models.foundation.split import Side
from core_models.foundation.tasks.segmentation import Segmentation, mask_loss

Log = Callable[[str], None]
Way = Literal["expert", "frozen", "whole"]
"""What learns beside the head: the expert's adapters, nothing, or the whole trunk."""
FOLDER = Path(__file__).resolve().parents[2] / "assets" / "foundation" / "experts"
CLIP = 5.0
HALVES = torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Whether training computes in bfloat16: a processor without wide units for it takes several times as long."""
RARE = -3.0
"""Bias that a new head starts from: most pixels are of no structure, and small ones are lost while that is learnt."""


@dataclass(frozen=True)
class ExpertRecipe:
    """How an expert, and each thing it is compared with, is trained.

    Attributes:
        size: side of the slices; a multiple of 32.
        rate: peak learning rate of head and adapters; `trunk_rate`: of the trunk where that learns, the one that it was
            pretrained with.
        rank: channels of the adapters' bottleneck.
    """

    size: int = 160
    batch: int = 12
    steps: int = 160
    rate: float = 1e-2
    trunk_rate: float = 5e-4
    decay: float = 0.02
    rank: int = 32
    seed: int = 0


def new_head(encoder: RadiographEncoder, slices: Slices, seed: int) -> Segmentation:
    """A head for the structures of some slices; the same for the same seed, so that ways are compared fairly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Segmentation(encoder.channels, len(slices.structures))
    nn.init.constant_(head.decoder.out.bias, RARE)
    return head


def train_expert(
    encoder: RadiographEncoder, slices: Slices, recipe: ExpertRecipe, log: Log = lambda _: None
) -> Segmentation:
    """Add the slices' modality to an encoder, in place, and return its head.

    Raises:
        Conflict: the encoder has this expert already.  Refused: nothing to train on, or a loss that is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        add_expert(encoder, slices.name, recipe.rank)
    head = new_head(encoder, slices, recipe.seed)
    fit(encoder, head, slices, recipe, "expert", log)
    return head


def fit(
    encoder: RadiographEncoder,
    head: Segmentation,
    slices: Slices,
    recipe: ExpertRecipe,
    way: Way,
    log: Log = lambda _: None,
) -> float:
    """Train in place on the training side; returns the last tenth's mean loss.  All is in evaluation mode after it.

    Raises:
        Refused: no training slice, or a loss that is not finite.
    """
    rows = slices.rows("train")
    if not len(rows):
        raise Refused(f"There is no {slices.name.upper()} slice to train on.")
    expert = slices.name if way == "expert" else None
    encoder.freeze(0)
    encoder.requires_grad_(way == "whole").train(way == "whole")
    trunk = [p for p in encoder.parameters() if p.requires_grad]
    new = list(head.parameters())
    if expert is not None:
        new += list(encoder.experts.adapters[expert].requires_grad_(True).parameters())
    head.train()
    optimiser = torch.optim.AdamW(
        [{"params": new, "peak": recipe.rate}, {"params": trunk, "peak": recipe.trunk_rate}],
        lr=recipe.rate,
        weight_decay=recipe.decay,
    )
    losses = []
    for step in range(recipe.steps):
        share = step / recipe.steps
        scale = min(1.0, (step + 1) / max(1, recipe.steps // 10)) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * scale
        images, masks = batch(slices, rows, recipe, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALVES):
            with torch.set_grad_enabled(way != "frozen"):
                pyramid = encoder(images, expert=expert).pyramid
            logits = head(pyramid, masks.shape[-2:])
        loss = mask_loss(logits, masks)
        if not torch.isfinite(loss):
            raise Refused(f"The {slices.name.upper()} expert's loss is not finite at step {step}: take a lower rate.")
        loss.backward()
        nn.utils.clip_grad_norm_([*new, *trunk], CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            log(f"{slices.name} {way}: step {step + 1}/{recipe.steps} loss {np.mean(losses[-20:]):.3f}")
    encoder.requires_grad_(False).eval()
    head.eval()
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))


def batch(slices: Slices, rows: np.ndarray, recipe: ExpertRecipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's augmented pictures (n, 1, size, size) in -1..1 and masks (n, structures, size, size).

    Drawn from seed and step alone, in shuffled passes: every way of training sees the very same.
    """
    numbers = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
    epochs = {e: np.random.default_rng((recipe.seed, e)).permutation(rows) for e in set(numbers // len(rows))}
    chosen = np.array([epochs[n // len(rows)][n % len(rows)] for n in numbers])
    generator = torch.Generator().manual_seed((recipe.seed << 32) + step)
    how = AUGMENT[slices.name]
    grid = warp_grid(len(chosen), recipe.size, how, generator)
    pictures = torch.from_numpy(slices.images[chosen]).float()[:, None] / 255
    pictures = tone(warp(pictures, grid), how, generator)
    return normalised(pictures), warp(slices.planes(chosen), grid, nearest=True)


@torch.inference_mode()
def overlap(
    encoder: RadiographEncoder, head: Segmentation, slices: Slices, size: int, expert: str | None, side: Side = "test"
) -> dict[str, float]:
    """Dice of each structure: counted over all slices of a key (a patient, a volume), then the mean of the keys.

    A structure that a key's slices do not hold is left out there; "mean" is the mean of the structures.
    """
    rows = slices.rows(side)
    both = {key: torch.zeros(3, len(slices.structures)) for key in dict.fromkeys(slices.keys[r] for r in rows)}
    for start in range(0, len(rows), 32):
        chosen = rows[start : start + 32]
        pictures = torch.from_numpy(slices.images[chosen]).float()[:, None] / 255
        grid = warp_grid(len(chosen), size, PLAIN, torch.Generator())
        with torch.autocast("cpu", torch.bfloat16):
            pyramid = encoder(normalised(warp(pictures, grid)), expert=expert).pyramid
            found = head(pyramid, slices.masks.shape[-2:]) > 0  # compared at the size at hand
        truth = slices.planes(chosen) > 0
        for row, f, t in zip(chosen, found, truth, strict=True):
            both[slices.keys[row]] += torch.stack([(f & t).sum((1, 2)), f.sum((1, 2)), t.sum((1, 2))])
    counts = torch.stack(list(both.values())).numpy()  # (keys, 3, structures)
    with np.errstate(invalid="ignore"):
        dice = np.where(counts[:, 2] > 0, 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2]), np.nan)
    each = {name: float(np.nanmean(dice[:, i])) for i, name in enumerate(slices.structures) if counts[:, 2, i].any()}
    return each | {"mean": float(np.mean(list(each.values())))}


def trunk_digest(encoder: RadiographEncoder) -> str:
    """SHA-256 over the trunk's tensors: the trunk that an expert was trained on, and the only one it fits."""
    sha = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        if not name.startswith("experts."):
            sha.update(name.encode())
            sha.update(value.float().contiguous().numpy().tobytes())
    return sha.hexdigest()


def save_expert(
    encoder: RadiographEncoder, head: Segmentation, slices: Slices, size: int, folder: Path = FOLDER
) -> Path:
    """Write adapters and head as one float16 safetensors file, with what they segment and the trunk they fit."""
    parts = nn.ModuleDict({"adapters": encoder.experts.adapters[slices.name], "head": head})
    tensors = {
        k: (v.half() if v.dtype == torch.float32 and "running_" not in k else v).detach().contiguous()
        for k, v in parts.state_dict().items()
    }
    about = {
        "structures": json.dumps(slices.structures),
        "size": str(size),
        "rank": str(encoder.config.expert_rank),
        "trunk": trunk_digest(encoder),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slices.name}.safetensors"
    save_file(tensors, path, about)
    return path


@dataclass(frozen=True)
class Expert:
    """A loaded expert: `name` goes to the encoder's `expert`, `head` takes its pyramid, `size` is the slices' side."""

    name: str
    head: Segmentation
    structures: tuple[str, ...]
    size: int


def load_expert(encoder: RadiographEncoder, name: str, folder: Path = FOLDER) -> Expert:
    """Add a kept expert to the encoder it was trained on, in place.

    Raises:
        ModelMissing: no such file.  Refused: damaged, or trained on another trunk.  Conflict: there already.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise ModelMissing(
            f"The expert for {name.upper()} is not here: train it with `python app.py evaluate experts --record`."
        )
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        structures, size, rank = tuple(json.loads(about["structures"])), int(about["size"]), int(about["rank"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise Refused(f"The expert {path.name} is damaged or not one of ours.") from error
    if about.get("trunk") != trunk_digest(encoder):
        raise Refused(f"The expert {path.name} was trained on another encoder: train it anew on this one.")
    head = Segmentation(encoder.channels, len(structures))
    own = add_expert(encoder, name, rank)
    try:
        read_into(nn.ModuleDict({"adapters": own, "head": head}), path)
    except Refused:
        del encoder.experts.adapters[name]
        encoder.config.experts = [n for n in encoder.config.experts if n != name]
        raise
    return Expert(name, head.eval(), structures, size)
