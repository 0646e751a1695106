"""A Hugging Face folder with an image encoder or an image-text pair of encoders → `Eyes`.

RAD-DINO (Dinov2Model) is an image encoder; CLIPModel, MedSigLIP (SiglipModel) and a BiomedCLIP that was converted to
transformers (VisionTextDualEncoderModel) are dual encoders.  A dual encoder finds by pairs of prompts ("pleural
effusion" against "no pleural effusion"); an image encoder by a linear head beside it, where there is one (see `head`),
else it only embeds.

Folders only: no hub, no code from the folder, no pickles.  One lock guards tokenizer and model.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.errors import ModelMissing, Refused
from core_models.foundation.bigger import common, head
from core_models.foundation.bigger.terms import TERMS
from core_models.foundation.reading import Context, Finding, Reading
from core_models.quiet import quiet_transformers
from core_models.study.volume import Volume

if TYPE_CHECKING:
    import torch

    from core_models.registry import ModelRow

ZERO_SHOT = (
    "Its findings come from comparing the image with pairs of sentences; the model was not trained to find them."
)
NO_FINDINGS = "This model only embeds the image: findings were not looked for."
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


class HuggingFaceEyes:
    """The `Eyes` over one folder as `save_pretrained` writes it.

    Raises, at construction:
        ModelMissing: no folder, no weights, or no image processor or tokenizer in it.
        Refused: pickled, damaged or unfitting weights, an unknown architecture, or a folder that asks to run its code.
    """

    def __init__(self, row: ModelRow, folder: Path | None, threads: int) -> None:
        import torch

        where = common.folder_of(row, folder)
        weights = common.safetensors_in(where, row)
        torch.set_num_threads(threads)
        self._row = row
        self._lock = threading.Lock()
        self._model, self._processor = _open(where, row)
        self._dual = hasattr(self._model, "get_text_features") and hasattr(self._model, "get_image_features")
        self._tokenizer = _tokenizer(where, row) if self._dual else None
        self._head = None if self._dual else head.read(where, row)
        self.name, self.version, self.licence, self.modalities = row.name, row.version, row.licence, row.modalities
        kind = type(self._model).__name__
        self._cited = f"{self.name}/{self.version} {kind} ({common.digest_of(weights)[:12]})"
        self._prompts: np.ndarray | None = None  # (findings, 2, d): the sentences that affirm and deny each
        if self._dual:
            texts = [text for term in TERMS for text in (term.phrase, f"no {term.phrase}")]
            self._check_words(texts)
            self._prompts = self.embed_text(texts).reshape(len(TERMS), 2, -1)

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Sentences → float32 (n, d) unit vectors in the space of the image embedding.

        Raises:
            Refused: this model has no text encoder.
        """
        import torch

        if self._tokenizer is None:
            raise Refused(f"The model {self.name} has no text encoder: it cannot compare an image with words.")
        with self._lock, torch.inference_mode():
            tokens = self._tokenizer(texts, return_tensors="pt", truncation=True, **_padding(self._model.config))
            vectors = _vector(self._model.get_text_features(**tokens)).numpy()
        return np.stack([common.unit(vector, self._row) for vector in vectors])

    def read(self, volume: Volume, context: Context = common.NOTHING) -> Reading:
        """See `Eyes.read`; raises Refused on another modality or a series of several slices."""
        began = time.monotonic()
        grey = common.picture(volume, self._row)
        pooled = self._pooled(grey)
        embedding = common.unit(pooled, self._row)
        if self._prompts is not None:
            findings, missing = self._compared(embedding), (ZERO_SHOT, common.UNCALIBRATED)
        elif self._head is not None:
            findings, missing = self._head.findings(pooled), (common.UNCALIBRATED,)
        else:
            findings, missing = (), (NO_FINDINGS,)
        return Reading(
            model=self._cited,
            licence=self.licence,
            quality=common.unjudged("a chest radiograph"),
            findings=findings,
            missing=(*missing, *common.missing_context(context)),
            embedding=embedding,
            notes=common.cropped(grey) if getattr(self._processor, "do_center_crop", False) else (),
            seconds=time.monotonic() - began,
        )

    def _check_words(self, texts: list[str]) -> None:
        """Raises Refused where the tokenizer cannot tell the prompts apart, or numbers words past the model's table."""
        ids = [tuple(row) for row in self._tokenizer(texts)["input_ids"]]
        table = getattr(self._model.config, "text_config", self._model.config).vocab_size
        if len(set(ids)) != len(texts) or max(max(row, default=0) for row in ids) >= table:
            raise Refused(f"The tokenizer in the folder of the model {self._row.name} is not that model's own.")

    def _pooled(self, grey: np.ndarray) -> np.ndarray:
        """(h, w) in 0..1 → float32 (d,), the model's pooled or projected output before normalisation."""
        import torch
        from PIL import Image

        image = Image.fromarray((grey * 255.0 + 0.5).astype(np.uint8)).convert("RGB")
        with self._lock, torch.inference_mode():
            try:
                pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]  # (1, 3, side, side)
                out = self._model.get_image_features(pixels) if self._dual else self._model(pixels)
            except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
                raise Refused(f"The image processor in the folder of the model {self.name} does not fit it.") from error
        return _vector(out)[0].numpy()

    def _compared(self, embedding: np.ndarray) -> tuple[Finding, ...]:
        """Softmax over each pair of prompts, as the dual encoders' cards do it; a bias common to both cancels."""
        assert self._prompts is not None
        scale = float(self._model.logit_scale.detach().exp())
        affirmed, denied = (self._prompts @ embedding).T.astype(float)  # cosines, (findings,) each
        chance = 1.0 / (1.0 + np.exp(np.clip(scale * (denied - affirmed), -60.0, 60.0)))
        return tuple(
            Finding(term.name, term.term, term.region, float(p), 0.5, calibrated=False)
            for term, p in zip(TERMS, chance, strict=True)
        )


def _open(folder: Path, row: ModelRow) -> tuple[Any, Any]:
    """(model in eval mode, image processor), with every weight from the folder and finite."""
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    if (folder / "adapter_config.json").exists():
        raise Refused(f"The folder of the model {row.name} holds an adapter; merge it into its base model first.")
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(folder, **_LOCAL)
        except Exception as error:  # a damaged config raises whatever its values lead to
            raise Refused(
                f"The config.json of the model {row.name} is missing, damaged, or of an architecture that this "
                "transformers does not know without running code from the folder, which is not done."
            ) from error
        try:
            processor = AutoImageProcessor.from_pretrained(folder, **_LOCAL)
        except Exception as error:  # as above
            raise ModelMissing(
                f"The folder of the model {row.name} has no image processor (preprocessor_config.json); copy it from "
                "where the weights were published."
            ) from error
        try:
            model, loading = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **_LOCAL,
            )
        except Exception as error:  # as above, and the weights in their turn
            raise Refused(
                f"The weights of the model {row.name} are damaged or do not fit its config.json ({config.model_type})."
            ) from error
    # transformers fills a tensor that the file lacks with random numbers and only logs it
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        raise Refused(
            f"The weights of the model {row.name} lack {len(absent)} tensors of a {config.model_type}, among them "
            f"{absent[0][:80]}."
        )
    if getattr(model, "main_input_name", "") != "pixel_values" and not hasattr(model, "get_image_features"):
        raise Refused(f"The model {row.name} names a folder with a {config.model_type}, which reads no images.")
    common.check_finite(model.named_parameters(), row)
    return model.eval(), processor


def _tokenizer(folder: Path, row: ModelRow) -> Any:
    from transformers import AutoTokenizer

    sentence = (
        f"The folder of the model {row.name} has no tokenizer that can be opened here; copy tokenizer.json and "
        "tokenizer_config.json from where the weights were published."
    )
    if not any((folder / name).is_file() for name in _VOCABULARIES):  # transformers would make an empty one
        raise ModelMissing(sentence)
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except Exception as error:  # each tokenizer raises its own kind where a file or a package is missing
        raise ModelMissing(sentence) from error


def _padding(config: Any) -> dict[str, Any]:
    """SigLIP was trained on sentences padded to one length, and its answers depend on it; others take any padding."""
    text = getattr(config, "text_config", config)
    length = getattr(text, "max_position_embeddings", 64)
    whole = config.model_type.startswith("siglip")
    return {"padding": "max_length" if whole else True, "max_length": length}


def _vector(out: Any) -> torch.Tensor:
    """(n, d) of a model's answer: its pooled output; transformers before 5 answered features as a bare tensor."""
    pooled = getattr(out, "pooler_output", None)
    if pooled is None:
        pooled = out if hasattr(out, "ndim") else out.last_hidden_state[:, 0]  # the CLS token
    return pooled.float().flatten(1)
