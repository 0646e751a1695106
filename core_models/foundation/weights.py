"""The shipped folder → the trained encoder, heads and text tower, with the calibration that goes with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core_models.errors import ModelMissing, Refused
from core_models.foundation.labels import FINDINGS, NAMES
from core_models.foundation.model import ENCODER, HEADS, TASKS, TEXT, FoundationModel, load_encoder, read_into

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "foundation"
CALIBRATION, REFERENCE = "calibration.json", "reference.safetensors"
MISSING = "The image model's weights are not here: train them with `python app.py train encoder`."


@dataclass(frozen=True)
class LabelCalibration:
    """How one label's logit becomes a probability: sigmoid(logit / temperature + shift), and from where it is present.

    Attributes:
        threshold: the probability that parts present from absent best on validation (Youden's J).
        shown: whether it was validated well enough to be proposed to a reader.
    """

    temperature: float
    shift: float
    threshold: float
    shown: bool


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found on the validation side.

    Attributes:
        size: side of the pictures the heads are read at; `anatomy_size`: the same for outlines.
        labels: label → its calibration; gate: question → probability from which the answer is yes.
        data: what it was found on, in a sentence.
    """

    size: int
    anatomy_size: int
    labels: dict[str, LabelCalibration]
    gate: dict[str, float]
    data: str

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, labels) logits → calibrated probabilities."""
        rows = [self.labels[name] for name in NAMES]
        temperature = torch.tensor([row.temperature for row in rows])
        shift = torch.tensor([row.shift for row in rows])
        return torch.sigmoid(logits / temperature + shift)


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write it beside the weights."""
    (folder / CALIBRATION).write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")


def load_calibration(folder: Path = FOLDER) -> Calibration:
    """Read it.  Raises ModelMissing where it is not there, Refused where it is damaged or of other labels."""
    path = folder / CALIBRATION
    if not path.is_file():
        raise ModelMissing(MISSING)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        labels = {name: LabelCalibration(**row) for name, row in raw["labels"].items()}
        out = Calibration(int(raw["size"]), int(raw["anatomy_size"]), labels, dict(raw["gate"]), str(raw["data"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("The image model's calibration file is damaged: calibrate it anew.") from error
    if set(out.labels) != {label.name for label in FINDINGS}:
        raise Refused("The image model's calibration is of other labels than its findings head.")
    return out


def load(folder: Path = FOLDER, text: bool = False) -> FoundationModel:
    """The shipped model in evaluation mode.

    Args:
        text: load the text tower too (MiniLM, 90 MB); without it the contrastive task can embed images only.

    Raises:
        ModelMissing: not there.  Refused: damaged, or of another architecture.
    """
    if not (folder / HEADS).is_file():
        raise ModelMissing(MISSING)
    encoder = load_encoder(folder / ENCODER)
    heads = load_file(folder / HEADS)
    names = tuple(dict.fromkeys(name.split(".")[0] for name in heads))
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise Refused(f"The weights {HEADS} are of another architecture: {unknown[0]!r} is no task.")
    dimensions = len(heads["contrastive.projection.1.bias"]) if "contrastive" in names else 0
    model = FoundationModel(encoder, tuple(n for n in names if n != "contrastive"), dimensions or 256)
    if dimensions:
        from core_models.foundation.tasks.contrastive import Contrastive
        from core_models.foundation.text import TextTower

        tower = TextTower(dimensions) if text else nn.Identity()
        model.tasks["contrastive"] = Contrastive(encoder.config.hidden_size, dimensions, text=tower)
        if text:
            read_into_partly(tower, folder / TEXT)
    tasks = model.tasks
    if text and dimensions:  # its tensors are read above and lie in a file of their own
        tasks = nn.ModuleDict({n: m for n, m in model.tasks.items() if n != "contrastive"})
        own = nn.ModuleDict({"projection": model.tasks["contrastive"].projection})
        own.register_parameter("scale", model.tasks["contrastive"].scale)
        tasks["contrastive"] = own
    read_into(tasks, folder / HEADS)
    return model.eval()


def read_into_partly(tower: nn.Module, path: Path) -> None:
    """Fill the trained tensors of the text tower.  Raises Refused where they are others than it has."""
    if not path.is_file():
        raise ModelMissing(MISSING)
    if set(load_file(path)) != set(tower.trained()):
        raise Refused(f"The weights {path.name} are of another architecture than the text tower.")
    read_into(tower, path, strict=False)


def save_reference(vectors: torch.Tensor, folder: Path) -> None:
    """Keep (n, d) embeddings of training radiographs: what tells a search by image how near "near" is."""
    save_file({"images": vectors.half().contiguous()}, folder / REFERENCE)


def load_reference(folder: Path = FOLDER) -> torch.Tensor:
    """(n, d) float32.  Raises ModelMissing where they are not there."""
    if not (folder / REFERENCE).is_file():
        raise ModelMissing(MISSING)
    return load_file(folder / REFERENCE)["images"].float()


def digest(folder: Path = FOLDER) -> str:
    """SHA-256 over the weights and the calibration: what a card cites."""
    sha = hashlib.sha256()
    for name in (f"{ENCODER}/model.safetensors", HEADS, TEXT, CALIBRATION):
        path = folder / name
        if path.is_file():
            sha.update(path.read_bytes())
    return sha.hexdigest()
