"""An array of voxels plus an affine in patient space → one thing that cannot be geometrically wrong.

Axis order is (z, y, x) = (slice k, row j, column i) throughout.  The affine maps *index* coordinates
(i, j, k, 1) to LPS millimetres (x to the patient's Left, y to Posterior, z to Superior), as DICOM does.
Volumes that leave intake are *canonical*: i runs most nearly to the Left, j to Posterior, k to Superior,
so that row-major drawing of an axial slice is already the radiological convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from core_models.errors import Refused

MAX_VOXELS = 1_100_000_000  # 512 x 512 x 4096 and a little: past that the memory of one machine is at risk
VALUE_UNITS = ("HU", "SUV", "1")  # "1" = no unit (MR signal, radiograph grey level)


@dataclass(frozen=True)
class SourceLayout:
    """How the canonical array relates to the source's own slice/row/column order.

    Attributes:
        axes: permutation; canonical axis a was source axis ``axes[a]`` (source order: slice, row, column).
        flips: per canonical axis, whether it was reversed after the permutation.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """Source-ordered (slice, row, column) array → canonical (z, y, x) view."""
        out = array.transpose(self.axes)
        return out[tuple(slice(None, None, -1) if f else slice(None) for f in self.flips)]

    def to_source(self, array: np.ndarray) -> np.ndarray:
        """Canonical (z, y, x) array → the source's (slice, row, column) order, as a view."""
        out = array[tuple(slice(None, None, -1) if f else slice(None) for f in self.flips)]
        return out.transpose(np.argsort(self.axes))


@dataclass(frozen=True)
class Volume:
    """Voxels with geometry.

    Attributes:
        array: (z, y, x), any of int16, uint16, uint8, float32; a radiograph has z = 1.
            For CT the values are HU already (rescale applied); for colour sources, luminance.
        affine: (4, 4) float64, index (i, j, k, 1) → LPS mm.
        modality: DICOM modality code ("CT", "MR", "CR", "DX", "OT", ...).
        unit: one of VALUE_UNITS.
        spacing_known: False when millimetres are not to be trusted (no spacing in the source, or missing slices);
            lengths and volumes are then not measured.
        window: preferred (centre, width) in value units, from the header or from percentiles.
        layout: relation to the source's own array order, for exports.

    Raises:
        Refused: at construction, on a wrong rank, an empty or oversized array, non-finite or singular affine.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str = "OT"
    unit: str = "1"
    spacing_known: bool = True
    window: tuple[float, float] = (40.0, 400.0)
    layout: SourceLayout = field(default_factory=SourceLayout)

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise Refused(f"A volume has 3 axes (slice, row, column); this one has {self.array.ndim}.")
        if min(self.array.shape) < 1 or self.array.size > MAX_VOXELS:
            raise Refused(f"A volume of {self.array.shape} voxels cannot be opened (1 to {MAX_VOXELS} in all).")
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise Refused("The scan's orientation or position holds numbers that are not finite.")
        directions = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
        if abs(np.linalg.det(directions)) < 1e-3 or np.linalg.norm(affine[:3, :3], axis=0).min() <= 0:
            raise Refused("The scan's orientation is singular: its three axes do not span space.")
        if self.unit not in VALUE_UNITS:
            raise ValueError(f"unit {self.unit!r} is none of {VALUE_UNITS}")
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return self.array.shape  # type: ignore[return-value]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm, in array order (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (determinant, so a tilted gantry counts right)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    def to_world(self, ijk: np.ndarray | tuple) -> np.ndarray:
        """Index (i, j, k) [..., 3] → LPS mm [..., 3]."""
        return np.asarray(ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, lps: np.ndarray | tuple) -> np.ndarray:
        """LPS mm [..., 3] → fractional index (i, j, k) [..., 3]."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(lps, float) @ inverse[:3, :3].T + inverse[:3, 3]


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, SourceLayout]:
    """Reorder and flip axes so that i→Left, j→Posterior, k→Superior as nearly as whole axes allow.

    Args:
        array: (slice, row, column) in the source's order.
        affine: (4, 4), index (column, row, slice, 1) → LPS mm.

    Returns:
        the canonical contiguous array, its affine, and the layout that leads back.  No voxel is resampled, so an
        oblique scan stays oblique.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # Assign the patient axes to index axes greedily by strongest component, so that two index axes never share one.
    score = np.abs(directions)  # (patient axis, index axis i/j/k)
    index_for = [0, 0, 0]
    taken_patient: set[int] = set()
    taken_index: set[int] = set()
    for flat in np.argsort(-score, axis=None):
        p, q = divmod(int(flat), 3)
        if p not in taken_patient and q not in taken_index:
            index_for[p] = q
            taken_patient.add(p)
            taken_index.add(q)
    # Canonical array axes (z, y, x) = patient axes (2, 1, 0); source array axis of index axis q is 2 - q.
    axes = tuple(2 - index_for[p] for p in (2, 1, 0))
    flips = tuple(bool(directions[p, index_for[p]] < 0) for p in (2, 1, 0))
    layout = SourceLayout(axes, flips)  # type: ignore[arg-type]
    new = np.eye(4)
    new[:3, 3] = affine[:3, 3]
    for p in range(3):
        q = index_for[p]
        column = affine[:3, q]
        if flips[2 - p]:
            new[:3, 3] += column * (array.shape[2 - q] - 1)
            column = -column
        new[:3, p] = column
    return np.ascontiguousarray(layout.to_canonical(array)), new, layout
