"""What a reader found while opening a scan → the notes and the receipt shown before any model runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from core_models.study.study import Note, Receipt
from core_models.study.volume import Volume

DEFAULT_CT_WINDOW = (40.0, 400.0)  # soft tissue
_WINDOW_SAMPLES = 500_000


def info(text: str) -> Note:
    """A fact worth knowing."""
    return Note("info", text)


def warning(text: str) -> Note:
    """Something that may mislead a reader."""
    return Note("warning", text)


def unique(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The notes without repetitions, warnings first, otherwise in order."""
    kept = list(dict.fromkeys(notes))
    return tuple(sorted(kept, key=lambda note: note.level != "warning"))


def build(source_format: str, volume: Volume, loaded: int, expected: int, notes: Sequence[Note]) -> Receipt:
    """The receipt of one volume.

    Args:
        loaded, expected: instances that arrived and that geometry calls for.
    """
    z, y, x = volume.shape
    dz, dy, dx = volume.spacing
    return Receipt(
        format=source_format,
        modality=volume.modality,
        dimensions=(x, y, z),
        spacing=(dx, dy, dz) if volume.spacing_known else None,
        expected=expected,
        loaded=loaded,
        measurable=volume.spacing_known,
        notes=unique(notes),
    )


def percentile_window(array: np.ndarray) -> tuple[float, float]:
    """(centre, width) that spans the 1st to the 99.5th percentile of a sample of the values."""
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // _WINDOW_SAMPLES)]
    low, high = (float(v) for v in np.percentile(sample, (1.0, 99.5)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low + high) / 2, max(high - low, 1.0)
