"""Volume and mask → a triangle mesh in patient space, light enough for a browser."""

from __future__ import annotations

from dataclasses import dataclass

import fast_simplification
import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume

BOX_VOXELS = 400_000  # of the mask's box, for a browser


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh, normals outward.

    Attributes:
        vertices: (n, 3) float32, LPS mm.
        faces: (m, 3) int32, indices of vertices.
    """

    vertices: np.ndarray
    faces: np.ndarray


def surface(volume: Volume, mask: Mask, max_faces: int = 20_000, max_cells: int = BOX_VOXELS) -> Surface:
    """Marching cubes (Lorensen & Cline, 1987) on the smoothed mask, then quadric decimation.

    Args:
        max_faces: upper limit aimed at; at least 100.
        max_cells: the mask's box is averaged down to about this many before meshing.

    Raises:
        Refused: the mask is empty.
    """
    if mask.empty:
        raise Refused("The segment is empty: it has no surface.")
    stride = _strides(mask.voxels.shape, volume.spacing, max_cells)
    cells = _pool(mask.voxels, stride)
    field = ndimage.gaussian_filter(np.pad(cells, 2), 0.7)
    level = min(0.5, 0.5 * float(field.max()))  # a structure of a few voxels never reaches a half once smoothed
    points, faces, _, _ = marching_cubes(field, level)
    if len(faces) > max_faces:
        points, faces = fast_simplification.simplify(
            points.astype(np.float32), faces.astype(np.int32), target_count=max(100, max_faces)
        )
    # Cell c of a pooled axis is centred on native index (c + 0.5) * stride - 0.5.
    zyx = (points - 2 + 0.5) * np.asarray(stride) - 0.5 + np.asarray(mask.offset)
    vertices = volume.to_world(zyx[:, ::-1])
    corners = vertices[faces]
    if np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:
        faces = faces[:, ::-1]
    return Surface(vertices.astype(np.float32), np.ascontiguousarray(faces, np.int32))


def _strides(shape: tuple[int, ...], spacing: tuple[float, float, float], most: int) -> tuple[int, int, int]:
    """Native voxels per cell and axis: the finest axes are merged first, until the box is small enough."""
    stride = [1, 1, 1]
    while np.prod([-(-n // s) for n, s in zip(shape, stride, strict=True)]) > most:
        finest = min((a for a in range(3) if stride[a] < shape[a]), key=lambda a: stride[a] * spacing[a])
        stride[finest] += 1
    return stride[0], stride[1], stride[2]


def _pool(voxels: np.ndarray, stride: tuple[int, int, int]) -> np.ndarray:
    """Mean of bool voxels over cells of `stride`, float32; a partial last cell counts its missing voxels as unset."""
    out = voxels.astype(np.float32)
    for axis, s in enumerate(stride):
        if s > 1:
            starts = np.arange(0, out.shape[axis], s)
            out = np.add.reduceat(out, starts, axis=axis) / s
    return out
