"""The encoder with the heads of its tasks, trained together; saved as safetensors, without anything pickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from core_models.errors import ModelMissing, Refused
from core_models.foundation.batch import Batch
from core_models.foundation.encoder import RadiographEncoder, RadiographEncoderConfig, load_imagenet
from core_models.foundation.labels import NAMES, STRUCTURES
from core_models.foundation.tasks.contrastive import Contrastive
from core_models.foundation.tasks.findings import Findings
from core_models.foundation.tasks.gate import Gate
from core_models.foundation.tasks.masked import Masked
from core_models.foundation.tasks.segmentation import Segmentation

TASKS: dict[str, Callable[[RadiographEncoder, int], nn.Module]] = {
    "findings": lambda e, d: Findings(e.config.hidden_size, len(NAMES)),
    "segmentation": lambda e, d: Segmentation(e.channels, len(STRUCTURES)),
    "contrastive": lambda e, d: Contrastive(e.config.hidden_size, d),
    "masked": lambda e, d: Masked(e.config.hidden_size),
    "gate": lambda e, d: Gate(e.config.hidden_size),
}
ENCODER, HEADS, TEXT = "encoder", "heads.safetensors", "text.safetensors"


class FoundationModel(nn.Module):
    """One encoder, several tasks.

    Args:
        tasks: names of `TASKS`; generation needs a language model and is added by who has one.
    """

    def __init__(self, encoder: RadiographEncoder, tasks: tuple[str, ...], dimensions: int = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.tasks = nn.ModuleDict({name: TASKS[name](encoder, dimensions) for name in tasks if name in TASKS})
        self.dimensions = dimensions

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One loss per task that the batch has targets for."""
        out = self.encoder(batch.images, context=batch.context)
        losses = {name: task.loss(self.encoder, batch, out) for name, task in self.tasks.items()}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def add_task(self, name: str, task: nn.Module) -> None:
        """Add a task that needs what this module cannot make, as generation its language model.

        The task has `loss(encoder, batch, out)`; where it holds tensors that never learn, `frozen()` names them.
        """
        self.tasks[name] = task

    def trained(self) -> dict[str, torch.Tensor]:
        """Every tensor but those of the text encoder and the language model that stay as their packages have them."""
        text = self.tasks["contrastive"].text if "contrastive" in self.tasks else None
        frozen = {f"tasks.{n}.{k}" for n, task in self.tasks.items() if hasattr(task, "frozen") for k in task.frozen()}
        if text is not None:
            kept = set(text.trained())
            frozen |= {f"tasks.contrastive.text.{k}" for k in text.state_dict() if k not in kept}
        return {k: v for k, v in self.state_dict().items() if k not in frozen}


def new_encoder(start: str, config: RadiographEncoderConfig | None = None) -> RadiographEncoder:
    """An encoder from "imagenet", "scratch" or a folder.  Raises ModelMissing, Refused."""
    if start in ("imagenet", "scratch"):
        encoder = RadiographEncoder(config or RadiographEncoderConfig())
        if start == "imagenet":
            load_imagenet(encoder)
        return encoder
    return load_encoder(Path(start))


def load_encoder(folder: Path) -> RadiographEncoder:
    """A saved encoder.

    Raises:
        ModelMissing: no such folder.  Refused: a checkpoint of another architecture, or not safetensors.
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ModelMissing(f"There is no encoder in {folder.name!r}: train one with `python app.py train encoder`.")
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != RadiographEncoderConfig.model_type:
        raise Refused(f"The checkpoint in {folder.name!r} is of the kind {kind!r}, not our encoder's.")
    config = RadiographEncoderConfig.from_pretrained(folder, local_files_only=True)
    encoder = RadiographEncoder(config)
    read_into(encoder, folder / "model.safetensors")
    return encoder


def read_into(module: nn.Module, path: Path, strict: bool = True) -> None:
    """Fill a module from safetensors of any float type.

    Raises:
        Refused: damaged, names or shapes of another architecture, or a number that is not finite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"The weights {path.name} are damaged or not safetensors.") from error
    own = module.state_dict()
    missing, odd = set(own) - set(tensors), set(tensors) - set(own)
    shapes = [k for k in tensors if k in own and tensors[k].shape != own[k].shape]
    if odd or shapes or (strict and missing):
        first = sorted(odd or shapes or missing)[0]
        raise Refused(f"The weights {path.name} are of another architecture: {first!r} does not fit.")
    if any(t.is_floating_point() and not torch.isfinite(t).all() for t in tensors.values()):
        raise Refused(f"The weights {path.name} hold numbers that are not finite.")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()}, strict=False)


def save(model: FoundationModel, folder: Path, half: bool = True) -> None:
    """Write encoder (a Hugging Face folder), heads and the text tower's trained part.

    Args:
        half: store float16, half the size; running means and variances stay float32.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def shrunk(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            k: (v.half() if half and v.dtype == torch.float32 and "running_" not in k else v).detach().contiguous()
            for k, v in tensors.items()
        }

    model.encoder.config.save_pretrained(folder / ENCODER)
    save_file(shrunk(model.encoder.state_dict()), folder / ENCODER / "model.safetensors", {"format": "pt"})
    trained = model.trained()
    heads = {k: v for k, v in model.tasks.state_dict().items() if f"tasks.{k}" in trained}
    heads = {k: v for k, v in heads.items() if not k.startswith("contrastive.text.")}
    save_file(shrunk(heads), folder / HEADS)
    if "contrastive" in model.tasks:
        save_file(shrunk(model.tasks["contrastive"].text.trained()), folder / TEXT)
