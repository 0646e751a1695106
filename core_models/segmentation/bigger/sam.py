"""A folder with a SAM model in transformers' format → an engine: each slice's embedding is computed once.

SamModel (SAM, MedSAM) and Sam2Model (SAM 2 and 2.1, also as published for video, of which the image part is used):
Kirillov et al., "Segment Anything" (2023); Ma et al., "Segment anything in medical images" (2024); Ravi et al., "SAM 2"
(2024).  They see pictures of 8 bits in three colours, so a slice passes a window first; on CT the window is that of the
tissue under the first prompt.

Folders only: no hub, no code from the folder, no pickles.  One lock guards the model.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.errors import ModelMissing, Refused
from core_models.foundation.bigger import common
from core_models.quiet import quiet_transformers
from core_models.segmentation.bigger import slices
from core_models.segmentation.bigger.slices import Asked, Plan
from core_models.segmentation.engine import Box, Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume

if TYPE_CHECKING:
    import torch

    from core_models.segmentation.optional import OptionalRow

CACHE_BYTES = 512 * 2**20  # of embeddings kept for one series: 128 slices of SAM, 32 of SAM 2
WINDOWS = ((-400.0, (-600.0, 1500.0)), (160.0, (40.0, 400.0)), (np.inf, (400.0, 1800.0)))
"""HU under the first prompt, up to which (centre, width) is used: lung, soft tissue, bone."""
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass
class Prepared:
    """A series, and the embeddings of its slices as they were last asked for."""

    volume: Volume
    cache: OrderedDict[tuple[int, tuple[float, float]], Any] = field(default_factory=OrderedDict)


class SamEngine:
    """The engine over one folder as `save_pretrained` writes it.

    Raises, at construction:
        ModelMissing: no folder, no weights, or no image processor in it.
        Refused: pickled, damaged or unfitting weights, or another architecture.
    """

    def __init__(self, row: OptionalRow, where: str, threads: int) -> None:
        import torch

        folder = common.folder_of(row, Path(where).expanduser() if where else None)  # type: ignore[arg-type]
        weights = common.safetensors_in(folder, row)  # type: ignore[arg-type]
        torch.set_num_threads(threads)
        self._lock = threading.Lock()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._processor, self._second = _open(folder, row)
        self._model.to(self._device)
        self.name, self.licence = row.name, row.licence
        self.version = f"{type(self._model).__name__} {common.digest_of(weights)[:12]}"

    def prepare(self, volume: Volume) -> Prepared:
        """Nothing is computed before a prompt says which slices matter."""
        return Prepared(volume)

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Answer all prompts, slice by slice.

        Raises:
            Refused: a prompt outside the volume, or none that says where the structure is.
            Cancelled: asked before every slice.
        """
        volume = prepared.volume
        plan = slices.plan(volume, prompts)
        window = _window(volume, plan)
        with self._lock:
            found = slices.wander(plan, partial(self._answer, prepared, plan, window), cancelled)
        drawn = tuple(c for p in prompts if not isinstance(p, Box) for c in as_clicks(volume, (p,)))
        full = slices.stacked(volume, plan, {at: mask for at, (mask, _) in found.items()}, drawn)
        sure = [confidence for mask, confidence in found.values() if mask.any()]
        return Segmentation(Mask.from_full(full), float(np.mean(sure)) if sure else 0.0, len(prompts))

    def _answer(
        self, prepared: Prepared, plan: Plan, window: tuple[float, float], at: int, asked: Asked
    ) -> tuple[np.ndarray, float]:
        """One slice's mask, bool (rows, columns), and the model's own estimate of its overlap with the truth."""
        import torch

        plane = np.moveaxis(prepared.volume.array, 2 - plan.axis, 0)[at]
        with torch.inference_mode():
            embeddings, size, reshaped = self._embedded(prepared, plane, at, window)
            scale = (
                np.asarray(reshaped[::-1], float) / size[::-1]
            )  # (x, y): pixels of the slice → of the model's picture
            given: dict[str, torch.Tensor] = {}
            if asked.points:
                points = (
                    np.asarray(asked.points, np.float32) * scale
                )  # the model itself moves them to the pixels' middles
                given["input_points"] = self._tensor(points[None, None], torch.float32)
                given["input_labels"] = self._tensor(np.asarray(asked.sides)[None, None], torch.int64)
            if asked.box is not None:
                box = np.asarray(asked.box, np.float32).reshape(2, 2) * scale
                given["input_boxes"] = self._tensor(box.reshape(1, 1, 4), torch.float32)
            # One point alone may mean a part or the whole: of the three answers the surest is taken.
            several = len(asked.points) == 1 and asked.box is None
            answer = self._model(image_embeddings=embeddings, multimask_output=several, **given)
            best = int(answer.iou_scores[0, 0].argmax())
            low = answer.pred_masks[:, :, best : best + 1].float().cpu()
            options = {} if self._second else {"reshaped_input_sizes": [list(reshaped)]}
            mask = self._processor.post_process_masks(low, [list(size)], **options)[0]
        sure = float(answer.iou_scores[0, 0, best])
        return np.asarray(mask, bool).reshape(size), float(np.clip(sure, 0.0, 1.0)) if np.isfinite(sure) else 0.0

    def _tensor(self, values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        import torch

        return torch.as_tensor(values, dtype=dtype, device=self._device)

    def _embedded(
        self, prepared: Prepared, plane: np.ndarray, at: int, window: tuple[float, float]
    ) -> tuple[Any, tuple[int, int], tuple[int, int]]:
        """(embedding, (rows, columns) of the slice, the same in the model's picture), from memory where it is there."""
        key = (at, window)
        if key in prepared.cache:
            prepared.cache.move_to_end(key)
            return prepared.cache[key]
        centre, width = window
        low = centre - width / 2
        grey = np.clip((plane.astype(np.float32) - low) / width * 255, 0, 255).round().astype(np.uint8)
        picture = self._processor(
            np.repeat(grey[..., None], 3, -1), input_data_format="channels_last", return_tensors="pt"
        )
        pixels = picture["pixel_values"].to(self._device)
        embeddings = self._model.get_image_embeddings(pixels)
        # SAM 2 squeezes a slice into the model's square; SAM keeps its shape and pads.
        reshaped = (
            tuple(pixels.shape[-2:]) if self._second else tuple(int(n) for n in picture["reshaped_input_sizes"][0])
        )
        made = prepared.cache[key] = (embeddings, plane.shape, reshaped)
        while sum(_bytes(kept[0]) for kept in prepared.cache.values()) > CACHE_BYTES and len(prepared.cache) > 1:
            prepared.cache.popitem(last=False)
        return made


def _bytes(embeddings: Any) -> int:
    each = embeddings if isinstance(embeddings, list | tuple) else [embeddings]
    return sum(one.numel() * one.element_size() for one in each)


def _window(volume: Volume, plan: Plan) -> tuple[float, float]:
    """(centre, width): of the tissue under the first prompt on CT, else the volume's own."""
    if volume.unit != "HU":
        centre, width = volume.window
        return centre, max(width, 1e-6)
    at, asked = next((at, asked) for at, asked in plan.asked.items() if asked.begins)
    plane = np.moveaxis(volume.array, 2 - plan.axis, 0)[at]
    inside = [p for p, side in zip(asked.points, asked.sides, strict=True) if side]
    if inside:
        x, y = inside[0]
        values = plane[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
    else:
        x0, y0, x1, y1 = asked.box  # type: ignore[misc]
        values = plane[y0 : y1 + 1, x0 : x1 + 1]
    value = float(np.median(values))
    return next(window for most, window in WINDOWS if value <= most)


def _open(folder: Path, row: OptionalRow) -> tuple[Any, Any, bool]:
    """(model, image processor, whether it is SAM 2)."""
    import torch
    from transformers import Sam2ImageProcessor, Sam2Model, SamImageProcessor, SamModel

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        model_class, processor_class = {
            "sam": (SamModel, SamImageProcessor),
            "sam2": (Sam2Model, Sam2ImageProcessor),
            "sam2_video": (Sam2Model, Sam2ImageProcessor),
        }[kind]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            "The config.json of the segmentation engine sam is missing, damaged, or of another model than SAM, MedSAM, "
            "SAM 2 or 2.1."
        ) from error
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelMissing(
            "The folder of the segmentation engine sam has no image processor (preprocessor_config.json); copy it from "
            "where the weights were published."
        )
    with quiet_transformers():
        try:
            processor = processor_class.from_pretrained(folder, **_LOCAL)
            model, loading = model_class.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **_LOCAL
            )
        except Exception as error:  # a damaged config raises whatever its values lead to
            raise Refused(
                f"The weights or the settings in the folder of sam are damaged or do not fit ({kind})."
            ) from error
    # transformers fills a tensor that the file lacks with random numbers and only logs it
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        raise Refused(f"The weights of sam lack {len(absent)} tensors of a {kind}, among them {absent[0][:80]}.")
    common.check_finite(model.named_parameters(), row)  # type: ignore[arg-type]
    return model.eval(), processor, kind != "sam"
