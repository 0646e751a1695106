"""What a reader found while opening a scan → the notes and the receipt shown before any model runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from core_models.study.study import Note, Receipt
from core_models.study.volume import Volume

DEFAULT_CT_WINDOW = (40.0, 400.0)  # soft tissue
_WINDOW_SAMPLES = 500_000
_SOME = 0.05  # of the voxels


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


def build(
    source_format: str, volume: Volume, loaded: int, expected: int, notes: Sequence[Note], spacing_source: str = ""
) -> Receipt:
    """The receipt of one volume.

    Args:
        loaded, expected: instances that arrived and that the geometry or the header calls for.
        spacing_source: as in `Receipt`.
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
        spacing_source=spacing_source,
    )


def content_note(volume: Volume) -> Note | None:
    """What speaks against the modality that the header names: its values do not look like it; None where nothing does.

    A CT in Hounsfield units has air or soft tissue in it; only a CT has both at their own values.
    """
    sample = _sample(volume.array)
    air = float(np.mean((sample > -1100) & (sample < -850)))
    soft = float(np.mean((sample > -200) & (sample < 300)))
    if volume.modality == "CT" and volume.unit == "HU" and max(air, soft) < _SOME:
        return warning(
            "The header says CT, but the values are neither those of air nor of soft tissue: check the scan."
        )
    if volume.modality in ("MR", "PT", "CR", "DX", "MG") and min(air, soft) > _SOME:
        return warning(f"The header says {volume.modality}, but the values look like CT in Hounsfield units.")
    return None


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // _WINDOW_SAMPLES)]


def percentile_window(array: np.ndarray) -> tuple[float, float]:
    """(centre, width) that spans the 1st to the 99.5th percentile of a sample of the values."""
    sample = _sample(array)
    low, high = (float(v) for v in np.percentile(sample, (1.0, 99.5)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low + high) / 2, max(high - low, 1.0)
