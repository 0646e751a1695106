"""Made-up scans whose truth is known exactly."""

from __future__ import annotations

import numpy as np

from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume


def affine_of(spacing=(2.0, 1.0, 1.0), shear=None) -> np.ndarray:
    """Affine of a (z, y, x) spacing in mm; `shear` tilts the slice axis (mm along y per slice), as a gantry does."""
    z, y, x = spacing
    affine = np.diag([x, y, z, 1.0])
    affine[:3, 3] = (-100.0, -80.0, 30.0)
    if shear is not None:
        affine[1, 2] = shear
    return affine


def world(shape, affine) -> np.ndarray:
    """(z, y, x, 3) LPS mm of every voxel centre."""
    k, j, i = np.indices(shape)
    return np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def ellipsoid(shape, affine, centre_ijk, radii) -> np.ndarray:
    """Bool array: voxels whose centre lies in the ellipsoid of `radii` mm (x, y, z) around an index."""
    centre = np.asarray(centre_ijk, float) @ affine[:3, :3].T + affine[:3, 3]
    return (((world(shape, affine) - centre) / np.asarray(radii)) ** 2).sum(axis=-1) <= 1.0


def ct(masks_and_values, shape, affine, background=-100, noise=12.0, seed=0, **fields) -> Volume:
    """Structures of given HU in fat, with seeded noise."""
    array = np.full(shape, background, np.float32)
    for mask, value in masks_and_values:
        array[mask] = value
    array += np.random.default_rng(seed).normal(0, noise, shape)
    return Volume(array.round().astype(np.int16), affine, modality="CT", unit="HU", **fields)


def mask_of(array: np.ndarray) -> Mask:
    return Mask.from_full(array)
