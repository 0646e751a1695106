"""Joining the language model with the encoder, and opening the result with an adapter; on a tiny one, and here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_models.drafting import adapter, language_model, vision_language
from core_models.drafting.drafter import Drafter, Job
from core_models.drafting.vision_language import ENCODER, MANIFEST, VisionLanguage, load, with_adapter
from core_models.errors import ModelMissing, Refused
from tests.drafting import tiny
from tests.drafting.cards import finding
from tests.drafting.test_adapter import HELD_OUT, RECIPE, SEEN, pairs

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "heart is enlarged, lungs are clear\n"
SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "adapter"


def _logits(base: VisionLanguage, picture: np.ndarray | None = None, model: Any = None) -> torch.Tensor:
    ids = torch.tensor([adapter.opening(base, TEXT, picture is not None)])
    seen = {} if picture is None else {"pixel_values": vision_language.pixels(picture, base.image_size)}
    with torch.inference_mode():
        return (model or base.model)(input_ids=ids, **seen).logits[0, -1].float()


PICTURE = np.random.default_rng(0).random((90, 70))


# ---- preparing -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder in which `prepare` has joined the tiny language model with the shipped encoder."""
    folder = tmp_path_factory.mktemp("joined")
    words = tiny.tokenizer()
    vocabulary = folder / "vocabulary.json"
    vocabulary.write_text(json.dumps(words.convert_ids_to_tokens(range(len(words)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_model, "_assemble", lambda work: work / "tiny.gguf")
        patch.setattr(language_model, "_convert", lambda work, source: (tiny.model(len(words)), tiny.tokenizer()))
        patch.setattr(language_model, "_package_version", lambda: "tiny 1")
        patch.setattr(language_model, "VOCABULARY", vocabulary)
        language_model.prepare(folder / "models", vocabulary)
        vision_language.prepare(folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def opened(models: Path) -> VisionLanguage:
    return load(models)


def test_prepare_leaves_two_whole_folders_and_keeps_them(models: Path) -> None:
    assert {p.name for p in models.iterdir()} == {language_model.NAME, vision_language.NAME}
    assert vision_language.prepared(models)
    before = (vision_language.folder(models) / "model.safetensors").stat().st_mtime_ns
    assert vision_language.prepare(models) == vision_language.folder(models)
    assert (vision_language.folder(models) / "model.safetensors").stat().st_mtime_ns == before
    assert not list(vision_language.folder(models).glob("*.bin"))


def test_what_is_opened_says_what_it_is(models: Path, opened: VisionLanguage) -> None:
    text = json.loads((language_model.folder(models) / language_model.MANIFEST).read_text())
    assert opened.digest == text["digest"]
    assert opened.name == f"{vision_language.NAME}@{opened.digest[:12]}"
    assert (opened.adapter, opened.sees, opened.image_places) == ("", False, 64)
    assert "no adapter" in opened.blind
    assert opened.tokenizer.convert_ids_to_tokens(opened.image_token) == vision_language.IMAGE_TOKEN


def test_the_two_halves_are_what_they_were(models: Path, opened: VisionLanguage) -> None:
    alone = language_model.load(models)
    ids = alone.tokenizer(TEXT, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        wanted = alone.model.to(vision_language.arithmetic())(input_ids=ids).logits[0]
        got = opened.model(input_ids=ids).logits[0, :, : wanted.shape[1]]
    # Of bfloat16 the last of eight bits, where a processor multiplies it and adds in another order.
    short = wanted.dtype == torch.bfloat16
    torch.testing.assert_close(got, wanted, rtol=2e-2 if short else 1e-3, atol=7e-2 if short else 2e-3)
    own = load_file(ENCODER / "model.safetensors")
    tower = opened.model.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], weight) for name, weight in own.items()), "in float32, bit by bit"


def test_a_picture_is_seen_once_its_projector_is_there(opened: VisionLanguage) -> None:
    one, other = (_logits(opened, p) for p in (PICTURE, PICTURE[::-1].copy()))
    assert torch.isfinite(one).all()
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("part", ["digest", "eyes"])
def test_a_folder_of_other_parts_is_made_anew(models: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(models, tmp_path / "models")
    manifest = vision_language.folder(tmp_path / "models") / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {part: "0" * 64}))
    assert not vision_language.prepared(tmp_path / "models")
    with pytest.raises(ModelMissing, match=r"`python app\.py prepare`"):
        load(tmp_path / "models")
    vision_language.prepare(tmp_path / "models")
    assert vision_language.prepared(tmp_path / "models")


def test_without_prepare_or_encoder_a_sentence_says_what_to_do(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelMissing, match=r"`python app\.py prepare`"):
        load(tmp_path)
    monkeypatch.setattr(vision_language, "ENCODER", tmp_path / "none")
    with pytest.raises(ModelMissing, match=r"`python app\.py train encoder`"):
        load(models)


# ---- adapters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model in float32."""
    out = tmp_path_factory.mktemp("adapters") / "mine"
    adapter.train(tiny.vision_language(), pairs, HELD_OUT, out, RECIPE, pictures=SEEN, log=lambda _: None)
    return out


@pytest.fixture
def mine(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


def _manifest(folder: Path, **fields: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_an_adapter_changes_the_writing_sees_and_is_named(trained: Path) -> None:
    plain = _logits(tiny.vision_language())
    made = with_adapter(tiny.vision_language(), trained)
    assert made.adapter.startswith("mine@")
    assert (made.sees, made.blind) == (True, "")
    assert not any("lora" in name for name, _ in made.model.named_modules())
    assert (_logits(made) - plain).abs().max() > 0.5
    assert made.model.model.multi_modal_projector.linear_1.weight.shape[1] == 1280
    assert not torch.allclose(_logits(made, PICTURE), _logits(made, 1 - PICTURE))


def test_the_learnt_projector_is_the_one_in_use(trained: Path) -> None:
    made = with_adapter(tiny.vision_language(), trained)
    weights = load_file(trained / "adapter_model.safetensors")
    (learnt,) = (w for name, w in weights.items() if name.endswith("multi_modal_projector.linear_1.weight"))
    torch.testing.assert_close(made.model.model.multi_modal_projector.linear_1.weight, learnt.float())


def test_an_adapter_of_the_prepared_model_opens_there(models: Path, opened: VisionLanguage, mine: Path) -> None:
    _manifest(mine, base_digest=opened.digest, eyes=opened.eyes)
    made = load(models, mine)
    assert (made.sees, made.digest) == (True, opened.digest)
    types = {name.split(".")[1]: p.dtype for name, p in made.model.named_parameters()}
    assert types == {
        "vision_tower": torch.float32,
        "multi_modal_projector": torch.float32,
        "language_model": vision_language.arithmetic(),
    }
    assert (_logits(made) - _logits(opened)).abs().max() > 0.5


def test_an_adapter_of_another_encoder_writes_and_is_blind(mine: Path) -> None:
    _manifest(mine, eyes="0" * 64)
    made = with_adapter(tiny.vision_language(), mine)
    assert not made.sees
    assert "another encoder" in made.blind
    started = next(Drafter(made).stream(Job((finding("E1", "Cardiomegaly"),), picture=PICTURE)))
    assert started.unseen[0] == made.blind


def test_folding_gives_the_logits_of_the_adapted_model() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny.vision_language()
    plain = _logits(base, PICTURE)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=vision_language.LORA_MODULES, modules_to_save=[vision_language.PROJECTOR]
    )
    model = get_peft_model(base.model, config).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name or ("projector" in name and weight.requires_grad):
            torch.nn.init.normal_(weight, std=0.1)
    adapted = _logits(base, PICTURE, model)
    assert (adapted - plain).abs().max() > 0.5
    vision_language.fold(model)
    folded = model.get_base_model()
    assert not any("lora" in name for name, _ in folded.named_modules())
    torch.testing.assert_close(_logits(base, PICTURE, folded), adapted, rtol=1e-4, atol=1e-4)


def test_no_adapter_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"'none'.*`python app\.py train adapter`"):
        with_adapter(tiny.vision_language(), tmp_path / "none")


def test_an_adapter_of_another_base_is_refused(mine: Path) -> None:
    _manifest(mine, base_digest="0" * 64)
    with pytest.raises(Refused, match="another base"):
        with_adapter(tiny.vision_language(), mine)
    (mine / MANIFEST).unlink()
    with pytest.raises(Refused, match="another base"):
        with_adapter(tiny.vision_language(), mine)


@pytest.mark.parametrize("name", ["adapter_model.bin", "extra.bin", "optimiser.pkl", "weights.pt"])
def test_an_adapter_with_pickles_is_refused(mine: Path, name: str) -> None:
    (mine / name).write_bytes(b"")
    with pytest.raises(Refused, match="nothing pickled"):
        with_adapter(tiny.vision_language(), mine)
    (mine / "adapter_model.safetensors").unlink()
    with pytest.raises(Refused, match="must hold safetensors"):
        with_adapter(tiny.vision_language(), mine)


@pytest.mark.parametrize("damage", ["truncated", "other shapes", "other names", "no manifest", "no config"])
def test_a_damaged_adapter_is_refused_in_a_sentence(mine: Path, damage: str) -> None:
    weights = mine / "adapter_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "other shapes":
        held = load_file(weights)
        save_file({name: torch.zeros(3, 3) for name in held}, weights)
    elif damage == "other names":  # as an adapter of the language model alone has them
        save_file({name.replace("language_model.", ""): w for name, w in load_file(weights).items()}, weights)
    elif damage == "no manifest":
        (mine / MANIFEST).write_text("not json")
    else:
        (mine / "adapter_config.json").write_text("{")
    with pytest.raises(Refused, match="'mine'"):
        with_adapter(tiny.vision_language(), mine)


# ---- the prepared model of this machine ------------------------------------------------------------------------------


def test_the_shipped_adapter_fits_the_model_that_is_prepared_here(prepared_models: Path) -> None:
    made = json.loads((vision_language.folder(prepared_models) / MANIFEST).read_text())
    shipped = json.loads((SHIPPED / MANIFEST).read_text())
    assert (made["digest"], made["eyes"]) == (shipped["base_digest"], shipped["eyes"])


def test_the_shipped_adapter_is_small_and_holds_no_pickle() -> None:
    names = {p.name for p in SHIPPED.iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "evaluation.json", MANIFEST}
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) <= 16 * 2**20
    weights = load_file(SHIPPED / "adapter_model.safetensors")
    assert any("multi_modal_projector" in name for name in weights)


def test_the_shipped_adapter_writes_what_the_cards_say(prepared_models: Path) -> None:
    made = Drafter(load(prepared_models, SHIPPED))
    cards = (finding("E1", "Cardiomegaly/mild", region="heart"), finding("E2", "otherwise normal", region="other"))
    *_, done = made.stream(Job(cards, indication="Shortness of breath.", picture=PICTURE))
    good = [s for s in done.draft.statements if s.support == "supported"]
    assert any(s.evidence == ("E1",) and s.step.follows == "present" for s in good), done.draft.statements
    assert not any(s.support == "contradicted" for s in done.draft.statements)
    assert done.draft.complete
