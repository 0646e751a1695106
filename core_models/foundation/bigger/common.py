"""What every bigger model shares: a volume → a grey picture, a folder → safe weights with their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core_models.errors import ModelMissing, Refused
from core_models.foundation import images
from core_models.foundation.reading import Context, Quality
from core_models.study.volume import Volume

if TYPE_CHECKING:
    import torch

    from core_models.registry import ModelRow

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack")
UNCALIBRATED = "These probabilities were not calibrated here: they rank findings and are not chances."
IMAGE_ONLY = "The model had the image alone; view, age and sex are not used."
NOTHING = Context()
"""Nothing is known beside the image."""
CROPPED = "Only the middle square of the image was read; what lies beyond it was not seen."
MIN_SIDE = 8
_BLOCK = 1 << 22


def unjudged(what: str) -> Quality:
    """The quality of an image that a model does not judge: all probabilities say "not known"."""
    return Quality(0.5, 0.5, 0.5, 0.5, True, (f"The model did not check that the image is {what}.",))


def missing_context(context: Context) -> tuple[str, ...]:
    """What to tell where something beside the image was known and the model has no use for it."""
    return (IMAGE_ONLY,) if context.given else ()


def cropped(picture: np.ndarray) -> tuple[str, ...]:
    """What to tell where a model reads the middle square of an image that is none."""
    return (CROPPED,) if picture.shape[0] != picture.shape[1] else ()


def check_modality(volume: Volume, row: ModelRow) -> None:
    """Raises Refused where the model was not trained on the volume's modality."""
    if not row.fits(volume.modality):
        raise Refused(
            f"The model {row.name} was not trained on {volume.modality[:16]}; it reads {', '.join(row.modalities)}."
        )


def picture(volume: Volume, row: ModelRow) -> np.ndarray:
    """A radiograph → float32 (h, w), 0 black to 1 white.

    8-bit pictures keep their grey levels, as the models were trained on them; deeper ones have no fixed white and are
    stretched like everywhere in this room.

    Raises:
        Refused: another modality, several slices, or an image without two usable axes.
    """
    check_modality(volume, row)
    if volume.shape[0] != 1:
        raise Refused(f"The model {row.name} reads one radiograph; this series has {volume.shape[0]} slices.")
    pixels = volume.array[0]
    if min(pixels.shape) < MIN_SIDE:
        raise Refused(f"A radiograph has {MIN_SIDE} pixels or more a side; this one has {pixels.shape}.")
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else images.grey(pixels)


def folder_of(row: ModelRow, folder: Path | None) -> Path:
    """The folder of weights.  Raises ModelMissing where none is named or none is there."""
    if folder is None:
        raise ModelMissing(
            f"The model {row.name} needs a folder of weights, named as {row.name}:FOLDER; {row.obtain}. Licence: "
            f"{row.licence}."
        )
    if not folder.is_dir():
        raise ModelMissing(f"The folder named for the model {row.name} is not there; {row.obtain}.")
    return folder


def safetensors_in(folder: Path, row: ModelRow, pattern: str = "*.safetensors") -> tuple[Path, ...]:
    """The safetensors files of a folder, by name.

    Raises:
        Refused: there are only pickled weights.
        ModelMissing: there are no weights at all.
    """
    found = tuple(sorted(folder.glob(pattern)))
    if found:
        return found
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICKLED)
    if pickled:
        raise Refused(
            f"The weights {pickled[0]} of the model {row.name} are in a format that can run code when it is opened; "
            f"only safetensors are read; {row.obtain}."
        )
    raise ModelMissing(f"The folder of the model {row.name} holds no safetensors weights; {row.obtain}.")


def read_tensors(path: Path, row: ModelRow) -> dict[str, torch.Tensor]:
    """All tensors of one safetensors file.  Raises Refused on a damaged file or numbers that are not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(f"The weights {path.name} of the model {row.name} are damaged or cut short.") from error
    check_finite(tensors.items(), row)
    return tensors


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], row: ModelRow) -> None:
    """Raises Refused where a weight is NaN or infinite: every answer would be made up."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Refused(f"The weights of the model {row.name} hold numbers that are not finite ({name[:80]}).")


def digest_of(paths: Sequence[Path]) -> str:
    """sha256 over the bytes of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def unit(vector: np.ndarray, row: ModelRow) -> np.ndarray:
    """(d,) → float32 (d,) of length 1.  Raises Refused where it has no direction."""
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise Refused(f"The model {row.name} answered with numbers that mean nothing for this image.")
    return (vector / length).astype(np.float32)
