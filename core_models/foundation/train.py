"""A recipe and pools → trained weights, in steps that can be stopped and gone on with.

One process on a CPU, or several on GPUs under `accelerate launch` / `torchrun`: the same code (bf16 autocast, gradient
accumulation and DDP are accelerate's).  What is kept is an exponential average of the weights (Polyak, Juditsky, 1992).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core_models.errors import Refused
from core_models.foundation.data import Pool
from core_models.foundation.model import TASKS, FoundationModel, new_encoder
from core_models.foundation.recipe import Recipe, Stage
from core_models.foundation.sampler import Sampler
from core_models.foundation.text import frozen_similarity_vectors

Log = Callable[[str], None]
Judge = Callable[[FoundationModel, int], dict[str, float]]
WARM_UP = 40
CLIP = 5.0
STATE, WEIGHTS, AVERAGE, OPTIMISER = "state.json", "model.safetensors", "average.safetensors", "optimizer.pt"
MEMORY = "memory.safetensors"
"""Random state and what tasks remember of earlier steps; a checkpoint without it goes on, with other random numbers."""


def train(
    recipe: Recipe,
    pools: dict[str, Pool],
    folder: Path,
    *,
    resume: bool = False,
    log: Log = print,
    judge: Judge | None = None,
    judge_every: int = 200,
    stop_after: int | None = None,
    model: FoundationModel | None = None,
) -> tuple[FoundationModel, dict[str, Any]]:
    """Train and return the averaged model with a summary (steps, seconds, losses, judgements).

    Args:
        folder: for checkpoints.
        judge: (averaged model, step) → figures on validation, logged.
        stop_after: stop at this step as an interruption would, checkpoint written.
        model: what to train; None builds the recipe's.

    Raises:
        Refused: a task of the recipe that the model lacks; a checkpoint that is damaged or of another recipe or
            architecture; a loss that is not finite - the last checkpoint stays.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        # A batch without captions or masks leaves a task's tensors out.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.accumulate,
        cpu=not torch.cuda.is_available(),
    )
    torch.manual_seed(recipe.seed)
    model = model or FoundationModel(new_encoder(recipe.start), tuple(recipe.tasks), recipe.dimensions)
    lacking = [name for name in recipe.tasks if name not in model.tasks]
    if lacking:
        raise Refused(f"The recipe trains the task {lacking[0]!r}, which the model lacks: add it with `add_task`.")
    # Whatever any stage trains has its place in the optimiser; what a stage freezes has no gradient there.
    model.encoder.freeze(min(recipe.freeze if s.freeze is None else s.freeze for s in recipe.stages))
    model.to(accelerator.device)
    average = {k: v.detach().clone().float() for k, v in model.trained().items() if v.is_floating_point()}
    optimiser = torch.optim.AdamW(_groups(model, recipe), betas=(0.9, 0.98))
    begun, seconds, judged, recent, random = 0, 0.0, [], {}, None
    if resume and (folder / STATE).is_file():
        state = _restore(folder, recipe, model, average, optimiser)
        begun, seconds, judged = state["step"], state["seconds"], state["judged"]
        recent, random = state.get("recent", {}), state["random"]
        log(f"resumed at step {begun} of {recipe.steps}")
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    text = model.tasks["contrastive"].text if "contrastive" in model.tasks else None
    like = {n: frozen_similarity_vectors(p.captions) for n, p in pools.items() if text is not None and any(p.captions)}
    step, started = 0, time.monotonic()
    if random is not None:  # after all that draws while it is being built
        torch.set_rng_state(random)
    for stage in recipe.stages:
        first, step = step, step + stage.steps
        if begun >= step:
            continue
        sampler = Sampler(
            {n: pools[n] for n in stage.rows} | {n: p for n, p in pools.items() if n == "acdc" and stage.altered},
            stage,
            recipe.seed,
            text.tokens if text is not None else None,
            like,
            _pseudo(model, average, pools, stage, log, folder, begun <= first),
            accelerator.process_index,
            accelerator.num_processes,
        )
        model.encoder.freeze(recipe.freeze if stage.freeze is None else stage.freeze)
        if "contrastive" in model.tasks:
            model.tasks["contrastive"].remember(stage.queue)
        for number in range(max(begun, first), step):
            wrapped.train()
            _set_rates(optimiser, recipe, stage, number - first)
            batch = _moved(sampler.batch(number), accelerator.device)
            with accelerator.accumulate(wrapped):
                losses = wrapped(batch)
                if stage.tasks:
                    losses = {name: loss for name, loss in losses.items() if name in stage.tasks}
                if not losses:
                    raise Refused(
                        f"Nothing can be learnt at step {number}: no source of the stage has labels for its tasks."
                    )
                total = sum(recipe.tasks[name] * loss for name, loss in losses.items())
                if not torch.isfinite(torch.as_tensor(total)):
                    words = _words({name: loss.item() for name, loss in losses.items()})
                    raise Refused(
                        f"The loss is not finite at step {number} ({words}): the checkpoint before it stays; "
                        "go on with --resume and a lower rate."
                    )
                accelerator.backward(total)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(wrapped.parameters(), CLIP)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            _blend(average, model, min(recipe.average, (1 + number) / (10 + number)))
            for name, loss in losses.items():
                recent[name] = 0.95 * recent.get(name, loss.item()) + 0.05 * loss.item()
            done = number + 1
            if accelerator.is_main_process:
                if done % 20 == 0 or done == recipe.steps:
                    spent = seconds + time.monotonic() - started
                    log(f"step {done}/{recipe.steps} size {stage.size} {_words(recent)} {spent:.0f} s")
                stop = stop_after is not None and done >= stop_after
                if done % recipe.checkpoint_every == 0 or done == recipe.steps or stop:
                    spent = seconds + time.monotonic() - started
                    _store(folder, recipe, model, average, optimiser, done, spent, judged, recent)
                if judge is not None and (done % judge_every == 0 or done == recipe.steps):
                    figures = judge(averaged(model, average), done)  # after the checkpoint: it may fail, steps are dear
                    judged.append({"step": done, **figures})
                    _note(folder, judged)
                    log(f"validation at {done}: {_words(figures)}")
                if stop:
                    return model, {"steps": done, "stopped": True}
    summary = {
        "steps": recipe.steps,
        "seconds": round(seconds + time.monotonic() - started, 1),
        "losses": {k: round(v, 4) for k, v in recent.items()},
        "validation": judged,
        "recipe": asdict(recipe),
        "recipe_digest": recipe.digest,
    }
    return averaged(model, average), summary


def averaged(model: FoundationModel, average: dict[str, torch.Tensor]) -> FoundationModel:
    """A second model with the averaged weights, in evaluation mode; what is never trained is shared."""
    import copy

    kept = model.trained()
    shared = {id(v): v for k, v in model.state_dict(keep_vars=True).items() if k not in kept}
    twin = copy.deepcopy(model, shared)
    own = twin.state_dict()
    with torch.no_grad():
        for name, value in average.items():
            own[name].copy_(value.to(own[name].dtype))
    return twin.eval()


def _groups(model: FoundationModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Trunk and text encoder learn slower than new layers; norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trunk = name.startswith("encoder.") and not name.startswith("encoder.context")
            groups.setdefault((trunk, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": 0.0, "weight_decay": recipe.decay if decays else 0.0, "trunk": trunk}
        for (trunk, decays), parameters in groups.items()
    ]


def _set_rates(optimiser: Any, recipe: Recipe, stage: Stage, step: int) -> None:
    """Warm up, then a cosine to a fiftieth, in each stage."""
    warm = min(1.0, (step + 1) / min(WARM_UP, max(1, stage.steps // 10)))
    rate = stage.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, stage.steps))))
    for group in optimiser.param_groups:
        group["lr"] = rate * (stage.trunk_rate if group["trunk"] else 1.0)


@torch.no_grad()
def _blend(average: dict[str, torch.Tensor], model: FoundationModel, decay: float) -> None:
    own = model.trained()
    for name, value in average.items():
        value.lerp_(own[name].detach().float(), 1 - decay)


def _moved(batch: Any, device: torch.device) -> Any:
    if device.type == "cpu":
        return batch
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            setattr(batch, name, value.to(device, non_blocking=True))
        elif isinstance(value, dict):
            setattr(batch, name, {k: v.to(device) for k, v in value.items()})
    return batch


def _pseudo(
    model: FoundationModel,
    average: dict[str, torch.Tensor],
    pools: dict[str, Pool],
    stage: Stage,
    log: Log,
    folder: Path,
    anew: bool,
) -> dict[str, torch.Tensor]:
    """Masks for pictures that have none, by the averaged model as it is at the stage's start.

    They are kept beside the checkpoint, so that a run resumed within the stage has the same.  A picture whose masks
    look like no chest is given none (all zeros).

    Args:
        anew: the stage begins now: masks of an earlier stage or run do not count.
    """
    out = {}
    for name in stage.pseudo:
        file = folder / f"pseudo-{name}-{stage.size}.safetensors"
        if anew or not file.is_file():
            from core_models.foundation.anatomy import pseudo_masks

            log(f"masks for {name}")
            folder.mkdir(parents=True, exist_ok=True)
            masks = pseudo_masks(averaged(model, average), pools[name], stage.size)
            save_file({"masks": masks}, file.with_suffix(".new"))
            os.replace(file.with_suffix(".new"), file)  # whole, or not there
        out[name] = load_file(file)["masks"]
    return out


def _store(
    folder: Path,
    recipe: Recipe,
    model: FoundationModel,
    average: dict[str, torch.Tensor],
    optimiser: Any,
    step: int,
    seconds: float,
    judged: list[dict[str, float]],
    recent: dict[str, float],
) -> None:
    """Write a checkpoint beside the old one, then swap: a crash leaves one that is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    new, old = folder / "new", folder / "last"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    save_file({k: v.detach().contiguous() for k, v in model.trained().items()}, new / WEIGHTS)
    save_file(average, new / AVERAGE)
    torch.save(optimiser.state_dict(), new / OPTIMISER)
    save_file(_memory(model), new / MEMORY)
    state = {
        "step": step,
        "seconds": seconds,
        "recipe": recipe.digest_to(step),
        "judged": judged,
        "checkpoint": f"at-{step}",
    }
    state["recent"] = recent
    target = folder / state["checkpoint"]
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    (folder / "state.new").write_text(json.dumps(state), encoding="utf-8")
    os.replace(folder / "state.new", folder / STATE)
    for other in folder.glob("at-*"):
        if other.name != state["checkpoint"]:
            shutil.rmtree(other, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _note(folder: Path, judged: list[dict[str, float]]) -> None:
    """Put judgements into the state that stands: they come after the checkpoint that they judge."""
    if (folder / STATE).is_file():
        state = json.loads((folder / STATE).read_text(encoding="utf-8")) | {"judged": judged}
        (folder / "state.new").write_text(json.dumps(state), encoding="utf-8")
        os.replace(folder / "state.new", folder / STATE)


def _restore(
    folder: Path, recipe: Recipe, model: FoundationModel, average: dict[str, torch.Tensor], optimiser: Any
) -> dict[str, Any]:
    """Load the last checkpoint.  Raises Refused where it is damaged, or of another recipe or architecture."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["recipe"] != recipe.digest_to(int(state["step"])):
            raise Refused("The checkpoint was made by another recipe: train without --resume, or with that recipe.")
        at = folder / state["checkpoint"]
        weights, kept = load_file(at / WEIGHTS), load_file(at / AVERAGE)
        moments = torch.load(at / OPTIMISER, map_location="cpu", weights_only=True)
        memory = load_file(at / MEMORY) if (at / MEMORY).is_file() else {}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise Refused("The checkpoint is damaged: train without --resume.") from error
    own = model.trained()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise Refused("The checkpoint is of another architecture than the recipe's model.")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
        for name, value in kept.items():
            average[name].copy_(value)
    try:
        optimiser.load_state_dict(moments)
    except (ValueError, KeyError) as error:
        raise Refused("The checkpoint's optimiser is of another architecture than the recipe's model.") from error
    state["random"] = memory.pop("random", None)
    for name, value in memory.items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, value)
    return state


def _memory(model: FoundationModel) -> dict[str, torch.Tensor]:
    """What decides the next steps beside weights and moments: torch's random state, the tasks' unsaved buffers."""
    saved = set(model.state_dict())
    unsaved = {k: v.detach().clone() for k, v in model.tasks.named_buffers(prefix="tasks") if k not in saved}
    return unsaved | {"random": torch.get_rng_state()}


def _words(figures: dict[str, Any]) -> str:
    return " ".join(f"{k} {float(v):.3f}" for k, v in figures.items())


__all__ = ["TASKS", "averaged", "train"]
