"""Pools → the starts that are compared: from scratch, ImageNet, and one per proxy task, each trained from ImageNet.

Every proxy sees the same number of pictures.  None of them is of a test or validation side or has a near twin there,
none is of JSRT, and NIH's labels are blanked: what a proxy knows of the tasks that follow, it knows from elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from core_models.foundation.data import MASK_ANATOMY, MASK_CARDIAC, Pool
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.model import ENCODER, HEADS, FoundationModel, load_encoder, new_encoder, save
from core_models.foundation.recipe import Recipe, Stage
from core_models.foundation.train import train

Say = Callable[[str], None]
ROCO, NIH, COVID, JSRT, ACDC = "rocov2-cxr", "nih-cxr14-1000", "covid-chestxray", "jsrt", "acdc"
DIMENSIONS = 128
"""Width of the image-text space that the contrastive proxy learns; thrown away afterwards."""
NEVER = 10**9
"""A checkpoint interval that is not reached: an interrupted start is trained anew."""


@dataclass(frozen=True)
class Proxy:
    """A pretraining task.

    Attributes:
        tasks: task → weight of its loss.
        sources: source → its pictures in each batch of `BATCH`.
        words: what it learns from, for the report.
    """

    tasks: dict[str, float]
    sources: dict[str, int]
    words: str


BATCH = 32
PROXIES: dict[str, Proxy] = {
    "masked": Proxy({"masked": 1.0}, {ROCO: 20, NIH: 6, COVID: 6}, "hidden patches of radiographs"),
    "contrastive": Proxy({"contrastive": 1.0}, {ROCO: 32}, "radiographs and their figure captions"),
    "supervised": Proxy(
        {"findings": 1.0}, {ROCO: 26, COVID: 6}, "findings named in captions, pneumonia of COVID images"
    ),
    "segmentation": Proxy({"segmentation": 1.0}, {ACDC: 32}, "ventricles and myocardium of cardiac MR"),
    "hybrid": Proxy(
        {"masked": 0.5, "contrastive": 0.5, "findings": 1.0, "segmentation": 1.0},
        {ROCO: 16, NIH: 4, COVID: 4, ACDC: 8},
        "all of these together",
    ),
}
STARTS = ("scratch", "imagenet", *PROXIES)


@dataclass(frozen=True)
class Budget:
    """What each run may spend; the same for every start.

    Attributes:
        size: side of the pictures in pixels, in pretraining, fine-tuning and scoring.
        proxy_steps: steps of a proxy, `BATCH` pictures each; proxy_rate: peak learning rate of its heads.
        proxy_trunk_rate, anatomy_trunk_rate: the trunk's rate as a part of the heads'.
        anatomy_steps, anatomy_batch, anatomy_rate: of a fine-tuning for the structures.
        ridge: penalty of the linear probe for the findings.
    """

    size: int = 96
    proxy_steps: int = 180
    proxy_rate: float = 1e-3
    proxy_trunk_rate: float = 1.0
    anatomy_steps: int = 40
    anatomy_batch: int = 8
    anatomy_rate: float = 5e-3
    anatomy_trunk_rate: float = 0.5
    ridge: float = 1e4

    @property
    def digest(self) -> str:
        """Names the budget and the proxies: cells of another are not mixed in."""
        text = json.dumps([asdict(self), {name: asdict(proxy) for name, proxy in PROXIES.items()}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Start:
    """Weights to begin from: a fresh encoder each time it is asked for, and the decoder where the proxy has one."""

    name: str
    folder: Path | None = None

    def encoder(self, seed: int) -> RadiographEncoder:
        """The encoder; from scratch it depends on the seed."""
        if self.folder is not None:
            return load_encoder(self.folder / ENCODER)
        torch.manual_seed(seed)
        return new_encoder(self.name)

    def decoder(self) -> dict[str, torch.Tensor]:
        """Tensors of a segmentation decoder without its last layer, whose structures are others; {} where none."""
        if self.folder is None:
            return {}
        heads = load_file(self.folder / HEADS)
        return {k: v for k, v in heads.items() if k.startswith("segmentation.decoder.") and ".out." not in k}


def only(pool: Pool, rows: np.ndarray) -> Pool:
    """A pool of these rows alone, without context and further columns: what is not in it cannot be trained on."""

    def taken(values: tuple) -> tuple:
        return tuple(values[row] for row in rows)

    return replace(
        pool,
        files=taken(pool.files),
        images=pool.images[rows],
        keys=taken(pool.keys),
        sides=taken(pool.sides),
        usable=pool.usable[rows],
        findings=pool.findings[rows],
        finding_weight=pool.finding_weight[rows],
        context=np.zeros_like(pool.context[rows]),
        gate=pool.gate[rows],
        captions=taken(pool.captions),
        masks=None if pool.masks is None else pool.masks[rows],
        has_mask=None if pool.has_mask is None else pool.has_mask[rows],
        columns={},
    )


def proxy_pools(name: str, pools: dict[str, Pool]) -> dict[str, Pool]:
    """What a proxy is trained on: training rows of its sources, blind to what it may not know."""
    out = {}
    for source in PROXIES[name].sources:
        pool = only(pools[source], pools[source].rows("train"))
        if source == NIH:
            pool = replace(
                pool, findings=np.zeros_like(pool.findings), finding_weight=np.zeros_like(pool.finding_weight)
            )
        if pool.mask_kind == MASK_CARDIAC and pool.masks is not None:
            # the decoder learns planes of bit flags, as JSRT has them; two of its five stay empty
            flags = np.where(pool.masks > 0, 1 << (pool.masks.clip(1, 3) - 1), 0).astype(np.uint8)
            pool = replace(pool, masks=flags, mask_kind=MASK_ANATOMY)
        out[source] = pool
    return out


def proxy_recipe(name: str, budget: Budget, seed: int) -> Recipe:
    """The recipe of a proxy: one stage, `BATCH` pictures a step."""
    proxy = PROXIES[name]
    stage = Stage(
        size=budget.size,
        steps=budget.proxy_steps,
        rows=dict(proxy.sources),
        rate=budget.proxy_rate,
        trunk_rate=budget.proxy_trunk_rate,
        altered=0,
        queue=0,  # a trunk at full rate outruns remembered vectors
    )
    return Recipe(
        tasks=dict(proxy.tasks),
        stages=(stage,),
        dimensions=DIMENSIONS,
        store_size=budget.size,
        seed=seed,
        checkpoint_every=NEVER,
    )


def prepare(name: str, pools: dict[str, Pool], folder: Path, budget: Budget, seed: int, say: Say) -> Start:
    """A start, trained where its folder does not hold it yet.  Raises ModelMissing, Refused."""
    if name not in PROXIES:
        return Start(name)
    if not folder.is_dir():
        recipe = proxy_recipe(name, budget, seed)
        torch.manual_seed(seed)
        model = FoundationModel(new_encoder("imagenet"), tuple(recipe.tasks), recipe.dimensions)
        with tempfile.TemporaryDirectory() as scratch:
            trained, _ = train(recipe, proxy_pools(name, pools), Path(scratch), model=model, log=say)
        new = folder.with_name(folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        save(trained, new, half=False)
        new.rename(folder)
    return Start(name, folder)
