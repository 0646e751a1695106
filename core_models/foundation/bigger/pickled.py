"""A file of weights that torch pickled → its tensors, read as data: nothing that the file names is ever called.

torchxrayvision publishes its DenseNets as pickles of the module itself, which its loader opens with full trust.  The
weights-only unpickler of torch opens no such module in the format from before torch 1.6.  Here an unpickler of our own
puts an inert stand-in in the place of every network class (and of numpy's, in attributes that a training script left on
the network) and refuses every other name.

The old format (torch/serialization.py, `_legacy_save`): pickles of a magic number, the protocol, system facts, the
object (its storages by persistent ids), the storages' keys in order; then for each key an int64 count and the numbers.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from core_models.errors import Refused

if TYPE_CHECKING:
    import torch

MAGIC = 0x1950A86A20F9469CFC6C
_INERT = re.compile(r"(?:torch\.nn|torchvision\.models|torchxrayvision\.models|numpy)(?:\.\w+)*")
_TYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
}
_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8}
_MAX_NUMBERS = 1 << 30
_MAX_DEPTH = 64


class Inert:
    """Stands for any network object or numpy's: keeps the attributes that the pickle sets, and does nothing."""

    kept: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *_: object) -> None:
        """Takes whatever the pickle would have called it with."""

    def __setstate__(self, state: object) -> None:
        self.kept = dict(state) if isinstance(state, dict) else {}


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: object, offset: int, size: tuple, stride: tuple, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _parameter(data: object, *_: object) -> object:
    return data


class _Reader(pickle.Unpickler):
    """Knows tensors, ordered dictionaries and stand-ins, and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.kinds: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_tensor"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch.nn.parameter", "Parameter"): _parameter,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("_codecs", "encode"): Inert,  # numpy's bytes
        }
        if (module, name) in known:
            return known[module, name]
        if _INERT.fullmatch(module):
            return Inert
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid and pid[0] == "module":
            return pid[1]
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and pid[1] in _BYTES:
            self.kinds[pid[2]] = pid[1]
            return _Storage(pid[2], pid[1])
        raise pickle.UnpicklingError("an unknown persistent id")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a pickled module, or the state dict that was pickled itself.

    Raises:
        Refused: the file is damaged, is no network, or names anything but network classes and tensors.
    """
    try:
        root, storages = _from_zip(path) if zipfile.is_zipfile(path) else _from_stream(path)
        found: dict[str, _Tensor] = {}
        if isinstance(root, dict):
            root = root["state_dict"] if isinstance(root.get("state_dict"), dict) else root
            found = {str(name): tensor for name, tensor in root.items() if isinstance(tensor, _Tensor)}
        _walk(root, "", found)
        tensors = {name: _made(tensor, storages) for name, tensor in found.items()}
    except pickle.UnpicklingError as error:
        raise Refused(
            f"{path.name} is damaged or names something that is no weight ({str(error)[:80]}) and was not opened."
        ) from error
    except Exception as error:  # a damaged pickle stream can raise nearly anything; none of it is our bug
        raise Refused(f"{path.name} is damaged or not a network that torch wrote, and was not opened.") from error
    if not tensors:
        raise Refused(f"{path.name} holds no network.")
    return tensors


def _from_stream(path: Path) -> tuple[Any, dict[str, bytearray]]:
    """The format before torch 1.6."""
    with path.open("rb") as file:
        if _Reader(file).load() != MAGIC:
            raise ValueError("not torch's")
        _Reader(file).load()  # the protocol
        _Reader(file).load()  # facts of the system that wrote it
        reader = _Reader(file)
        root = reader.load()
        return root, _storages(file, _Reader(file).load(), reader.kinds)


def _from_zip(path: Path) -> tuple[Any, dict[str, bytearray]]:
    """The format since: `data.pkl`, and each storage's raw numbers as `data/KEY`, stored without compression."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed")
        (main,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        reader = _Reader(io.BytesIO(archive.read(main)))
        root = reader.load()
        folder = main.removesuffix(".pkl")
        return root, {key: bytearray(archive.read(f"{folder}/{key}")) for key in reader.kinds}


def _walk(node: object, prefix: str, found: dict[str, _Tensor], depth: int = 0) -> None:
    """Collect `_parameters` and `_buffers` under the names that `state_dict` gives them."""
    if not isinstance(node, Inert) or depth > _MAX_DEPTH:
        return
    for kind in ("_parameters", "_buffers"):
        for name, tensor in (node.kept.get(kind) or {}).items():
            if isinstance(tensor, _Tensor):
                found[prefix + name] = tensor
    for name, child in (node.kept.get("_modules") or {}).items():
        _walk(child, f"{prefix}{name}.", found, depth + 1)


def _storages(file: BinaryIO, keys: object, kinds: dict[str, str]) -> dict[str, bytearray]:
    """The raw numbers behind each key, in the order that the file lists them."""
    if not isinstance(keys, list):
        raise pickle.UnpicklingError("no list of storages")
    out = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        raw = bytearray(file.read(count * _BYTES[kinds[key]]) if 0 <= count <= _MAX_NUMBERS else b"")
        if len(raw) != count * _BYTES[kinds[key]]:
            raise ValueError("cut short")
        out[key] = raw
    return out


def _made(tensor: _Tensor, storages: dict[str, bytearray]) -> torch.Tensor:
    """The tensor itself; torch refuses a size or stride that leaves the storage, and here one that repeats it."""
    import torch

    numbers = torch.frombuffer(storages[tensor.storage.key], dtype=getattr(torch, tensor.storage.kind))
    if math.prod(tensor.size) > numbers.numel():
        raise ValueError("more numbers than are stored")
    return numbers.as_strided(tensor.size, tensor.stride, tensor.offset).clone()
