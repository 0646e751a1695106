"""A cube of the grid and the clicks in it → a probability for every voxel: the network behind the learned engine.

The picture is encoded once and the clicks are decoded on top of it, so that a second click in the same cube costs the
decoder alone.  The decoder sees the clicks, the answer so far, how alike each voxel's grey level is to what was clicked
and how alike its learned embedding is; it knows no classes, and answers for whatever was clicked.

After Sofiiuk et al., "Reviving iterative training with mask guidance for interactive segmentation" (2021), for the
answer so far as an input, and Kirillov et al., "Segment anything" (2023), for an image encoder below a lighter decoder
with an estimate of its own overlap; in three dimensions and at a size that two processor cores answer in a fraction of
a second.  All lengths are nominal mm of the grid (see grid.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from core_models.errors import ModelMissing
from core_models.segmentation.clicks.tissue_maps import MAPS, maps
from core_models.segmentation.voxels.grid import RELATIVE_RANGE

SIDE = 48  # voxels along a cube
FLAT = (2, 96, 96)  # a picture: two equal slices, which stand for equal ones without end
CUES = 8 + MAPS
TIGHT, BROAD = 1.0, 4.0  # voxels of the half-size cube: widths of a click as the decoder sees it
SOFT = (50.0, 125.0)  # HU: centre and scale of the soft-tissue channel
WIDE = 500.0  # HU: scale of the channel that tells air, tissue and bone
NEAR = 2  # voxels of the half-size cube around a click that tell its grey level
FORMAT = "reading-room-click-net"


@dataclass(frozen=True)
class Config:
    """Sizes of the network, stored beside its weights.

    Attributes:
        width: channels at half a cube's side; twice that at a quarter, four times (the decoder: twice) at an eighth.
        deep: residual pairs of convolutions at an eighth of the side, half as many at a quarter: what is far away costs
            little there.
    """

    width: int = 24
    embedding: int = 16
    deep: int = 4


class _Convolution(nn.Conv3d):
    """3 × 3 × 3; over one slice as over equal slices without end, which the kernel's sum along z does in the plane."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] > 1:
            return super().forward(x)
        return functional.conv2d(x[:, :, 0], self.weight.sum(2), self.bias, self.stride[1:], 1)[:, :, None]


class _Block(nn.Sequential):
    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__(
            _Convolution(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, outside),
            nn.SiLU(inplace=True),
        )


class _Residual(nn.Module):
    """Two convolutions added to what goes in; before any training they add nothing (He et al., 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = _Convolution(width, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(_Block(width, width), last, nn.GroupNorm(8, width))
        nn.init.zeros_(self.body[2].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def _residuals(width: int, count: int) -> list[_Residual]:
    return [_Residual(width) for _ in range(count)]


def _joined(deep: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    return torch.cat([functional.interpolate(deep, size=fine.shape[2:], mode="nearest"), fine], 1)


class ClickNet(nn.Module):
    """See the module's docstring.  Cubes are (n, channel, z, y, x), every side a multiple of 2.

    Attributes:
        bfloat16: convolve in numbers of that kind.  Where a processor multiplies them itself this is several times as
            fast (0.16 → 0.025 s a cube on one core of an EPYC with AVX512_BF16), elsewhere slower.  What goes in and
            comes out is float32 either way.
    """

    bfloat16: bool = False

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        w, deep = config.width, config.deep
        self.stem = nn.Sequential(_Block(16, w), _Block(w, w))
        self.down1 = nn.Sequential(_Block(w, 2 * w, 2), _Block(2 * w, 2 * w), *_residuals(2 * w, deep // 2))
        self.down2 = nn.Sequential(_Block(2 * w, 4 * w, 2), _Block(4 * w, 4 * w), *_residuals(4 * w, deep))
        self.up1 = _Block(6 * w, 2 * w)
        self.up0 = _Block(3 * w, w)
        self.embed = nn.Conv3d(w, config.embedding, 1)
        self.enter = nn.Sequential(_Block(w + CUES, w), _Block(w, w))
        self.lower1 = nn.Sequential(_Block(w, 2 * w, 2), _Block(2 * w, 2 * w), *_residuals(2 * w, deep // 2))
        self.lower2 = nn.Sequential(_Block(2 * w, 2 * w, 2), _Block(2 * w, 2 * w), *_residuals(2 * w, deep))
        self.rise1 = _Block(4 * w, 2 * w)
        self.rise0 = _Block(3 * w, w)
        self.out = nn.Conv3d(w, 8, 1)
        self.quality = nn.Linear(4 * w, 1)
        nn.init.constant_(self.out.bias, -2.0)

    def encode(self, cubes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 2, z, y, x) of `channels` → features and unit embeddings, both (n, c, z/2, y/2, x/2)."""
        with self._arithmetic():
            x0 = self.stem(_folded(cubes))
            x1 = self.down1(x0)
            x2 = self.down2(x1)
            features = self.up0(_joined(self.up1(_joined(x2, x1)), x0))
            embedding = self.embed(features)
        return features.float(), functional.normalize(embedding.float(), dim=1)

    def decode(self, features: torch.Tensor, cues: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and `cues` (n, c, z/2, y/2, x/2) → logits (n, 1, z, y, x), and the Dice expected (n,), a logit."""
        with self._arithmetic():
            x0 = self.enter(torch.cat([features, cues], 1))
            x1 = self.lower1(x0)
            x2 = self.lower2(x1)
            x1 = self.rise1(_joined(x2, x1))
            logits = self.out(self.rise0(_joined(x1, x0)))
            pooled = torch.cat([x1.mean((2, 3, 4)), x1.amax((2, 3, 4))], 1)
            quality = self.quality(pooled)
        return _unfolded(logits.float()), quality[:, 0].float()

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself."""
    able = torch.cpu.get_capabilities()
    return any(able.get(k, False) for k in ("avx512_bf16", "amx_bf16"))


def _folded(x: torch.Tensor) -> torch.Tensor:
    """(n, c, z, y, x) → (n, 8 c, z/2, y/2, x/2): each 2 × 2 × 2 block becomes channels."""
    n, c, z, y, w = x.shape
    x = x.view(n, c, z // 2, 2, y // 2, 2, w // 2, 2)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, z // 2, y // 2, w // 2)


def _unfolded(x: torch.Tensor) -> torch.Tensor:
    """(n, 8, z, y, x) → (n, 1, 2 z, 2 y, 2 x): the inverse of `_folded`."""
    n, _, z, y, w = x.shape
    return x.view(n, 1, 2, 2, 2, z, y, w).permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, 1, 2 * z, 2 * y, 2 * w)


def channels(values: torch.Tensor, hounsfield: bool) -> torch.Tensor:
    """Grid values (z, y, x) → (2, z, y, x): soft tissue and the whole range, each of about unit size."""
    if hounsfield:
        return torch.stack([((values - SOFT[0]) / SOFT[1]).clamp(-2, 2), (values / WIDE).clamp(-2, 3)])
    middle = (values - RELATIVE_RANGE / 2) / (RELATIVE_RANGE / 4)
    return torch.stack([middle.clamp(-2, 2), middle.clamp(-2, 3)])


def values_of(cube: torch.Tensor, hounsfield: bool) -> np.ndarray:
    """The inverse of `channels`, as far as their ranges reach: (z, y, x) in HU, or 0 to RELATIVE_RANGE."""
    if hounsfield:
        soft, wide = (cube[0] * SOFT[1] + SOFT[0]).numpy(), (cube[1] * WIDE).numpy()
        return np.where(np.abs(cube[0].numpy()) < 2, soft, wide)
    return (cube[1] * (RELATIVE_RANGE / 4) + RELATIVE_RANGE / 2).numpy()


def tissue_cues(cube: torch.Tensor, hounsfield: bool, inside: torch.Tensor, step: float) -> torch.Tensor:
    """`tissue_maps.maps` of the clicks that add, as cues: (MAPS, z/2, y/2, x/2).  A slab's slices are one picture."""
    shape = tuple(cube.shape[1:])
    values = values_of(cube, hounsfield)
    points = _voxels(inside, shape)
    if shape[0] == FLAT[0]:
        middle = shape[0] // 2
        flat = maps(values[middle : middle + 1], hounsfield, [(0, y, x) for _, y, x in points], step)
        found = torch.from_numpy(flat).expand(-1, *shape)
    else:
        found = torch.from_numpy(maps(values, hounsfield, points, step))
    return functional.avg_pool3d(found[None], 2)[0]


def sample(
    array: torch.Tensor,
    spacing: Sequence[float],
    centre: Sequence[float],
    step: float,
    shape: Sequence[int],
    turn: torch.Tensor | None = None,
    nearest: bool = False,
) -> torch.Tensor:
    """A cube out of a grid.

    Args:
        array: (c, z, y, x); beyond its rim its last value goes on.
        spacing: (z, y, x) of the array; `centre`: (z, y, x) in its voxels; `step`: edge of the cube's voxels.
        shape: (z, y, x) of the cube.
        turn: (3, 3) from the cube's axes to the array's, for training.
        nearest: take the nearest voxel's value, for labels.

    Returns:
        (c, *shape).
    """
    lines = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * step for n in shape]
    mesh = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    if turn is not None:
        mesh = mesh @ turn.T
    at = mesh / torch.tensor(tuple(spacing), dtype=torch.float32) + torch.tensor(tuple(centre), dtype=torch.float32)
    sizes = torch.tensor(array.shape[1:], dtype=torch.float32)
    where = ((2 * at + 1) / sizes - 1).flip(-1)[None]
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(array[None], where, mode=mode, padding_mode="border", align_corners=False)[0]


def cues(
    values: torch.Tensor,
    embedding: torch.Tensor,
    inside: torch.Tensor,
    outside: torch.Tensor,
    before: torch.Tensor,
    tissue: torch.Tensor,
) -> torch.Tensor:
    """What the decoder is told of the clicks in one cube.

    Args:
        values: (2, z, y, x) of `channels`.
        embedding: (e, z/2, y/2, x/2) unit vectors.
        inside, outside: (n, 3) float clicks in the cube's voxels (z, y, x); either may be empty.
        before: (z, y, x) probabilities of the answer so far, zeros without one.
        tissue: `tissue_cues` of the clicks that add.

    Returns:
        (CUES, z/2, y/2, x/2).
    """
    half = functional.avg_pool3d(torch.cat([values, before[None]])[None], 2)[0]
    shape = half.shape[1:]
    out = []
    alike = []
    likely = torch.zeros(shape)
    for points in (inside, outside):
        near = (points - 0.5) / 2  # centres of 2 × 2 × 2 blocks
        squared = _squared(near, shape)
        out += [torch.exp(-squared / (2 * TIGHT**2)), torch.exp(-squared.sqrt() / BROAD)]
        alike.append(_alike(embedding, near))
    if len(inside):
        likely = _likely(half[:2], (inside - 0.5) / 2)
    return torch.cat([torch.stack([*out, half[2], likely, *alike]), tissue])


def _squared(points: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Squared distance of every voxel to the nearest point; very far without one."""
    out = torch.full(tuple(shape), 1e6)
    lines = [torch.arange(n, dtype=torch.float32) for n in shape]
    for p in points:
        z, y, x = ((line - c) ** 2 for line, c in zip(lines, p, strict=True))
        out = torch.minimum(out, z[:, None, None] + y[:, None] + x)
    return out


def _voxels(points: torch.Tensor, shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """The voxels that hold points, those outside moved to the rim."""
    return [tuple(int(min(max(round(float(c)), 0), n - 1)) for c, n in zip(p, shape, strict=True)) for p in points]  # type: ignore[misc]


def _alike(embedding: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Greatest cosine of every voxel's embedding with a clicked one's; -1 without clicks."""
    if not len(points):
        return torch.full(embedding.shape[1:], -1.0)
    clicked = torch.stack([embedding[(slice(None), *v)] for v in _voxels(points, embedding.shape[1:])])
    return (clicked @ embedding.flatten(1)).amax(0).view(embedding.shape[1:])


def _likely(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """How alike each voxel's grey level is to what was clicked, 0 to 1: the best of the clicks, robust to a rim."""
    soft = values[0]
    best = torch.zeros(soft.shape)
    for z, y, x in _voxels(points, soft.shape):
        box = tuple(slice(max(0, c - NEAR), c + NEAR + 1) for c in (z, y, x))
        around = soft[box].flatten()
        centre = soft[tuple(slice(max(0, c - 1), c + 2) for c in (z, y, x))].median()
        kept = around[(around - centre).abs() < 1.0]
        middle = kept.median() if len(kept) else centre
        spread = 1.4826 * (kept - middle).abs().median() if len(kept) else torch.tensor(0.0)
        best = torch.maximum(best, torch.exp(-0.5 * ((soft - middle) / (2 * spread.clamp(0.11, 0.7))) ** 2))
    return best


def load(folder: Path) -> ClickNet:
    """The network whose weights lie in `folder` (click_net.safetensors and config.json).

    Raises:
        ModelMissing: they are not there, damaged, or of another network.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        if config.pop("format", "") != FORMAT:
            raise ValueError("another format")
        net = ClickNet(Config(**config))
        net.load_state_dict(load_file(folder / "click_net.safetensors"))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelMissing(
            "The weights of the click network are missing or damaged; `python app.py train segmenter` makes them."
        ) from error
    net.bfloat16 = has_bfloat16()
    return net.eval()


def digest(folder: Path) -> str:
    """SHA-256 of the weights in a folder."""
    return hashlib.sha256((folder / "click_net.safetensors").read_bytes()).hexdigest()


def saved_config(config: Config) -> str:
    """The text of config.json."""
    return json.dumps({"format": FORMAT, **asdict(config)}, indent=1) + "\n"


def parameters(net: nn.Module) -> int:
    return int(np.sum([p.numel() for p in net.parameters()]))
