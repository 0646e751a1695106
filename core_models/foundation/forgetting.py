"""A trained model and slices of CT and MR → what radiographs lose when each modality is added, beside the lazy way.

A radiograph passes no expert, so what experts cost it is exactly nothing by construction; that is checked to the last
bit, and it says little alone.  So the lazy way, training the whole trunk on each modality in turn for as many steps on
the same batches, is measured beside it, and what either way gains on the new modality over a head on the frozen trunk.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core_models.foundation.data import Pool, Progress, load
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.experts import expert_of
from core_models.foundation.judge import validate
from core_models.foundation.model import FoundationModel
from core_models.foundation.sampler import plain
from core_models.foundation.slices import Slices, ct_slices, mr_slices, read_ct
from core_models.foundation.train import averaged
from core_models.foundation.train_experts import (
    FOLDER,
    ExpertRecipe,
    Log,
    Way,
    fit,
    load_expert,
    new_head,
    overlap,
    save_expert,
    train_expert,
)

SIGNED = 48
"""Test radiographs of each source whose outputs are compared to the last bit."""
FIGURES = {
    "auroc": "findings AUROC",
    "lungs": "lungs Dice",
    "heart": "heart Dice",
    "clavicles": "clavicles Dice",
    "recall@10": "image→text recall@10",
}
RADIOGRAPHS = ("nih-cxr14-1000", "jsrt", "rocov2-cxr")
EXAMPLE = ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
STORE_SIZE, SLICE_SIZE = 384, 192
WAYS: dict[Way, str] = {"expert": "expert", "frozen": "head alone", "whole": "whole trunk"}
MODALITY = "DX"


@torch.inference_mode()
def signature(encoder: RadiographEncoder, pools: dict[str, Pool], size: int) -> str:
    """SHA-256 of all that the encoder answers for test radiographs, sent through the router."""
    sha = hashlib.sha256()
    for _, pool in sorted(pools.items()):
        rows = pool.rows("test")[:SIGNED]
        for start in range(0, len(rows), 16):
            out = encoder(plain(pool, rows[start : start + 16], size), expert=expert_of(MODALITY))
            for answer in (out.last_hidden_state, out.pooler_output, *out.pyramid):
                sha.update(answer.contiguous().numpy().tobytes())
    return sha.hexdigest()


def measure(
    model: FoundationModel,
    slices: tuple[Slices, ...],
    pools: dict[str, Pool],
    size: int,
    recipe: ExpertRecipe | None = None,
    folder: Path | None = FOLDER,
    log: Log = lambda _: None,
) -> dict[str, Any]:
    """Add each modality in turn, in both ways, and measure after each.

    Args:
        model: the trained model; it gets the experts, and is otherwise as it was.
        slices: the modalities in the order in which they are added.
        pools: radiographs; the test side is what is measured.
        size: side of the radiographs.
        folder: where the experts' weights go; None keeps none.

    Raises:
        Conflict: the model has one of the experts already.  Refused: a loss that is not finite.
    """
    recipe, began = recipe or ExpertRecipe(), time.monotonic()
    model.eval().requires_grad_(False)
    trunk = sum(p.numel() for p in model.encoder.parameters())
    lazy = averaged(model, {})  # a copy
    before, signed = validate(model, pools, size, "test"), signature(model.encoder, pools, size)
    log(f"radiographs before: {_words(before)}")
    out: dict[str, Any] = {
        "radiograph": {"before": before, "experts": {}, "lazy": {}},
        "bitwise_equal": {},
        "modalities": {},
        "parameters": {"trunk": trunk},
    }
    heads: dict[str, dict[str, torch.nn.Module]] = {"expert": {}, "whole": {}}
    for one in slices:
        frozen = new_head(model.encoder, one, recipe.seed)
        fit(model.encoder, frozen, one, recipe, "frozen", log)
        dice = {"frozen": overlap(model.encoder, frozen, one, recipe.size, None)}
        heads["expert"][one.name] = train_expert(model.encoder, one, recipe, log)
        dice["expert"] = overlap(model.encoder, heads["expert"][one.name], one, recipe.size, one.name)
        heads["whole"][one.name] = new_head(lazy.encoder, one, recipe.seed)
        fit(lazy.encoder, heads["whole"][one.name], one, recipe, "whole", log)
        dice["whole"] = overlap(lazy.encoder, heads["whole"][one.name], one, recipe.size, None)
        out["modalities"][one.name] = {
            "dice": dice,
            "train_slices": len(one.rows("train")),
            "test_slices": len(one.rows("test")),
            "test_keys": len({one.keys[r] for r in one.rows("test")}),
        }
        out["bitwise_equal"][one.name] = signature(model.encoder, pools, size) == signed
        out["radiograph"]["experts"][one.name] = validate(model, pools, size, "test")
        out["radiograph"]["lazy"][one.name] = validate(lazy, pools, size, "test")
        log(f"{one.name} Dice: {_words({w: d['mean'] for w, d in dice.items()})}")
        log(f"radiographs after {one.name}, lazy: {_words(out['radiograph']['lazy'][one.name])}")
        if folder is not None:
            save_expert(model.encoder, heads["expert"][one.name], one, recipe.size, folder)
    out["at_the_end"] = {
        one.name: {
            "expert": overlap(model.encoder, heads["expert"][one.name], one, recipe.size, one.name)["mean"],
            "whole": overlap(lazy.encoder, heads["whole"][one.name], one, recipe.size, None)["mean"],
        }
        for one in slices
    }
    own = model.encoder.experts.adapters
    out["parameters"] |= {
        "expert": sum(p.numel() for p in own[slices[0].name].parameters()),
        "head": sum(p.numel() for p in heads["expert"][slices[0].name].parameters()),
    }
    out |= {"recipe": asdict(recipe), "size": size, "seconds": round(time.monotonic() - began, 1)}
    if folder is not None:
        (folder / "README.md").write_text(card(out), encoding="utf-8")
    return out


def gather(
    root: Path, scans: dict[str, tuple[Path, Path]], progress: Progress | None = None
) -> tuple[tuple[Slices, ...], dict[str, Pool]]:
    """The data at hand → (CT and MR slices, in the order in which they are added; radiographs).

    Args:
        root: the data folder; `totalseg-example` is taken from it where it is there.
        scans: name → (CT, its label map) of further labelled CTs, such as the demo scan's.

    Raises:
        Refused: a source is not there, or no labelled CT.
    """
    example = tuple(root / "totalseg-example" / name for name in EXAMPLE)
    named = scans | ({"totalseg-example": example} if all(path.is_file() for path in example) else {})
    volumes = [read_ct(name, *paths) for name, paths in named.items()]
    slices = (ct_slices(volumes, SLICE_SIZE), mr_slices(load(["acdc"], root, SLICE_SIZE)["acdc"]))
    return slices, load(RADIOGRAPHS, root, STORE_SIZE, progress)


def run(
    root: Path,
    weights_folder: Path,
    scans: dict[str, tuple[Path, Path]],
    size: int,
    recipe: ExpertRecipe | None = None,
    folder: Path | None = None,
    log: Log = lambda _: None,
) -> dict[str, Any]:
    """The shipped model and the data at hand → `measure`'s result; `folder` keeps the experts, None none.

    Raises:
        ModelMissing: no trained model.  Refused: data that is not there, or a loss that is not finite.
    """
    from core_models.foundation import weights

    slices, pools = gather(root, scans)
    return measure(weights.load(weights_folder, text=True), slices, pools, size, recipe, folder, log)


def check(
    model: FoundationModel, slices: tuple[Slices, ...], pools: dict[str, Pool], size: int, folder: Path = FOLDER
) -> dict[str, Any]:
    """The kept experts on the model they were trained on: Dice again, and whether radiographs are answered the same.

    Trains nothing.  Raises ModelMissing, Refused or Conflict as `load_expert`.
    """
    signed, dice = signature(model.encoder, pools, size), {}
    for one in slices:
        expert = load_expert(model.encoder, one.name, folder)
        dice[one.name] = overlap(model.encoder, expert.head, one, expert.size, expert.name)
    return {"dice": dice, "bitwise_equal": signature(model.encoder, pools, size) == signed}


def forgotten(result: dict[str, Any], way: str) -> dict[str, float]:
    """By how much each radiograph figure fell from before to after the last modality; way is "experts" or "lazy"."""
    before = result["radiograph"]["before"]
    last = list(result["radiograph"][way].values())[-1]
    return {name: before[name] - last[name] for name in FIGURES if name in before}


def markdown(result: dict[str, Any]) -> str:
    """Two tables: what radiographs keep, what the new modality gains."""
    radiograph, steps = result["radiograph"], [n.upper() for n in result["radiograph"]["lazy"]]
    columns = ["before"] + [f"{w}, after {s}" for s in steps for w in ("experts", "whole trunk")]
    lines = [f"| Radiographs (test side) | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for key, words in FIGURES.items():
        if key in radiograph["before"]:
            values = [radiograph["before"][key]]
            for name in radiograph["lazy"]:
                values += [radiograph["experts"][name][key], radiograph["lazy"][name][key]]
            lines.append(f"| {words} | {' | '.join(f'{v:.3f}' for v in values)} |")
    lines += ["", f"| New modality, Dice | {' | '.join(WAYS.values())} |", "|---" * (1 + len(WAYS)) + "|"]
    for name, one in result["modalities"].items():
        for structure in one["dice"]["expert"]:
            values = " | ".join(f"{one['dice'][way][structure]:.3f}" for way in WAYS)
            lines.append(f"| {name.upper()}: {structure} | {values} |")
        kept = result["at_the_end"][name]
        lines.append(f"| {name.upper()}: mean, after all | {kept['expert']:.3f} | | {kept['whole']:.3f} |")
    same = all(result["bitwise_equal"].values())
    lines += [
        "",
        f"Radiographs pass no expert, so with experts nothing can be forgotten; their outputs are "
        f"{'equal to the last bit' if same else '**not** equal'}.  The whole trunk was trained on each modality in "
        f"turn, {result['recipe']['steps']} steps each, on the same batches.",
        "",
        f"On the new modality the adapters add {_gains(result)} of mean Dice to a head alone on the frozen trunk, in "
        "one run of one seed: where that is hardly anything, it is the head that segments, on the trunk as it is.",
    ]
    return "\n".join(lines)


def _gains(result: dict[str, Any]) -> str:
    """ "CT +0.006, MR -0.001": the expert's mean Dice less the head's alone."""
    dice = {name: one["dice"] for name, one in result["modalities"].items()}
    return ", ".join(f"{n.upper()} {d['expert']['mean'] - d['frozen']['mean']:+.3f}" for n, d in dice.items())


def card(result: dict[str, Any]) -> str:
    """The card that goes with the experts' weights."""
    counts = "; ".join(
        f"{name.upper()}: {one['train_slices']} training and {one['test_slices']} test slices of {one['test_keys']} "
        f"{'patients' if name == 'mr' else 'volumes'}"
        for name, one in result["modalities"].items()
    )
    parameters, recipe = result["parameters"], result["recipe"]
    return f"""# Experts by modality

Adapters on the shared image encoder (`../encoder`) for slices of CT and of MR, each with a segmentation head.

- **What**: one residual bottleneck a stage and modality, {parameters["expert"]:,} parameters beside the trunk's
  {parameters["trunk"]:,}, and a decoder of {parameters["head"]:,}; float16 safetensors.  Each file names the trunk that
  it fits and is refused on another.
- **Tasks**: MR: right ventricle, myocardium and left ventricle on short-axis cine slices.  CT: lungs, heart, liver,
  spleen, kidneys and aorta on axial slices in the abdominal window.
- **Data**: MR: ACDC (Bernard et al., IEEE TMI 2018; the challenge's terms), split by patient.  CT: a chest CT of
  LIDC-IDRI (CC BY 3.0) and TotalSegmentator's example CT (Apache-2.0), whose masks a model made; both are split into
  slabs with a gap.  {counts}.
- **Recipe**: `python app.py evaluate experts --record`; {recipe["steps"]} steps of {recipe["batch"]} slices of
  {recipe["size"]} pixels each, AdamW, the trunk frozen with its running statistics, seed {recipe["seed"]}.
  The rate and the head's start were chosen on slices held out of the training side, after a first run with a lower
  rate had missed the small organs.
- **Limits**: the CT figures are of unseen slabs of seen volumes, not of unseen patients.  Slices are read one by one.
  There is no expert for other modalities, and they are refused.
- **Not for**: clinical use.

{markdown(result)}
"""


def plot(result: dict[str, Any]) -> str:
    """An SVG: left the radiograph figures over the modalities added, right the Dice of the new ones by way."""
    radiograph, colours = result["radiograph"], ("#2563a8", "#b45309", "#15803d", "#7c3aed", "#be123c")
    points = ["before", *[f"+ {n.upper()}" for n in radiograph["lazy"]]]
    x, y = np.linspace(60, 300, len(points)), lambda v: 210 - 180 * max(0.0, min(1.0, v))
    parts = [_text(x[i], 230, label) for i, label in enumerate(points)] + _axis(40, 320, y)
    shown = [k for k in FIGURES if k in radiograph["before"]]
    for number, key in enumerate(shown):
        for way, dash in (("experts", ""), ("lazy", ' stroke-dasharray="4 3"')):
            values = [radiograph["before"][key], *[one[key] for one in radiograph[way].values()]]
            line = " ".join(f"{a:.1f},{y(v):.1f}" for a, v in zip(x, values, strict=True))
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colours[number]}" stroke-width="2"{dash}/>')
        parts.append(_text(40 + 140 * (number % 2), 252 + 16 * (number // 2), FIGURES[key], "start", colours[number]))
    parts.append(_text(40, 300, "solid: experts; dashed: the whole trunk trained", "start"))
    at = 390.0
    parts += _axis(370, 620, y)
    for name, one in result["modalities"].items():
        for number, way in enumerate(WAYS):
            value = one["dice"][way]["mean"]
            parts.append(
                f'<rect x="{at:.0f}" y="{y(value):.1f}" width="30" height="{210 - y(value):.1f}" '
                f'fill="{colours[number]}"/>' + _text(at + 15, y(value) - 4, f"{value:.2f}")
            )
            at += 34
        parts.append(_text(at - 53, 230, f"{name.upper()} Dice"))
        at += 26
    for number, words in enumerate(WAYS.values()):
        parts.append(_text(370 + 90 * number, 252, words, "start", colours[number]))
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 310" width="640" height="310" role="img" '
        f'font-family="sans-serif" font-size="11"><title>Forgetting</title>\n'
        f'<rect width="640" height="310" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _axis(left: int, right: int, y: Any) -> list[str]:
    lines = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        lines.append(f'<line x1="{left}" x2="{right}" y1="{y(value)}" y2="{y(value)}" stroke="#ddd"/>')
        lines.append(_text(left - 4, y(value) + 4, f"{value:g}", "end"))
    return lines


def _text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#333") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def _words(figures: dict[str, float]) -> str:
    return " ".join(f"{k} {v:.3f}" for k, v in figures.items())
