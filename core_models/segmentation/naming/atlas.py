"""Volume and mask → the structure of a small atlas that the mask fits best, and how sure that is.

The atlas is a table: of every labelled structure of a few CTs the place in the body, HU, size and shape.  What is
measured of a mask is laid beside each row; a feature that fits neither better nor worse than it would in a stranger
counts nothing.  Heights are told by lung and bone at a level and by the lungs' ends where the scan shows them, never by
the scan's own box: most scans show a part of the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from core_models.errors import ModelMissing
from core_models.segmentation.engine import Mask
from core_models.segmentation.naming.labels import thinned
from core_models.study.volume import Volume, canonical

FILE = Path(__file__).resolve().parents[3] / "assets" / "segmentation" / "atlas.json"
FORMAT = 1
COARSE_MM = 8.0  # grid on which the body is looked at
LEVELS = 48  # at most so many slices of it
LEAST = 8  # voxels: of fewer no shape can be told

PLACE = ("left", "back", "lung", "bone", "above_base", "below_apex")
VALUE = ("hu", "spread")
SIZE = ("log_ml", "log_x", "log_y", "log_z")
SHAPE = ("fill", "long", "flat", "upright", "round")
FEATURES = (*PLACE, *VALUE, *SIZE, *SHAPE)

# Standard deviation between two people, or two masks of one structure: set by hand, since two scans cannot tell it.
SPREADS: Mapping[str, float] = {
    "left": 0.09,
    "back": 0.08,
    "lung": 0.12,
    "bone": 0.05,
    "above_base": 40.0,
    "below_apex": 40.0,
    "hu": 45.0,
    "spread": 0.9,
    "log_ml": 0.5,
    "log_x": 0.3,
    "log_y": 0.3,
    "log_z": 0.35,
    "fill": 0.12,
    "long": 0.35,
    "flat": 0.35,
    "upright": 0.25,
    "round": 0.1,
}
# The same of the median HU of what takes up contrast medium, and of other rows above `DENSE` HU.
TAKES_UP: Mapping[str, float] = {
    "liver": 45.0,
    "spleen": 70.0,
    "right kidney": 90.0,
    "left kidney": 90.0,
    "portal vein": 80.0,
    "inferior vena cava": 80.0,
    "superior vena cava": 250.0,
    "heart": 120.0,
    "aorta": 150.0,
}
DENSE, DENSE_SPREAD = 110.0, 90.0

# A lesion is round: the shape of a ball, and how far one may be from it; and seldom larger than log 3.4 = 30 ml.
# Everything else about it is open.
BALL: Mapping[str, tuple[float, float]] = {
    "fill": (0.52, 0.08),
    "long": (0.0, 0.25),
    "flat": (0.0, 0.25),
    "round": (0.66, 0.06),
}
LARGE, LARGER = 3.4, 0.7


@dataclass(frozen=True)
class Traits:
    """What is measured of a mask.

    Attributes:
        values: FEATURES → number; NaN where the scan does not tell.
            left: -1 at the body's right edge, 0 at its midline, +1 at its left edge; back: 0 at its front, 1 at its
            back, both as means over the mask of shares of the body's box at the level.
            lung, bone: share of the body's section at the mask's levels that is lung, and that is above 250 HU.
            above_base, below_apex: mm from the lungs' lower and upper end to the mask's middle.
            hu: median; spread: log of the robust spread about it in HU.
            log_ml, log_x, log_y, log_z: log of the volume in ml and of the extents in mm along the patient's axes.
            fill: share of the extents' box that is mask; long, flat: log of the ratios of the first to the second and
            of the second to the third principal axis; upright: cosine between the first and the body's axis.
            round: sphericity (Wadell, 1935) with the surface counted in voxel faces, which makes a ball about 0.67.
        cut: the mask ends at the scan's rim, so that its size is a lower bound.
    """

    values: Mapping[str, float]
    cut: bool


@dataclass(frozen=True)
class Row:
    """A structure of a labelled scan.

    Attributes:
        name: one of `labels.ORGANS`, or "" for what has no name there: to fit it best is to get no name.
        structure, scan: what it is called in its source.
    """

    name: str
    structure: str
    scan: str
    traits: Traits


@dataclass(frozen=True)
class Calibration:
    """How the fit becomes a share of belief; log fits are for each feature.

    Attributes:
        none: log fit of something that is in no row.
        lesion: log fit of a ball in all but its shape and size.
        untold: log fit of a feature that a row or a cut mask does not tell.
        temperature: by which differences of log fit are divided: the features are not independent.
        least: a name with less belief is not told.
        agrees: a name that the rules of `labels` give stands where the atlas is unsure but believes it this much;
        contests: and where the atlas tells another name, with this much.
    """

    none: float
    lesion: float
    untold: float
    temperature: float
    least: float
    agrees: float
    contests: float


CALIBRATION = Calibration(none=-0.9, lesion=-0.3, untold=-0.4, temperature=1.4, least=0.55, agrees=0.1, contests=0.2)


class Atlas:
    """Rows and calibration → names.

    Attributes:
        names: that it may tell, in a fixed order.
    """

    def __init__(self, rows: Iterable[Row], calibration: Calibration) -> None:
        self.rows, self.calibration = tuple(rows), calibration
        self.names = tuple(sorted({row.name for row in self.rows if row.name}))
        self._table = np.array([[row.traits.values[f] for f in FEATURES] for row in self.rows], float)
        self._cut = np.array([row.traits.cut for row in self.rows])
        self._of = np.array([self.names.index(r.name) if r.name else -1 for r in self.rows])
        self._spreads = np.tile([SPREADS[f] for f in FEATURES], (len(self.rows), 1))
        for row, spreads, values in zip(self.rows, self._spreads, self._table, strict=True):
            dense = DENSE_SPREAD if values[_HU] > DENSE else spreads[_HU]
            spreads[_HU] = TAKES_UP.get(row.name, dense)

    def belief(self, traits: Traits) -> dict[str, float]:
        """Name → share of belief that it is this; "" has the share of no name.  They add up to 1."""
        log, told = self._fits(traits)
        best = [log[self._of == k].max() for k in range(len(self.names))]
        nameless = log[self._of < 0].max(initial=-np.inf)
        off = [(traits.values[f] - middle) / wide for f, (middle, wide) in BALL.items()]
        off.append(max(0.0, traits.values["log_ml"] - LARGE) / LARGER)
        lesion = float(_kernel(np.array(off), FREEDOM).sum()) + self.calibration.lesion * (told - len(off))
        logs = np.array([*best, max(nameless, lesion, self.calibration.none * told)]) / self.calibration.temperature
        share = np.exp(logs - logs.max())
        return dict(zip((*self.names, ""), (share / share.sum()).tolist(), strict=True))

    def _fits(self, traits: Traits) -> tuple[np.ndarray, int]:
        """Log fit to every row, 0 for its very traits, and how many features were looked at."""
        own = np.array([traits.values[f] for f in FEATURES], float)
        told = np.isfinite(own)
        z = (own - self._table) / self._spreads
        either = self._cut | traits.cut
        z[either, _SHAPE] *= 0.5
        log = _kernel(z, _FREEDOM)
        # A cut mask may belong to anything larger, and anything larger to a structure that the atlas' scan cut.
        open_end = np.zeros(z.shape, bool)
        if traits.cut:
            open_end[:, _SIZE] |= z[:, _SIZE] < 0
        open_end[self._cut, _SIZE] |= z[self._cut, _SIZE] > 0
        untold = self.calibration.untold
        log = np.where(open_end, np.maximum(log, untold), log)
        log = np.where(np.isfinite(log), log, untold)[:, told]
        return log.sum(axis=1), int(told.sum())


_HU = FEATURES.index("hu")
_SIZE = slice(FEATURES.index(SIZE[0]), FEATURES.index(SHAPE[0]))
_SHAPE = slice(FEATURES.index(SHAPE[0]), len(FEATURES))


FREEDOM, FREEDOM_HU = 3.0, 12.0
_FREEDOM = np.array([FREEDOM_HU if f == "hu" else FREEDOM for f in FEATURES])


def _kernel(z: np.ndarray, freedom: np.ndarray | float) -> np.ndarray:
    """Log density of Student's t, 0 at its top: one feature that is far off is not the end, but for another tissue."""
    return -(freedom + 1) / 2 * np.log1p(z * z / freedom)


def traits(volume: Volume, mask: Mask) -> Traits | None:
    """What the atlas looks at; None where no body is found at the mask's levels or the mask is too small to tell.

    Args:
        volume: a CT in HU with known spacing and at least three slices.
        mask: not empty.
    """
    count = mask.count
    if count < LEAST:
        return None
    scan = _Scan.of(volume)
    if scan is None:
        return None
    box, step = thinned(mask, count)
    places = np.argwhere(box)
    if len(places) < LEAST:
        return None
    # Index of the volume (z, y, x) of every place kept.
    at = places * step + np.asarray(mask.offset)
    values = volume.array[tuple(at.T)].astype(np.float32)
    told = scan.place(at)
    if told is None:
        return None
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    mm = (at - at.mean(axis=0))[:, ::-1] @ volume.affine[:3, :3].T  # patient's (x, y, z)
    axes, vectors = np.linalg.eigh(np.cov(mm.T) + np.diag([0.1, 0.1, 0.1]))
    voxel = float(np.prod(step)) * volume.voxel_ml
    extents = np.ptp(mm, axis=0) + np.abs(volume.affine[:3, :3]) @ np.asarray(step[::-1], float)
    ml = count * volume.voxel_ml
    surface = _faces(box, np.asarray(step) * volume.spacing)
    return Traits(
        told
        | {
            "hu": middle,
            "spread": float(np.log(max(spread, 1.0))),
            "log_ml": float(np.log(ml)),
            "log_x": float(np.log(extents[0])),
            "log_y": float(np.log(extents[1])),
            "log_z": float(np.log(extents[2])),
            "fill": float(1000 * voxel * len(places) / np.prod(extents)),
            "long": float(0.5 * np.log(axes[2] / axes[1])),
            "flat": float(0.5 * np.log(axes[1] / axes[0])),
            "upright": float(abs(vectors[2, 2])),
            "round": float(np.pi ** (1 / 3) * (6 * 1000 * voxel * len(places)) ** (2 / 3) / surface),
        },
        scan.cut(mask),
    )


def _faces(box: np.ndarray, spacing: np.ndarray) -> float:
    """Surface in mm² as the voxels' outer faces."""
    padded = np.pad(box, 1)
    area = spacing.prod() / spacing
    return float(sum(area[a] * np.count_nonzero(np.diff(padded, axis=a)) for a in range(3)))


@dataclass(frozen=True)
class _Scan:
    """The body on a coarse grid, axes towards Superior, Posterior and Left.

    Attributes:
        matrix, offset: coarse index (z, y, x) → the volume's.
        boxes: (z, 4) first row, last row, first column, last column of the body; -1 where there is none.
        lung, bone: (z,) shares of the body's section.
        base, apex: coarse slice at which the lungs end below and above; None where the scan does not show it.
        step: mm between coarse slices.
    """

    matrix: np.ndarray
    offset: np.ndarray
    boxes: np.ndarray
    lung: np.ndarray
    bone: np.ndarray
    base: float | None
    apex: float | None
    step: float

    @classmethod
    def of(cls, volume: Volume) -> _Scan | None:
        """None where nothing in the scan looks like a body."""
        spacing = np.asarray(volume.spacing)
        sizes = np.asarray(volume.shape)
        step = np.maximum(1, np.round(COARSE_MM / spacing).astype(int))
        upwards = int(np.argmax(np.abs(volume.affine[2, :3])[::-1]))  # array axis nearest to the body's
        step[upwards] = max(step[upwards], -(-sizes[upwards] // LEVELS))
        start = np.minimum(step // 2, sizes - 1)
        thin = volume.array[tuple(slice(a, None, s) for a, s in zip(start, step, strict=True))]
        coarse = volume.affine.copy()
        coarse[:3, :3] = volume.affine[:3, :3] * step[::-1]
        array, _, layout = canonical(thin, coarse)
        # canonical (z, y, x) → thin's index → volume's index
        matrix, offset = np.zeros((3, 3)), start.astype(float)
        for axis in range(3):
            source = layout.axes[axis]
            sign = -1 if layout.flips[axis] else 1
            matrix[source, axis] = sign * step[source]
            if sign < 0:
                offset[source] += (thin.shape[source] - 1) * step[source]
        found = _body(array)
        if found is None:
            return None
        boxes, lung, bone = found
        ends = _ends(lung)
        return cls(matrix, offset, boxes, lung, bone, *ends, float(step[upwards] * spacing[upwards]))

    def place(self, at: np.ndarray) -> dict[str, float] | None:
        """Volume's indices (n, 3) → the features of PLACE; None where there is no body at most of them."""
        coarse = (at - self.offset) @ np.linalg.inv(self.matrix).T
        level = np.clip(np.rint(coarse[:, 0]).astype(int), 0, len(self.boxes) - 1)
        kept = self.boxes[level, 0] >= 0
        if kept.mean() < 0.5:
            return None
        coarse, level = coarse[kept], level[kept]
        front, rear, right, left = self.boxes[level].T
        middle = float(coarse[:, 0].mean())
        return {
            "left": float(np.mean((2 * coarse[:, 2] - left - right) / np.maximum(1, left - right + 1))),
            "back": float(np.mean((coarse[:, 1] - front + 0.5) / np.maximum(1, rear - front + 1))),
            "lung": float(self.lung[level].mean()),
            "bone": float(self.bone[level].mean()),
            "above_base": np.nan if self.base is None else (middle - self.base) * self.step,
            "below_apex": np.nan if self.apex is None else (self.apex - middle) * self.step,
        }

    @staticmethod
    def cut(mask: Mask) -> bool:
        """Whether the mask's box touches the scan's rim."""
        return any(
            o == 0 or o + n == whole for o, n, whole in zip(mask.offset, mask.voxels.shape, mask.shape, strict=True)
        )


_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def _body(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Coarse canonical HU → (boxes, lung, bone) as of `_Scan`, or None without a body.

    The body is the largest connected part above -300 HU; lung is air in it that no slice connects with the outside.
    """
    parts, number = ndimage.label(_opened(array > -300))
    if number == 0:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = parts == int(sizes.argmax())
    if body.mean() < 0.02:
        return None
    air, number = ndimage.label(~body, _IN_PLANE)
    outside = np.zeros(number + 1, bool)
    for rim in (air[:, 0], air[:, -1], air[:, :, 0], air[:, :, -1]):
        outside[rim.ravel()] = True
    outside[0] = False  # what is not air
    whole = ~outside[air]
    section = np.maximum(1, np.count_nonzero(whole, axis=(1, 2)))
    lung = np.count_nonzero(whole & (array < -500) & (array > -975), axis=(1, 2)) / section
    bone = np.count_nonzero(body & (array > 250), axis=(1, 2)) / section
    boxes = np.full((len(array), 4), -1)
    for first, along in ((0, 2), (2, 1)):
        lines = np.count_nonzero(whole, axis=along)  # (z, rows), then (z, columns)
        dense = lines > 0.15 * np.maximum(1, lines.max(axis=1, keepdims=True))
        there = dense.any(axis=1)
        boxes[there, first] = dense[there].argmax(axis=1)
        boxes[there, first + 1] = lines.shape[1] - 1 - dense[there, ::-1].argmax(axis=1)
    return boxes, lung, bone


def _opened(tissue: np.ndarray) -> np.ndarray:
    """Opening by a cross in each slice: a table's top is thin.  (scipy's takes most of the time of all this.)"""
    padded = np.pad(tissue, ((0, 0), (1, 1), (1, 1)))
    core = (
        padded[:, 1:-1, 1:-1] & padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    )
    out = core.copy()
    out[:, 1:] |= core[:, :-1]
    out[:, :-1] |= core[:, 1:]
    out[:, :, 1:] |= core[:, :, :-1]
    out[:, :, :-1] |= core[:, :, 1:]
    return out


LUNG_BEGINS = 0.12


def _ends(lung: np.ndarray) -> tuple[float | None, float | None]:
    """Coarse slices at which the share of lung passes `LUNG_BEGINS`, below and above its largest."""
    within = lung > LUNG_BEGINS
    if not within.any():
        return None, None
    top = int(np.argmax(lung))
    below = np.flatnonzero(~within[:top])
    above = np.flatnonzero(~within[top:])
    return (float(below[-1]) + 0.5 if below.size else None, float(top + above[0]) - 0.5 if above.size else None)


def to_json(rows: Iterable[Row], calibration: Calibration, about: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content; a number that is not known is null."""
    return {
        "format": FORMAT,
        "about": dict(about),
        "features": list(FEATURES),
        "calibration": vars(calibration),
        "rows": [
            {
                "name": row.name,
                "structure": row.structure,
                "scan": row.scan,
                "cut": row.traits.cut,
                "values": [
                    None if not np.isfinite(v := row.traits.values[f]) else round(float(v), 3) for f in FEATURES
                ],
            }
            for row in rows
        ],
    }


def from_json(stored: Any) -> Atlas:
    """What `to_json` gave.  Raises ValueError, KeyError or TypeError where it is anything else."""
    if stored["format"] != FORMAT or stored["features"] != list(FEATURES):
        raise ValueError("another atlas")
    rows = tuple(
        Row(str(r["name"]), str(r["structure"]), str(r["scan"]), Traits(_values(r["values"]), r["cut"] is True))
        for r in stored["rows"]
    )
    told = Calibration(**{k: float(v) for k, v in stored["calibration"].items()})
    if not np.isfinite(list(vars(told).values())).all() or told.temperature <= 0 or not 0.5 <= told.least <= 1:
        raise ValueError("a calibration that cannot be")
    if len({row.name for row in rows if row.name}) < 2:
        raise ValueError("no rows")
    return Atlas(rows, told)


def _values(stored: Sequence[float | None]) -> dict[str, float]:
    values = {f: np.nan if v is None else float(v) for f, v in zip(FEATURES, stored, strict=True)}
    if any(np.isinf(v) for v in values.values()) or any(np.isnan(values[f]) for f in (*PLACE[:4], *VALUE, *SIZE)):
        raise ValueError("a number is missing")
    return values


def read(path: Path) -> Atlas:
    """The atlas in a file.  Raises ModelMissing where it is not there or damaged."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelMissing(
            "The atlas that names segments is missing or damaged; `python app.py train atlas` makes it."
        ) from error


@cache
def shipped() -> Atlas:
    """The atlas that ships.  Raises ModelMissing."""
    return read(FILE)
