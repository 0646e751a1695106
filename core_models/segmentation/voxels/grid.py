"""Volume → a coarse, denoised, HU-like grid on which clicks are cheap, and the way from and to native indices.

The grid is isotropic where the scan allows it (no axis is ever interpolated finer than it was scanned).  Its step is
2 mm for a body-sized scan, finer for a small field of view, coarser for a huge one; the algorithms see it in
*nominal* millimetres, in which the step is always 2, so that their radii need no tuning per scan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import sparse

from core_models.segmentation.voxels.diffusion import curvature_diffusion
from core_models.study.volume import Volume

STEP = 2.0  # nominal mm
MAX_GRID_VOXELS = 12_000_000
# A scan whose longest side is shorter than this gets a proportionally finer grid.  HU tell bone and air by value, and
# with them go sizes in real mm, so that CT keeps the 2 mm step down to a hand's size.
FULL_SIZE_MM = {True: 80.0, False: 256.0}  # by whether values are HU
PLANAR_SIDE = 384  # pixels along the longest side of a radiograph's grid
HU_RANGE = (-1024.0, 1500.0)
RELATIVE_RANGE = 600.0  # where there is no HU: robust minimum → 0, robust maximum → this
THREADS = 2
ITERATIONS = 5  # of the diffusion


@dataclass(frozen=True)
class Grid:
    """What `prepare` leaves behind for the clicks.

    Attributes:
        volume: the scan itself.
        smooth: (z, y, x) float32, edge-preserving smoothed values in HU, or 0 to RELATIVE_RANGE without HU.
        edges: (z, y, x) float32, gradient magnitude per nominal mm.
        spacing: (z, y, x) of the grid in nominal mm.
        factor: (z, y, x) native voxels per grid voxel, each at least 1.
        hounsfield: whether values are HU, so that air and bone may be told by value.
        cache: per-click intermediate results; a pure memo, it never changes an answer.
        answers: what the watershed answered to the first prompts of a row; a pure memo as well.
    """

    volume: Volume
    smooth: np.ndarray
    edges: np.ndarray
    spacing: tuple[float, float, float]
    factor: tuple[float, float, float]
    hounsfield: bool
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    answers: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.smooth.shape  # type: ignore[return-value]

    def from_native(self, zyx: tuple[int, int, int]) -> tuple[int, int, int]:
        """The grid voxel that holds a native voxel (z, y, x)."""
        return tuple(min(n - 1, int((c + 0.5) / f)) for c, f, n in zip(zyx, self.factor, self.shape, strict=True))  # type: ignore[return-value]


def build(volume: Volume) -> Grid:
    """Resample, normalise, denoise: 1 to 2 s for a chest CT on two cores, nothing per click."""
    spacing = np.asarray(volume.spacing)
    step = _step(volume.shape, spacing, volume.unit == "HU")
    shape = tuple(int(max(1, min(n, round(n * s / step)))) for n, s in zip(volume.shape, spacing, strict=True))
    factor = tuple(n / c for n, c in zip(volume.shape, shape, strict=True))
    nominal = tuple(float(f * s * STEP / step) for f, s in zip(factor, spacing, strict=True))
    hounsfield = volume.unit == "HU"
    values = _average(volume.array, shape, HU_RANGE if hounsfield else _finite_range(volume.array))
    if not hounsfield:
        values = _relative(values)
    smooth, edges = _filter(values, nominal)
    return Grid(volume, smooth, edges, nominal, factor, hounsfield)


def _step(shape: tuple[int, ...], spacing: np.ndarray, hounsfield: bool) -> float:
    """Grid step in real mm."""
    extent = np.asarray(shape) * spacing
    if shape[0] == 1:
        return max(float(spacing[1:].min()), float(extent[1:].max()) / PLANAR_SIDE)
    step = min(STEP, STEP * float(extent.max()) / FULL_SIZE_MM[hounsfield])
    while np.prod([max(1, min(n, round(e / step))) for n, e in zip(shape, extent, strict=True)]) > MAX_GRID_VOXELS:
        step *= 1.1
    return step


def _overlap(n: int, c: int) -> sparse.csr_matrix:
    """(c, n) weights that average n native cells into c grid cells by their overlap."""
    edges = np.linspace(0, n, c + 1)
    rows, cols, data = [], [], []
    for r in range(c):
        first, last = int(np.floor(edges[r])), min(n, int(np.ceil(edges[r + 1] - 1e-9)))
        for q in range(first, max(last, first + 1)):
            weight = min(edges[r + 1], q + 1) - max(edges[r], q)
            if weight > 0:
                rows.append(r)
                cols.append(q)
                data.append(weight * c / n)
    return sparse.csr_matrix((np.asarray(data, np.float32), (rows, cols)), shape=(c, n))


def _average(array: np.ndarray, shape: tuple[int, ...], limits: tuple[float, float]) -> np.ndarray:
    """Area-averaged copy of `array` in `shape` (z, y, x) float32, values clipped first so metal does not bleed.

    Runs slice by slice: the only large arrays alive are the source and the result.
    """
    wz, wy, wx = (_overlap(n, c) for n, c in zip(array.shape, shape, strict=True))
    out = np.zeros(shape, np.float32)
    columns = wz.tocsc()
    for k in range(array.shape[0]):
        plane = np.clip(np.nan_to_num(array[k].astype(np.float32), copy=False), *limits)
        plane = wx.dot(wy.dot(plane).T).T
        for at in range(columns.indptr[k], columns.indptr[k + 1]):
            out[columns.indices[at]] += columns.data[at] * plane
    return out


def averaged(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask's or a probability's area average in `shape` (z, y, x), float32."""
    return _average(array, shape, (0.0, 1.0))


def _finite_range(array: np.ndarray) -> tuple[float, float]:
    """Robust value range of a scan without HU, from a sparse sample."""
    sample = array[:: max(1, array.shape[0] // 64), :: max(1, array.shape[1] // 128), :: max(1, array.shape[2] // 128)]
    sample = sample[np.isfinite(sample)].astype(np.float32)
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, (0.2, 99.8))
    return float(low), float(max(high, low + 1e-6))


def _relative(values: np.ndarray) -> np.ndarray:
    """Robust minimum to maximum → 0 to RELATIVE_RANGE."""
    low, high = np.percentile(values, (0.5, 99.5))
    return ((values - low) * (RELATIVE_RANGE / max(high - low, 1e-6))).astype(np.float32)


def _filter(values: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Diffused values, and the gradient magnitude at 1.5 nominal mm, both (z, y, x) float32.

    The recursive Gaussian needs four samples along every axis, so thin stacks are padded by replication and cut back.
    """
    planar = values.shape[0] == 1
    step = 0.03 * min(min(spacing[1:] if planar else spacing), STEP)
    smooth = curvature_diffusion(values, spacing, step, ITERATIONS, THREADS)
    padding = [(0, 0) if planar and a == 0 else (0, max(0, 4 - n)) for a, n in enumerate(values.shape)]
    padded = np.pad(values, padding, mode="edge")
    image = sitk.GetImageFromArray(padded[0] if planar else padded)
    image.SetSpacing([float(s) for s in (spacing[1:] if planar else spacing)[::-1]])
    gradient = sitk.GradientMagnitudeRecursiveGaussianImageFilter()
    gradient.SetSigma(1.5)
    gradient.SetNumberOfWorkUnits(THREADS)
    edges = sitk.GetArrayFromImage(gradient.Execute(image))
    cut = tuple(slice(0, n) for n in values.shape)
    return smooth, np.ascontiguousarray((edges[None] if planar else edges)[cut], np.float32)
