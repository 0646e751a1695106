"""Our encoder as the vision tower of `LlavaForConditionalGeneration`, through the standard classes alone."""

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from core_models.errors import Refused
from core_models.foundation.encoder import RadiographEncoder, RadiographEncoderConfig
from core_models.foundation.experts import add_expert
from core_models.foundation.model import new_encoder
from core_models.foundation.tasks.generation import Generation, as_llava
from tests.drafting import tiny
from tests.foundation.pools import batch
from tests.foundation.test_generation import llama

SIZE = 64
IMAGE = "<image_soft_token>"


@pytest.fixture(scope="module")
def words():
    made = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return made


@pytest.fixture(params=["gemma3", "llama"])
def llava(request, words) -> LlavaForConditionalGeneration:
    text = (tiny.model if request.param == "gemma3" else llama)(len(words)).config
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=RadiographEncoderConfig(image_size=SIZE),
            text_config=text,
            image_token_index=words.convert_tokens_to_ids(IMAGE),
            image_seq_length=64,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    ).eval()


def inputs(words, size: int = SIZE) -> dict[str, torch.Tensor]:
    image = words.convert_tokens_to_ids(IMAGE)
    text = words("lungs clear", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[words.bos_token_id, *[image] * 64, *text]])
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def test_forward_and_backward(llava, words):
    assert isinstance(llava.model.vision_tower, RadiographEncoder)
    given = inputs(words)
    labels = given["input_ids"].clone()
    labels[:, :65] = -100
    out = llava.train()(**given, labels=labels)
    assert out.image_hidden_states.shape[-2:] == (64, 32)
    out.loss.backward()
    tower = llava.model.vision_tower
    unused = {name for name, p in tower.named_parameters() if p.grad is None}
    assert unused == {"context.weight", "context.bias"}  # what is known beside the image comes as text here
    assert llava.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


@torch.inference_mode()
def test_the_image_changes_what_is_said_next(llava, words):
    given = inputs(words)
    one = llava(**given).logits
    other = llava(**given | {"pixel_values": -given["pixel_values"]}).logits
    assert not torch.allclose(one[:, -1], other[:, -1])


def test_generates(llava, words):
    given = inputs(words)
    ids = llava.generate(**given, max_new_tokens=4, do_sample=False)
    assert ids.shape[1] <= given["input_ids"].shape[1] + 4
    assert torch.equal(ids, llava.generate(**given, max_new_tokens=4, do_sample=False))


@torch.inference_mode()
def test_a_saved_checkpoint_opens_through_the_auto_class_with_equal_logits(llava, words, tmp_path):
    llava.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(again, LlavaForConditionalGeneration)
    assert isinstance(again.model.vision_tower, RadiographEncoder)
    given = inputs(words)
    assert torch.equal(llava(**given).logits, again(**given).logits)
    half = AutoModelForImageTextToText.from_pretrained(tmp_path, local_files_only=True, dtype=torch.bfloat16).eval()
    assert torch.isfinite(half(**given).logits).all()  # pictures in float32, as a processor makes them


def test_lora_on_the_language_model_alone(llava, words, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    llava.save_pretrained(tmp_path / "base")
    where = r".*language_model\..*\.(q_proj|v_proj)"
    model = get_peft_model(llava, LoraConfig(r=2, target_modules=where, modules_to_save=["multi_modal_projector"]))
    given = inputs(words)
    model(**given, labels=given["input_ids"]).loss.backward()
    moved = [n for n, p in model.named_parameters() if p.grad is not None]
    assert moved
    assert not any("vision_tower" in n for n in moved)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    model.save_pretrained(tmp_path / "lora")
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "base", local_files_only=True)
    again = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    with torch.inference_mode():
        assert torch.allclose(model.eval()(**given).logits, again(**given).logits, atol=1e-5)


@pytest.mark.parametrize("size", [224, 320])
def test_the_standard_processor_makes_the_64_places(words, size):
    config = RadiographEncoderConfig(image_size=size)
    pictures = CLIPImageProcessor(
        size={"height": size, "width": size}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=config.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        num_additional_image_tokens=0,
    )
    import numpy as np
    from PIL import Image

    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70), dtype=np.uint8)).convert("RGB")
    made = processor(images=grey, text=f"{IMAGE}lungs", return_tensors="pt")
    assert int((made["input_ids"] == words.convert_tokens_to_ids(IMAGE)).sum()) == 64
    assert made["pixel_values"].shape == (1, 3, size, size)
    assert -1 <= made["pixel_values"].min() < made["pixel_values"].max() <= 1


@pytest.mark.parametrize("rank", [0, 2], ids=["frozen", "lora"])
@pytest.mark.parametrize("kind", ["gemma3", "llama"])
@torch.no_grad()
def test_what_the_captioning_task_learnt_moves_over(words, tmp_path, kind, rank):
    torch.manual_seed(0)
    trunk = new_encoder("scratch").eval()
    language = (tiny.model if kind == "gemma3" else llama)(len(words))
    task = Generation(trunk.config.hidden_size, language, words, lora_rank=rank).eval()
    for name, p in task.named_parameters():
        if "lora_B" in name:
            p.normal_(std=0.1)
    image = words.convert_tokens_to_ids(IMAGE)
    model = as_llava(trunk, task, image)
    given = inputs(words, 64)
    before = task.prefix(trunk(given["pixel_values"]).last_hidden_state)
    after = task.causal.get_input_embeddings()(given["input_ids"][:, 65:])
    ours = task.causal(inputs_embeds=torch.cat((before, after), 1)).logits
    assert torch.allclose(ours, model(**given).logits, atol=1e-4)
    assert "lora_" in "".join(n for n, _ in task.named_parameters()) or not rank  # the task itself keeps its LoRA
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, local_files_only=True).eval()
    assert torch.equal(model(**given).logits, again(**given).logits)
    with pytest.raises(Refused, match="image token"):
        as_llava(trunk, task, len(words) + 5)


@torch.inference_mode()
def test_an_encoder_with_experts_is_a_tower_too(words, tmp_path):
    trunk = new_encoder("scratch").eval()
    add_expert(trunk, "mr", rank=4)
    task = Generation(trunk.config.hidden_size, tiny.model(len(words)), words)
    model = as_llava(trunk, task, words.convert_tokens_to_ids(IMAGE))
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, local_files_only=True).eval()
    assert again.model.vision_tower.config.experts == ["mr"]
    assert torch.equal(model(**inputs(words)).logits, again(**inputs(words)).logits)
    assert batch(1).images.shape[0] == 1
