"""A radiograph of any size and depth → the square grey picture that the encoder sees, and back to the source's pixels.

The picture is resized to a square without padding: a radiograph's aspect varies little, the ratio of two widths does
not change, and the way back is one resize.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from core_models.errors import Refused

LOW, HIGH = 0.5, 99.5
"""Percentiles of the grey levels that become black and white: markers and dead borders do not set the contrast."""
MAX_SIDE = 20_000


def grey(pixels: np.ndarray) -> np.ndarray:
    """Any grey levels → float32 in 0..1 by robust stretching.

    Args:
        pixels: (h, w) of any numeric type; higher is brighter.  Values that are not finite count as the lowest one.

    Raises:
        Refused: not two axes, no finite value, or larger than MAX_SIDE.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 8 or max(pixels.shape) > MAX_SIDE:
        raise Refused(f"A radiograph has two axes of 8 to {MAX_SIDE} pixels; this one has the shape {pixels.shape}.")
    values = pixels.astype(np.float32, copy=True)
    finite = np.isfinite(values)
    if not finite.any():
        raise Refused("The image holds no finite value.")
    if not finite.all():
        values[~finite] = values[finite].min()
    sample = values[:: max(1, values.shape[0] // 512), :: max(1, values.shape[1] // 512)]
    low, high = np.percentile(sample, (LOW, HIGH))
    if high - low < 1e-6:
        return np.full(values.shape, 0.5, np.float32)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def square(picture: np.ndarray | torch.Tensor, size: int) -> torch.Tensor:
    """(h, w) in 0..1 → (1, size, size) float32, anti-aliased."""
    tensor = torch.as_tensor(picture, dtype=torch.float32)[None, None]
    out = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return out[0].clamp(0.0, 1.0)


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """0..1 → -1..1, as the ImageNet weights of this encoder were trained."""
    return (pictures - 0.5) / 0.5


def restored(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(n, c, s, s) maps of the square picture → (n, c, h, w) at the source's size."""
    return F.interpolate(maps.float(), size=shape, mode="bilinear", align_corners=False)


def open_grey(path: Path, size: int) -> np.ndarray:
    """An image file → uint8 (size, size), stretched like `grey`.

    Raises:
        Refused: the file is not an image that can be read; the message holds its name only.
    """
    try:
        with Image.open(path) as image:
            # 16-bit and float pictures would be clipped, not scaled, by Pillow's own conversion
            pixels = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refused(f"The image {path.name} cannot be read: it is damaged or of another format.") from error
    return (square(grey(pixels), size)[0].numpy() * 255.0 + 0.5).astype(np.uint8)
