"""The prepared language model and the image encoder ↔ one vision-language model, a standard Hugging Face folder.

`prepare` joins them once into `LlavaForConditionalGeneration` (Liu et al., NeurIPS 2023): the encoder's 64 tokens, a
projector of two layers, Gemma 3 270M.  `load` opens that folder, or any other of `AutoModelForImageTextToText`, with a
LoRA adapter on top.  The projector learns with the adapter and travels in it: in the prepared folder it is random.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_models.drafting import language_model
from core_models.errors import ModelMissing, Refused
from core_models.quiet import quiet_transformers

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "reading-room-vlm"
MANIFEST = "reading-room.json"
IMAGE_TOKEN = "<image_soft_token>"
ENCODER = Path(__file__).resolve().parents[2] / "assets" / "foundation" / "encoder"
PROJECTOR = "multi_modal_projector"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_MODULES = rf".*language_model\..*\.({'|'.join(TARGETS)})"


@dataclass(frozen=True)
class VisionLanguage:
    """A model ready to write, with its tokenizer.

    Attributes:
        image_size: side of the square picture that its encoder was calibrated at.
        digest: names the text half exactly (an adapter for another base is refused); `eyes` the image half.
        adapter: "" without one.  `sees`: whether pictures may be given to it.
        blind: why not, in a sentence; "" where it sees.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    eyes: str
    image_size: int
    image_token: int
    image_places: int
    adapter: str = ""
    sees: bool = False
    blind: str = "No picture was given to the language model: it has no adapter that was trained with pictures."


def folder(models: Path) -> Path:
    """Where the prepared model lies under the models folder."""
    return models / NAME


def prepared(models: Path) -> bool:
    """Whether `prepare` has finished here, for the parts that are here now."""
    path = folder(models) / MANIFEST
    if not path.is_file() or not language_model.prepared(models):
        return False
    held = json.loads(path.read_text())
    return held["digest"] == _text_digest(models) and held["eyes"] == _file_digest(ENCODER / "model.safetensors")


def prepare(models: Path, progress: language_model.Progress | None = None) -> Path:
    """Convert the language model where that is still to do, and join it with the encoder.

    Raises:
        ModelMissing: the packaged language model or the encoder's weights are not there.
    """
    language_model.prepare(models, progress=progress)
    target = folder(models)
    if prepared(models):
        return target
    work = target.with_name(f".{NAME}.partial")
    shutil.rmtree(work, ignore_errors=True)
    model, tokenizer, size = join(models)
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    _processor(tokenizer, model.config, size).save_pretrained(work)
    manifest = {
        "name": NAME,
        "digest": _text_digest(models),
        "eyes": _file_digest(ENCODER / "model.safetensors"),
        "image_size": size,
    }
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target


def join(models: Path) -> tuple[Any, Any, int]:
    """(LLaVA in bf16 with the encoder in float32, tokenizer, side of its pictures)."""
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    from core_models.foundation import weights
    from core_models.foundation.model import load_encoder

    text = language_model.load(models)
    encoder = load_encoder(ENCODER)
    size = weights.load_calibration(ENCODER.parent).size
    # The packaged language model has no token for images: it gets one, whose own embedding is never read.
    text.tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    token = text.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    text.model.resize_token_embeddings(len(text.tokenizer), mean_resizing=False)
    text.model.get_input_embeddings().weight.data[token] = 0
    encoder.config.image_size = size
    config = LlavaConfig(
        vision_config=encoder.config,
        text_config=text.model.config,
        image_token_index=token,
        image_seq_length=encoder.config.grid**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with quiet_transformers():
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(encoder.state_dict())
    model.model.language_model.load_state_dict(text.model.model.state_dict())
    model.tie_weights()
    model.generation_config = text.model.generation_config
    model.to(torch.bfloat16)
    model.model.vision_tower.float().load_state_dict(encoder.state_dict())
    return model.eval(), text.tokenizer, size


def load(models: Path, adapter: Path | None = None, threads: int | None = None) -> VisionLanguage:
    """Open the prepared model, with an adapter on top when one is given.

    Raises:
        ModelMissing: nothing is prepared here, or the adapter's folder is absent.
        Refused: the adapter is not safetensors, or belongs to another base.
    """
    if not prepared(models):
        raise ModelMissing("The language model is not prepared on this machine; run `python app.py prepare`.")
    return open_folder(folder(models), adapter, threads)


def arithmetic() -> Any:
    """What the language half computes in: bfloat16, as its weights are kept, where the processor has wide units for it
    (AVX-512 and later), else float32: there bfloat16 takes three to nine times as long, for the same words as a rule.
    """
    import torch

    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else torch.float32


def open_folder(where: Path, adapter: Path | None = None, threads: int | None = None) -> VisionLanguage:
    """Open a prepared folder of this kind."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    import core_models.foundation.encoder  # noqa: F401  registers the vision tower with transformers

    if threads:
        torch.set_num_threads(threads)
    manifest = json.loads((where / MANIFEST).read_text())
    with quiet_transformers():
        model = AutoModelForImageTextToText.from_pretrained(where, dtype=arithmetic(), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
    # One type for all is what transformers loads; the encoder was trained and measured in float32.
    model.model.vision_tower.float()
    model.model.multi_modal_projector.float()
    with safe_open(where / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if "vision_tower." in name]  # noqa: SIM118  not a dictionary
        own = {name.partition("vision_tower.")[2]: file.get_tensor(name) for name in names}
    model.model.vision_tower.load_state_dict(own)
    out = VisionLanguage(
        model.eval(),
        tokenizer,
        f"{NAME}@{manifest['digest'][:12]}",
        manifest["digest"],
        manifest["eyes"],
        manifest["image_size"],
        model.config.image_token_index,
        model.config.image_seq_length,
    )
    return out if adapter is None else with_adapter(out, adapter)


def with_adapter(base: VisionLanguage, adapter: Path) -> VisionLanguage:
    """The model with the adapter folded in; `base` is used up.

    Raises:
        ModelMissing: no adapter there.  Refused: pickled, damaged or made for another base.
    """
    import warnings
    from dataclasses import replace

    from peft import PeftModel
    from safetensors import SafetensorError

    check_adapter(adapter, base.digest)
    card = json.loads((adapter / MANIFEST).read_text())
    weights = adapter / "adapter_model.safetensors"
    try:
        with quiet_transformers(), warnings.catch_warnings():
            # Weights under names that this model does not have are no adapter of it; peft warns and goes on without.
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
            model = PeftModel.from_pretrained(base.model, adapter, is_trainable=False, torch_device="cpu")
    except (RuntimeError, ValueError, KeyError, OSError, UserWarning, SafetensorError) as error:
        raise Refused(f"The adapter {adapter.name!r} is damaged, or of another shape than this model.") from error
    fold(model)
    same_eyes = card.get("eyes") == base.eyes
    blind = (
        "" if same_eyes else "No picture was given to the language model: its adapter was trained with another encoder."
    )
    name = f"{adapter.name}@{_file_digest(weights)[:12]}"
    return replace(base, model=model.get_base_model().eval(), adapter=name, sees=same_eyes, blind=blind)


def check_adapter(adapter: Path, digest: str) -> None:
    """Whether the folder holds an adapter that may be opened, for this base.  Raises ModelMissing, Refused."""
    if not (adapter / "adapter_config.json").is_file():
        raise ModelMissing(
            f"There is no trained adapter in the folder {adapter.name!r}; train one with `python app.py train adapter`."
        )
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file() or any(adapter.glob("*.bin")) or any(adapter.glob("*.pkl")) or any(adapter.glob("*.pt")):
        raise Refused(f"The adapter {adapter.name!r} must hold safetensors weights and nothing pickled.")
    card = adapter / MANIFEST
    try:
        base = json.loads(card.read_text()).get("base_digest") if card.is_file() else None
    except (ValueError, AttributeError) as error:
        raise Refused(f"The adapter {adapter.name!r} has a damaged {MANIFEST}.") from error
    if base != digest:
        raise Refused(
            f"The adapter {adapter.name!r} was trained for another base ({str(base)[:12]}, this one is {digest[:12]})."
        )


def fold(model: Any) -> None:
    """Fold LoRA's matrices into the weights in float32, then round once to the weights' own type.

    Unfolded, each of the 126 adapted layers costs two more small products per token, a third of the speed here.
    Adding in bf16 moved logits by up to 1.0; the sum is therefore taken in float32, where only one rounding is left.
    """
    import torch

    with torch.inference_mode():
        for module in model.modules():
            if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight"):
                weight = module.get_base_layer().weight
                total = weight.data.float()
                for name in module.active_adapters:
                    a, b = module.lora_A[name].weight.float(), module.lora_B[name].weight.float()
                    total += module.scaling[name] * (b @ a)
                weight.data = total.to(weight.dtype)
    model.unload()


def pixels(picture: np.ndarray, size: int) -> Any:
    """(h, w) grey levels of any type, bright = dense → (1, 1, size, size) float32 as the encoder was trained on."""
    from core_models.foundation.images import grey, normalised, square

    return normalised(square(grey(picture), size))[None]


def _processor(tokenizer: Any, config: Any, size: int) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    pictures = CLIPImageProcessor(
        size={"height": size, "width": size}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=0,
    )


def _text_digest(models: Path) -> str:
    return json.loads((language_model.folder(models) / language_model.MANIFEST).read_text())["digest"]


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise ModelMissing("The image encoder's weights are not here: train them with `python app.py train encoder`.")
    return hashlib.sha256(path.read_bytes()).hexdigest()
