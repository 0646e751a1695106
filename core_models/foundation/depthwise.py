"""Depthwise convolution with a backward pass that is fast in bfloat16 on a CPU; the same numbers as torch's own.

On the CPUs at hand torch 2.14 (oneDNN) takes 10 to 40 times a forward pass for two gradients: of the input where
the stride is 2, and of a 5 × 5 kernel.  Both are rewritten here in terms that have a fast path: a strided input
gradient is a plain convolution of the gradient with zeros between its pixels, and a 5 × 5 kernel's gradient is four
overlapping 3 × 3 ones.  A whole training step of the encoder takes about half as long.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Padding = tuple[int, int, int, int]


class _Depthwise(torch.autograd.Function):
    """(n, c, h, w), (c, 1, k, k) with odd k, any stride, padding k // 2."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, pad: Padding) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pad = stride, pad
        return F.conv2d(_padded(x, pad), weight, stride=stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        into_x = _input_gradient(grad, weight, x.shape, ctx.stride, ctx.pad) if ctx.needs_input_grad[0] else None
        into_w = _weight_gradient(grad, x, weight, ctx.stride, ctx.pad) if ctx.needs_input_grad[1] else None
        return into_x, into_w, None, None


def _padded(x: torch.Tensor, pad: Padding) -> torch.Tensor:
    """Zeros around, in the order of `F.pad`: left, right, above, below."""
    return F.pad(x, pad).contiguous(memory_format=torch.channels_last)


def _input_gradient(
    grad: torch.Tensor, weight: torch.Tensor, shape: torch.Size, stride: int, pad: Padding
) -> torch.Tensor:
    k = weight.shape[-1]
    rows, columns = shape[2] + pad[2] + pad[3], shape[3] + pad[0] + pad[1]  # of the padded input
    spread = grad.new_zeros((shape[0], shape[1], rows + k - 1, columns + k - 1)).to(memory_format=torch.channels_last)
    last_row, last_column = (k - 1) + stride * (grad.shape[2] - 1), (k - 1) + stride * (grad.shape[3] - 1)
    spread[:, :, k - 1 : last_row + 1 : stride, k - 1 : last_column + 1 : stride] = grad
    full = F.conv2d(spread, weight.flip((2, 3)), groups=len(weight))
    return full[:, :, pad[2] : pad[2] + shape[2], pad[0] : pad[0] + shape[3]]


def _weight_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, pad: Padding
) -> torch.Tensor:
    k = weight.shape[-1]
    padded = _padded(x, pad)
    if k != 5:
        return _kernel_gradient(grad, padded, weight, stride)
    out = torch.empty_like(weight)
    rows = stride * (grad.shape[2] - 1) + 3
    columns = stride * (grad.shape[3] - 1) + 3
    for i in (0, 2):
        for j in (0, 2):
            part = padded[:, :, i : i + rows, j : j + columns].contiguous(memory_format=torch.channels_last)
            out[:, :, i : i + 3, j : j + 3] = _kernel_gradient(grad, part, weight[:, :, :3, :3].contiguous(), stride)
    return out


def _kernel_gradient(grad: torch.Tensor, padded: torch.Tensor, like: torch.Tensor, stride: int) -> torch.Tensor:
    return torch.ops.aten.convolution_backward(
        grad, padded, like, None, [stride, stride], [0, 0], [1, 1], False, [0, 0], len(like), [False, True, False]
    )[1]


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = channels and TensorFlow's "same" padding where the stride is 2, as timm's tf_ nets have
    it: then the right and lower border get the odd pixel."""

    same: bool = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, stride = self.kernel_size[0], self.stride[0]
        if self.same:
            totals = [max((-(-side // stride) - 1) * stride + k - side, 0) for side in (x.shape[-1], x.shape[-2])]
            pad = tuple(part for total in totals for part in (total // 2, total - total // 2))
        else:
            pad = (self.padding[0],) * 4
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(kind), weight.to(kind)
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return F.conv2d(_padded(x, pad), weight, stride=stride, groups=self.groups)
        return _Depthwise.apply(x, weight, stride, pad)


def use_fast_depthwise(module: nn.Module) -> None:
    """Turn every depthwise convolution of a square odd kernel into `DepthwiseConv2d`, in place; weights stay."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.groups == part.in_channels == part.out_channels > 1:
            k = part.kernel_size
            if k[0] == k[1] and k[0] in (3, 5) and part.bias is None and part.dilation == (1, 1):
                same = type(part).__name__ == "Conv2dSame"
                part.__class__ = DepthwiseConv2d
                part.same = same
