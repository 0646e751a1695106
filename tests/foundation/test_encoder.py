"""The encoder as a Hugging Face model: its folder, its tokens, its context, its ImageNet start, its experts' switch."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from core_models.errors import ModelMissing, NotFound, Refused
from core_models.foundation import encoder as module
from core_models.foundation.encoder import RadiographEncoder, RadiographEncoderConfig, load_imagenet
from core_models.foundation.model import load_encoder, new_encoder


@pytest.fixture(scope="module")
def trunk() -> RadiographEncoder:
    torch.manual_seed(0)
    made = RadiographEncoder(RadiographEncoderConfig(image_size=64)).eval()
    with torch.no_grad():
        made.context.weight.normal_()  # a trained context must survive the way through the folder
        made.context.bias.normal_()
    return made


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.inference_mode()
def test_a_saved_folder_opens_through_the_auto_classes_with_equal_outputs(trunk, picture, tmp_path):
    trunk.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    config = AutoConfig.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(config, RadiographEncoderConfig)
    again = AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(again, RadiographEncoder)
    context = torch.rand(2, 6)
    first, second = trunk(picture, context=context), again(picture, context=context)
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert torch.equal(first.pooler_output, second.pooler_output)
    ours = load_encoder(tmp_path).eval()(picture, context=context)
    assert torch.equal(first.pooler_output, ours.pooler_output)


@torch.inference_mode()
def test_a_folder_in_half_precision_takes_pictures_in_float32(trunk, picture, tmp_path):
    trunk.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, local_files_only=True, dtype=torch.bfloat16).eval()
    out = half(picture)
    assert out.last_hidden_state.dtype == torch.bfloat16
    assert torch.isfinite(out.pooler_output).all()


@pytest.mark.parametrize("size", [64, 224, 320, 384])
@torch.inference_mode()
def test_every_size_gives_64_tokens(trunk, size):
    out = trunk(torch.zeros(1, 1, size, size), output_hidden_states=True)
    assert out.last_hidden_state.shape == (1, 64, 1280)
    assert out.hidden_states[-1] is out.last_hidden_state
    assert [level.shape[-1] for level in out.pyramid] == [size // s for s in (2, 4, 8, 16, 32)]
    assert tuple(level.shape[1] for level in out.pyramid) == trunk.channels
    assert out.grid_map.shape == (1, 1280, size // 32, size // 32)


@torch.inference_mode()
def test_a_picture_that_is_not_square_has_64_tokens_too(trunk):
    for shape in ((320, 256), (256, 320)):  # one side of the last map has eight cells already
        assert trunk(torch.zeros(1, 1, *shape)).last_hidden_state.shape == (1, 64, 1280)


@torch.inference_mode()
def test_three_equal_channels_are_read_as_one(trunk, picture):
    one, three = trunk(picture).pooler_output, trunk(picture.expand(-1, 3, -1, -1)).pooler_output
    assert torch.allclose(one, three, atol=1e-5)


@torch.inference_mode()
def test_a_new_context_changes_nothing_and_nothing_known_is_no_context():
    fresh = RadiographEncoder(RadiographEncoderConfig()).eval()
    x = torch.rand(2, 1, 64, 64)
    without = fresh(x).pooler_output
    assert torch.equal(without, fresh(x, context=torch.rand(2, 6)).pooler_output)
    assert not fresh.context.weight.any()
    assert not fresh.context.bias.any()


@torch.inference_mode()
def test_context_moves_the_pooled_vector_only(trunk, picture):
    without, told = trunk(picture), trunk(picture, context=torch.ones(2, 6))
    assert torch.equal(without.last_hidden_state, told.last_hidden_state)
    assert not torch.equal(without.pooler_output, told.pooler_output)


@torch.inference_mode()
def test_a_picture_is_answered_the_same_alone_and_in_a_batch(trunk, picture):
    assert torch.allclose(trunk(picture).pooler_output[:1], trunk(picture[:1]).pooler_output, atol=1e-5)


def test_an_expert_that_is_not_there_is_said_so_not_passed_over(trunk, picture):
    with pytest.raises(NotFound, match="no expert for 'ct'; there are none"):
        trunk(picture, expert="ct")


def test_frozen_stages_keep_weights_and_statistics(picture):
    made = RadiographEncoder(RadiographEncoderConfig()).train()
    made.freeze(2)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made(picture).pooler_output.square().mean().backward()
    touched = {k for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(name.startswith(("stem.", "blocks.0.", "blocks.1.")) for name in touched)
    assert any(name.startswith("blocks.2.") for name in touched)  # its running statistics
    assert all(p.grad is None for part in (made.stem, made.blocks[0], made.blocks[1]) for p in part.parameters())
    assert all(p.grad is not None for p in made.blocks[2].parameters())
    made.freeze(0)
    assert all(p.requires_grad for p in made.parameters())


# The ImageNet start


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    try:
        path = module.imagenet_file()
    except ModelMissing as error:
        pytest.skip(str(error))
    return torch.load(path, map_location="cpu", weights_only=True)


def test_imagenet_tensors_land_in_the_layers_they_were_trained_in(imagenet):
    made = new_encoder("imagenet")
    state = made.state_dict()
    source = [(k, v) for k, v in imagenet.items() if not k.startswith("_fc.")]
    assert torch.equal(state["stem.0.weight"], source[0][1].sum(1, keepdim=True))  # three colour planes as one
    last = [v for k, v in source if v.ndim == 4][-1]
    assert torch.equal(state["head.0.weight"], last)
    mapped = [k for k in state if k.split(".")[0] in ("stem", "blocks", "head")]
    assert len(mapped) == len(source)
    for (theirs, value), ours in zip(source[1:], mapped[1:], strict=True):
        assert torch.equal(state[ours], value), (theirs, ours)
        assert ours.split(".")[-1] == theirs.split(".")[-1]  # weight on weight, running_var on running_var


def test_another_file_than_the_published_one_is_refused(monkeypatch, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    monkeypatch.setattr(module, "imagenet_file", lambda: other)
    with pytest.raises(Refused, match="another digest"):
        new_encoder("imagenet")


@pytest.mark.parametrize("change", ["shape", "number"])
def test_weights_of_another_network_are_refused(monkeypatch, tmp_path, imagenet, change):
    import hashlib

    changed = dict(imagenet)
    first = next(k for k, v in changed.items() if v.ndim == 4 and v.shape[1] != 3)
    if change == "shape":
        changed[first] = changed[first][..., :1, :1]
    else:
        del changed[first]
    path = tmp_path / "other.pth"
    torch.save(changed, path)
    monkeypatch.setattr(module, "imagenet_file", lambda: path)
    monkeypatch.setattr(module, "IMAGENET_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    expected = first if change == "shape" else "the network needs"
    with pytest.raises(Refused, match=expected):
        load_imagenet(RadiographEncoder(RadiographEncoderConfig()))


# Folders that do not fit


def test_a_folder_without_an_encoder_names_the_command(tmp_path):
    with pytest.raises(ModelMissing, match="train encoder"):
        load_encoder(tmp_path / "nothing")


@pytest.mark.parametrize("fault", ["kind", "damaged", "shape", "name", "nan"])
def test_a_checkpoint_that_does_not_fit_is_refused(trunk, tmp_path, fault):
    trunk.save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    tensors = load_file(weights)
    if fault == "kind":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "resnet"}))
    elif fault == "damaged":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif fault == "shape":
        tensors["context.bias"] = torch.zeros(7)
    elif fault == "name":
        tensors["contxt.bias"] = tensors.pop("context.bias")
    else:
        tensors["context.bias"][0] = float("nan")
    if fault in ("shape", "name", "nan"):
        save_file(tensors, weights)
    with pytest.raises(Refused) as caught:
        load_encoder(tmp_path)
    assert str(tmp_path) not in str(caught.value)
