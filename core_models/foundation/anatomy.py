"""A frontal radiograph's feature pyramid → masks of lungs, heart and clavicles, and whether they are plausible."""

from __future__ import annotations

import numpy as np
import torch

from core_models.foundation.data import Pool
from core_models.foundation.images import restored
from core_models.foundation.labels import STRUCTURES
from core_models.foundation.model import FoundationModel
from core_models.foundation.sampler import plain

PLAUSIBLE = ((0.06, 0.40), (0.05, 0.40), (0.02, 0.30), (0.002, 0.05), (0.002, 0.05))
"""Share of the picture that each structure takes up in a plausible frontal chest radiograph (JSRT training images
give 0.12 to 0.28, 0.10 to 0.25, 0.05 to 0.16, 0.006 to 0.02; others are less well centred)."""
GROUPS = {"lungs": (0, 1), "heart": (2,), "clavicles": (3, 4)}


@torch.inference_mode()
def probabilities(model: FoundationModel, images: torch.Tensor, out_size: int) -> torch.Tensor:
    """(n, 1, s, s) in -1..1 → (n, 5, out_size, out_size) float32 probabilities, on the CPU."""
    device = model.encoder.device
    with torch.autocast(device.type, torch.bfloat16):
        pyramid = model.encoder(images.to(device)).pyramid
        logits = model.tasks["segmentation"](pyramid, (out_size, out_size))
    return logits.sigmoid().cpu()


def plausible(masks: np.ndarray) -> bool:
    """Whether (5, h, w) bool masks could be a frontal chest: sizes, right lung on the image left, heart between."""
    share = masks.mean((1, 2))
    if not all(low <= s <= high for s, (low, high) in zip(share, PLAUSIBLE, strict=True)):
        return False
    centre = [np.nonzero(m.any(0))[0].mean() for m in masks[:3]]
    return bool(centre[0] < centre[2] < centre[1])


def pseudo_masks(model: FoundationModel, pool: Pool, size: int, batch: int = 16) -> torch.Tensor:
    """float16 (n, 5, s, s) probabilities, sharpened, for a pool's training pictures; zeros where nothing plausible."""
    out = torch.zeros(len(pool), len(STRUCTURES), size // 2, size // 2, dtype=torch.float16)
    rows = pool.rows("train")
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        p = probabilities(model, plain(pool, chosen, size), size // 2)
        for row, one in zip(chosen, p, strict=True):
            if plausible((one > 0.5).numpy()):
                out[row] = torch.sigmoid(2 * torch.logit(one.clamp(1e-4, 1 - 1e-4))).half()
    return out


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two bool arrays; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


WORK_SIZE = 512
"""Side of the square on which masks are tidied before they are brought to the source's size."""


@torch.inference_mode()
def full_masks(model: FoundationModel, out: object, shape: tuple[int, int]) -> list[tuple[np.ndarray, float]]:
    """An encoder's output for one picture → for each of `STRUCTURES` a bool (h, w) mask and its mean probability.

    Of each structure the largest connected piece is kept and its holes are filled: each is one piece in one picture.
    """
    from scipy.ndimage import binary_fill_holes, label

    with torch.autocast("cpu", torch.bfloat16):
        logits = model.tasks["segmentation"](out.pyramid, (WORK_SIZE, WORK_SIZE))[0]
    found = []
    for one in logits.float():
        inside = (one > 0).numpy()
        pieces, count = label(inside)
        if count > 1:
            inside = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        inside = binary_fill_holes(inside)
        confidence = float(one.sigmoid().numpy()[inside].mean()) if inside.any() else 0.0
        tidy = torch.where(torch.from_numpy(inside), one.clamp(min=0.1), one.clamp(max=-0.1))
        mask = restored(tidy[None, None], shape)[0, 0].numpy() > 0
        found.append((mask, confidence))
    return found
