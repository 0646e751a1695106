"""A MONAI bundle's folder → what of it is needed, as plain data; none of its Python is run.

A bundle's configs may hold expressions ("$…") that MONAI evaluates, and name any class ("_target_").  Here they are
JSON and nothing else: references ("@pixdim", "@a#b", "%…") are looked up, an expression where a value is needed is
refused, steps and networks are taken from a list of known ones, and keys that are not needed are never looked at.

Format: MONAI's bundle specification; configs/metadata.json, configs/inference.json, models/model.ts or models/model.pt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_models.errors import ModelMissing, Refused

MAX_CONFIG_BYTES = 2_000_000
MAX_NAMES = 1000
MAX_SIDE = 512  # voxels of a window's edge
NETWORKS = {
    "UNet", "BasicUNet", "DynUNet", "SegResNet", "SegResNetVAE", "SegResNetDS", "SwinUNETR", "UNETR", "VNet",
    "AttentionUnet", "FlexibleUNet", "BasicUNetPlusPlus", "HighResNet",
}  # fmt: skip
"""Classes of `monai.networks.nets` that a bundle's network may be."""
_IGNORED = {"LoadImage", "EnsureChannelFirst", "AddChannel", "EnsureType", "ToTensor", "CastToType", "ToDevice",
            "CropForeground", "Identity"}  # fmt: skip
"""Steps that change nothing of what is computed for one grey image that lies in memory already."""
STEPS = {"Orientation", "Spacing", "ScaleIntensityRange", "ScaleIntensity", "NormalizeIntensity"}


@dataclass(frozen=True)
class Step:
    """One step before the network: its name without the final "d", and its plain arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself.

    Attributes:
        names: channel of the answer → structure, without the background.
        channels: of the answer.
        exclusive: whether a voxel is of one structure at most (softmax), or each channel decides by itself (sigmoid).
        window: voxels (x, y, z) of what the network sees at once; `overlap`: 0 to below 1.
        bell: windows count more in their midst, where they overlap.
        network: (class of monai.networks.nets, arguments) of a state dict; None where a program is given.
        weights: models/model.ts (a TorchScript program) or models/model.pt (a state dict).
        modality: as the bundle says, upper case; "" where it does not.
    """

    title: str
    version: str
    modality: str
    steps: tuple[Step, ...]
    window: tuple[int, int, int]
    overlap: float
    bell: bool
    names: dict[int, str]
    channels: int
    exclusive: bool
    network: tuple[str, dict[str, Any]] | None
    weights: Path


def read(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        ModelMissing: no such folder, or no weights in it.
        Refused: a config is missing or damaged, holds an expression where a value is needed, or asks for what is not
            known here.
    """
    if not folder.is_dir():
        raise ModelMissing("The folder named for the MONAI bundle is not there.")
    meta, config = _json(folder, "metadata.json"), _json(folder, "inference.json")
    formats = meta.get("network_data_format")
    image = _only(formats, "inputs")
    if int(image.get("num_channels", 1)) != 1:
        raise Refused("This MONAI bundle wants several images at once; one series is given here.")
    answer = _only(formats, "outputs")
    names, channels = _names(answer)
    weights, steps = _weights(folder), tuple(_steps(config))
    wanted = config.get("inferer")
    wanted = _looked_up(config, wanted[1:], "inferer") if isinstance(wanted, str) and wanted[:1] == "@" else wanted
    wanted = wanted if isinstance(wanted, dict) else {}
    needed = ("_target_", "roi_size", "overlap", "mode")  # a device is chosen here
    inferer = _resolved(config, {key: wanted[key] for key in needed if key in wanted}, "inferer")
    window, overlap = _window(inferer, image)
    return Bundle(
        title=str(meta.get("name") or meta.get("task") or folder.name)[:80],
        version=str(meta.get("version", ""))[:16],
        modality=str(image.get("modality", "")).upper()[:16],
        steps=steps,
        window=window,
        overlap=overlap,
        bell=inferer.get("mode") == "gaussian",
        names=names,
        channels=channels,
        exclusive=_exclusive(config, channels),
        network=None if weights.suffix == ".ts" else _network(config),
        weights=weights,
    )


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "configs" / name
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"The MONAI bundle's configs/{name} is missing or damaged (YAML is not read).") from error
    if not isinstance(config, dict):
        raise Refused(f"The MONAI bundle's configs/{name} is not an object.")
    return config


def _only(formats: Any, side: str) -> dict[str, Any]:
    given = formats.get(side) if isinstance(formats, dict) else None
    if not isinstance(given, dict) or len(given) != 1 or not isinstance(one := next(iter(given.values())), dict):
        raise Refused(f"The MONAI bundle's metadata describes no single {side[:-1]} of its network.")
    return one


def _names(answer: dict[str, Any]) -> tuple[dict[int, str], int]:
    try:
        channels = int(answer["num_channels"])
        told = {int(n): str(name)[:64] for n, name in answer.get("channel_def", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused("The MONAI bundle's metadata does not say what its network's channels are.") from error
    if not 1 <= channels <= MAX_NAMES:
        raise Refused(f"The MONAI bundle's network answers with {channels} channels; 1 to {MAX_NAMES} are read.")
    names = {n: told.get(n, f"structure {n}") for n in range(channels)}
    background = channels > 1 and names[0].strip().lower() in ("background", "structure 0", "everything else", "other")
    return ({n: name for n, name in names.items() if n} if background else names), channels


# ---- the config language, as far as values go ------------------------------------------------------------------------


def _resolved(config: dict[str, Any], value: Any, what: str, depth: int = 0) -> Any:
    """A value with its references looked up.  Raises Refused on an expression, an unknown reference or a loop."""
    if depth > 20:
        raise Refused(f"The MONAI bundle's {what} refers to itself.")
    if isinstance(value, str):
        if value.startswith("$"):
            raise Refused(
                f"The MONAI bundle's {what} is an expression ({value[:60]!r}); expressions are not run here: write the "
                "value itself into a copy of its configs/inference.json."
            )
        if value.startswith("@"):
            return _resolved(config, _looked_up(config, value[1:], what), what, depth + 1)
        return value
    if isinstance(value, list):
        return [_resolved(config, one, what, depth + 1) for one in value]
    if isinstance(value, dict):
        return {key: _resolved(config, one, f"{what} {key}", depth + 1) for key, one in value.items()}
    return value


def _looked_up(config: dict[str, Any], reference: str, what: str) -> Any:
    at: Any = config
    for part in reference.replace("#", "::").split("::"):
        try:
            at = at[int(part)] if isinstance(at, list) else at[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Refused(f"The MONAI bundle's {what} refers to {reference[:60]!r}, which is not there.") from error
    return at


def _target(item: Any) -> str:
    return str(item.get("_target_", "")).rpartition(".")[2] if isinstance(item, dict) else ""


def _list_of(config: dict[str, Any], section: str) -> list[Any]:
    given = config.get(section)
    if isinstance(given, str) and given.startswith("@"):
        given = _looked_up(config, given[1:], section)
    if _target(given) == "Compose":
        given = given.get("transforms")
    if isinstance(given, str) and given.startswith("@"):
        given = _looked_up(config, given[1:], section)
    if not isinstance(given, list):
        raise Refused(f"The MONAI bundle's configs/inference.json has no list of steps under {section!r}.")
    return given


def _steps(config: dict[str, Any]):
    for item in _list_of(config, "preprocessing"):
        if isinstance(item, str) and item.startswith("@"):
            item = _looked_up(config, item[1:], "preprocessing")
        name = _target(item).removesuffix("D").removesuffix("d")
        if (isinstance(item, dict) and item.get("_disabled_") is True) or name in _IGNORED:
            continue
        if name not in STEPS:
            raise Refused(
                f"The MONAI bundle has a step {name[:40] or str(item)[:40]!r} before its network, not known here."
            )
        wanted = {key: value for key, value in item.items() if key not in ("_target_", "keys", "allow_missing_keys")}
        yield Step(name, _resolved(config, wanted, f"step {name}"))


def _window(inferer: Any, image: dict[str, Any]) -> tuple[tuple[int, int, int], float]:
    kind = _target(inferer)
    if kind and kind not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SimpleInferer"):
        raise Refused(f"The MONAI bundle wants a {kind[:40]}, which is not known here.")
    size = inferer.get("roi_size") if kind.startswith("Sliding") else image.get("spatial_shape")
    size = [size] * 3 if isinstance(size, int) else size
    try:
        window = tuple(int(n) for n in size)
        overlap = inferer.get("overlap", 0.25)
        overlap = float(overlap[0] if isinstance(overlap, list) else overlap)
    except (TypeError, ValueError, IndexError) as error:
        raise Refused("The MONAI bundle does not say how many voxels its network sees at once.") from error
    if len(window) != 3 or not all(1 <= n <= MAX_SIDE for n in window) or not 0 <= overlap < 1:
        raise Refused(
            f"The MONAI bundle's window of {window} voxels is none that is read here (three numbers to {MAX_SIDE})."
        )
    return window, overlap  # type: ignore[return-value]


def _exclusive(config: dict[str, Any], channels: int) -> bool:
    """Softmax unless the steps after the network say sigmoid; one channel can only be a sigmoid."""
    if channels == 1:
        return False
    for item in _list_of(config, "postprocessing") if "postprocessing" in config else ():
        if _target(item).startswith("Activations"):
            return item.get("sigmoid") is not True
    return True


def _network(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(class of `monai.networks.nets`, plain arguments) of a bundle whose weights are a state dict.

    Raises:
        Refused: no network, one that is not known here, or arguments that are expressions or name classes.
    """
    export = "; export it as models/model.ts, or write what is wanted into a copy of its configs"
    given = config.get("network_def")
    if not isinstance(given, dict):
        raise Refused(f"The MONAI bundle has weights but no network_def{export}.")
    target = str(given.get("_target_", ""))
    package, _, name = target.rpartition(".")
    known = package in ("", "monai.networks.nets") or package.startswith("monai.networks.nets.")
    if name not in NETWORKS or not known:
        raise Refused(f"The MONAI bundle's network {target[:60]!r} is none that is built here{export}.")
    wanted = {key: value for key, value in given.items() if not key.startswith("_")}
    arguments = _resolved(config, wanted, "network_def")
    if "_target_" in json.dumps(arguments):
        raise Refused(f"The MONAI bundle's network_def builds other objects{export}.")
    return name, arguments


def _weights(folder: Path) -> Path:
    for name in ("model.ts", "model.pt"):
        if (path := folder / "models" / name).is_file():
            return path
    raise ModelMissing("The MONAI bundle has no models/model.ts or models/model.pt; fetch its weights.")
