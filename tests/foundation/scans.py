"""Synthetic images for the tests of image models."""

from __future__ import annotations

import numpy as np

from core_models.study.volume import Volume


def radiograph(height: int = 160, width: int = 160, modality: str = "DX", kind: type = np.uint8) -> Volume:
    """One slice with two dark lung-like ovals on a bright body, a heart to the image's right, and noise."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = 0.7 - 0.5 * (((rows - 0.5) / 0.35) ** 2 + ((columns - 0.3) / 0.15) ** 2 < 1)
    image -= 0.45 * (((rows - 0.5) / 0.35) ** 2 + ((columns - 0.72) / 0.15) ** 2 < 1)
    image += 0.25 * (((rows - 0.62) / 0.15) ** 2 + ((columns - 0.57) / 0.12) ** 2 < 1)
    image += np.random.default_rng(0).normal(0, 0.03, image.shape)
    top = np.iinfo(kind).max
    pixels = (np.clip(image, 0, 1) * top).astype(kind)
    return Volume(pixels[None], np.eye(4), modality, "1")


def ct(shape: tuple[int, int, int] = (20, 40, 48), spacing: tuple[float, float, float] = (0.8, 0.9, 2.5)) -> Volume:
    """(z, y, x) int16 HU with no symmetry; `spacing` in mm along (x, y, z)."""
    noise = np.random.default_rng(1).integers(-1200, 1400, shape)
    ramp = np.linspace(-200, 200, shape[0])[:, None, None] + np.linspace(-300, 300, shape[2])[None, None, :]
    return Volume((noise * 0.3 + ramp).astype(np.int16), np.diag([*spacing, 1.0]), "CT", "HU")
