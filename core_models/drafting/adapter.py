"""Training pairs in → a LoRA adapter (safetensors) and its log out; can be interrupted at any step and resumed.

What learns is LoRA on the language half and the projector of pictures; the image encoder stays as it is, so that its
tokens are made once for each picture.  The loss is taken on target tokens only, and logits are computed for those
positions only (never for the prompt: with a vocabulary this large they would be most of the memory).  Batches are drawn
from pairs of like length.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core_models.drafting.dataset import Example
from core_models.drafting.vision_language import (
    LORA_MODULES,
    MANIFEST,
    PROJECTOR,
    VisionLanguage,
    check_adapter,
    pixels,
)
from core_models.errors import Refused

Pair = tuple[list[int], list[int], str]
"""Token ids of prompt and target, and the picture's id or ""."""


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome, besides the data; written into the adapter's folder."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 30
    epochs: int = 3
    batch: int = 8
    max_tokens: int = 448
    seed: int = 0
    checkpoint_every: int = 100  # steps


class Interrupted(Exception):
    """The caller asked to stop; a checkpoint was written."""


def train(
    base: VisionLanguage,
    pairs: Callable[[int], Sequence[Example]],
    held_out: Sequence[Example],
    out: Path,
    recipe: Recipe,
    *,
    pictures: Mapping[str, Any] | None = None,
    start: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    log: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train an adapter.

    Args:
        base: the prepared model without an adapter.
        pairs: epoch → that epoch's training pairs (drawn anew, deterministically).
        held_out: pairs for the validation loss; never trained on.
        pictures: picture id → its (64, hidden) tokens of the encoder, for the pairs that have one (`tokens_of`).
        start: an adapter of the same base to go on from; None begins anew.
        out: the adapter's folder; checkpoints go to ``out/checkpoint`` and are removed at the end.
        resume: go on from the checkpoint if there is one.
        compiled: run through torch.compile, half as fast again on two cores (needs a C++ compiler on the machine).

    Returns:
        a summary: steps, epochs, losses by step, validation loss before and after, seconds.

    Raises:
        Refused: a loss that is not finite (the last checkpoint is kept), or a checkpoint of another recipe or other
            pairs.
        Interrupted: `stop` said so; the checkpoint holds the state.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(recipe.seed)
    if start is None:
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=0.0,
            target_modules=LORA_MODULES,
            modules_to_save=[PROJECTOR],
        )
        model = get_peft_model(base.model, config)
    else:
        check_adapter(start, base.digest)
        model = PeftModel.from_pretrained(base.model, start, is_trainable=True, torch_device="cpu")
    known = pictures or {}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.01)
    checkpoint = out / "checkpoint"
    state: dict[str, Any] = {"step": 0, "losses": [], "validation": [], "seconds": 0.0}
    schedule = [_batches(_encode(base, pairs(e), recipe.max_tokens), recipe, e) for e in range(recipe.epochs)]
    fingerprint = _fingerprint(schedule)
    _settle(checkpoint)
    if resume and (checkpoint / "state.json").is_file():
        state = _restore(checkpoint, model, optimiser, recipe)
        if state.get("pairs") != fingerprint:
            raise Refused("The checkpoint was written on other pairs; remove it, or train on the same data and code.")
        log(f"resumed at step {state['step']}")
    state["pairs"] = fingerprint
    held = _encode(base, held_out, recipe.max_tokens)
    loss_of = partial(_loss, model, base.image_token, known)
    if not state["validation"]:
        state["validation"].append((0, _validate(model, loss_of, held, recipe)))
        log(f"validation loss before training {state['validation'][0][1]:.3f}")

    began = time.monotonic() - state["seconds"]
    step = 0
    if compiled:
        decoder = model.get_base_model().model.language_model
        decoder.forward = torch.compile(decoder.forward, dynamic=True)
    total = sum(len(batches) for batches in schedule)
    model.train()
    for epoch, batches in enumerate(schedule):
        for batch in batches:
            step += 1
            if step <= state["step"]:
                continue  # done before the interruption
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, total, recipe.warmup_steps)
            loss = loss_of(*_collate(batch))
            if not torch.isfinite(loss):
                raise Refused(f"The loss is {loss.item()} at step {step}; the last checkpoint is kept for --resume.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            state["step"] = step
            state["losses"].append(round(loss.item(), 4))
            state["seconds"] = time.monotonic() - began
            if step % 20 == 0:
                recent = sum(state["losses"][-20:]) / 20
                log(f"step {step}/{total} epoch {epoch + 1} loss {recent:.3f} {state['seconds']:.0f} s")
            stopped = stop()
            if stopped or step % recipe.checkpoint_every == 0:
                _save(checkpoint, model, optimiser, state, recipe)
            if stopped:
                raise Interrupted
        state["validation"].append((step, _validate(model, loss_of, held, recipe)))
        log(f"validation loss after epoch {epoch + 1}: {state['validation'][-1][1]:.3f}")
        _save(checkpoint, model, optimiser, state, recipe)
    model.save_pretrained(out, save_embedding_layers=False)  # "auto" asks the hub for the base's vocabulary
    _halve(out / "adapter_model.safetensors")
    _name_base(out / "adapter_config.json", base.name.partition("@")[0])
    (out / "README.md").unlink(missing_ok=True)  # peft's empty card; ours is written by the caller
    summary = {
        "base": base.name,
        "base_digest": base.digest,
        "eyes": base.eyes,
        "recipe": asdict(recipe),
        "steps": step,
        "pairs": sum(len(b) for batches in schedule for b in batches),
        "pairs_with_picture": sum(bool(p[2]) for batches in schedule for b in batches for p in b),
        "seconds": round(state["seconds"]),
        "validation": state["validation"],
        "loss_first_100": round(sum(state["losses"][:100]) / max(1, len(state["losses"][:100])), 4),
        "loss_last_100": round(sum(state["losses"][-100:]) / max(1, len(state["losses"][-100:])), 4),
    }
    (out / MANIFEST).write_text(json.dumps(summary, indent=1) + "\n")
    _discard(checkpoint)
    return summary


def tokens_of(base: VisionLanguage, pictures: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """(id, (h, w) grey picture) → id → (64, hidden) float16: the encoder's tokens, made once."""
    import torch

    out = {}
    with torch.inference_mode():
        for ident, picture in pictures:
            seen = base.model.model.vision_tower(pixels(picture, base.image_size))
            out[ident] = seen.last_hidden_state[0].half().clone()
    return out


def opening(base: VisionLanguage, text: str, picture: bool) -> list[int]:
    """The token ids of a prompt: <bos>, the places of the picture where there is one, the text."""
    places = [base.image_token] * base.image_places if picture else []
    return [base.tokenizer.bos_token_id, *places, *base.tokenizer(text, add_special_tokens=False).input_ids]


def _encode(base: VisionLanguage, examples: Sequence[Example], limit: int) -> list[Pair]:
    """Token ids of prompt (with <bos>) and target (with <eos>); over-long targets lose whole lines, never the form."""
    out = []
    end = [base.tokenizer.eos_token_id]
    for e in examples:
        prompt = opening(base, e.prompt, bool(e.picture))
        most = limit + (base.image_places if e.picture else 0)
        lines = e.target.split("\n")
        while lines:
            target = base.tokenizer("\n".join(lines), add_special_tokens=False).input_ids
            if len(prompt) + len(target) < most:
                break
            lines.pop()
        if lines:
            out.append((prompt, target + end, e.picture))
    return out


def _batches(encoded: list, recipe: Recipe, epoch: int) -> list[list]:
    """Shuffled batches of pairs of like length (padding is waste, and varying shapes held 6.9 GB at the peak)."""
    rng = random.Random(f"{recipe.seed}/batches/{epoch}")
    order = list(range(len(encoded)))
    rng.shuffle(order)
    out = []
    chunk = recipe.batch * 25
    for start in range(0, len(order), chunk):
        some = sorted(order[start : start + chunk], key=lambda i: len(encoded[i][0]) + len(encoded[i][1]))
        out += [[encoded[i] for i in some[k : k + recipe.batch]] for k in range(0, len(some), recipe.batch)]
    rng.shuffle(out)
    return out


def _collate(batch: list[Pair]) -> tuple[Any, Any, Any, list[str]]:
    """→ ids, labels (-100 outside the target), attention mask; each (batch, tokens) int64, right-padded; and the
    pictures of the rows that have one, in order."""
    import torch

    width = max(len(p) + len(t) for p, t, _ in batch)
    width += -width % 16  # few distinct shapes
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), -100)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, (prompt, target, _) in enumerate(batch):
        n = len(prompt) + len(target)
        ids[row, :n] = torch.tensor(prompt + target)
        labels[row, len(prompt) : n] = torch.tensor(target)
        mask[row, :n] = 1
    return ids, labels, mask, [picture for _, _, picture in batch if picture]


def _loss(
    model: Any, image_token: int, known: Mapping[str, Any], ids: Any, labels: Any, mask: Any, pictures: list[str]
) -> Any:
    """Mean cross-entropy over target tokens, logits only where a target stands."""
    import torch
    import torch.nn.functional as functional

    causal = model.get_base_model()
    inputs = causal.get_input_embeddings()(ids)
    if pictures:
        places = ids == image_token
        seen = causal.model.multi_modal_projector(torch.stack([known[p].float() for p in pictures]))
        inputs = inputs.masked_scatter(places[..., None], seen.to(inputs.dtype))
    decoder = causal.model.language_model
    hidden = decoder(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    where = wanted != -100
    logits = causal.lm_head(hidden[where]).float()  # (targets, vocabulary)
    return functional.cross_entropy(logits, wanted[where])


def _validate(model: Any, loss_of: Callable[..., Any], held: list[Pair], recipe: Recipe, limit: int = 128) -> float:
    import torch

    model.eval()
    total = count = 0.0
    some = sorted(held[:limit], key=lambda e: len(e[0]) + len(e[1]))
    with torch.inference_mode():
        for start in range(0, len(some), recipe.batch):
            made = _collate(some[start : start + recipe.batch])
            n = int((made[1][:, 1:] != -100).sum())
            total += loss_of(*made).item() * n
            count += n
    model.train()
    return total / max(1, count)


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to a twentieth."""
    fraction = min(1.0, step / max(1, total))
    return min(1.0, step / max(1, warmup)) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))


def _save(folder: Path, model: Any, optimiser: Any, state: dict, recipe: Recipe) -> None:
    """A checkpoint, whole or absent: weights and moments as safetensors, the rest as JSON, renamed into place."""
    from safetensors.torch import save_file

    work = folder.with_name(folder.name + ".partial")
    _discard(work)
    work.mkdir(parents=True)
    named = {n: p.detach().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(named, work / "weights.safetensors")
    moments, steps = {}, {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter in optimiser.state:
            kept = optimiser.state[parameter]
            moments[f"{name}/m"], moments[f"{name}/v"] = kept["exp_avg"], kept["exp_avg_sq"]
            steps[name] = float(kept["step"])
    save_file(moments, work / "moments.safetensors")
    (work / "state.json").write_text(json.dumps({"state": state, "recipe": asdict(recipe), "steps": steps}))
    old = folder.with_name(folder.name + ".old")
    _discard(old)
    if folder.exists():
        folder.rename(old)
    work.rename(folder)
    _discard(old)


def _halve(path: Path) -> None:
    """The weights in bf16, as the base has them: half the file."""
    import torch
    from safetensors.torch import load_file, save_file

    save_file({n: t.to(torch.bfloat16).contiguous() for n, t in load_file(path).items()}, path)


def _name_base(config: Path, name: str) -> None:
    """The base by its name: peft writes the path that it had on the training machine."""
    fields = json.loads(config.read_text())
    fields |= {"base_model_name_or_path": name}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _settle(folder: Path) -> None:
    """After a crash between the two renames of `_save` the former checkpoint still has its spare name."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def _fingerprint(schedule: list[list[list]]) -> str:
    """SHA-256 over every batch in order: the tokens that training will see."""
    return hashlib.sha256(json.dumps(schedule).encode()).hexdigest()


def _restore(folder: Path, model: Any, optimiser: Any, recipe: Recipe) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    saved = json.loads((folder / "state.json").read_text())
    if saved["recipe"] != asdict(recipe):
        raise Refused("The checkpoint was written by another recipe; remove it or use the same configuration.")
    weights, moments = load_file(folder / "weights.safetensors"), load_file(folder / "moments.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if name not in weights or weights[name].shape != parameter.shape:
                raise Refused(f"The checkpoint does not fit this model (at {name}).")
            parameter.copy_(weights[name])
            if f"{name}/m" in moments:
                optimiser.state[parameter] = {
                    "step": torch.tensor(saved["steps"][name]),
                    "exp_avg": moments[f"{name}/m"],
                    "exp_avg_sq": moments[f"{name}/v"],
                }
    return saved["state"]


def _discard(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
