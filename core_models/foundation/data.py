"""Folders of public images → pools of square pictures with everything that is known of them, split by patient.

Each source is one function; `SOURCES` registers it.  A pool never leaves the machine's memory: nothing is copied.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from core_models.errors import Refused
from core_models.foundation.images import open_grey
from core_models.foundation.labels import CONTEXT, FINDINGS, GATE, IGNORE, from_caption, from_nih
from core_models.foundation.split import Side, clusters, difference_hash, side, sides_of_clusters

Progress = Callable[[int, int, str], None]

MASK_NONE, MASK_ANATOMY, MASK_CARDIAC = 0, 1, 2
"""What a pool's masks are: JSRT bit flags (`labels.STRUCTURES`), or ACDC labels (1 to 3)."""


@dataclass(frozen=True)
class Pool:
    """Pictures of one source.

    Attributes:
        images: uint8 (n, size, size).
        keys: the patient of each, or the file where patients are unknown.
        sides: train, validation or test of each.
        usable: (n,) bool; False for pictures left out because a near twin is on a stricter side.
        findings, finding_weight: float32 (n, labels); weight 0 is unknown.
        context: float32 (n, 6), see `labels.CONTEXT`; gate: float32 (n, 4), IGNORE where unknown.
        captions: text of each, "" for none.
        masks: uint8 (n, size, size) or None, in the coding of `mask_kind`.
        columns: further columns of the source's table, as text.
    """

    name: str
    files: tuple[str, ...]
    images: np.ndarray
    keys: tuple[str, ...]
    sides: tuple[Side, ...]
    usable: np.ndarray
    findings: np.ndarray
    finding_weight: np.ndarray
    context: np.ndarray
    gate: np.ndarray
    captions: tuple[str, ...]
    masks: np.ndarray | None = None
    mask_kind: int = MASK_NONE
    has_mask: np.ndarray | None = None
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, wanted: Side) -> np.ndarray:
        """Row numbers of one side, twins left out."""
        return np.flatnonzero(self.usable & np.array([s == wanted for s in self.sides]))


def load(
    names: Sequence[str], root: Path, size: int, progress: Progress | None = None, limit: int = 0
) -> dict[str, Pool]:
    """Read the named sources and leave out near twins across sides, over all of them together.

    Args:
        root: folder that holds one folder per source.
        size: side of the square pictures.
        limit: only the first pictures of each source, for tests; 0 for all.

    Raises:
        Refused: a folder, a table or a column is not there.  A damaged image is left out and told through `progress`.
    """
    if not root.is_dir():
        raise Refused(f"The data folder {root.name!r} does not exist: name it with --data or in READING_ROOM_DATA.")
    pools = {}
    for name in names:
        if name not in SOURCES:
            raise Refused(f"There is no data source {name!r}; there are {', '.join(SOURCES)}.")
        pools[name] = SOURCES[name](root / name, size, progress or (lambda *_: None), limit)
    return leave_out_twins(pools)


def leave_out_twins(pools: dict[str, Pool]) -> dict[str, Pool]:
    """Mark as not usable what has a near twin on a stricter side, in the same pool or another."""
    order = list(pools.values())
    if not order:
        return pools
    hashes = np.stack([difference_hash(picture) for pool in order for picture in pool.images])
    own = [s for pool in order for s in pool.sides]
    strictest = sides_of_clusters(clusters(hashes), own)
    clash = np.array([a != b for a, b in zip(own, strictest, strict=True)])
    out, at = {}, 0
    for name, pool in pools.items():
        out[name] = replace(pool, usable=pool.usable & ~clash[at : at + len(pool)])
        at += len(pool)
    return out


def table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """A CSV's rows.

    Raises:
        Refused: the file is not there, is empty or lacks a column; the message names what was found.
    """
    if not path.is_file():
        raise Refused(f"The data folder {path.parent.name!r} has no {path.name}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
            columns = reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"{path.parent.name}/{path.name} is not a CSV file in UTF-8.") from error
    missing = [c for c in needed if c not in columns]
    if missing or not rows:
        found = ", ".join(columns[:8]) or "none"
        raise Refused(
            f"{path.parent.name}/{path.name} lacks the column(s) {', '.join(missing) or '(no rows)'}; it has {found}."
        )
    return rows


def context_row(view: str, age: str | float | None, sex: str) -> np.ndarray:
    """View, age in years and sex → (6,) as the encoder takes them; zeros where unknown."""
    out = np.zeros(len(CONTEXT), np.float32)
    view = view.strip().upper()
    if view.startswith(("AP", "PA")):
        out[0], out[1] = 1.0, float(view.startswith("AP"))
    try:
        years = float(age) if age not in (None, "") else -1.0
    except ValueError:
        years = -1.0
    if 0.0 <= years <= 120.0:
        out[2], out[3] = 1.0, years / 100.0
    if sex.strip().upper()[:1] in ("F", "M"):
        out[4], out[5] = 1.0, float(sex.strip().upper().startswith("F"))
    return out


@dataclass
class _Builder:
    """Collects rows; an image that cannot be read is left out with a word."""

    name: str
    size: int
    say: Progress
    total: int
    files: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)
    findings: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    context: list[np.ndarray] = field(default_factory=list)
    gate: list[np.ndarray] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    has_mask: list[bool] = field(default_factory=list)
    columns: list[dict[str, str]] = field(default_factory=list)

    def add(
        self,
        path: Path,
        key: str,
        own: Side,
        *,
        findings: tuple[np.ndarray, np.ndarray] | None = None,
        context: np.ndarray | None = None,
        gate: Sequence[float] = (IGNORE,) * len(GATE),
        caption: str = "",
        mask: np.ndarray | None = None,
        columns: dict[str, str] | None = None,
    ) -> None:
        try:
            picture = open_grey(path, self.size)
        except Refused as error:
            self.leave_out(error)
            return
        none = np.zeros(len(FINDINGS), np.float32)
        target, weight = findings or (none, none)
        self.files.append(path.stem)
        self.images.append(picture)
        self.keys.append(key)
        self.sides.append(own)
        self.findings.append(target)
        self.weights.append(weight)
        self.context.append(np.zeros(len(CONTEXT), np.float32) if context is None else context)
        self.gate.append(np.array(gate, np.float32))
        self.captions.append(caption)
        self.masks.append(np.zeros((self.size, self.size), np.uint8) if mask is None else mask)
        self.has_mask.append(mask is not None)
        self.columns.append(columns or {})
        self.say(len(self.files), self.total, self.name)

    def leave_out(self, error: Refused) -> None:
        self.say(len(self.files), self.total, f"left out: {error}")

    def pool(self, mask_kind: int = MASK_NONE) -> Pool:
        if not self.files:
            raise Refused(f"The data folder {self.name!r} holds no image that can be read.")
        names = self.columns[0]
        return Pool(
            name=self.name,
            files=tuple(self.files),
            images=np.stack(self.images),
            keys=tuple(self.keys),
            sides=tuple(self.sides),
            usable=np.ones(len(self.files), bool),
            findings=np.stack(self.findings),
            finding_weight=np.stack(self.weights),
            context=np.stack(self.context),
            gate=np.stack(self.gate),
            captions=tuple(self.captions),
            masks=np.stack(self.masks) if mask_kind else None,
            mask_kind=mask_kind,
            has_mask=np.array(self.has_mask) if mask_kind else None,
            columns={c: tuple(row[c] for row in self.columns) for c in names},
        )


def _mask(path: Path, size: int) -> np.ndarray:
    """A label PNG → (size, size) uint8, nearest pixel: flags and ignore values are not to be mixed."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((size, size), Image.Resampling.NEAREST))
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused(f"The mask {path.name} cannot be read.") from error


def _nih(folder: Path, size: int, say: Progress, limit: int) -> Pool:
    """NIH ChestX-ray14 images with labels, age, sex and view; split by patient, a quarter for the test."""
    needed = ("file", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
    rows = table(folder / "labels.csv", needed)
    build = _Builder("nih-cxr14-1000", size, say, len(rows))
    for row in rows[: limit or None]:
        key = row["Patient ID"]
        view, sex, age = row["View Position"], row["Patient Gender"], row["Patient Age"]
        build.add(
            _beside(folder / "images", f"{os.path.splitext(row['file'])[0]}.jpg"),
            key,
            side(f"nih:{key}", 25, 13),
            findings=(from_nih(row["Finding Labels"]), np.ones(len(FINDINGS), np.float32)),
            context=context_row(view, age, sex),
            gate=(1.0, 1.0, 0.0, 0.0),
            columns={"view": view, "sex": sex, "age": age},
        )
    return build.pool()


def _jsrt(folder: Path, size: int, say: Progress, limit: int) -> Pool:
    """JSRT radiographs with masks of lungs, heart and clavicles: odd numbers train, even numbers test."""
    paths = sorted((folder / "images").glob("*.*")) if folder.is_dir() else []
    if not paths:
        raise Refused("The data folder 'jsrt' has no images.")
    build = _Builder("jsrt", size, say, len(paths))
    for path in paths[: limit or None]:
        digits = re.sub(r"\D", "", path.stem)
        if not digits:
            continue
        number = int(digits)
        own: Side = "test" if number % 2 == 0 else "validation" if number % 20 == 9 else "train"
        try:
            mask = _mask((folder / "masks" / path.name).with_suffix(".png"), size)
        except Refused as error:
            build.leave_out(error)
            continue
        build.add(path, path.stem, own, gate=(1.0, 1.0, 0.0, 0.0), mask=mask)
    return build.pool(MASK_ANATOMY)


_LATERAL = re.compile(r"\blateral (?:chest |view|radiograph|x-?ray|film|projection)", re.IGNORECASE)
_FRONTAL = re.compile(r"\b(?:PA|AP|postero-?anterior|antero-?posterior|frontal)\b", re.IGNORECASE)


def _rocov2(folder: Path, size: int, say: Progress, limit: int) -> Pool:
    """Chest radiographs of publications with their captions; no patients are known, so near twins are left out."""
    rows = table(folder / "captions.csv", ("file", "caption"))
    build = _Builder("rocov2-cxr", size, say, len(rows))
    for row in rows[: limit or None]:
        caption = " ".join(row["caption"].split())
        lateral, frontal = bool(_LATERAL.search(caption)), bool(_FRONTAL.search(caption))
        view = IGNORE if lateral == frontal else float(frontal)
        build.add(
            _beside(folder / "images", row["file"]),
            row["file"],
            side(f"rocov2:{row['file']}", 10, 7),
            findings=from_caption(caption),
            gate=(1.0, view, 0.0, 0.0),
            caption=caption,
        )
    return build.pool()


_COVID_COLUMNS = (
    "finding", "view", "modality", "age", "sex", "survival", "temperature", "pO2_saturation", "leukocyte_count",
    "neutrophil_count", "lymphocyte_count", "clinical_notes", "offset",
)  # fmt: skip


def _covid(folder: Path, size: int, say: Progress, limit: int) -> Pool:
    """COVID radiographs (and some CT slices) with notes and laboratory values; split by patient."""
    rows = table(folder / "metadata.csv", ("patientid", "small_file", *_COVID_COLUMNS))
    build = _Builder("covid-chestxray", size, say, len(rows))
    pneumonia = np.array([float(label.name == "Pneumonia") for label in FINDINGS], np.float32)
    for row in rows[: limit or None]:
        name = row["small_file"] or row.get("filename", "")
        radiograph = row["modality"] == "X-ray"
        frontal = row["view"] in ("PA", "AP", "AP Supine")
        known = radiograph and row["finding"] not in ("", "todo")
        sick = known and row["finding"] != "No Finding"
        # A patient's pneumonia is known for all of the pictures, its other signs are not.
        weight = np.ones(len(FINDINGS), np.float32) if known and not sick else pneumonia * 0.5
        build.add(
            _beside(folder / "images", name),
            row["patientid"],
            side(f"covid:{row['patientid']}", 30, 10),
            findings=(pneumonia * sick, weight * known) if known else None,
            context=context_row(row["view"], row["age"], row["sex"]),
            gate=(float(radiograph), float(frontal) if radiograph else 0.0, IGNORE if not radiograph else 0.0, 0.0),
            columns={c: row[c] for c in _COVID_COLUMNS},
        )
    return build.pool()


def _beside(folder: Path, name: str) -> Path:
    """A file that a table names; never outside its folder (a link inside it is its owner's choice).  Raises Refused."""
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise Refused(f"A table names a file outside its folder: {path.name!r}.")
    return path


def _acdc(folder: Path, size: int, say: Progress, limit: int) -> Pool:
    """Short-axis cine MR slices with ventricles and myocardium (1, 2, 3); split by patient."""
    rows = table(folder / "slices.csv", ("file", "patient"))
    build = _Builder("acdc", size, say, len(rows))
    for row in rows[: limit or None]:
        path = _beside(folder / "images", f"{row['file']}.jpg")
        if not path.is_file():  # held-out patients are not at hand
            continue
        try:
            mask = _mask(_beside(folder / "masks", f"{row['file']}.png"), size)
        except Refused as error:
            build.leave_out(error)
            continue
        key = row["patient"]
        build.add(path, key, side(f"acdc:{key}", 25, 10), gate=(0.0, 0.0, IGNORE, IGNORE), mask=mask)
    return build.pool(MASK_CARDIAC)


SOURCES: dict[str, Callable[[Path, int, Progress, int], Pool]] = {
    "rocov2-cxr": _rocov2,
    "nih-cxr14-1000": _nih,
    "jsrt": _jsrt,
    "covid-chestxray": _covid,
    "acdc": _acdc,
}
