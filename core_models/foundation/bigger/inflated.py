"""A 3D ResNet inflated from the 2D one (Carreira and Zisserman, CVPR 2017), as Merlin's image encoder has it.

A 2D kernel k × k becomes 3 × k × k in the stem and in the middle of each bottleneck, 1 × 1 × 1 elsewhere; depth is
halved where height and width are, except in the stem, which halves it only in its pooling.  The widths and depths come
from the tensors, so a small network in the same format opens too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

STAGES = 4


class Bottleneck(nn.Module):
    """1 → 3 → 1 convolutions with a shortcut; the stride sits in the middle one, in all three directions."""

    def __init__(self, width_in: int, width: int, width_out: int, stride: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(width_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv3d(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm3d(width_out))
            if shortcut
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rest = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + rest)


class InflatedResNet(nn.Module):
    """(1, 1, x, y, z) in 0..1 → (1, d), the mean over space of the last stage.

    Args:
        tensors: the state dict whose widths and depths it takes; the values are loaded by the caller.

    Raises:
        KeyError, ValueError: the tensors are not of such a network.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        stem = tensors["conv1.weight"].shape[0]
        self.conv1 = nn.Conv3d(3, stem, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        width_in = stem
        for stage in range(1, STAGES + 1):
            blocks = []
            for index in range(_depth(tensors, stage)):
                name = f"layer{stage}.{index}"
                width, width_out = tensors[f"{name}.conv1.weight"].shape[0], tensors[f"{name}.conv3.weight"].shape[0]
                stride = 2 if stage > 1 and index == 0 else 1
                shortcut = f"{name}.downsample.0.weight" in tensors
                blocks.append(Bottleneck(width_in, width, width_out, stride, shortcut=shortcut))
                width_in = width_out
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)  # (1, 3, z, x, y): the grey value in all three channels
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, STAGES + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3, 4))


def _depth(tensors: Mapping[str, torch.Tensor], stage: int) -> int:
    indices = {int(name.split(".")[1]) for name in tensors if name.startswith(f"layer{stage}.")}
    if not indices or indices != set(range(len(indices))) or len(indices) > 64:
        raise ValueError(f"layer{stage}")
    return len(indices)
