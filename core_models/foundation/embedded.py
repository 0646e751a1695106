"""The embedded image model: a radiograph → quality, calibrated findings with their place, named structures, embedding.

Concurrency: the weights load once under `_lock`; reading changes nothing and may run in several threads.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from core_models.errors import Refused
from core_models.foundation import measures, weights
from core_models.foundation.anatomy import full_masks, plausible
from core_models.foundation.data import context_row
from core_models.foundation.images import grey, normalised, square
from core_models.foundation.labels import FINDINGS, GATE, STRUCTURES
from core_models.foundation.reading import Context, Finding, Quality, Reading, Structure
from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.foundation.model import FoundationModel
    from core_models.registry import ModelRow

NOTHING = Context()
PLAUSIBLE_RATIO = (0.3, 0.85)
"""Cardiothoracic ratios outside of this mean that an outline is wrong (adults with the smallest hearts have 0.35)."""
BOX_LEVEL = 0.5
"""Share of the strongest attribution from which a cell belongs to the box."""
NOT_CHEST = "This does not look like a chest radiograph: no findings are proposed."
NOT_FRONTAL = "This looks like a lateral view: the model reads frontal radiographs only, and proposes no findings."
TURNED = "The image seems to be turned by a quarter or a half: no findings are proposed until it stands upright."
INVERTED = "The grey levels seem to be inverted (bone dark): the model read the image turned back."
ODD_ANATOMY = "The outlines of lungs and heart found here are not plausible and are not offered."


class EmbeddedEyes:
    """The model of assets/foundation behind the `Eyes` protocol.

    Args:
        row: its row of the registry; folder: other weights of the same kind, or None; threads: torch threads.
        every: answer every label, those that are not shown to readers too: for evaluations.

    Raises:
        ModelMissing, Refused: at the first reading, where the weights are not there, damaged or of another kind.
    """

    def __init__(self, row: ModelRow, folder: Path | None = None, threads: int = 2, every: bool = False) -> None:
        self.name, self.version, self.licence = row.name, row.version, row.licence
        self.modalities = row.modalities
        self._folder = folder or weights.FOLDER
        self._threads, self._every = threads, every
        self._lock = threading.Lock()
        self._loaded: tuple[FoundationModel, weights.Calibration, str] | None = None

    def read(self, volume: Volume, context: Context = NOTHING) -> Reading:
        """Read one radiograph.  Raises Refused for a stack of images or another modality."""
        if self.modalities and volume.modality not in self.modalities:
            raise Refused(f"This model reads chest radiographs; it was not trained on {volume.modality[:16]}.")
        if volume.shape[0] != 1:
            raise Refused(f"This model reads single radiographs; this series has {volume.shape[0]} images.")
        began = time.perf_counter()
        model, calibration, digest = self._load()
        picture = grey(volume.array[0])
        # By way of the finer size, as in training: straight there, pictures would be sharper than any it saw.
        finer = square(picture, calibration.anatomy_size)
        small = square(finer[0], calibration.size)
        with torch.inference_mode():
            quality = self._quality(model, calibration, small)
            if quality.inverted >= calibration.gate["inverted"]:
                small, finer = 1 - small, 1 - finer
            known = torch.from_numpy(context_row(context.view, context.age, context.sex))[None]
            out = _encode(model, small, known)
            findings = _findings(model, calibration, out, picture.shape, self._every) if quality.usable else ()
            structures = ()
            if quality.usable:
                structures = _structures(model, _encode(model, finer, None), picture.shape)
            embedding = None
            if "contrastive" in model.tasks:
                embedding = model.tasks["contrastive"].image(out.grid_map.float().mean((2, 3)))[0].numpy()
        notes = () if structures or not quality.usable else (ODD_ANATOMY,)
        spacing = volume.spacing[1:] if volume.spacing_known else None
        masks = {s.label: s.mask for s in structures}
        return Reading(
            model=f"{self.name}/{self.version} ({digest[:12]})",
            licence=self.licence,
            quality=quality,
            findings=findings,
            structures=structures,
            measured=measures.measure(masks, spacing) if masks else (),
            inputs=("image", *context.given) if quality.usable else ("image",),
            missing=_missing(context, calibration),
            embedding=embedding,
            seconds=time.perf_counter() - began,
            notes=notes,
        )

    def _load(self) -> tuple[FoundationModel, weights.Calibration, str]:
        with self._lock:
            if self._loaded is None:
                torch.set_num_threads(self._threads)
                calibration = weights.load_calibration(self._folder)
                self._loaded = (weights.load(self._folder), calibration, weights.digest(self._folder))
            return self._loaded

    def _quality(self, model: FoundationModel, calibration: weights.Calibration, small: torch.Tensor) -> Quality:
        pooled = _encode(model, small, None).grid_map.float().mean((2, 3))
        p = dict(zip(GATE, model.tasks["gate"](pooled)[0].sigmoid().tolist(), strict=True))
        yes = {name: p[name] >= calibration.gate[name] for name in GATE}
        notes = []
        if not yes["chest"]:
            notes.append(NOT_CHEST)
        else:
            if yes["rotated"]:
                notes.append(TURNED)
            elif not yes["frontal"]:
                notes.append(NOT_FRONTAL)
            if yes["inverted"]:
                notes.append(INVERTED)
        usable = yes["chest"] and yes["frontal"] and not yes["rotated"]
        return Quality(p["chest"], p["frontal"], p["inverted"], p["rotated"], usable, tuple(notes))


def _encode(model: FoundationModel, small: torch.Tensor, context: torch.Tensor | None):
    with torch.autocast("cpu", torch.bfloat16):
        return model.encoder(normalised(small)[None], context=context)


def _findings(
    model: FoundationModel, calibration: weights.Calibration, out, shape: tuple[int, int], every: bool
) -> tuple[Finding, ...]:
    head = model.tasks["findings"]
    p = calibration.probabilities(head(out.pooler_output.float()))[0]
    # The head is linear on the mean of the map, so each cell's share of the logit is exact (class activation map, Zhou
    # et al., CVPR 2016, which Grad-CAM gives for such a head).
    shares = torch.einsum("chw,lc->lhw", out.grid_map[0].float(), head.linear.weight.float())
    found = []
    for i, label in enumerate(FINDINGS):
        own = calibration.labels[label.name]
        if not (own.shown or every):
            continue
        heat = shares[i].clamp(min=0).numpy()
        heat = (heat / heat.max()).astype(np.float32) if heat.max() > 0 else None
        found.append(
            Finding(
                name=label.name,
                term=label.term,
                region=label.region,
                probability=float(p[i]),
                threshold=own.threshold,
                calibrated=True,
                box=_box(heat, shape) if heat is not None else None,
                heat=heat,
            )
        )
    return tuple(sorted(found, key=lambda f: -f.probability))


def _box(heat: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The connected cells around the strongest one → their box in source pixels."""
    from scipy.ndimage import label

    regions, _ = label(heat >= BOX_LEVEL)
    rows, columns = np.nonzero(regions == regions[np.unravel_index(int(heat.argmax()), heat.shape)])
    dy, dx = shape[0] / heat.shape[0], shape[1] / heat.shape[1]
    return (
        round(columns.min() * dx),
        round(rows.min() * dy),
        round((columns.max() + 1) * dx),
        round((rows.max() + 1) * dy),
    )


def _structures(model: FoundationModel, out, shape: tuple[int, int]) -> tuple[Structure, ...]:
    found = full_masks(model, out, shape)
    if not plausible(np.stack([mask for mask, _ in found])):
        return ()
    structures = tuple(
        Structure(label, Mask.from_full(mask[None]), confidence)
        for label, (mask, confidence) in zip(STRUCTURES, found, strict=True)
    )
    # Each outline may pass alone and the heart still be half missed: the ratio shows it, and would be a wrong number.
    ratio = {m.key: m.value for m in measures.measure({s.label: s.mask for s in structures}, None)}
    low, high = PLAUSIBLE_RATIO
    return structures if low <= ratio.get("cardiothoracic_ratio", 0.0) <= high else ()


def _missing(context: Context, calibration: weights.Calibration) -> tuple[str, ...]:
    absent = [name for name in ("view", "age", "sex") if name not in context.given]
    words = [f"The image model was calibrated on {calibration.data}."]
    if absent:
        words.append(f"The image model did not have: {', '.join(absent)}.")
    words.append("It saw no lateral view and no earlier image.")
    return tuple(words)
