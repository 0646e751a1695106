"""Labelled CTs → the rows of the atlas, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core_models.errors import Refused
from core_models.segmentation.cohorts import nifti
from core_models.segmentation.engine import Mask
from core_models.segmentation.naming import atlas
from core_models.segmentation.naming.atlas import Atlas, Row
from core_models.study.volume import Volume

Progress = Callable[[int, int, str], None]
LEAST_ML = 0.5  # a smaller piece at a scan's rim tells nothing
EXAMPLE = "totalseg-example"
DEMO = "demo-ct"

# TotalSegmentator's numbers (v2) of what has one label and one name, and of what a reader calls by one name.
SINGLE: dict[int, str] = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "liver",
    6: "stomach",
    7: "pancreas",
    8: "right adrenal gland",
    9: "left adrenal gland",
    15: "oesophagus",
    16: "trachea",
    17: "thyroid",
    18: "small bowel",
    19: "duodenum",
    20: "colon",
    21: "urinary bladder",
    22: "prostate",
    25: "sacrum",
    **dict.fromkeys(range(26, 51), "vertebra"),
    51: "heart",
    52: "aorta",
    62: "superior vena cava",
    63: "inferior vena cava",
    64: "portal vein",
    71: "left scapula",
    72: "right scapula",
    73: "left clavicle",
    74: "right clavicle",
    75: "left femur",
    76: "right femur",
    79: "spinal cord",
    **dict.fromkeys(range(80, 90), "muscle"),
    90: "brain",
    **dict.fromkeys(range(92, 116), "rib"),
    116: "sternum",
}
JOINED: dict[str, tuple[int, ...]] = {"left lung": (10, 11), "right lung": (12, 13, 14), "lung": (10, 11, 12, 13, 14)}
LEFT_OUT = (10, 11, 12, 13, 14, 23, 24)
"""Lobes, since a click takes a lung and a fissure is seldom seen; cysts of the kidneys, here of a few voxels."""


def structures(label_map: np.ndarray) -> Iterator[tuple[str, str, Mask]]:
    """(name or "", the source's number, mask) of everything that a TotalSegmentator map labels."""
    present = [int(v) for v in np.flatnonzero(np.bincount(label_map.ravel())) if v]
    for number in present:
        if number not in LEFT_OUT:
            yield SINGLE.get(number, ""), str(number), Mask.from_full(label_map == number)
    for name, numbers in JOINED.items():
        if set(numbers) & set(present):
            yield name, "+".join(map(str, numbers)), Mask.from_full(np.isin(label_map, numbers))


def rows(volume: Volume, label_map: np.ndarray, scan: str) -> Iterator[Row]:
    """The rows of one labelled CT.  (Rows of what clicks give did not name more of another patient's masks.)"""
    for name, structure, mask in structures(label_map):
        if mask.count * volume.voxel_ml >= LEAST_ML and (found := atlas.traits(volume, mask)) is not None:
            yield Row(name, structure, scan, found)


def scans(data: Path, demo: tuple[Path, Path] | None) -> Iterator[tuple[str, Volume, np.ndarray]]:
    """(name, volume, label map) of the labelled CTs at hand, whole."""
    folder = data / EXAMPLE
    pairs = {DEMO: demo, EXAMPLE: (folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz")}
    for name, pair in pairs.items():
        if pair is not None and all(p.is_file() for p in pair):
            volume, label_map = (nifti(p) for p in pair)
            if volume.shape != label_map.shape:
                raise Refused("A CT of the atlas and its label map have different sizes.")
            yield name, volume, label_map.array.astype(np.uint16)


def fit(every: list[Row]) -> Atlas:
    """The atlas of some rows, with the fixed calibration."""
    return Atlas(tuple(every), atlas.CALIBRATION)


def run(data: Path, demo: tuple[Path, Path] | None, out: Path, say: Progress) -> dict[str, Any]:
    """Write the atlas of the labelled CTs to `out`.

    Returns:
        {"scans": name → number of rows, "names": number of them, "file"}

    Raises:
        Refused: one of the two CTs is not here: an atlas of one has half of the structures.
    """
    found: list[Row] = []
    counts: dict[str, int] = {}
    for name, volume, label_map in scans(data, demo):
        say(len(counts), 2, name)
        own = list(rows(volume, label_map, name))
        counts[name] = len(own)
        found += own
    if len(counts) < 2:
        raise Refused("The atlas needs the demo CT (`make run` fetches it) and totalseg-example in the --data folder.")
    say(2, 2, "")
    about = {
        "scans": counts,
        "terms": "assets/segmentation/README.md",
        "command": "python app.py train atlas",
    }
    out.mkdir(parents=True, exist_ok=True)
    target = out / atlas.FILE.name
    stored = atlas.to_json(found, atlas.CALIBRATION, about)
    lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in stored.pop("rows"))
    target.write_text(json.dumps(stored, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n", encoding="utf-8")
    return {"scans": counts, "names": len(fit(found).names), "file": target.name}
