"""Labelled CTs → how often a suggested name is right, wrong and withheld, beside the rules alone.

The atlas is fitted anew for each comparison, without what is judged.  Judged are the masks as they were labelled, the
default engine's answer to one click in each, and balls where no structure is: those should get no name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core_models.errors import Refused
from core_models.segmentation import cohorts, registry
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.judging import reader
from core_models.segmentation.metrics import dice, together
from core_models.segmentation.naming import labels, train_atlas
from core_models.segmentation.naming.atlas import Atlas
from core_models.study.volume import Volume

Progress = Callable[[int, int, str], None]
CLICKED = 15  # structures of a scan that are clicked
BALLS = 60  # of a scan
BALL_MM = (5.0, 25.0)  # radius
CLICKS = (1, 3)
LEAST_DICE = 0.5  # an answer that overlaps less is told apart: it is no longer that structure
SEED = 0
DRAWN, BALL, MISSED = "labelled", "ball", ", Dice below .5"
KINDS = (DRAWN, "1 click", f"1 click{MISSED}", "3 clicks", f"3 clicks{MISSED}", BALL)
NAMERS = ("rules", "atlas", "suggest")


@dataclass(frozen=True)
class Judged:
    """One mask to name; `name` "" where no name is right."""

    kind: str
    name: str
    structure: str
    volume: Volume
    mask: Mask


@dataclass(frozen=True)
class Comparison:
    """Scans that the atlas is fitted on, the scan that is judged, and whether that is another patient."""

    fitted: tuple[str, ...]
    judged: str
    other_patient: bool


UPPER, LOWER = "demo-ct upper", "demo-ct lower"
COMPARISONS = (
    Comparison((UPPER, train_atlas.EXAMPLE), LOWER, False),
    Comparison((train_atlas.DEMO,), train_atlas.EXAMPLE, True),
    Comparison((train_atlas.EXAMPLE,), train_atlas.DEMO, True),
)


def run(data: Path, demo: tuple[Path, Path] | None, say: Progress = lambda done, total, text: None) -> dict[str, Any]:
    """Name everything that is to be judged.

    Returns:
        {"figures": for each comparison, kind of mask and namer how many were named right, named wrong and not named
        with their shares; "calibration": for masks of structures, by band of the atlas' confidence how many were right;
        "wrong": what the suggestion called wrong}

    Raises:
        Refused: one of the two CTs is not here.
    """
    every = {name: (volume, label_map) for name, volume, label_map in train_atlas.scans(data, demo)}
    if len(every) < 2:
        raise Refused("Names are judged on the demo CT (`make run` fetches it) and totalseg-example in --data.")
    for case in cohorts.cases(data, demo):
        if case.name in (UPPER, LOWER):
            every[case.name] = case.load()
    rows = {name: list(train_atlas.rows(*scan, name)) for name, scan in every.items()}
    figures, sure, wrong = [], [], []
    for number, one in enumerate(COMPARISONS):
        say(number, len(COMPARISONS), one.judged)
        atlas = train_atlas.fit([row for name in one.fitted for row in rows[name]])
        masks = list(_masks(every[one.judged], atlas.names))
        own = [(m, _named(atlas, m)) for m in masks]
        figures += list(_figures(one, own))
        for mask, found in own:
            if mask.name and not mask.kind.endswith(MISSED):
                sure.append((*found["atlas"], mask.name))
            if (label := found["suggest"][0]) and label != mask.name:
                told = {"masks": mask.kind, "structure": mask.structure, "name": mask.name, "called": label}
                wrong.append({"judged": one.judged} | told)
    say(len(COMPARISONS), len(COMPARISONS), "")
    return {"figures": figures, "calibration": _calibration(sure), "wrong": wrong}


def _masks(scan: tuple[Volume, np.ndarray], names: Sequence[str]) -> Iterator[Judged]:
    volume, label_map = scan
    for name, structure, mask in train_atlas.structures(label_map):
        if mask.count * volume.voxel_ml >= train_atlas.LEAST_ML and (not name or name in names):
            yield Judged(DRAWN, name, structure, volume, mask)
    for answer in answers(volume, label_map, names):
        kind = f"{answer.clicks} click{'s' if answer.clicks > 1 else ''}"
        missed = MISSED if answer.dice < LEAST_DICE else ""
        yield Judged(kind + missed, answer.name, answer.structure, volume, answer.mask)
    yield from _balls(volume)


@dataclass(frozen=True)
class Answer:
    """The default engine's answer to some clicks in a structure, and the Dice it reached."""

    name: str
    structure: str
    clicks: int
    dice: float
    mask: Mask


def answers(volume: Volume, label_map: np.ndarray, names: Sequence[str]) -> Iterator[Answer]:
    """Answers to one click and to three, as `reader` sets them, in one structure of each name, `CLICKED` at most."""
    chosen: dict[str, list[tuple[str, Mask]]] = {}
    for name, structure, mask in train_atlas.structures(label_map):
        # Nobody clicks both lungs at once; a piece that small is a structure's end at the scan's rim.
        if name in names and name != "lung" and mask.count * volume.voxel_ml >= train_atlas.LEAST_ML:
            chosen.setdefault(name, []).append((structure, mask))
    every = [(name, *own[len(own) // 2]) for name, own in chosen.items()]
    engine = registry.engine_for(volume)
    prepared = engine.prepare(volume)
    for name, structure, mask in every[:CLICKED]:
        target = Mask.from_full(reader.largest_part(mask.full()))
        clicks: list[Click] = []
        answer: Mask | None = None
        for number in range(1, CLICKS[-1] + 1):
            click = reader.next_click(target, answer, volume.spacing)
            if click is None:
                break
            clicks.append(click)
            answer = engine.segment(prepared, tuple(clicks)).mask
            if number in CLICKS and not answer.empty:
                yield Answer(name, structure, number, dice(*together(target, answer)[1]), answer)


def _balls(volume: Volume) -> Iterator[Judged]:
    """Balls in what is not air, drawn with a fixed seed."""
    rng = np.random.default_rng(SEED)
    spacing = np.asarray(volume.spacing)
    number = 0
    while number < BALLS:
        centre = np.array([rng.integers(n) for n in volume.shape])
        radius = float(rng.uniform(*BALL_MM))
        if volume.array[tuple(centre)] < -200:
            continue
        low = np.maximum(0, centre - np.ceil(radius / spacing).astype(int))
        high = np.minimum(volume.shape, centre + np.ceil(radius / spacing).astype(int) + 1)
        mesh = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)
        inside = (((mesh - centre) * spacing) ** 2).sum(-1) <= radius**2
        number += 1
        yield Judged(BALL, "", f"ball {number}", volume, Mask(tuple(int(v) for v in low), inside, volume.shape))


def _named(atlas: Atlas, mask: Judged) -> dict[str, tuple[str, float]]:
    """Namer → (name or "", confidence)."""
    found = {
        "rules": labels.by_rules(mask.volume, mask.mask),
        "atlas": labels.told(*labels.believed(mask.volume, mask.mask, atlas)),
        "suggest": labels.suggest(mask.volume, mask.mask, atlas),
    }
    return {k: ("" if v.label == labels.UNNAMED.name else v.label, v.confidence) for k, v in found.items()}


def _figures(one: Comparison, own: Sequence[tuple[Judged, dict[str, tuple[str, float]]]]) -> Iterator[dict[str, Any]]:
    kinds = [(kind, named) for kind in KINDS for named in (True, False)]
    for kind, named in kinds:
        masks = [(m, f) for m, f in own if m.kind == kind and bool(m.name) is named]
        for namer in NAMERS if masks else ():
            called = [(m.name, f[namer][0]) for m, f in masks]
            right = sum(bool(name) and name == label for name, label in called)
            wrong = sum(bool(label) and name != label for name, label in called)
            yield {
                "fitted": list(one.fitted),
                "judged": one.judged,
                "other_patient": one.other_patient,
                "masks": kind if named or kind == BALL else f"{kind}, of what has no name",
                "namer": namer,
                "n": len(masks),
                "right": right,
                "wrong": wrong,
                "unnamed": len(masks) - right - wrong,
                "share_right": round(right / len(masks), 3),
                "share_wrong": round(wrong / len(masks), 3),
            }


def _calibration(sure: Sequence[tuple[str, float, str]]) -> list[dict[str, Any]]:
    """Names that the atlas told, by its confidence."""
    out = []
    for low, high in ((0.55, 0.7), (0.7, 0.9), (0.9, 1.01)):
        band = [(label == name, share) for label, share, name in sure if label and low <= share < high]
        if band:
            out.append(
                {
                    "from": low,
                    "to": min(high, 1.0),
                    "n": len(band),
                    "told": round(float(np.mean([s for _, s in band])), 3),
                    "right": round(float(np.mean([r for r, _ in band])), 3),
                }
            )
    return out
