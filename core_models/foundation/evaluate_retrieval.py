"""The shipped model on held-out radiographs and their captions → recall both ways, beside unimodal baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core_models.foundation import weights
from core_models.foundation.data import Pool, load
from core_models.foundation.hubs import SHARPNESS, popularity
from core_models.foundation.judge import pooled
from core_models.foundation.metrics import bootstrap, recall_at
from core_models.foundation.model import FoundationModel, new_encoder
from core_models.foundation.text import frozen_similarity_vectors

Progress = Callable[[int, int, str], None]
RANKS = (1, 5, 10)
SOURCE, NOTES = "rocov2-cxr", "covid-chestxray"
SHARPNESSES = (5.0, 10.0, 20.0, 40.0)


def run(root: Path, folder: Path, say: Progress, limit: int = 0) -> dict[str, Any]:
    """Embed the test side's images and captions and rank each against all of the other kind."""
    model, calibration = weights.load(folder, text=True), weights.load_calibration(folder)
    size = calibration.size
    # By way of the anatomy's size, as a reading makes its pictures.
    pools = load([SOURCE, "nih-cxr14-1000", "jsrt", NOTES], root, calibration.anatomy_size, say)
    pool = pools[SOURCE]
    test = _distinct(pool, pool.rows("test"))[: limit or None]
    say(1, 4, "images and captions")
    images, texts = _images(model, pool, test, size), _texts(model, pool, test)
    say(2, 4, "baselines")
    out = figures((images @ texts.T).numpy()) | {
        "hubs_taken_off": _hubs_taken_off(model, pool, images, texts, folder, size),
        "pool": len(test),
        "baselines": _baselines(pool, test) | {"chance": {f"recall@{k}": k / len(test) for k in RANKS}},
        "data": "rocov2-cxr, a tenth of the pairs by hash, near twins of other sides left out, captions distinct",
    }
    say(3, 4, "clinical notes")
    out["clinical_notes"] = notes(model, pools[NOTES], size)
    say(4, 4, "done")
    return out


def figures(similarity: np.ndarray, patients: Sequence[str] = ()) -> dict[str, Any]:
    """Recall of (n, n) similarities whose partners are on the diagonal, with 95 % intervals over patients where known,
    else over pairs."""
    keys = list(patients) or [str(i) for i in range(len(similarity))]
    out: dict[str, Any] = {}
    for name, matrix in (("image_to_text", similarity), ("text_to_image", similarity.T)):
        own = np.diag(matrix)[:, None]
        rank = (matrix >= own).sum(1) - 1
        out[name] = {f"recall@{k}": float((rank < k).mean()) for k in RANKS}
        out[name + "_ci"] = {
            f"recall@{k}": bootstrap(keys, lambda r, k=k, rank=rank: float((rank[r] < k).mean())) for k in RANKS
        }
        out[name]["median_rank"] = float(np.median(rank) + 1)
    return out


def crowded(similarity: np.ndarray, k: int = 10) -> float:
    """Share of the (n, m) rows whose k nearest hold the column that most rows hold there: k / m were all alike."""
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return float(np.bincount(nearest.ravel()).max() / len(similarity))


def notes(model: FoundationModel, pool: Pool, size: int) -> dict[str, Any]:
    """Another source: radiographs of held-out COVID patients and their clinical notes, one of each note."""
    rows = [r for r in pool.rows("test") if pool.columns["modality"][r] == "X-ray"]
    seen: dict[str, int] = {}
    for r in rows:
        text = " ".join(pool.columns["clinical_notes"][r].split())
        if text:
            seen.setdefault(text, r)
    chosen = np.array(list(seen.values()))
    texts = model.tasks["contrastive"].text
    with torch.inference_mode():
        vectors = torch.cat([texts(texts.tokens(list(seen)[i : i + 32])) for i in range(0, len(seen), 32)])
    similarity = (_images(model, pool, chosen, size) @ vectors.T).numpy()
    return figures(similarity, [pool.keys[r] for r in chosen]) | {
        "pool": len(chosen),
        "chance": {f"recall@{k}": k / len(chosen) for k in RANKS},
    }


def _distinct(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Rows whose caption is not a word-for-word repeat: two right answers would count as one wrong."""
    seen: dict[str, int] = {}
    for r in rows:
        seen.setdefault(pool.captions[r].casefold(), int(r))
    return np.array(list(seen.values()))


def _hubs_taken_off(
    model: FoundationModel, pool: Pool, images: torch.Tensor, texts: torch.Tensor, folder: Path, size: int
) -> dict[str, Any]:
    """Image → text as the page searches: what is near to every reference radiograph is ranked lower (see `hubs`).

    `validation` has recall@10 there without the correction ("0") and by sharpness: what `hubs.SHARPNESS` was chosen by.
    """
    known = weights.load_reference(folder).numpy()
    held = pool.rows("validation")
    own, other = _images(model, pool, held, size).numpy(), _texts(model, pool, held).numpy()
    tried = {"0": recall_at(own @ other.T, (10,))[10]}
    tried |= {f"{s:g}": recall_at(own @ other.T - popularity(other, known, s), (10,))[10] for s in SHARPNESSES}
    plain = (images @ texts.T).numpy()
    fair = plain - popularity(texts.numpy(), known)
    tested = figures(fair)
    return {name: tested[name] for name in ("image_to_text", "image_to_text_ci")} | {
        "crowded": {"before": crowded(plain), "after": crowded(fair)},
        "sharpness": SHARPNESS,
        "validation": tried,
    }


@torch.inference_mode()
def _images(model: FoundationModel, pool: Pool, rows: np.ndarray, size: int) -> torch.Tensor:
    return model.tasks["contrastive"].image(pooled(model, pool, rows, size))


@torch.inference_mode()
def _texts(model: FoundationModel, pool: Pool, rows: np.ndarray, batch: int = 64) -> torch.Tensor:
    tower = model.tasks["contrastive"].text
    captions = [pool.captions[r] for r in rows]
    return torch.cat([tower(tower.tokens(captions[i : i + batch])) for i in range(0, len(rows), batch)])


def _baselines(pool: Pool, test: np.ndarray) -> dict[str, Any]:
    """What needs no shared space.

    `nearest_image_caption`: the caption of the nearest training image by ImageNet features stands for the image, and is
    compared with the captions by plain MiniLM.  `text_only`: each caption by its likeness to all training captions, the
    same order for every image.
    """
    train = pool.rows("train")
    encoder = new_encoder("imagenet").eval()
    plain = FoundationModel(encoder, ())
    known = torch.nn.functional.normalize(pooled(plain, pool, train, 224), dim=1)
    asked = torch.nn.functional.normalize(pooled(plain, pool, test, 224), dim=1)
    nearest = (asked @ known.T).argmax(1).numpy()
    captions = frozen_similarity_vectors([pool.captions[r] for r in test])
    of_nearest = frozen_similarity_vectors([pool.captions[train[i]] for i in nearest])
    typical = frozen_similarity_vectors([pool.captions[r] for r in train]).mean(0)
    matrices = {
        "nearest_image_caption": (of_nearest @ captions.T).numpy(),
        "text_only": np.repeat((captions @ typical).numpy()[None], len(test), 0),
    }
    out = {}
    for name, matrix in matrices.items():
        one = figures(matrix)
        out[name] = one["image_to_text"] | {"ci": one["image_to_text_ci"]}
    return out
