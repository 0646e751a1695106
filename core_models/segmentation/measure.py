"""Volume and mask → the numbers a report may state: size, values, longest axial diameter, and where they were taken."""

from __future__ import annotations

from dataclasses import dataclass

import edt as euclidean
import numpy as np
from scipy.spatial import ConvexHull

from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume

DEPTH_VOXELS = 400_000  # past this the deepest point is looked for on every second (third, ...) voxel
Lps = tuple[float, float, float]


@dataclass(frozen=True)
class Measurement:
    """Numbers of one segment.

    Attributes:
        voxels: how many are set.
        volume_ml: voxels × |det(affine)|; None for a single slice or untrusted spacing.
        area_mm2: pixels × |i × j|, for a single slice with trusted spacing; None otherwise.
        mean, sd, minimum, maximum: of the voxel values, in `unit` (sd of the population); None if none is finite.
        longest_axial_diameter_mm: the greatest distance between two corners of the mask's pixels in any one axial
            slice (the voxels are taken as boxes, so a box is measured exactly and a sphere to about a pixel);
            None where spacing is not trusted.
        diameter_slice: k of that slice; diameter_ends: its two ends in LPS mm.
        centroid_lps: a point *inside* the mask, its deepest one, in LPS mm (a true centroid may lie outside).
        largest_slice: k of the slice with most voxels.
    """

    voxels: int
    volume_ml: float | None
    area_mm2: float | None
    mean: float | None
    sd: float | None
    minimum: float | None
    maximum: float | None
    unit: str
    longest_axial_diameter_mm: float | None
    diameter_slice: int | None
    diameter_ends: tuple[Lps, Lps] | None
    centroid_lps: Lps
    largest_slice: int


def measure(volume: Volume, mask: Mask) -> Measurement:
    """Measure one mask on its own volume.

    Raises:
        Refused: the mask is empty or belongs to a volume of another shape.
    """
    if mask.shape != volume.shape:
        raise Refused(f"The segment was drawn on a volume of {mask.shape} voxels; this one has {volume.shape}.")
    if mask.empty:
        raise Refused("The segment is empty: there is nothing to measure.")
    voxels = mask.count
    single = volume.shape[0] == 1
    known = volume.spacing_known
    values = volume.array[mask.slices][mask.voxels]
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    i, j = volume.affine[:3, 0], volume.affine[:3, 1]
    length, k, ends = longest_axial_diameter(volume.affine, mask) if known else (None, None, None)
    return Measurement(
        voxels=voxels,
        volume_ml=voxels * volume.voxel_ml if known and not single else None,
        area_mm2=voxels * float(np.linalg.norm(np.cross(i, j))) if known and single else None,
        mean=float(values.mean(dtype=np.float64)) if values.size else None,
        sd=float(values.std(dtype=np.float64)) if values.size else None,
        minimum=float(values.min()) if values.size else None,
        maximum=float(values.max()) if values.size else None,
        unit=volume.unit,
        longest_axial_diameter_mm=length,
        diameter_slice=k,
        diameter_ends=ends,
        centroid_lps=_lps(volume.affine, deepest_index(volume, mask)),
        largest_slice=int(mask.offset[0] + np.argmax([np.count_nonzero(plane) for plane in mask.voxels])),
    )


def longest_axial_diameter(affine: np.ndarray, mask: Mask) -> tuple[float, int, tuple[Lps, Lps]]:
    """The greatest in-plane Feret diameter over the axial slices: (mm, slice k, its ends in LPS mm).

    The two farthest points of a set are vertices of its convex hull (Shamos, "Computational geometry", 1978), so each
    slice is reduced to the corners of its rows' first and last pixels, then to their hull, then compared in pairs.
    The hull is taken in index space, where it has the same vertices under any affine; distances are in mm.
    """
    best, best_k, best_pair = -1.0, 0, np.zeros((2, 2))
    edges = affine[:3, :2]  # LPS mm per column i, per row j
    offset_k, offset_j, offset_i = mask.offset
    in_rows, in_columns = mask.voxels.any(axis=2), mask.voxels.any(axis=1)
    held = np.flatnonzero(in_rows.any(axis=1))
    # An upper bound for each slice, true for sheared axes too (triangle inequality): its box's diagonals.
    width, height = (_extent(line[held]) for line in (in_columns, in_rows))
    reach = width[:, None, None] * edges[:, :1] + height[:, None, None] * edges[:, 1:] * np.array([[1, -1]])
    bounds = np.linalg.norm(reach, axis=1).max(axis=1)
    for n in np.argsort(-bounds):
        if bounds[n] <= best:
            break
        z = held[n]
        plane = mask.voxels[z]
        rows = np.flatnonzero(in_rows[z])
        first = plane[rows].argmax(axis=1) - 0.5
        last = plane.shape[1] - plane[rows][:, ::-1].argmax(axis=1) - 0.5
        corners = np.concatenate(
            [np.stack([x, rows + half], axis=1) for x in (first, last) for half in (-0.5, 0.5)]
        )  # (4 * rows, 2) as (i, j)
        hull = corners[ConvexHull(corners).vertices]
        points = hull @ edges.T
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        a, b = np.unravel_index(np.argmax(apart), apart.shape)
        if apart[a, b] > best:
            best, best_k, best_pair = float(apart[a, b]), int(z), hull[[a, b]]
    k = offset_k + best_k
    first_end, second_end = (_lps(affine, (p[0] + offset_i, p[1] + offset_j, k)) for p in best_pair)
    return best, k, (first_end, second_end)


def _extent(lines: np.ndarray) -> np.ndarray:
    """From the first True to the last of each row of a bool array, both counted."""
    return lines.shape[1] - lines[:, ::-1].argmax(axis=1) - lines.argmax(axis=1)


def deepest_index(volume: Volume, mask: Mask) -> tuple[int, int, int]:
    """(i, j, k) of a mask voxel that is as far from the mask's surface as any (on a sparse lattice when huge)."""
    stride = int(np.ceil((mask.voxels.size / DEPTH_VOXELS) ** (1 / 3)))
    sparse = mask.voxels[::stride, ::stride, ::stride]
    if not sparse.any():  # thinner than the lattice
        stride, sparse = 1, mask.voxels
    # A single slice has no surface above and below: padded there too, every voxel would be one step from it.
    above = 0 if mask.shape[0] == 1 else 1
    padded = np.pad(sparse, ((above, above), (1, 1), (1, 1))).view(np.uint8)  # as edt is fastest
    depth = euclidean.edt(padded, anisotropy=tuple(s * stride for s in volume.spacing))
    depth = depth[above : len(depth) - above, 1:-1, 1:-1]
    at = np.unravel_index(np.argmax(depth), depth.shape)
    z, y, x = (int(o + stride * c) for o, c in zip(mask.offset, at, strict=True))
    return x, y, z


def _lps(affine: np.ndarray, ijk: tuple[float, float, float]) -> Lps:
    x, y, z = affine[:3, :3] @ np.asarray(ijk, float) + affine[:3, 3]
    return float(x), float(y), float(z)
