"""Vectors of the shared image-text space, of reports and of signed studies' radiographs → arrays and their bytes.

In that space a radiograph and a text that describes it are near each other, so one unit vector of an image finds report
texts and earlier images alike.  Vectors of two models have nothing in common: one index holds those of one model only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

TEXTS, IMAGES, IMAGE_ROWS = "shared.f2", "images.f2", "images.i4"

NOT_BUILT = "the index was built without the shared text encoder"
OLD_FORMAT = "the index was written before images could be searched"
DROPPED = "a signed report was added without the shared text encoder that made the index"


class SharedEncoder(Protocol):
    """The text tower of the shared space (`core_models.foundation.shared_space.SharedText`)."""

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class ImageVectors:
    """Radiographs read by one model.

    Attributes:
        model: `SharedEncoder.name` of the space.
        vectors: study id → (d,) vector.
    """

    model: str
    vectors: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class SharedVectors:
    """What one index holds of the shared space.

    Attributes:
        model: names the space; "" where there is nothing of any.
        texts: (reports, d) float16 unit vectors, row i is report i; or None: all rows or none.
        images: (m, d) float16 unit vectors; `image_rows`: (m,) int32, the report of each, ascending.
    """

    model: str = ""
    texts: np.ndarray | None = None
    images: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype="<f2"))
    image_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype="<i4"))

    @classmethod
    def of(
        cls, model: str, texts: np.ndarray | None, keys: Sequence[Hashable], images: Mapping[Hashable, np.ndarray]
    ) -> SharedVectors:
        """The vectors for the reports `keys`, in their order; images of reports that are not among them are left out.

        Raises:
            ValueError: lengths differ, or there is not one text vector for each report.
        """
        rows = [row for row, key in enumerate(keys) if key in images]
        if texts is None and not rows:
            return cls()
        if texts is not None and len(texts) != len(keys):
            raise ValueError(f"{len(texts)} text vectors for {len(keys)} reports")
        held = [half(images[keys[row]]) for row in rows]
        lengths = {v.shape for v in held} | ({texts.shape[1:]} if texts is not None else set())
        if len(lengths) != 1:
            raise ValueError(f"vectors of one model have different shapes: {sorted(lengths)}")
        stacked = np.stack(held) if held else np.zeros((0, *lengths.pop()), dtype="<f2")
        return cls(model, None if texts is None else half(texts), stacked, np.array(rows, dtype="<i4"))

    @classmethod
    def read(cls, model: str, dimensions: int, reports: int, content: Mapping[str, bytes]) -> SharedVectors:
        """From the files' bytes.  Raises ValueError: they do not hold what the manifest says."""
        texts = np.frombuffer(content[TEXTS], "<f2").reshape(reports, dimensions) if TEXTS in content else None
        if IMAGES not in content:
            return cls(model, texts, np.zeros((0, dimensions), dtype="<f2"))
        rows = np.frombuffer(content[IMAGE_ROWS], "<i4")
        if len(rows) and not 0 <= rows.min() <= rows.max() < reports:
            raise ValueError("an image belongs to no report")
        return cls(model, texts, np.frombuffer(content[IMAGES], "<f2").reshape(len(rows), dimensions), rows)

    @property
    def dimensions(self) -> int:
        return self.images.shape[1]

    def files(self) -> dict[str, bytes]:
        """File name → bytes; a file only where there is something in it."""
        out = {} if self.texts is None else {TEXTS: self.texts.tobytes()}
        if len(self.image_rows):
            out |= {IMAGES: self.images.tobytes(), IMAGE_ROWS: self.image_rows.tobytes()}
        return out

    def images_of(self, keys: Sequence[Hashable]) -> dict[Hashable, np.ndarray]:
        """The image vector of each report that has one, by the report's key."""
        return {keys[row]: vector for row, vector in zip(self.image_rows.tolist(), self.images, strict=True)}


def unit(vector: np.ndarray) -> np.ndarray:
    """(d,) float32 of length 1.  Raises ValueError: it has another shape, no direction, or is not of finite numbers."""
    vector = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not np.isfinite(length) or length < 1e-6:
        raise ValueError(f"an embedding must be one finite vector with a direction, not {vector.shape} of {length}")
    return vector / length


def encoded(encoder: SharedEncoder, texts: Sequence[str]) -> np.ndarray:
    """(n, d) float16.  Raises ValueError: the encoder answered another shape, or numbers that are not finite."""
    return checked(np.asarray(encoder.encode(texts)).reshape(-1, encoder.dimensions), len(texts))


def checked(vectors: np.ndarray, count: int) -> np.ndarray:
    """The vectors as they are stored.  Raises ValueError as `encoded`."""
    if len(vectors) != count or not np.isfinite(vectors).all():
        raise ValueError(f"the shared text encoder answered {vectors.shape} for {count} texts, or not finite numbers")
    return half(vectors)


def half(vectors: np.ndarray) -> np.ndarray:
    # Two bytes a number: cosine similarities move by less than 0.001, and a generation is half as large.
    return np.ascontiguousarray(vectors, dtype="<f2")
