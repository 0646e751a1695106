"""A cube of the grid and the clicks in it → a probability for every voxel: the network behind the learned engine, as it
is trained; `running` answers with its weights.

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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from core_models.errors import ModelMissing
from core_models.segmentation.clicks.cues import CUES
from core_models.segmentation.clicks.running import FORMAT, MISSING, sizes


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


def load(folder: Path) -> ClickNet:
    """The network whose weights lie in `folder` (click_net.safetensors and config.json).

    Raises:
        ModelMissing: they are not there, damaged, or of another network.
    """
    try:
        net = ClickNet(Config(**sizes(folder)))
        net.load_state_dict(load_file(folder / "click_net.safetensors"))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelMissing(MISSING) from error
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
