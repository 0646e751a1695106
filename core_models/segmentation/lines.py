"""Points that a reader set on a volume → their numbers: lengths, angles, ellipses, points, heart and thorax.

Points are fractional (i, j, k) of a canonical volume, whole numbers at voxel centres; all points of one annotation lie
on one slice of one plane.  Millimetres come from the affine, so that a tilted or oblique scan measures right; without
trusted spacing lengths and areas are told in pixels, and no number claims a unit that the scan does not give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from core_models.errors import Refused
from core_models.study.volume import Volume

Kind = Literal["length", "angle", "ellipse", "probe", "ratio"]
Plane = Literal["axial", "coronal", "sagittal"]
KINDS: tuple[str, ...] = get_args(Kind)
PLANES: tuple[str, ...] = get_args(Plane)
POINTS = {"length": 2, "angle": 3, "ellipse": 2, "probe": 1, "ratio": 4}
_AXES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}  # index axes across, down and through
EDGE = 0.5  # of a voxel: its centre may be left by so much and the point is still in it
SHORTEST = 1e-6

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Number:
    """One number of an annotation.

    Attributes:
        key: what it is ("length", "area", "mean", "sd", "angle", "value", "ratio").
        words: the same for a reader ("mean attenuation").
        unit: "mm", "px", "cm²", "px²", "°", "HU", or "" for a plain number.
    """

    key: str
    words: str
    value: float
    unit: str


def measure(volume: Volume, kind: str, plane: str, points: Sequence[Sequence[float]]) -> tuple[Number, ...]:
    """The numbers of one annotation, the one that names it first.

    Args:
        kind: "length" (2 points), "angle" (3, the corner in the middle), "ellipse" (2 opposite corners of its box),
            "probe" (1), "ratio" (4: both ends of the heart's width, then of the thorax's).
        points: (i, j, k) each.

    Raises:
        Refused: unknown kind or plane, a wrong number of points, one outside the volume, two that are the same, an
            ellipse without a pixel, a heart wider than its thorax, values that are not numbers.
    """
    p = checked(volume, kind, plane, points)
    return _MEASURES[kind](volume, plane, p)


def checked(volume: Volume, kind: str, plane: str, points: Sequence[Sequence[float]]) -> np.ndarray:
    """The points as (n, 3), on one slice of the plane.  Raises Refused."""
    if kind not in POINTS:
        raise Refused(f"There is no measurement {kind!r}; there are {', '.join(KINDS)}.")
    if plane not in _AXES:
        raise Refused(f"There is no plane {plane!r}; there are {', '.join(PLANES)}.")
    p = np.asarray(points, np.float64)
    if p.shape != (POINTS[kind], 3):
        raise Refused(f"This measurement takes {POINTS[kind]} points of three coordinates each.")
    if not np.isfinite(p).all():
        raise Refused("A point of the measurement is not a finite number.")
    size = np.asarray(volume.shape[::-1], np.float64)
    through = _AXES[plane][2]
    if (p < -EDGE).any() or (p > size - 1 + EDGE).any():
        raise Refused(f"A point of the measurement is outside the scan of {_times(volume.shape[::-1])} voxels.")
    if np.ptp(p[:, through]) > SHORTEST:
        raise Refused("The points of one measurement lie on one slice.")
    p[:, through] = np.rint(p[:, through])
    return p


def ellipse_mask(volume: Volume, plane: str, corners: np.ndarray) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The voxels whose centres lie in the ellipse: (slices of the array, bool of that box), box in (z, y, x)."""
    u, v, _ = _AXES[plane]
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, SHORTEST)
    first = np.clip(np.ceil(low), 0, None).astype(int)
    last = np.minimum(np.floor(high), np.asarray(volume.shape[::-1]) - 1).astype(int)
    slices = tuple(slice(int(first[a]), int(last[a]) + 1) for a in (2, 1, 0))
    grids = np.ogrid[slices]  # z, y, x
    inside = sum(((grids[2 - a] - centre[a]) / half[a]) ** 2 for a in (u, v)) <= 1.0
    return slices, np.broadcast_to(inside, tuple(s.stop - s.start for s in slices))


def middle(points: Sequence[Sequence[float]]) -> Point:
    """Where a viewer goes to show them, as (i, j, k)."""
    i, j, k = np.asarray(points, float).mean(axis=0)
    return float(i), float(j), float(k)


def _length(volume: Volume, plane: str, p: np.ndarray) -> tuple[Number, ...]:
    return (Number("length", "length", _apart(volume, p[0], p[1]), _unit(volume)),)


def _angle(volume: Volume, plane: str, p: np.ndarray) -> tuple[Number, ...]:
    a, b = _vector(volume, p[0] - p[1]), _vector(volume, p[2] - p[1])
    sizes = np.linalg.norm(a) * np.linalg.norm(b)
    if sizes < SHORTEST:
        raise Refused("An angle needs three points, each at a place of its own.")
    # From the tangent: exact where the cosine is flat, near 0° and 180°.
    return (Number("angle", "angle", float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))), "°"),)


def _ellipse(volume: Volume, plane: str, p: np.ndarray) -> tuple[Number, ...]:
    u, v, _ = _AXES[plane]
    slices, inside = ellipse_mask(volume, plane, p)
    if not inside.any():
        raise Refused("The ellipse holds no pixel's centre: draw it larger.")
    values = volume.array[slices][inside].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        raise Refused("The ellipse holds no value that is a number.")
    half = np.abs(p[1] - p[0]) / 2
    pixels = float(np.pi * half[u] * half[v])
    known = volume.spacing_known
    one = float(np.linalg.norm(np.cross(volume.affine[:3, u], volume.affine[:3, v]))) / 100  # cm² of a pixel
    unit = _value_unit(volume)
    return (
        Number("mean", "mean attenuation" if unit == "HU" else "mean", float(values.mean()), unit),
        Number("sd", "standard deviation", float(values.std()), unit),
        Number("area", "area", pixels * one if known else pixels, "cm²" if known else "px²"),
    )


def _probe(volume: Volume, plane: str, p: np.ndarray) -> tuple[Number, ...]:
    i, j, k = np.clip(np.rint(p[0]), 0, np.asarray(volume.shape[::-1]) - 1).astype(int)
    value = float(volume.array[k, j, i])
    if not np.isfinite(value):
        raise Refused("The value at this point is not a number.")
    unit = _value_unit(volume)
    return (Number("value", "attenuation at a point" if unit == "HU" else "value at a point", value, unit),)


def _ratio(volume: Volume, plane: str, p: np.ndarray) -> tuple[Number, ...]:
    heart, thorax = _apart(volume, p[0], p[1]), _apart(volume, p[2], p[3])
    if heart >= thorax:
        raise Refused("The first line is the heart and the second, longer one the thorax: draw them in this order.")
    unit = _unit(volume)
    return (
        Number("ratio", "cardiothoracic ratio", heart / thorax, ""),
        Number("heart", "heart width", heart, unit),
        Number("thorax", "thorax width", thorax, unit),
    )


_MEASURES: dict[str, Callable[[Volume, str, np.ndarray], tuple[Number, ...]]] = {
    "length": _length,
    "angle": _angle,
    "ellipse": _ellipse,
    "probe": _probe,
    "ratio": _ratio,
}


def _vector(volume: Volume, step: np.ndarray) -> np.ndarray:
    """An index step in mm, or as it is where the spacing is not known."""
    return volume.affine[:3, :3] @ step if volume.spacing_known else step


def _apart(volume: Volume, a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.linalg.norm(_vector(volume, b - a)))
    if length < SHORTEST:
        raise Refused("A line needs two points, each at a place of its own.")
    return length


def _unit(volume: Volume) -> str:
    return "mm" if volume.spacing_known else "px"


def _value_unit(volume: Volume) -> str:
    return "" if volume.unit == "1" else volume.unit


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
