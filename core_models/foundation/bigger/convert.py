"""Weights as their makers publish them (pickled) → one safetensors file that the bigger models read; run by hand.

`python -m core_models.foundation.bigger.convert FILE FOLDER` knows torchxrayvision's DenseNets (a module pickled
whole), its PSPNet (a state dict of a DataParallel module) and Merlin's image encoder (a state dict).  Nothing in the
file is run: what torch 1.6 or later wrote goes through its weights-only unpickler, older files through `pickled`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    loaded = pickled.read_tensors(source) if pickled.is_legacy(source) else _weights(source)
    name, tensors = _named(source, loaded)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    part = target.with_suffix(".part")
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, part)
    part.replace(target)
    return target


def _weights(source: Path) -> Any:
    """What torch's weights-only unpickler makes of the file, network classes of torchxrayvision allowed."""
    import torch

    from core_models.foundation.bigger.xrv import library

    models = library().models
    layers = (torch.nn.Sequential, torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.ReLU, torch.nn.MaxPool2d)
    dense = (models.DenseNet, models._DenseLayer, models._DenseBlock, models._Transition)
    try:
        with torch.serialization.safe_globals([*layers, torch.nn.AvgPool2d, torch.nn.Linear, *dense]):
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damaged or hostile stream leads to
        raise Refused(f"{source.name} is damaged, or holds something that is no weight, and was not opened.") from error
    return loaded.state_dict() if isinstance(loaded, torch.nn.Module) else loaded


def _named(source: Path, loaded: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """(the name under which the model looks for it, its tensors)."""
    import torch

    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise Refused(f"{source.name} does not hold a network's weights.")
    tensors = {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}
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
