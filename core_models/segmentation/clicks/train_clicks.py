"""Labelled scans → the click network's weights: simulated readers, round after round on the network's own answers."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from core_models.errors import Refused
from core_models.segmentation import cohorts
from core_models.segmentation.clicks import click_net, click_samples, cues, running, train_choice
from core_models.segmentation.clicks.click_net import ClickNet, Config
from core_models.segmentation.clicks.click_samples import Sample, Sampler, Source

Log = Callable[[str], None]
FOLDER = Path(__file__).resolve().parents[3] / "assets" / "segmentation"
ROUNDS = (0.35, 0.25, 0.2, 0.1, 0.1)  # how often a cube is trained on its first, second, ... answer
SPOILT = 0.25  # of later answers start from one that no network gave
MENDED = 0.3  # of answers to finish get a click on what is wrong with them first
FORGOTTEN = 0.15  # of later answers do not see the earlier clicks: they lie outside the cube
SMOOTH = 0.998  # of the running mean of the weights, which is what is kept
CLIP = 5.0
# Layers have a half to an eighth of a cube's side; where one is two voxels deep, the bfloat16 gradient of its kernel is
# garbage (oneDNN of torch 2.14.1).  Pictures are one voxel deep and quick in float32 too.
DEEP_ENOUGH = 24
EVERY = 200  # steps between checkpoints


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        steps: cubes, each with up to four targets.
        start: SHA-256 of the weights that it goes on from, whose width is taken; "" for none.  No file may name it.
        deep: as in `Config`; what goes on from fewer residual pairs begins with pairs that add nothing yet.
        rate: peak learning rate, after `warm` steps, then falling by a cosine to a fiftieth.
        limit: cases of one cohort, for a quick look; 0 for all.
        readers: so many click each structure of the CTs before the training, and what the classical engine answers them
            is to be finished; 0 for none.
    """

    steps: int = 12_000
    rate: float = 2e-3
    decay: float = 0.01
    warm: int = 100
    seed: int = 0
    width: int = 24
    deep: int = Config.deep
    limit: int = 0
    readers: int = 0
    start: str = ""


def recipe_from(path: Path | None) -> Recipe:
    """The recipe of a TOML file, or the one that ships.

    Raises:
        Refused: no such file, not TOML, or a key that is none of a recipe's.
    """
    if path is None:
        return Recipe()
    try:
        told = tomllib.loads(path.read_text())
        if "start" in told:
            raise ValueError("weights to go on from are a folder, named by --from")
        return Recipe(**told)
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"The recipe {path.name!r} cannot be read: {error}.") from error


def run(
    data: Path,
    demo: tuple[Path, Path] | None,
    out: Path,
    work: Path,
    config: Path | None,
    *,
    start: Path | None = None,
    resume: bool,
    threads: int,
    say: Callable[[int, int, str], None],
    log: Log,
) -> dict:
    """Train by a recipe and write weights, config and training.json to `out`; returns what training.json says.

    Args:
        data: the folder of cohorts; `demo`: the demo CT and its labels, where they were fetched.
        work: folder of the checkpoint.
        start: a folder of weights to go on from, with a fresh optimiser.

    Raises:
        ModelMissing: no weights in `start`.
        Refused: nothing to train on, a recipe or checkpoint that does not fit, or a loss that is not finite.
    """
    recipe = recipe_from(config)
    first = None if start is None else click_net.load(start)
    if first is not None:
        recipe = replace(recipe, start=click_net.digest(start), width=first.config.width)
    torch.set_num_threads(threads)
    scans = sources(data, demo, recipe.limit, say, recipe.readers, recipe.seed)
    trained = train(scans, recipe, work, resume, log, first)
    net = trained.net
    counts: dict[str, int] = {}
    for scan in scans:
        counts[scan.cohort] = counts.get(scan.cohort, 0) + 1
    facts = {
        "recipe": asdict(recipe),
        "scans": counts,
        "parameters": click_net.parameters(net),
        "loss": round(trained.loss, 4),
        "seconds": round(trained.seconds),
        "threads": threads,
        "arithmetic": "bfloat16, float32 for pictures" if net.bfloat16 else "float32",
    }
    ship(net, facts, work)  # as it will run
    found = train_choice.pairs(cohorts.cases(data, demo), running.load(work), say)
    chooser, figures = train_choice.fit(found)
    facts["choice"] = figures
    digest = ship(net, facts, out)
    train_choice.ship(chooser, out)
    return facts | {"sha256": digest}


def sources(
    data: Path,
    demo: tuple[Path, Path] | None,
    limit: int,
    say: Callable[[int, int, str], None],
    readers: int = 0,
    seed: int = 0,
) -> list[Source]:
    """The training side of every cohort, without the structures that are kept back, ready to sample.

    Args:
        readers, seed: as in `Recipe`.

    Raises:
        Refused: there is none.
    """
    chosen: list[cohorts.Case] = []
    counts: dict[str, int] = {}
    for case in cohorts.cases(data, demo):
        counts[case.cohort] = counts.get(case.cohort, 0) + (case.side == "train")
        if case.side == "train" and (not limit or counts[case.cohort] <= limit):
            chosen.append(case)
    found = []
    for number, case in enumerate(chosen):
        say(number, len(chosen), case.cohort)
        one = click_samples.source(case, lambda label, case=case: not cohorts.kept_back(case, label), readers, seed)
        if one is not None:
            found.append(one)
    if not found:
        raise Refused("There is no labelled scan to train on: name their folder with --data, or fetch the demo scans.")
    return found


@dataclass(frozen=True)
class Trained:
    """The network of averaged weights, the last tenth's mean loss, and what the steps took, stopped runs included."""

    net: ClickNet
    loss: float
    seconds: float


def train(
    scans: Sequence[Source], recipe: Recipe, work: Path, resume: bool, log: Log, first: ClickNet | None = None
) -> Trained:
    """Train, or go on.

    Args:
        work: folder of the checkpoint.
        first: what to begin with, of the recipe's width and no deeper; random weights where none is given.

    Raises:
        Refused: a loss that is not finite, a checkpoint of another recipe, or a deeper network to begin with.
    """
    torch.manual_seed(recipe.seed)
    net = ClickNet(Config(width=recipe.width, deep=recipe.deep)).train()
    if first is not None:
        _begin(net, first)
    short = click_net.has_bfloat16()
    mean = ClickNet(net.config).eval()
    mean.bfloat16 = short
    mean.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    sampler = Sampler(scans, recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    start, losses, before = _resumed(work, recipe, net, mean, optimiser) if resume else (0, [], 0.0)
    scores: list[tuple[int, float]] = []
    began = time.monotonic()
    for step, sample in enumerate(sampler.rows(start, recipe.steps), start):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * _schedule(step, recipe)
        net.bfloat16 = short and min(sample.cube.shape[1:]) >= DEEP_ENOUGH
        loss, score, rounds = _loss(net, sample, np.random.default_rng((recipe.seed, step, 999)))
        if not torch.isfinite(loss):
            raise Refused(f"The click network's loss is not finite at step {step}: take a lower rate.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if not torch.isfinite(nn.utils.clip_grad_norm_(net.parameters(), CLIP)):
            raise Refused(f"The click network's gradient is not finite at step {step}: take a lower rate.")
        optimiser.step()
        smooth = min(SMOOTH, (step + 1) / (step + 20))
        with torch.no_grad():
            for a, b in zip(mean.parameters(), net.parameters(), strict=True):
                a.lerp_(b, 1 - smooth)
        losses.append(float(loss.detach()))
        scores.append((rounds, score))
        if (step + 1) % 50 == 0:
            by = [np.mean([s for r, s in scores[-400:] if r == n] or [np.nan]) for n in range(len(ROUNDS) + 1)]
            log(
                f"step {step + 1}/{recipe.steps} loss {np.mean(losses[-50:]):.3f} dice finished {by[0]:.3f}, by click "
                f"{' '.join(f'{d:.3f}' for d in by[1:])} {(time.monotonic() - began) / (step + 1 - start):.2f} s/step"
            )
        if (step + 1) % EVERY == 0 or step + 1 == recipe.steps:
            seconds = before + time.monotonic() - began
            _keep(work, recipe, step + 1, net, mean, optimiser, losses, seconds)
    return Trained(mean, float(np.mean(losses[-max(1, recipe.steps // 10) :])), before + time.monotonic() - began)


def _begin(net: ClickNet, first: ClickNet) -> None:
    """Take the weights of a network of the same width; residual pairs that it lacks keep theirs, which add nothing."""
    if net.load_state_dict(first.state_dict(), strict=False).unexpected_keys:
        raise Refused("The weights to go on from are of a deeper network than the recipe's: give it their `deep`.")


def _schedule(step: int, recipe: Recipe) -> float:
    share = step / max(1, recipe.steps)
    return min(1.0, (step + 1) / recipe.warm) * (0.02 + 0.49 * (1 + np.cos(np.pi * share)))


def _loss(net: ClickNet, sample: Sample, rng: np.random.Generator) -> tuple[torch.Tensor, float, int]:
    """The loss of one cube's targets at a random round, the mean Dice there, and the round (0: what was to be finished,
    else 1 to 5)."""
    features, embedding = net.encode(sample.cube[None])
    count = len(sample.targets)
    inside: list[list[np.ndarray]] = [[p] for p in sample.first]
    outside: list[list[np.ndarray]] = [[] for _ in range(count)]
    before = torch.zeros((count, *sample.targets.shape[1:]))
    tissue = list(sample.tissue)
    rounds = 1 + int(rng.choice(len(ROUNDS), p=ROUNDS))
    flat = sample.targets.shape[1] == cues.FLAT[0]
    if sample.begun is not None:
        rounds = 0
        inside, outside = ([list(p) for p in side] for side in (sample.begun.inside, sample.begun.outside))
        before = torch.from_numpy(sample.begun.before).clone()
        for n in range(count):
            fix = click_samples.correction(sample.targets[n], (before[n] > 0.5).numpy(), False)
            if fix is not None and rng.random() < MENDED:
                (inside if fix[1] else outside)[n].append(fix[0])
                if fix[1]:
                    tissue[n] = torch.maximum(tissue[n], _tissue(sample, [fix[0]]))
    for turn in range(rounds - 1):
        with torch.no_grad():
            logits, _ = net.decode(
                features.detach().expand(count, -1, -1, -1, -1),
                _cues(sample, embedding.detach(), inside, outside, before, tissue),
            )
        for n in range(count):
            answer = logits[n, 0].sigmoid()
            if turn == 0 and rng.random() < SPOILT:
                answer = torch.from_numpy(click_samples.spoilt(sample.targets[n], rng)).float()
            before[n] = answer
            fix = click_samples.correction(sample.targets[n], (answer > 0.5).numpy(), flat)
            if fix is None:
                continue
            if turn == rounds - 2 and rng.random() < FORGOTTEN:
                inside[n], outside[n], tissue[n] = [], [], torch.zeros_like(tissue[n])
            (inside if fix[1] else outside)[n].append(fix[0])
            if fix[1]:
                tissue[n] = torch.maximum(tissue[n], _tissue(sample, [fix[0]]))
    logits, quality = net.decode(
        features.expand(count, -1, -1, -1, -1), _cues(sample, embedding, inside, outside, before, tissue)
    )
    targets = torch.from_numpy(sample.targets).float()
    probabilities = logits[:, 0].sigmoid()
    overlap = (probabilities * targets).sum((1, 2, 3))
    sums = (probabilities + targets).sum((1, 2, 3))
    soft = 1 - (2 * overlap + 1) / (sums + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits[:, 0], targets)
    with torch.no_grad():
        hard = probabilities > 0.5
        scores = 2 * (hard & (targets > 0)).sum((1, 2, 3)) / (hard.sum((1, 2, 3)) + targets.sum((1, 2, 3))).clamp(min=1)
    expected = functional.binary_cross_entropy_with_logits(quality, scores)
    return soft.mean() + entropy + 0.1 * expected, float(scores.mean()), rounds


def _cues(
    sample: Sample,
    embedding: torch.Tensor,
    inside: list[list[np.ndarray]],
    outside: list[list[np.ndarray]],
    before: torch.Tensor,
    tissue: list[torch.Tensor],
) -> torch.Tensor:
    def points(some: list[np.ndarray]) -> np.ndarray:
        return np.stack(some) if some else np.zeros((0, 3), np.float32)

    found = []
    for adding, removing, so_far, maps in zip(inside, outside, before, tissue, strict=True):
        sides = points(adding), points(removing)
        told = torch.from_numpy(
            cues.cues(sample.cube.numpy(), embedding[0].detach().numpy(), *sides, so_far.numpy(), maps.numpy())
        )
        # The embedding is learned through these two.
        alike = torch.stack([_alike(embedding[0], side) for side in sides])
        found.append(torch.cat([told[: cues.ALIKE], alike, told[cues.ALIKE + 2 :]]))
    return torch.stack(found)


def _alike(embedding: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """As `cues.cues` has it."""
    shape = embedding.shape[1:]
    if not len(points):
        return torch.full(shape, -1.0)
    clicked = torch.stack([embedding[(slice(None), *v)] for v in cues.voxels((points - 0.5) / 2, shape)])
    return (clicked @ embedding.flatten(1)).amax(0).view(shape)


def _tissue(sample: Sample, points: list[np.ndarray]) -> torch.Tensor:
    return click_samples.tissue_of(sample.cube, sample.hounsfield, np.stack(points), sample.step)


def _keep(
    work: Path,
    recipe: Recipe,
    step: int,
    net: ClickNet,
    mean: ClickNet,
    optimiser: torch.optim.Optimizer,
    losses: list[float],
    seconds: float,
) -> None:
    """A checkpoint, replaced whole."""
    state = {f"net.{k}": v for k, v in net.state_dict().items()} | {
        f"mean.{k}": v for k, v in mean.state_dict().items()
    }
    for n, p in enumerate(net.parameters()):
        for key in ("exp_avg", "exp_avg_sq"):
            state[f"optimiser.{n}.{key}"] = optimiser.state[p][key]
    facts = {
        "recipe": json.dumps(asdict(recipe)),
        "step": str(step),
        "seconds": str(seconds),
        "losses": json.dumps(losses[-recipe.steps // 10 :]),
    }
    save_file({k: v.detach().contiguous().clone() for k, v in state.items()}, work / "next.safetensors", facts)
    (work / "next.safetensors").replace(work / "checkpoint.safetensors")


def _resumed(
    work: Path, recipe: Recipe, net: ClickNet, mean: ClickNet, optimiser: torch.optim.Optimizer
) -> tuple[int, list[float], float]:
    """The step to go on at, the losses so far, and the seconds that they took."""
    from safetensors import safe_open

    path = work / "checkpoint.safetensors"
    if not path.is_file():
        return 0, [], 0.0
    with safe_open(path, "pt") as stored:
        facts = stored.metadata()
    if json.loads(facts["recipe"]) != asdict(recipe):
        raise Refused("The checkpoint is of another recipe; train without --resume to begin anew.")
    state = load_file(path)
    net.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("net.")})
    mean.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("mean.")})
    step = int(facts["step"])
    for n, p in enumerate(net.parameters()):
        optimiser.state[p] = {
            "step": torch.tensor(float(step)),
            "exp_avg": state[f"optimiser.{n}.exp_avg"],
            "exp_avg_sq": state[f"optimiser.{n}.exp_avg_sq"],
        }
    return step, json.loads(facts["losses"]), float(facts["seconds"])


def ship(net: ClickNet, facts: dict, folder: Path = FOLDER) -> str:
    """Write weights, config and what is known of the training; returns the weights' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "click_net.safetensors")
    (folder / "config.json").write_text(click_net.saved_config(net.config))
    digest = click_net.digest(folder)
    (folder / "training.json").write_text(json.dumps(facts | {"sha256": digest}, indent=1) + "\n")
    return digest
