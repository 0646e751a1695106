"""Folders of labelled images → cases with a side, the one place that says what may be trained on and what is judged.

A case is a volume, its label map and the targets that a reader would click.  Sides are by patient, but for the demo CT,
one patient: its slices from `CUT_MM` upwards train, those below judge, as a scan of their own, so that no voxel of a
judged slice was ever seen.  Other cohorts that judge are other patients, or never train at all (the vertebra crops).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from core_models.errors import Refused
from core_models.foundation.split import Side, side
from core_models.study.intake import read_scan
from core_models.study.volume import Volume

CUT_MM = 132.0
Targets = dict[str, tuple[int, ...]]

DEMO_TARGETS: Targets = {
    "spleen": (1,),
    "stomach": (6,),
    "right kidney": (2,),
    "left kidney": (3,),
    "vertebra 31": (31,),
    "vertebra 32": (32,),
    "liver": (5,),
    "inferior vena cava": (63,),
    "lower aorta": (52,),
    "spinal cord": (79,),
    "autochthonous muscle": (86,),
    "rib 101": (101,),
    "rib 112": (112,),
    "left lung": (10, 11),
}
"""Label sets of the demo CT's map (TotalSegmentator v1 numbers); of each the largest part below `CUT_MM` is asked for.
Heart and trachea lie above it: they are on the training side."""

# What one structure is made of, where the map has its lobes: a fissure is not what a click means.
LUNGS: Targets = {"left lung": (10, 11), "right lung": (12, 13, 14)}
CARDIAC: Targets = {"right ventricle": (1,), "myocardium": (2,), "left ventricle": (3,)}
CHEST: Targets = {
    "right lung": (1,),
    "left lung": (2,),
    "heart": (4,),
    "right clavicle": (8,),
    "left clavicle": (16,),
}
KEPT_BACK = {"demo-ct": 1, "totalseg-example": 3}
"""Of these CTs' training sides the labels with this remainder by four do not train the click network: they tell
whether it is better on what trained it than it will be elsewhere."""
COHORTS = ("demo-ct", "totalseg-example", "tptbox", "acdc", "la2018", "jsrt")
MODALITY = {"demo-ct": "CT", "totalseg-example": "CT", "tptbox": "CT", "acdc": "MR", "la2018": "MR", "jsrt": "CR"}
"""By which the page would take its engine; one of tptbox's two crops is MR."""


@dataclass(frozen=True)
class Case:
    """One labelled scan.

    Attributes:
        cohort: one of COHORTS; `name`: unique in it.
        side: "train", "validation" or "test", by patient.
        load: reads the volume and its label map (z, y, x), integers on the same grid.
        targets: name → labels that make it up; None for every label of the map, each a target of its own.
        flags: labels are bit flags that may overlap (JSRT), not numbers.
    """

    cohort: str
    name: str
    side: Side
    load: Callable[[], tuple[Volume, np.ndarray]]
    targets: Targets | None = None
    flags: bool = False

    def mask(self, labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """bool (z, y, x) of a target."""
        return (labels & sum(values)) > 0 if self.flags else np.isin(labels, values)


def kept_back(case: Case, label: int) -> bool:
    """Whether a structure of the training side is kept from the network."""
    return case.cohort in KEPT_BACK and label % 4 == KEPT_BACK[case.cohort]


def cases(data: Path, demo: tuple[Path, Path] | None, vertebrae: Path | None = None) -> Iterator[Case]:
    """Every case at hand, in a fixed order.

    Args:
        data: the folder that holds one folder per cohort; a cohort that is not there gives no case.
        demo: the demo CT and its label map, where they were fetched.
        vertebrae: a folder that holds, at any depth, the crops of the `tptbox` package, where they were fetched.
    """
    if demo is not None:
        yield from _demo(*demo)
    yield from _totalseg(data / "totalseg-example")
    if vertebrae is not None:
        yield from _vertebrae(vertebrae)
    yield from _acdc(data / "acdc")
    yield from _la(data / "la2018")
    yield from _jsrt(data / "jsrt")


def _demo(scan: Path, labels: Path) -> Iterator[Case]:
    def part(lower: bool) -> tuple[Volume, np.ndarray]:
        volume, label_map = nifti(scan), nifti(labels)
        if volume.shape != label_map.shape:
            raise Refused("The demo CT and its label map have different sizes.")
        cut = int(np.ceil(CUT_MM / volume.spacing[0]))  # slices are equidistant from the lowest, at 0 mm
        kept = slice(0, cut) if lower else slice(cut, None)
        return sliced(volume, kept), np.ascontiguousarray(label_map.array[kept])

    yield Case("demo-ct", "demo-ct upper", "train", partial(part, False), None)
    yield Case("demo-ct", "demo-ct lower", "test", partial(part, True), DEMO_TARGETS)


def _totalseg(folder: Path) -> Iterator[Case]:
    scan, labels = folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz"
    if scan.is_file() and labels.is_file():
        yield Case("totalseg-example", "totalseg example", "train", lambda: (nifti(scan), nifti(labels).array), None)


def _vertebrae(folder: Path) -> Iterator[Case]:
    """CT and MR crops of `tptbox` with one number per vertebra (numbers from 100 are discs and endplates)."""
    for kind, scan, labels in (
        ("CT", "sub-ct_label-22_ct.nii.gz", "sub-ct_seg-vert_label-22_msk.nii.gz"),
        ("MR", "sub-mri_label-6_T2w.nii.gz", "sub-mri_seg-vert_label-6_msk.nii.gz"),
    ):
        image, map_ = (next(iter(sorted(folder.rglob(name))), None) for name in (scan, labels))
        if image is not None and map_ is not None:

            def load(image: Path = image, map_: Path = map_, kind: str = kind) -> tuple[Volume, np.ndarray]:
                volume = nifti(image)
                hounsfield = kind == "CT"
                return (
                    Volume(volume.array, volume.affine, kind, "HU" if hounsfield else "1"),
                    np.where(nifti(map_).array < 100, nifti(map_).array, 0),
                )

            yield Case("tptbox", f"vertebrae {kind}", "test", load, None)


def _acdc(folder: Path) -> Iterator[Case]:
    """Short-axis slices, each a picture of its own (the source turned some of them); no spacing is known."""
    if not (folder / "slices.csv").is_file():
        return
    with (folder / "slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image, mask = folder / "images" / f"{row['file']}.jpg", folder / "masks" / f"{row['file']}.png"
        if image.is_file() and mask.is_file():
            key = row["patient"]
            yield Case("acdc", row["file"], side(f"acdc:{key}", 25, 10), partial(_picture, image, mask, "MR"), CARDIAC)


def _la(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("la*.npz")):

        def load(path: Path = path) -> tuple[Volume, np.ndarray]:
            with np.load(path) as stored:
                image, labels = (np.ascontiguousarray(stored[k].transpose(2, 1, 0)) for k in ("image", "label"))
            # 0.625 mm as the challenge gave them, reduced twofold.
            return Volume(image, np.diag([1.25, 1.25, 1.25, 1.0]), "MR", "1"), labels

        yield Case("la2018", path.stem, side(f"la2018:{path.stem}", 20, 10), load, {"left atrium": (1,)})


def _jsrt(folder: Path) -> Iterator[Case]:
    """Radiographs, odd numbers train and even ones judge, as for the anatomy head."""
    for path in sorted((folder / "images").glob("JPC*.jpg")):
        mask = folder / "masks" / f"{path.stem}.png"
        if mask.is_file():
            number = int(path.stem[-3:])
            own: Side = "test" if number % 2 == 0 else "validation" if number % 20 == 9 else "train"
            yield Case("jsrt", path.stem, own, partial(_picture, path, mask, "CR"), CHEST, flags=True)


def _picture(image: Path, mask: Path, modality: str) -> tuple[Volume, np.ndarray]:
    with Image.open(image) as opened:
        values = np.asarray(opened.convert("L"))
    with Image.open(mask) as opened:
        labels = np.asarray(opened)
    if values.shape != labels.shape:
        raise Refused(f"The picture {image.stem} and its mask have different sizes.")
    return Volume(values[None].copy(), np.eye(4), modality, "1", spacing_known=False), labels[None].copy()


def nifti(path: Path) -> Volume:
    return read_scan(path)[0].series[0].volume


def sliced(volume: Volume, kept: slice) -> Volume:
    """The volume's slices `kept`, where they are in the patient."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (kept.start or 0)
    return Volume(
        np.ascontiguousarray(volume.array[kept]),
        affine,
        volume.modality,
        volume.unit,
        volume.spacing_known,
        volume.window,
        volume.layout,
    )
