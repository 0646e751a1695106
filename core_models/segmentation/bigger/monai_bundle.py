"""A series and a MONAI bundle → the structures that its network draws, once; then a click picks the one under it.

The bundle's configs are read as data (see `bundle`).  models/model.pt is opened as tensors alone (`weights_only`) into
a network of a known class; models/model.ts is a TorchScript program, which torch runs: take it only from someone you
trust, as torch itself warns.  The steps follow MONAI's of the same names; resampling is SimpleITK's.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from core_models.errors import Cancelled, Refused
from core_models.segmentation import optional
from core_models.segmentation.bigger import bundle as bundles
from core_models.segmentation.bigger.bundle import Bundle, Step
from core_models.segmentation.bigger.picked import Structure, pick, structures
from core_models.segmentation.engine import Prompt, Segmentation, never
from core_models.study.volume import MAX_VOXELS, Volume

if TYPE_CHECKING:
    import torch

    from core_models.segmentation.optional import OptionalRow

MAX_BYTES = 6 * 2**30  # of the answer before it becomes labels


@dataclass
class Prepared:
    """A series, and what was drawn on it once a prompt asked for it."""

    volume: Volume
    found: tuple[Structure, ...] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class MonaiBundleEngine:
    """The engine over one bundle's folder.

    Raises, at construction:
        ModelMissing: no folder, no weights, or MONAI is needed and not installed.
        Refused: what is in the folder is not read here.
    """

    def __init__(self, row: OptionalRow, where: str, threads: int) -> None:
        import torch

        folder = Path(where).expanduser()
        self._bundle = bundles.read(folder)
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = _network(self._bundle, folder, row).to(self._device).eval()
        self._lock = threading.Lock()
        self.name, self.licence = row.name, row.licence
        self.version = f"{self._bundle.title} {self._bundle.version}".strip()

    def prepare(self, volume: Volume) -> Prepared:
        """Nothing is drawn before a prompt asks for it, since it may take minutes.

        Raises:
            Refused: the bundle was made for another modality.
        """
        meant = {"MRI": "MR"}.get(self._bundle.modality, self._bundle.modality)
        if meant in ("CT", "MR") and volume.modality in ("CT", "MR", "CR", "DX") and meant != volume.modality:
            raise Refused(f"The MONAI bundle {self._bundle.title} was made for {meant}, not {volume.modality}.")
        return Prepared(volume)

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Draw where that was not done, then pick.

        Raises:
            Cancelled: asked before every window of the network.
            Refused: the network does not take the series, a prompt outside the volume, or none that adds.
        """
        with prepared.lock:
            if prepared.found is None:
                with self._lock:
                    prepared.found = self._draw(prepared.volume, cancelled)
        return pick(prepared.volume, prepared.found, prompts, f"The MONAI bundle {self._bundle.title}")

    def _draw(self, volume: Volume, cancelled: Callable[[], bool]) -> tuple[Structure, ...]:
        import torch

        back = to_image(volume)
        image = prepared_image(back, self._bundle.steps)
        values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)  # (x, y, z) of the grid that the network knows
        if values.size * self._bundle.channels * 4 > MAX_BYTES:
            raise Refused("The series is too large for this MONAI bundle on this machine.")
        try:
            with torch.inference_mode():
                answer = slid(
                    self._network, torch.from_numpy(np.ascontiguousarray(values)), self._bundle, self._device, cancelled
                )
        except (RuntimeError, TypeError) as error:
            raise Refused(f"The network of the MONAI bundle {self._bundle.title} does not take this series.") from error
        if self._bundle.exclusive:
            labels = _laid_back(answer.argmax(0).to(torch.int16).cpu().numpy(), image, back)
            return structures(labels, self._bundle.names, parts=True)
        found: list[Structure] = []
        for channel, name in self._bundle.names.items():
            drawn = (answer[channel] > 0).to(torch.int16).cpu().numpy()  # a sigmoid's half is zero before it
            found += structures(_laid_back(drawn, image, back), {1: name}, parts=True)
        return tuple(found)


def _network(bundle: Bundle, folder: Path, row: OptionalRow) -> torch.nn.Module:
    """The network with its weights.  Raises ModelMissing, Refused."""
    import torch

    damaged = f"The weights models/{bundle.weights.name} of the MONAI bundle are damaged or do not fit its network."
    if bundle.network is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the format is on its way out, and bundles are in it
                return torch.jit.load(str(bundle.weights), map_location="cpu")
        except (RuntimeError, OSError, ValueError) as error:
            raise Refused(damaged) from error
    if find_spec("monai") is None:
        raise optional.missing(row, "needs monai for this bundle's models/model.pt, which is not installed here")
    name, arguments = bundle.network
    try:
        loaded = torch.load(bundle.weights, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict"):
            if isinstance(loaded.get(key), dict):
                loaded = loaded[key]
        network = getattr(import_module("monai.networks.nets"), name)(**arguments)
        network.load_state_dict({key.removeprefix("module."): tensor for key, tensor in loaded.items()})
    except Exception as error:  # torch refuses what is no tensor with its own kind, a network its arguments with any
        raise Refused(damaged) from error
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values() if tensor.is_floating_point()):
        raise Refused("The weights of the MONAI bundle hold numbers that are not finite.")
    return network


# ---- the steps before the network ------------------------------------------------------------------------------------


def to_image(volume: Volume) -> sitk.Image:
    """A volume as SimpleITK has it: float32, (x, y, z), LPS mm.

    Raises:
        Refused: its axes are not at right angles (a tilted gantry), which these models do not know.
    """
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        raise Refused("A series whose slices are tilted is not read by a MONAI bundle here.")
    image = sitk.GetImageFromArray(np.asarray(volume.array, np.float32))
    image.SetSpacing([float(s) for s in volume.spacing[::-1]])
    image.SetOrigin([float(v) for v in volume.affine[:3, 3]])
    image.SetDirection(directions.ravel().tolist())
    return image


def prepared_image(image: sitk.Image, steps: tuple[Step, ...]) -> sitk.Image:
    """The image after every step.  Raises Refused on an argument that is not known here."""
    for step in steps:
        try:
            image = STEPS[step.name](image, **step.arguments)
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
            raise Refused(
                f"The MONAI bundle's step {step.name} has arguments that are not known here "
                f"({', '.join(step.arguments)[:80]})."
            ) from error
    return image


def _orientation(
    image: sitk.Image, axcodes: str = "RAS", as_closest_canonical: bool = False, **labels: Any
) -> sitk.Image:
    if set(labels) - {"labels", "lazy"}:
        raise ValueError(labels)
    return sitk.DICOMOrient(image, "RAS" if as_closest_canonical else axcodes)


_SPACING = {"diagonal", "align_corners", "padding_mode", "dtype", "lazy", "recompute_affine", "scale_extent"}


def _spacing(image: sitk.Image, pixdim: Any, mode: Any = "bilinear", **others: Any) -> sitk.Image:
    """Samples from the first voxel's centre on, round((n - 1) · old / new + 1) of them, edges continued."""
    if set(others) - _SPACING or others.get("diagonal") or others.get("scale_extent"):
        raise ValueError(others)
    old = np.array(image.GetSpacing())
    wanted = np.array([float(v) for v in (pixdim if isinstance(pixdim, list) else [pixdim] * 3)], float)
    new = np.where(wanted > 0, wanted, old)
    size = np.rint((np.array(image.GetSize()) - 1) * old / new + 1).astype(int)
    if int(np.prod(size, dtype=np.int64)) > MAX_VOXELS:
        raise Refused("The MONAI bundle would sample this series on a grid that is too large.")
    nearest = "nearest" in str(mode[0] if isinstance(mode, list) else mode)
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(image)
    resample.SetOutputSpacing(new.tolist())
    resample.SetSize(size.tolist())
    resample.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resample.UseNearestNeighborExtrapolatorOn()
    return resample.Execute(image)


def _valued(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    out = sitk.GetImageFromArray(values.astype(np.float32))
    out.CopyInformation(image)
    return out


def _scale_range(
    image: sitk.Image,
    a_min: float,
    a_max: float,
    b_min: float | None = None,
    b_max: float | None = None,
    clip: bool = False,
    dtype: Any = None,
) -> sitk.Image:
    values = (sitk.GetArrayFromImage(image) - a_min) / ((a_max - a_min) or 1.0)
    if b_min is not None and b_max is not None:
        values = values * (b_max - b_min) + b_min
        if clip:
            values = np.clip(values, b_min, b_max)
    return _valued(image, values)


def _scale(image: sitk.Image, minv: float = 0.0, maxv: float = 1.0, channel_wise: bool = False, dtype: Any = None):
    values = sitk.GetArrayFromImage(image)
    low, high = float(values.min()), float(values.max())
    return _valued(image, (values - low) / ((high - low) or 1.0) * (maxv - minv) + minv)


def _normalize(
    image: sitk.Image,
    subtrahend: float | None = None,
    divisor: float | None = None,
    nonzero: bool = False,
    channel_wise: bool = False,
    dtype: Any = None,
) -> sitk.Image:
    values = sitk.GetArrayFromImage(image)
    chosen = values != 0 if nonzero else np.ones(values.shape, bool)
    if chosen.any():
        inside = values[chosen].astype(np.float64)
        centre = inside.mean() if subtrahend is None else float(subtrahend)
        spread = inside.std() if divisor is None else float(divisor)
        values[chosen] = (inside - centre) / (spread or 1.0)
    return _valued(image, values)


STEPS: dict[str, Callable[..., sitk.Image]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensity": _scale,
    "NormalizeIntensity": _normalize,
}


# ---- the network over the image --------------------------------------------------------------------------------------


def slid(
    network: torch.nn.Module,
    values: torch.Tensor,
    bundle: Bundle,
    device: torch.device,
    cancelled: Callable[[], bool],
) -> torch.Tensor:
    """Values (x, y, z) → the network's answers (channels, x, y, z), windows that overlap averaged.

    Raises:
        Cancelled: asked before every window.
        TypeError: the network answers with another shape.
    """
    import torch

    size, window = values.shape, bundle.window
    lacking = [max(w - n, 0) for w, n in zip(window, size, strict=True)]
    padding = [p for n in reversed(lacking) for p in (n // 2, n - n // 2)]
    padded = torch.nn.functional.pad(values, padding)
    weight = _weight(bundle)
    total = torch.zeros((bundle.channels, *padded.shape))
    seen = torch.zeros(padded.shape)
    for start in product(*(_starts(n, w, bundle.overlap) for n, w in zip(padded.shape, window, strict=True))):
        if cancelled():
            raise Cancelled("Another click came before this one was answered.")
        at = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
        answer = network(padded[at][None, None].to(device))
        answer = answer[0] if isinstance(answer, list | tuple) else answer
        if answer.shape != (1, bundle.channels, *window):
            raise TypeError(f"the network answers with {tuple(answer.shape)}")
        total[(slice(None), *at)] += answer[0].float().cpu() * weight
        seen[at] += weight
    total /= seen
    inner = tuple(slice(n // 2, n // 2 + s) for n, s in zip(lacking, size, strict=True))
    return total[(slice(None), *inner)]


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis; the last one ends where the image does."""
    step = max(1, int(window * (1 - overlap)))
    last = size - window
    return sorted({min(s, last) for s in range(0, last + step, step)})


def _weight(bundle: Bundle) -> torch.Tensor:
    """How much each voxel of a window counts: all alike, or as a bell of an eighth of the window's width."""
    import torch

    if not bundle.bell:
        return torch.ones(bundle.window)
    out = torch.ones(bundle.window)
    for axis, n in enumerate(bundle.window):
        line = torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2)
        out = out * line.reshape([-1 if a == axis else 1 for a in range(3)])
    return out.clamp_min(1e-3 * float(out.max()))


def _laid_back(labels: np.ndarray, on: sitk.Image, grid: sitk.Image) -> np.ndarray:
    """Labels (x, y, z) on the network's grid → (z, y, x) on the volume's, nearest neighbour."""
    drawn = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose(2, 1, 0)))
    drawn.CopyInformation(on)
    return sitk.GetArrayFromImage(sitk.Resample(drawn, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
