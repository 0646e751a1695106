"""uint8 squares (and label maps) → augmented float pictures of another size, as other hospitals would have made them.

Geometry: rotation, scale, stretch, shift in one resampling.  Grey levels: gamma, contrast, local contrast, blur, noise,
inversion, collimated borders, text-like marks, erased patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Strength:
    """How far each augmentation goes; zero everywhere is a plain resize.

    Attributes:
        rotate: degrees; scale, stretch, shift: fractions of the picture; mirror: probability of left-right.
        tone: 0 to 1, of all changes of grey levels; invert: probability; erase: probability of an erased patch.
    """

    rotate: float = 10.0
    scale: float = 0.15
    stretch: float = 0.08
    shift: float = 0.06
    mirror: float = 0.0
    tone: float = 1.0
    invert: float = 0.04
    erase: float = 0.3

    def spread(self, factor: float) -> Strength:
        """The same with turns, zooms and shifts so many times as far."""
        return replace(
            self,
            rotate=self.rotate * factor,
            scale=self.scale * factor,
            stretch=self.stretch * factor,
            shift=self.shift * factor,
        )


PLAIN = Strength(0, 0, 0, 0, 0, 0, 0, 0)


def warp_grid(n: int, size: int, how: Strength, generator: torch.Generator) -> torch.Tensor:
    """(n, size, size, 2) sampling grid of random affine maps."""

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle = uniform(how.rotate * math.pi / 180)
    zoom = torch.exp(uniform(how.scale))
    stretch = torch.exp(uniform(how.stretch))
    mirror = torch.where(torch.rand(n, generator=generator) < how.mirror, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = angle.cos() * zoom * stretch * mirror
    theta[:, 0, 1] = -angle.sin() * zoom
    theta[:, 1, 0] = angle.sin() * zoom * mirror
    theta[:, 1, 1] = angle.cos() * zoom / stretch
    theta[:, 0, 2], theta[:, 1, 2] = uniform(how.shift * 2), uniform(how.shift * 2)
    return F.affine_grid(theta, [n, 1, size, size], align_corners=False)


def warp(pictures: torch.Tensor, grid: torch.Tensor, nearest: bool = False) -> torch.Tensor:
    """(n, c, h, w) → (n, c, size, size) by the grid; outside is black (0)."""
    size = grid.shape[1]
    if not nearest and pictures.shape[-1] > size:  # against aliasing, before the one resampling
        pictures = F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return F.grid_sample(pictures, grid, mode="nearest" if nearest else "bilinear", align_corners=False)


def tone(pictures: torch.Tensor, how: Strength, generator: torch.Generator) -> torch.Tensor:
    """(n, 1, h, w) in 0..1 → the same with other grey levels."""
    n, _, h, w = pictures.shape
    if how.tone > 0:
        gamma = torch.exp(_normal(n, generator) * 0.35 * how.tone)
        gain = torch.exp(_normal(n, generator) * 0.15 * how.tone)
        shift = _normal(n, generator) * 0.06 * how.tone
        x = pictures.clamp(1e-4, 1).pow(gamma)
        x = (x - 0.5) * gain + 0.5 + shift
        blurred = F.avg_pool2d(x, 9, 1, 4, count_include_pad=False)
        local = _normal(n, generator) * 0.5 * how.tone  # sharper or softer, as vendors' processing is
        x = x + (x - blurred) * local.clamp(-0.7, 1.5)
        noise = torch.rand(n, 1, 1, 1, generator=generator).pow(3) * 0.08 * how.tone
        x = x + torch.randn(n, 1, h, w, generator=generator) * noise
        pictures = x
    pictures = pictures.clamp(0, 1)
    for row in range(n):
        if torch.rand((), generator=generator) < how.erase:
            _erase(pictures[row, 0], generator)
    return pictures


def invert(pictures: torch.Tensor, how: Strength, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn the grey levels of some pictures over; also says which."""
    chosen = torch.rand(len(pictures), generator=generator) < how.invert
    return torch.where(chosen[:, None, None, None], 1 - pictures, pictures), chosen


def _erase(picture: torch.Tensor, generator: torch.Generator) -> None:
    """One of: a grey patch, a collimated border, small bright marks."""
    h, w = picture.shape
    kind = int(torch.randint(3, (), generator=generator))
    a, b, c, d = torch.rand(4, generator=generator).tolist()
    if kind == 0:
        y, x = int(a * h * 0.8), int(b * w * 0.8)
        picture[y : y + int((0.05 + 0.2 * c) * h), x : x + int((0.05 + 0.2 * d) * w)] = a
    elif kind == 1:
        level = 0.0 if a < 0.8 else 1.0
        side, depth = int(b * 4), int(0.08 * c * h) + 1
        edge = (picture[:depth], picture[-depth:], picture[:, :depth], picture[:, -depth:])[side]
        edge.fill_(level)
    else:
        for _ in range(1 + int(3 * a)):
            y, x = (int(v * h * 0.95) for v in torch.rand(2, generator=generator).tolist())
            picture[y : y + max(2, h // 40), x : x + max(2, w // 20)] = 1.0 if b < 0.8 else 0.0


def _normal(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 1, 1, 1, generator=generator)
