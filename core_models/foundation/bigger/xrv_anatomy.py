"""torchxrayvision's PSPNet: a radiograph → 14 structures (trained on ChestX-Det; Lian et al., IEEE TMI 2021).

The library's names say "left" and "right" without saying whose.  A `Volume` does say: its columns run to the patient's
left.  So of each pair the one that lies further to the image's left is the patient's right one, whatever its channel.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.errors import Refused
from core_models.foundation.bigger import common
from core_models.foundation.reading import Structure
from core_models.segmentation.engine import Mask

if TYPE_CHECKING:
    from core_models.registry import ModelRow

SIDE = 512
SIDES = (
    "Right and left are the patient's, by where a structure lies in the image; the model's own sides are not relied on."
)
PAIRS = (
    ("Left Clavicle", "Right Clavicle", "clavicle"),
    ("Left Scapula", "Right Scapula", "scapula"),
    ("Left Lung", "Right Lung", "lung"),
    ("Left Hilus Pulmonis", "Right Hilus Pulmonis", "hilum"),
)
SINGLE = {
    "Heart": "heart",
    "Aorta": "aorta",
    "Facies Diaphragmatica": "diaphragm",
    "Mediastinum": "mediastinum",
    "Weasand": "trachea",  # an old word for the windpipe; the gullet is not seen on a radiograph
    "Spine": "spine",
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the library's wrapper has them


class Anatomy:
    """The network with its weights; `structures` may be called again and again, from one thread at a time."""

    def __init__(self, path: Path, row: ModelRow) -> None:
        with warnings.catch_warnings():  # the package silences all warnings of the process when imported
            from torchxrayvision.baseline_models.chestx_det import PSPNet
            from torchxrayvision.baseline_models.chestx_det.ptsemseg.pspnet import pspnet

        tensors = common.read_tensors(path, row)
        self.targets: tuple[str, ...] = tuple(PSPNet.targets)
        try:
            self._model = pspnet(len(self.targets), block_config=_depths(tensors))
            self._model.load_state_dict(tensors)
        except (RuntimeError, ValueError) as error:
            raise Refused(
                f"The weights {path.name} of the model {row.name} are not those of a PSPNet with "
                f"{len(self.targets)} structures."
            ) from error
        self._model.eval()

    def logits(self, picture: np.ndarray) -> Any:
        """(h, w) in 0..1 → tensor (structures, 512, 512) of the middle square, as the library's wrapper computes it."""
        import torch

        from core_models.foundation.bigger.xrv import square

        x = torch.from_numpy(square(picture, SIDE))[None].repeat(1, 3, 1, 1)  # (1, 3, 512, 512)
        x = (x + 1024) / 2048
        x = (x - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it still calls functional.upsample by its old name
            return self._model(x)[0]

    def structures(self, picture: np.ndarray) -> tuple[Structure, ...]:
        """The structures found, as masks of the whole image (1, h, w), paired ones named by the patient's side."""
        import torch
        import torch.nn.functional as F

        logits = self.logits(picture)
        side = min(picture.shape)
        top, left = (length // 2 - side // 2 for length in picture.shape)  # as the library's XRayCenterCrop
        found: dict[str, tuple[np.ndarray, float]] = {}
        for target, plane in zip(self.targets, logits, strict=True):  # one at a time: all at full size are 14 images
            probability = torch.sigmoid(plane)[None, None]
            full = F.interpolate(probability, size=(side, side), mode="bilinear", align_corners=False)[0, 0]
            inside = (full >= 0.5).numpy()
            if inside.any():
                whole = np.zeros((1, *picture.shape), bool)
                whole[0, top : top + side, left : left + side] = inside
                found[target] = whole, float(full.numpy()[inside].mean())
        names = sides({target: _column(mask) for target, (mask, _) in found.items()}, left + side / 2)
        return tuple(
            Structure(names[target], Mask.from_full(mask), confidence) for target, (mask, confidence) in found.items()
        )


def sides(columns: dict[str, float], centre: float) -> dict[str, str]:
    """The library's names of what was found, with mean columns → our labels.

    A pair is told apart by its columns; one alone by the spine's or mediastinum's column, else by the `centre`.
    """
    out = {target: SINGLE[target] for target in columns if target in SINGLE}
    middle = columns.get("Spine", columns.get("Mediastinum", centre))
    for first, second, label in PAIRS:
        here = [target for target in (first, second) if target in columns]
        if len(here) == 2:
            right, left = sorted(here, key=lambda target: columns[target])
            out |= {right: f"right {label}", left: f"left {label}"}
        elif here:
            out[here[0]] = f"right {label}" if columns[here[0]] < middle else f"left {label}"
    return out


def _column(mask: np.ndarray) -> float:
    return float(np.nonzero(mask[0])[1].mean())


def _depths(tensors: dict[str, Any]) -> list[int]:
    """Residual blocks in each of the four stages, from the names of the tensors ([3, 4, 23, 3] as published)."""
    depths = []
    for stage in range(2, 6):
        prefix = f"res_block{stage}.layers."
        indices = {int(name.split(".")[2]) for name in tensors if name.startswith(prefix)}
        if not indices or len(indices) > 64:
            raise ValueError(prefix)
        depths.append(max(indices) + 1)
    return depths
