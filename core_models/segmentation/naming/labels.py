"""Volume and mask → a *suggested* organ name, and the organs' names, report regions and SNOMED CT codes as data.

A suggestion is never asserted: it fills the name field for the reader to accept or type over.  It looks at values,
size, shape and place in the body only, against a small atlas and by rules, and answers "structure" where it cannot
tell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.segmentation.naming.atlas import Atlas


@dataclass(frozen=True)
class Organ:
    """One row: the name the reader sees, the report region, and its SNOMED CT code with the code's own meaning."""

    name: str
    region: str
    code: str
    meaning: str


UNNAMED = Organ("structure", "other", "91723000", "Anatomical structure")

TABLE: tuple[Organ, ...] = (
    UNNAMED,
    Organ("right lung", "lungs", "3341006", "Right lung"),
    Organ("left lung", "lungs", "44029006", "Left lung"),
    Organ("lung", "lungs", "39607008", "Lung"),
    Organ("right upper lobe", "lungs", "42400003", "Upper lobe of right lung"),
    Organ("right middle lobe", "lungs", "72481006", "Middle lobe of right lung"),
    Organ("right lower lobe", "lungs", "266005", "Lower lobe of right lung"),
    Organ("left upper lobe", "lungs", "44714003", "Upper lobe of left lung"),
    Organ("left lower lobe", "lungs", "41224006", "Lower lobe of left lung"),
    Organ("nodule", "lungs", "27925004", "Nodule"),
    Organ("mass", "other", "4147007", "Mass"),
    Organ("pleural effusion", "pleura", "60046008", "Pleural effusion"),
    Organ("trachea", "mediastinum", "44567001", "Trachea"),
    Organ("oesophagus", "mediastinum", "32849002", "Esophagus"),
    Organ("heart", "heart", "80891009", "Heart"),
    Organ("aorta", "mediastinum", "15825003", "Aorta"),
    Organ("pulmonary artery", "mediastinum", "81040000", "Pulmonary artery"),
    Organ("superior vena cava", "mediastinum", "48345005", "Superior vena cava"),
    Organ("inferior vena cava", "abdomen", "64131007", "Inferior vena cava"),
    Organ("portal vein", "abdomen", "32764006", "Portal vein"),
    Organ("lymph node", "mediastinum", "59441001", "Lymph node"),
    Organ("thyroid", "mediastinum", "69748006", "Thyroid gland"),
    Organ("liver", "abdomen", "10200004", "Liver"),
    Organ("spleen", "abdomen", "78961009", "Spleen"),
    Organ("right kidney", "abdomen", "9846003", "Right kidney"),
    Organ("left kidney", "abdomen", "18639004", "Left kidney"),
    Organ("right adrenal gland", "abdomen", "23451007", "Adrenal gland"),
    Organ("left adrenal gland", "abdomen", "23451007", "Adrenal gland"),
    Organ("stomach", "abdomen", "69695003", "Stomach"),
    Organ("gallbladder", "abdomen", "28231008", "Gallbladder"),
    Organ("pancreas", "abdomen", "15776009", "Pancreas"),
    Organ("duodenum", "abdomen", "38848004", "Duodenum"),
    Organ("small bowel", "abdomen", "30315005", "Small intestine"),
    Organ("colon", "abdomen", "71854001", "Colon"),
    Organ("urinary bladder", "abdomen", "89837001", "Urinary bladder"),
    Organ("prostate", "abdomen", "41216001", "Prostate"),
    Organ("uterus", "abdomen", "35039007", "Uterus"),
    Organ("vertebra", "bones", "51282000", "Vertebra"),
    Organ("rib", "bones", "113197003", "Rib"),
    Organ("sternum", "bones", "56873002", "Sternum"),
    Organ("right clavicle", "bones", "51299004", "Clavicle"),
    Organ("left clavicle", "bones", "51299004", "Clavicle"),
    Organ("right scapula", "bones", "79601000", "Scapula"),
    Organ("left scapula", "bones", "79601000", "Scapula"),
    Organ("sacrum", "bones", "54735007", "Sacrum"),
    Organ("right femur", "bones", "71341001", "Femur"),
    Organ("left femur", "bones", "71341001", "Femur"),
    Organ("spinal cord", "other", "2748008", "Spinal cord"),
    Organ("muscle", "other", "127954009", "Skeletal muscle"),
    Organ("brain", "other", "12738006", "Brain"),
)

ORGANS: tuple[str, ...] = tuple(organ.name for organ in TABLE if organ is not UNNAMED)
CODES: dict[str, tuple[str, str]] = {organ.name: (organ.code, organ.meaning) for organ in TABLE}
MORPHOLOGICAL = frozenset({"nodule", "mass", "pleural effusion"})  # abnormalities, not anatomy, in SEG and SR
_KNOWN = frozenset(
    form.lower().removesuffix("s")
    for organ in TABLE
    for name in (organ.name, organ.meaning)
    for form in (name, name.removeprefix("right ").removeprefix("left "))
    if organ is not UNNAMED
)
_REGIONS = {organ.name: organ.region for organ in TABLE}


def region_of(label: str) -> str:
    """The report region of a label, as in `drafting.evidence.REGIONS`; "other" for a name not in the table."""
    return _REGIONS.get(label.strip().lower(), UNNAMED.region)


def code_of(label: str) -> tuple[str, str]:
    """(SNOMED CT code, meaning) of a label; "Anatomical structure" for a name not in the table."""
    return CODES.get(label.strip().lower(), (UNNAMED.code, UNNAMED.meaning))


def is_known(name: str) -> bool:
    """Whether a name is an organ's of the table, also as its code's meaning, with its side behind it or as AAPM TG-263
    writes it ("Lung_L", "SpinalCord")."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower().split()
    side = {"l": "left", "r": "right", "left": "left", "right": "right"}.get(words[-1]) if len(words) > 1 else None
    plain = " ".join(words)
    turned = f"{side} {' '.join(words[:-1])}" if side else plain
    return any(form.removesuffix("s") in _KNOWN for form in (plain, turned))


@dataclass(frozen=True)
class Suggestion:
    """A name for the reader to accept or replace.

    Attributes:
        label: one of ORGANS, or "structure".
        confidence: 0 to 1; the atlas' share of belief, or a rule's own weight, not calibrated; 0 for "structure".
        basis: what the atlas looked at and how sure it is, for a person to read; "" for a rule's name and for none.
    """

    label: str
    confidence: float
    basis: str = ""


UNSURE = Suggestion(UNNAMED.name, 0.0)
SURE = 0.8  # weight of a rule that stands even where the atlas does not agree
MASK_VOXELS = 12_000  # a larger mask is thinned before it is measured
MOST = 0.99  # an atlas of two people is never surer


@dataclass(frozen=True)
class Traits:
    """What the rules look at.

    Attributes:
        value, spread: median HU of the mask and the robust spread around it.
        ml: volume.
        left: -1 at the body's right edge, 0 at its midline, +1 at its left edge.
        back: 0 at the body's front, 1 at its back.
        tall: extent along the body over the larger extent across it.
        lung_share: part of the body's cross-section that is air, at the mask's middle level.
        both_sides: whether the mask reaches past the midline by a tenth of the body's half-width on both sides.
    """

    value: float
    spread: float
    ml: float
    left: float
    back: float
    tall: float
    lung_share: float
    both_sides: bool


def suggest(volume: Volume, mask: Mask, atlas: Atlas | None = None) -> Suggestion:
    """Suggest a name for a CT segment; "structure" for anything else or when unsure.

    The atlas names first, but where the rules give another name that it believes too, that one stands.  Where it is
    unsure the rules' name stands, unless the atlas holds it for unlikely and the rule is none of the sure ones (a
    lung, a liver).

    Args:
        atlas: another than the one that ships.

    Raises:
        ModelMissing: the atlas that ships is missing or damaged.
    """
    if not _may_be_named(volume, mask):
        return UNSURE
    beliefs, known = believed(volume, mask, atlas)
    found = told(beliefs, known)
    if found.confidence > 1 - known.calibration.contests:
        return found
    ruled = by_rules(volume, mask)
    if found is not UNSURE:
        contested = ruled.label != found.label and beliefs.get(ruled.label, 0.0) >= known.calibration.contests
        return ruled if contested else found
    doubted = beliefs.get(ruled.label, 1.0) < known.calibration.agrees  # never a name that the atlas does not know
    return UNSURE if doubted and ruled.confidence < SURE else ruled


def believed(volume: Volume, mask: Mask, atlas: Atlas | None = None) -> tuple[dict[str, float], Atlas]:
    """What `Atlas.belief` says of a CT segment, empty where nothing can be measured, and the atlas.  Raises as
    `suggest`."""
    from core_models.segmentation.naming import atlas as module  # scipy is not loaded before a segment is named

    known = atlas or module.shipped()
    traits = module.traits(volume, mask)
    return ({} if traits is None else known.belief(traits)), known


def told(beliefs: dict[str, float], atlas: Atlas) -> Suggestion:
    """The atlas' name, or UNSURE."""
    best = max((name for name in beliefs if name), key=beliefs.__getitem__, default="")
    if not best or beliefs[best] < atlas.calibration.least:
        return UNSURE
    return Suggestion(best, beliefs[best], f"position, HU and shape, {100 * min(beliefs[best], MOST):.0f} %")


def by_rules(volume: Volume, mask: Mask) -> Suggestion:
    """The name that fixed rules for HU, size and place give, or "structure"; they know canonical volumes alone."""
    upright = np.diagonal(volume.affine)[:3] > 0.7 * np.linalg.norm(volume.affine[:3, :3], axis=0)
    traits = _traits(volume, mask) if upright.all() and _may_be_named(volume, mask) else None
    if traits is None:
        return UNSURE
    label, confidence = _rules(traits)
    return Suggestion(label, confidence) if confidence >= 0.3 else UNSURE


def _may_be_named(volume: Volume, mask: Mask) -> bool:
    return volume.unit == "HU" and volume.shape[0] >= 3 and volume.spacing_known and not mask.empty


def thinned(mask: Mask, count: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Every n-th voxel of a mask of `count`, about `MASK_VOXELS` of them, and the n of each axis (z, y, x)."""
    step = [1, 1, 1]
    while count / (step[0] * step[1] * step[2]) > MASK_VOXELS:
        step[int(np.argmax([n / s for n, s in zip(mask.voxels.shape, step, strict=True)]))] += 1
    return mask.voxels[:: step[0], :: step[1], :: step[2]], (step[0], step[1], step[2])


def _traits(volume: Volume, mask: Mask) -> Traits | None:
    """None when no body is found at the mask's level."""
    stride = max(1, round(4.0 / volume.spacing[2]))
    middle = mask.offset[0] + mask.voxels.shape[0] // 2
    body = _body(volume.array[middle, ::stride, ::stride])
    if body is None:
        return None
    (front, rear), (right, left), share = body
    count = mask.count
    thin, step = thinned(mask, count)
    places = np.argwhere(thin)
    if not len(places):
        return None
    places = places * step + np.asarray(mask.offset)
    values = volume.array[tuple(places.T)].astype(np.float32)
    value = float(np.median(values))
    depth, centre = places[:, 1].mean(), places[:, 2].mean()
    first, last = mask.offset[2], mask.offset[2] + mask.voxels.shape[2] - 1
    midline, half = stride * (left + right) / 2, max(1.0, stride * (left - right) / 2)
    height, rows, width = (n * s for n, s in zip(mask.voxels.shape, volume.spacing, strict=True))
    return Traits(
        value=value,
        spread=1.4826 * float(np.median(np.abs(values - value))),
        ml=count * volume.voxel_ml,
        left=float((centre - midline) / half),
        back=float((depth - stride * front) / max(1.0, stride * (rear - front))),
        tall=height / max(rows, width),
        lung_share=share,
        both_sides=bool(first < midline - 0.1 * half and last > midline + 0.1 * half),
    )


def _body(plane: np.ndarray) -> tuple[tuple[int, int], tuple[int, int], float] | None:
    """One axial plane → ((first, last row), (first, last column), share of air inside), or None without a body.

    Rows and columns count as body when a tenth of the densest one's soft tissue is in them: a table does not.
    """
    tissue = plane > -300
    if tissue.mean() < 0.02:
        return None
    rows, columns = tissue.sum(axis=1), tissue.sum(axis=0)
    y = np.flatnonzero(rows > 0.2 * rows.max())
    x = np.flatnonzero(columns > 0.2 * columns.max())
    inside = plane[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    # The corners of the box around an ellipse are outside air: lung is denser than that.
    air = float(((inside > -970) & (inside < -500)).mean())
    return (int(y[0]), int(y[-1])), (int(x[0]), int(x[-1])), air


def _rules(t: Traits) -> tuple[str, float]:
    """The first rule that fits; the weights say how often look-alikes share the same traits."""
    side = "left" if t.left > 0 else "right"
    if t.value < -500:
        if 3 <= t.ml <= 90 and abs(t.left) < 0.2 and t.value < -850 and t.tall > 1.2:
            return "trachea", 0.7
        if t.ml > 300:
            return ("lung", 0.6) if t.both_sides and t.ml > 2500 else (f"{side} lung", 0.9)
        return UNNAMED.name, 0.0
    kidney_like = 60 <= t.ml <= 350 and 0.45 < t.back < 0.8 and 0.3 < abs(t.left) < 0.62
    if kidney_like and 10 < t.value < 260 and (side == "right" or t.tall > 0.9):
        return f"{side} kidney", 0.5
    if 5 <= t.ml <= 400 and t.tall > 1.8 and abs(t.left) < 0.2 and 0.35 < t.back < 0.65 and 30 < t.value < 600:
        return ("aorta", 0.5) if t.left > -0.06 else ("inferior vena cava", 0.35)
    if 250 <= t.ml <= 1500 and t.lung_share > 0.2 and abs(t.left) < 0.4 and t.back < 0.6 and t.value > 10:
        return "heart", 0.5
    if t.value > 160 and t.spread > 60:
        if abs(t.left) < 0.15:
            return ("vertebra", 0.6) if t.back > 0.5 else ("sternum", 0.4)
        return ("rib", 0.5) if t.ml < 60 else (UNNAMED.name, 0.0)
    if not -20 < t.value < 300:
        return UNNAMED.name, 0.0
    if 500 <= t.ml <= 3500 and t.left < -0.1:
        return "liver", 0.8
    if 60 <= t.ml <= 900 and t.left > 0.4 and t.back > 0.45:
        return "spleen", 0.6
    if t.value < 25 and 8 <= t.ml <= 120 and t.left < -0.15 and t.back < 0.6:
        return "gallbladder", 0.4
    if 60 <= t.ml <= 1200 and t.left > 0.1 and t.back < 0.5 and t.lung_share < 0.2:
        return "stomach", 0.35
    return UNNAMED.name, 0.0
