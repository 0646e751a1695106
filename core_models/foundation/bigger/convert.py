"""Weights as their makers publish them (pickled) → one safetensors file that the bigger models read; run by hand.

`python -m core_models.foundation.bigger.convert FILE FOLDER` knows torchxrayvision's DenseNets (a module pickled
whole), its PSPNet (a state dict of a DataParallel module) and Merlin's image encoder (a state dict).  Nothing in the
file is run: see `pickled`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core_models.errors import ReadingRoomError, Refused
from core_models.foundation.bigger import pickled

if TYPE_CHECKING:
    import torch

_MERLIN = "layer4.0.downsample.0.weight"


def convert(source: Path, folder: Path) -> Path:
    """Write the weights of `source` into `folder` (created) and return the file.

    Raises:
        Refused: the file is not there, is damaged, holds anything but weights, or is of none of the known models.
    """
    from safetensors.torch import save_file

    if not source.is_file():
        raise Refused(f"There is no file {source.name} to convert.")
    name, tensors = _named(source, pickled.read_tensors(source))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    part = target.with_suffix(".part")
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, part)
    part.replace(target)
    return target


def _named(source: Path, loaded: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    """(the name under which the model looks for it, its tensors)."""
    tensors = {key.removeprefix("module."): tensor for key, tensor in loaded.items()}
    if "features.conv0.weight" in tensors:
        return _densenet_name(source), tensors
    if "convbnrelu1_1.cbr_unit.0.weight" in tensors:
        return "pspnet", tensors
    if any(key.endswith(_MERLIN) and tensor.ndim == 5 for key, tensor in tensors.items()):
        return "merlin", tensors
    raise Refused(f"{source.name} holds the weights of none of the models that are converted here.")


def _densenet_names() -> dict[str, str]:
    """Published file name → the library's name of the weights, which also names their findings and thresholds."""
    from core_models.foundation.bigger.xrv import DENSENET, library

    known = library().models.model_urls
    return {row["weights_url"].rpartition("/")[2]: name for name, row in known.items() if name.startswith(DENSENET)}


def _densenet_name(source: Path) -> str:
    names = _densenet_names()
    if source.name not in names:
        raise Refused(
            f"{source.name} is a DenseNet, but which one its file name does not say; keep the name it was published "
            f"under, such as {next(iter(names))}."
        )
    return names[source.name]


def main(arguments: list[str]) -> int:
    """FILE FOLDER → 0, or one sentence and 2."""
    if len(arguments) != 2:
        print("usage: python -m core_models.foundation.bigger.convert FILE FOLDER", file=sys.stderr)
        return 2
    try:
        print(f"wrote {convert(Path(arguments[0]), Path(arguments[1])).name}")
    except ReadingRoomError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
