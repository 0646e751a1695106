"""Image vector, note vector, values - any subset of them → a calibrated probability, and which of them it had.

One token per input, summed through gates; an input that is missing is a learned token of its own.  Training drops
inputs at random and has the network predict the dropped one's summary from the others, the idea of M3AE (Liu et al.,
"M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities", AAAI 2023, arXiv
2303.05302), there for patches of MR sequences, here for one vector per input.  The data are few (about 200
patients): the vectors are first reduced to their principal components, and what is trained is a few thousand weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from core_models.errors import ModelMissing, Refused
from core_models.foundation.fusion_data import INPUTS, NAMES, TASK, Cases, has_words, note_vectors, tabular
from core_models.foundation.fusion_masking import masked
from core_models.foundation.model import read_into

KIND = "reading_room_fusion"
FOLDER = Path(__file__).resolve().parents[2] / "assets" / "foundation" / "fusion"
PATTERNS = 2 ** len(INPUTS)
"""A pattern is the set of inputs at hand as a number, bit i for INPUTS[i]."""
LIMIT = 4.0
"""Standard deviations beyond which a number is clipped: one odd laboratory value must not decide."""


@dataclass(frozen=True)
class FusionConfig:
    """What a fusion network is.

    Args:
        image_width, text_width: of the vectors; `rank`: principal components kept of each.
        width: of a token.
        dropout: on summaries and on the mixed tokens.
    """

    image_width: int = 1280
    text_width: int = 384
    values: tuple[str, ...] = NAMES
    rank: int = 32
    width: int = 16
    dropout: float = 0.3

    @property
    def summary_widths(self) -> tuple[int, ...]:
        """Widths of the summaries, in the order of INPUTS."""
        return self.rank, self.rank, 2 * len(self.values)


@dataclass
class FusionOutput:
    """logit: (n,) uncalibrated; guesses: one (n, width of its summary) per input, read off that input's token."""

    logit: torch.Tensor
    guesses: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class FusionAnswer:
    """What the predictor says of one patient.

    Attributes:
        task: what was asked; `probability`: of its first-named class, calibrated.
        inputs: what it had, of "image", "text" and the names of known tabular values ("age", …).
        missing: what it did not have, likewise.
        masked_note: the note as it was read, what names a diagnosis taken out; "" for none.
        model: "name/version (digest)".
    """

    task: str
    probability: float
    inputs: tuple[str, ...]
    missing: tuple[str, ...]
    masked_note: str
    model: str


class Fusion(nn.Module):
    """The network.  What it needs of the training data (means, components, scales, temperatures) are its buffers."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = c = config
        for name, width in (("image", c.image_width), ("text", c.text_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_basis", torch.zeros(c.rank, width))
        self.register_buffer("value_mean", torch.zeros(len(c.values)))
        self.register_buffer("value_scale", torch.ones(len(c.values)))
        self.register_buffer("log_temperature", torch.zeros(PATTERNS))
        self.into = nn.ModuleList(nn.Linear(w, c.width) for w in c.summary_widths)
        self.missing = nn.Parameter(torch.zeros(len(INPUTS), c.width))
        self.gate = nn.Linear(len(INPUTS) * c.width, len(INPUTS))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.drop = nn.Dropout(c.dropout)
        self.mix = nn.Linear(c.width, c.width)
        self.head = nn.Linear(2 * c.width, 1)
        self.guess = nn.ModuleList(nn.Linear(2 * c.width, w) for w in c.summary_widths)

    @torch.no_grad()
    def fit_summaries(self, cases: Cases) -> None:
        """Take means, whitened principal components and scales from training cases."""
        for i, name in enumerate(("image", "text")):
            rows = getattr(cases, name)[cases.has[:, i]]
            mean, basis = _components(torch.from_numpy(np.asarray(rows, np.float32)), self.config.rank)
            if mean is not None:
                getattr(self, f"{name}_mean").copy_(mean)
                getattr(self, f"{name}_basis").copy_(basis)
        for j in range(len(self.config.values)):
            seen = cases.values[cases.known[:, j] > 0, j]
            if len(seen) > 1:
                self.value_mean[j] = float(seen.mean())
                self.value_scale[j] = max(float(seen.std()), 1e-3)

    def summaries(self, cases: Cases) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Cases → one (n, width) summary per input, and (n, 3) bool of what is there.  Absent inputs are zeros."""
        has = torch.from_numpy(cases.has)
        out = []
        for i, name in enumerate(("image", "text")):
            x = torch.from_numpy(getattr(cases, name))
            z = (x - getattr(self, f"{name}_mean")) @ getattr(self, f"{name}_basis").T
            out.append(z.clamp(-LIMIT, LIMIT) * has[:, i : i + 1])
        known = torch.from_numpy(cases.known) * has[:, 2:3]
        z = ((torch.from_numpy(cases.values) - self.value_mean) / self.value_scale).clamp(-LIMIT, LIMIT) * known
        out.append(torch.cat([z, known], 1))
        return tuple(out), has

    def forward(self, summaries: tuple[torch.Tensor, ...], has: torch.Tensor) -> FusionOutput:
        """Args: `summaries` of all inputs; `has`: (n, 3) bool, what of them may be looked at."""
        tokens = [
            torch.where(has[:, i : i + 1], self.into[i](self.drop(z)), self.missing[i]) for i, z in enumerate(summaries)
        ]
        gates = 2 * torch.sigmoid(self.gate(torch.cat(tokens, 1)))  # (n, inputs), 1 at the start
        fused = (torch.stack(tokens, 1) * gates[:, :, None]).sum(1)  # (n, width)
        both = torch.cat([fused, self.drop(F.gelu(self.mix(fused)))], 1)  # the sum, and what needs several inputs
        return FusionOutput(self.head(both)[:, 0], tuple(g(both) for g in self.guess))

    def probability(self, logit: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
        """(n,) calibrated by the temperature of each row's pattern."""
        return torch.sigmoid(logit / self.log_temperature.exp()[pattern(has)])

    @torch.inference_mode()
    def predict(self, cases: Cases) -> np.ndarray:
        """(n,) calibrated probabilities of the first-named class."""
        was = self.training
        self.eval()
        summaries, has = self.summaries(cases)
        out = self.probability(self(summaries, has).logit, has)
        self.train(was)
        return out.numpy()


def pattern(has: torch.Tensor) -> torch.Tensor:
    """(n, 3) bool → (n,) the pattern's number."""
    return (has.long() * (2 ** torch.arange(len(INPUTS)))).sum(1)


def _components(rows: torch.Tensor, rank: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(n, d) → mean (d,) and (rank, d) that maps onto components of variance 1; zeros beyond what n rows can give."""
    basis = torch.zeros(rank, rows.shape[1])
    if len(rows) < 2:
        return None, basis
    mean = rows.mean(0)
    _, s, v = torch.linalg.svd((rows - mean).double(), full_matrices=False)
    kept = min(rank, int((s > s[0] * 1e-6).sum()))
    # The sign of a component is arbitrary: fix it, so that machines agree.
    v = v * torch.sign(v.gather(1, v.abs().argmax(1, keepdim=True)))
    basis[:kept] = (v[:kept] / (s[:kept, None] / math.sqrt(len(rows) - 1))).float()
    return mean, basis


def digest_of(encoder: nn.Module) -> str:
    """Twelve hexadecimal digits of an encoder's weights (as float16, so that a saved copy has the same)."""
    found = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def save(model: Fusion, folder: Path, card: str, version: str, encoder: str = "", image_size: int = 224) -> None:
    """Write model.safetensors, config.json and README.md.

    Args:
        encoder: `digest_of` the encoder whose vectors it was trained on; `image_size`: of the pictures it was given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    config = {"model_type": KIND, "version": version, "task": TASK, "encoder": encoder, "image_size": image_size}
    config |= {"inputs": list(INPUTS), **asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def load(folder: Path = FOLDER) -> tuple[Fusion, dict[str, object]]:
    """Weights and the configuration they were saved with.

    Raises:
        ModelMissing: no such folder.
        Refused: of another kind, a configuration that is no JSON or out of range, weights that are damaged, not
            safetensors, of another architecture, or not finite.
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ModelMissing(
            f"There is no fusion model in {folder.name!r}: train one with `python app.py evaluate fusion --record`."
        )
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refused(f"The config.json in {folder.name!r} is not JSON.") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != KIND or raw.get("inputs") != list(INPUTS) or raw.get("values") != list(NAMES):
        raise Refused(f"The model in {folder.name!r} is of the kind {kind!r} or of other inputs, not our fusion's.")
    if raw.get("image_size") not in range(32, 1025, 32):
        raise Refused(f"The config.json in {folder.name!r} has no image size of 32 to 1024.")
    sizes = {f.name: raw.get(f.name) for f in fields(FusionConfig) if f.name not in ("values", "dropout")}
    if any(not isinstance(v, int) or isinstance(v, bool) or not 1 <= v <= 4096 for v in sizes.values()):
        raise Refused(f"The config.json in {folder.name!r} has a size that is not a whole number of 1 to 4096.")
    model = Fusion(FusionConfig(**sizes))
    read_into(model, folder / "model.safetensors")
    return model.eval(), raw


class FusionPredictor:
    """The shipped model: vectors, a note and values as they come → a FusionAnswer.  May be called from many threads."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Raises ModelMissing, Refused as `load` does."""
        self.model, config = load(folder)
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
        self.name = f"fusion/{config.get('version', '0')} ({digest})"
        self.encoder = str(config.get("encoder", ""))
        self.image_size = config["image_size"]

    def fits(self, encoder: nn.Module) -> bool:
        """Whether the encoder is the one whose vectors it was trained on."""
        return digest_of(encoder) == self.encoder

    def predict(
        self,
        image: Sequence[float] | np.ndarray | None = None,
        note: str = "",
        values: Mapping[str, float | None] | None = None,
    ) -> FusionAnswer:
        """Any subset in.

        Args:
            image: (1280,) pooled vector of the shared encoder for a picture of `image_size`, without context; or None.
            note: clinical text; what names a diagnosis, a test or a place is taken out before it is read.
            values: by the names of `fusion_data.VALUES`; None or out of limits is unknown.

        Raises:
            Refused: nothing was given, the vector has another length or is not finite, or a name is not known.
        """
        config = self.model.config
        odd = sorted(set(values or {}) - set(NAMES))
        if odd:
            raise Refused(f"There is no value {odd[0]!r}; there are {', '.join(NAMES)}.")
        vector = np.zeros(config.image_width, np.float32) if image is None else np.asarray(image, np.float32)
        if vector.shape != (config.image_width,) or not np.isfinite(vector).all():
            raise Refused(f"The image vector has to be {config.image_width} finite numbers; it is {vector.shape}.")
        read = masked(note)
        read = read if has_words(read) else ""
        numbers, known = tabular(values or {})
        has = np.array([[image is not None, bool(read), bool(known.any())]])
        if not has.any():
            raise Refused("Neither an image, a note nor a value was given: there is nothing to predict from.")
        text = note_vectors([read]) if read else np.zeros((1, config.text_width), np.float32)
        case = Cases(
            vector[None], text, numbers[None], known[None], has, np.zeros(1, np.float32), ("",), ("test",), (read,)
        )
        probability = float(self.model.predict(case)[0])
        flags = {"image": bool(has[0, 0]), "text": bool(has[0, 1])} | dict(zip(NAMES, known > 0, strict=True))
        return FusionAnswer(
            task=TASK,
            probability=probability,
            inputs=tuple(n for n, there in flags.items() if there),
            missing=tuple(n for n, there in flags.items() if not there),
            masked_note=read,
            model=self.name,
        )
