"""Hugging Face folders with tiny random weights of the real classes → the same answers as the library gives."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from core_models import registry
from core_models.errors import ModelMissing, ReadingRoomError, Refused
from core_models.foundation.bigger.terms import TERMS
from core_models.foundation.reading import Context
from tests.foundation.scans import ct, radiograph

SIDE, LENGTH = 32, 16
_BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_VISION = {**_BODY, "image_size": SIDE, "patch_size": 8}
_TEXT = {**_BODY, "max_position_embeddings": LENGTH, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokenizer() -> PreTrainedTokenizerFast:
    """The words of the prompts, one token each, with a start and an end."""
    words = sorted({word for term in TERMS for word in term.phrase.split()} | {"no"})
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def _saved(folder: Path, model: Any, processor: Any, words: Any = None) -> Path:
    """Weights wide enough that two prompts differ, in the format of the hub."""
    torch.manual_seed(7)
    for name, tensor in model.named_parameters():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=0.3)
        elif name == "logit_scale":
            tensor.data.fill_(1.5)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    if words is not None:
        words.save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8)
    size = {"shortest_edge": SIDE}
    processor = BitImageProcessor(size=size, crop_size={"height": SIDE, "width": SIDE}, do_convert_rgb=True)
    return _saved(folder, Dinov2Model(config), processor)


def siglip(folder: Path) -> Path:
    words = tokenizer()
    config = SiglipConfig(
        text_config={**_TEXT, "vocab_size": len(words), "projection_size": 16}, vision_config=dict(_VISION)
    )
    return _saved(folder, SiglipModel(config), SiglipImageProcessor(size={"height": SIDE, "width": SIDE}), words)


def clip(folder: Path) -> Path:
    words = tokenizer()
    text = {**_TEXT, "vocab_size": len(words), "projection_dim": 8}
    config = CLIPConfig(text_config=text, vision_config={**_VISION, "projection_dim": 8}, projection_dim=8)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _saved(folder, CLIPModel(config), processor, words)


def biomedclip(folder: Path) -> Path:
    """A ViT and a BERT, as BiomedCLIP has them, in the dual encoder of transformers."""
    words = tokenizer()
    text = BertConfig(**{**_TEXT, "vocab_size": len(words)})
    config = VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(**_VISION), text, projection_dim=8)
    processor = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return _saved(folder, VisionTextDualEncoderModel(config), processor, words)


DUAL = {
    "medsiglip": (siglip, SiglipModel, SiglipImageProcessor, {"padding": "max_length", "max_length": LENGTH}),
    "huggingface": (clip, CLIPModel, CLIPImageProcessor, {"padding": True}),
    "biomedclip": (biomedclip, VisionTextDualEncoderModel, ViTImageProcessor, {"padding": True}),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kept, threads = dict(registry._OPEN), torch.get_num_threads()
    registry._OPEN.clear()
    yield
    registry._OPEN.clear()
    registry._OPEN.update(kept)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test here reaches for the network, whatever swallows the refusal."""
    reached: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        reached.append(address)
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    yield
    assert not reached


def eyes(folder: Path, name: str = "rad-dino") -> Any:
    return registry.eyes_for("DX", f"{name}:{folder}", threads=1)


def image_of(volume: Any) -> Image.Image:
    return Image.fromarray(volume.array[0]).convert("RGB")


def unit(vector: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vector, dim=-1).numpy()


def test_rad_dino_embeds_as_the_library_does(tmp_path: Path) -> None:
    volume = radiograph(90, 120)
    folder = dinov2(tmp_path)
    model = Dinov2Model.from_pretrained(folder).eval()
    pixels = BitImageProcessor.from_pretrained(folder)(image_of(volume), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = unit(model(pixels).pooler_output[0])
    reading = eyes(folder).read(volume, Context(age=40.0))
    np.testing.assert_allclose(reading.embedding, expected, atol=1e-6)
    assert reading.embedding.dtype == np.float32
    assert reading.findings == ()
    assert any("only embeds" in sentence for sentence in reading.missing)
    assert any("image alone" in sentence for sentence in reading.missing)
    assert reading.model.startswith("rad-dino/1 Dinov2Model (")
    assert any("middle square" in note for note in reading.notes)
    other = eyes(folder).read(radiograph(120, 90)).embedding
    assert not np.allclose(other, expected, atol=1e-3)


@pytest.mark.parametrize("name", DUAL)
def test_a_dual_encoder_finds_as_the_library_s_own_forward_says(tmp_path: Path, name: str) -> None:
    build, kind, processor_kind, padding = DUAL[name]
    folder, volume = build(tmp_path), radiograph()
    model = kind.from_pretrained(folder).eval()
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    pixels = processor_kind.from_pretrained(folder)(image_of(volume), return_tensors="pt")["pixel_values"]
    expected = []
    for term in TERMS:  # one pair at a time, as a person would try it
        tokens = words([term.phrase, f"no {term.phrase}"], return_tensors="pt", **padding)
        tokens.pop("token_type_ids", None)
        with torch.inference_mode():
            out = model(pixel_values=pixels, **tokens)
        expected.append(float(out.logits_per_image.softmax(dim=-1)[0, 0]))
    reading = eyes(folder, name).read(volume)
    np.testing.assert_allclose(reading.embedding, unit(out.image_embeds[0]), atol=1e-5)
    assert [f.name for f in reading.findings] == [term.name for term in TERMS]
    np.testing.assert_allclose([f.probability for f in reading.findings], expected, atol=2e-4)
    assert np.ptp(expected) > 0.02
    assert not any(f.calibrated for f in reading.findings)
    assert any("not calibrated" in sentence for sentence in reading.missing)
    assert any("pairs of sentences" in sentence for sentence in reading.missing)
    assert not reading.notes


def test_several_threads_read_at_once_as_one_does(tmp_path: Path) -> None:
    model = eyes(clip(tmp_path), "huggingface")
    volumes = [radiograph(64 + 8 * n, 96) for n in range(6)]
    expected = [model.read(volume).embedding for volume in volumes]
    with ThreadPoolExecutor(6) as pool:
        got = [reading.embedding for reading in pool.map(model.read, volumes)]
    np.testing.assert_array_equal(got, expected)


def test_text_lies_in_the_space_of_the_image(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = PreTrainedTokenizerFast.from_pretrained(folder)(["pleural effusion"], return_tensors="pt")
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        expected = unit(model.get_text_features(**tokens).pooler_output)
    got = eyes(folder, "huggingface").embed_text(["pleural effusion"])
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.shape[1:] == eyes(folder, "huggingface").read(radiograph()).embedding.shape


def test_a_longer_sentence_than_the_model_takes_is_cut(tmp_path: Path) -> None:
    got = eyes(siglip(tmp_path), "medsiglip").embed_text(["no effusion " * 40])
    assert np.isfinite(got).all()


def test_an_image_encoder_has_no_words(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no text encoder"):
        eyes(dinov2(tmp_path)).embed_text(["effusion"])


def _head(folder: Path, labels: list[str], width: int, card: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    tensors = {
        "weight": torch.randn(len(labels), width, generator=generator),
        "bias": torch.tensor([0.1] * len(labels)),
    }
    save_file(tensors, folder / "findings_head.safetensors")
    (folder / "findings_head.json").write_text(json.dumps({"labels": labels} | card))


def test_a_head_beside_an_image_encoder_gives_its_findings(tmp_path: Path) -> None:
    volume, folder = radiograph(), dinov2(tmp_path)
    _head(folder, ["Effusion", "Cardiomegaly"], 16, {"thresholds": [0.3, 0.6]})
    tensors = load_file(folder / "findings_head.safetensors")
    pixels = BitImageProcessor.from_pretrained(folder)(image_of(volume), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        pooled = Dinov2Model.from_pretrained(folder).eval()(pixels).pooler_output[0]
    expected = torch.sigmoid(tensors["weight"] @ pooled + tensors["bias"]).numpy()
    findings = eyes(folder).read(volume).findings
    np.testing.assert_allclose([f.probability for f in findings], expected, atol=1e-5)
    assert [(f.term, f.threshold) for f in findings] == [("Pleural Effusion", 0.3), ("Cardiomegaly", 0.6)]
    assert not findings[0].calibrated


@pytest.mark.parametrize(
    ("labels", "width", "card", "words"),
    [
        (["Dragons"], 16, {}, "unknown label 'Dragons'"),
        (["Effusion"], 16, {"labels": ["Effusion", "Mass"]}, "2 labels"),
        (["Effusion"], 16, {"thresholds": [0.5, 0.5]}, "one threshold"),
        (["Effusion"], 16, {"thresholds": [7]}, "one threshold"),
        (["Effusion"], 16, {"labels": 3}, "needs findings_head.json"),
        (["Effusion"], 12, {}, "takes 12 numbers and the encoder gives 16"),
    ],
)
def test_a_head_that_does_not_fit_is_one_sentence(
    tmp_path: Path, labels: list[str], width: int, card: dict, words: str
) -> None:
    folder = dinov2(tmp_path)
    _head(folder, labels, width, card)
    with pytest.raises(Refused, match=words):
        eyes(folder).read(radiograph())


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _text_model(folder: Path) -> None:
    BertModel(BertConfig(**{**_TEXT, "vocab_size": 30})).save_pretrained(folder)


HOSTILE: dict[str, tuple[Callable[[Path], object], type[ReadingRoomError], str]] = {
    "pickled": (_pickle, Refused, "can run code"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ModelMissing, "no safetensors"),
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-64]),
        Refused,
        "damaged or do not fit",
    ),
    "not a number": (
        lambda f: _spoil(f, lambda t: t["layernorm.weight"].fill_(float("nan"))),
        Refused,
        r"not finite \(layernorm",
    ),
    "a tensor lacks": (lambda f: _spoil(f, lambda t: t.pop("layernorm.weight")), Refused, "lack 1 tensors.*layernorm"),
    "another width": (lambda f: _config(f, hidden_size=32), Refused, "do not fit"),
    "another architecture": (lambda f: _config(f, model_type="vit"), Refused, "lack|do not fit"),
    "unknown architecture": (lambda f: _config(f, model_type="dragon"), Refused, "does not know"),
    "its own code": (
        lambda f: _config(f, model_type="dragon", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}),
        Refused,
        "without running code",
    ),
    "a width in words": (lambda f: _config(f, hidden_size="wide"), Refused, r"config\.json"),
    "no heads": (lambda f: _config(f, num_attention_heads=0), Refused, "config|do not fit"),
    "no config": (lambda f: (f / "config.json").unlink(), Refused, "config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), Refused, "config.json"),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), ModelMissing, "image processor"),
    "text alone": (_text_model, Refused, "reads no images"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), Refused, "adapter"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_folder_that_will_not_do_is_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, kind, words = HOSTILE[case]
    folder = dinov2(tmp_path)
    spoil(folder)
    with pytest.raises(kind, match=words) as caught:
        eyes(folder)
    assert str(caught.value).count(". ") == 0
    assert str(tmp_path) not in str(caught.value)


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    folder = dinov2(tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    _config(folder, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    assert eyes(folder).read(radiograph()).embedding is not None  # a known architecture: the library's own class
    registry._OPEN.clear()
    _config(folder, model_type="dragon")
    with pytest.raises(Refused):
        eyes(folder)
    assert not (tmp_path / "ran").exists()


def test_a_dual_encoder_without_its_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelMissing, match=r"tokenizer\.json"):
        eyes(folder, "huggingface")


def _words(folder: Path, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
    path = folder / "tokenizer.json"
    card = json.loads(path.read_text())
    card["model"]["vocab"] = change(card["model"]["vocab"])
    path.write_text(json.dumps(card))


def test_another_model_s_tokenizer_is_refused(tmp_path: Path) -> None:
    def few(vocabulary: dict[str, int]) -> dict[str, int]:
        return {word: n for word, n in vocabulary.items() if n < 4}

    def far(vocabulary: dict[str, int]) -> dict[str, int]:
        return {word: n if n < 4 else n + 9000 for word, n in vocabulary.items()}

    for name, change in (("few", few), ("far", far)):
        folder = clip(tmp_path / name)
        _words(folder, change)
        with pytest.raises(Refused, match="not that model's own"):
            eyes(folder, "huggingface")


def test_a_name_of_the_hub_is_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelMissing, match="not there"):
        registry.eyes_for("DX", "rad-dino:microsoft/rad-dino")


def test_a_processor_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    with pytest.raises(Refused, match="processor"):
        eyes(folder, "huggingface").read(radiograph())


def test_a_ct_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not trained on CT"):
        eyes(dinov2(tmp_path)).read(ct())
