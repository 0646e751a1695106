"""Texts → unit vectors in the space that images are embedded in too: the text side of the shipped model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core_models.errors import ModelMissing
from core_models.foundation.model import TEXT
from core_models.registry import EMBEDDED, MODELS

if TYPE_CHECKING:
    from core_models.foundation.text import TextTower


class SharedText:
    """The trained text tower, loaded at the first use; one lock guards loading and encoding.

    Attributes:
        name: model and digest; vectors of two names may not be compared.
        dimensions: of the space.

    Raises:
        ModelMissing: at construction, where the weights are not there.
    """

    def __init__(self, threads: int | None = None, folder: Path | None = None, batch: int = 32) -> None:
        from core_models.foundation import weights

        self._folder = folder or weights.FOLDER
        if not (self._folder / TEXT).is_file():
            raise ModelMissing(weights.MISSING)
        from safetensors import safe_open

        with safe_open(self._folder / TEXT, "pt") as file:
            self.dimensions = int(file.get_slice("projection.bias").get_shape()[0])
        row = next(row for row in MODELS if row.name == EMBEDDED)
        self.name = f"{row.name}/{row.version} ({weights.digest(self._folder)[:12]})"  # as `Reading.model` has it
        self._threads, self._batch = threads, batch
        self._lock = threading.Lock()
        self._tower: TextTower | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimensions) float32 unit vectors, long texts by their first 64 word pieces."""
        import torch

        out = np.zeros((len(texts), self.dimensions), np.float32)
        with self._lock, torch.inference_mode():
            tower = self._load()
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            for start in range(0, len(order), self._batch):
                rows = order[start : start + self._batch]
                out[rows] = tower(tower.tokens([texts[i] for i in rows])).numpy()
        return out

    def _load(self) -> TextTower:
        if self._tower is None:
            import torch

            from core_models.foundation.text import TextTower
            from core_models.foundation.weights import read_into_partly

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            tower = TextTower(self.dimensions)
            read_into_partly(tower, self._folder / TEXT)
            self._tower = tower.eval()
        return self._tower
