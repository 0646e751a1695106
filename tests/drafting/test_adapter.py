"""Training of the adapter on a tiny model: it learns, stops and goes on, refuses, and leaves only what it should."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from core_models.drafting import adapter, vision_language
from core_models.drafting.adapter import Interrupted, Recipe
from core_models.drafting.dataset import Example
from core_models.drafting.vision_language import LORA_MODULES, PROJECTOR, VisionLanguage
from core_models.errors import Refused
from tests.drafting import tiny

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(rank=4, alpha=8, learning_rate=5e-2, warmup_steps=2, epochs=3, batch=4, max_tokens=96)
HELD_OUT = [Example("H", "E1 heart\n", "F E1 heart present: heart is enlarged", False)]
SEEN = {"a": torch.full((tiny.GRID**2, 1280), 0.5), "b": torch.linspace(-1, 1, 1280).repeat(tiny.GRID**2, 1)}


def pairs(epoch: int) -> list[Example]:
    """Twelve short pairs, not the same in each epoch; a third of them with a picture."""
    organs = (("heart", "is enlarged", "a"), ("lungs", "are clear", ""), ("lungs", "are enlarged", ""))
    return [
        Example(str(n), f"E{n} {organ}\n", f"F {organ} {what} {epoch}", False, picture)
        for n in range(12)
        for organ, what, picture in organs[n % 3 : n % 3 + 1]
    ]


class After:
    """A stop that is asked `calls` times before it says yes."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def train(out: Path, recipe: Recipe = RECIPE, poison: bool = False, **options: Any) -> dict[str, Any]:
    base = tiny.vision_language()
    if poison:
        base.model.model.language_model.norm.weight.data.fill_(float("nan"))
    options = {"log": lambda _: None, "pictures": SEEN, **options}
    return adapter.train(base, pairs, HELD_OUT, out, recipe, **options)


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A training without interruption: its folder and its summary."""
    out = tmp_path_factory.mktemp("whole")
    return out, train(out)


def test_it_learns(whole: tuple[Path, dict[str, Any]]) -> None:
    validation = whole[1]["validation"]
    assert [step for step, _ in validation] == [0, 3, 6, 9]
    assert validation[-1][1] < 0.8 * validation[0][1]


def test_the_folder_holds_safetensors_and_how_they_came_about(whole: tuple[Path, dict[str, Any]]) -> None:
    out, summary = whole
    assert {p.name for p in out.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "reading-room.json"}
    written = json.loads((out / "reading-room.json").read_text())
    assert written == json.loads(json.dumps(summary))
    assert (written["base_digest"], written["eyes"]) == (tiny.DIGEST, tiny.EYES)
    assert written["recipe"]["rank"] == 4
    assert (written["steps"], written["pairs"], written["pairs_with_picture"]) == (9, 36, 12)


def test_the_weights_are_lora_of_the_language_half_and_the_projector_in_bf16(
    whole: tuple[Path, dict[str, Any]],
) -> None:
    weights = load_file(whole[0] / "adapter_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert any("lora_A" in name for name in weights)
    assert any("multi_modal_projector" in name for name in weights)
    assert not any("vision_tower" in name or "embed" in name for name in weights)
    fresh = tiny.vision_language().model.model.multi_modal_projector.linear_1.weight
    (learnt,) = (w for name, w in weights.items() if name.endswith("multi_modal_projector.linear_1.weight"))
    assert (learnt.float() - fresh).abs().max() > 0.01, "it learnt from the pictures"


def _same(one: Path, other: Path) -> None:
    mine, theirs = (load_file(p / "adapter_model.safetensors") for p in (one, other))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0.01, atol=1e-3)  # bf16


@pytest.mark.parametrize("calls", [2, 3])  # after step 3, the last of an epoch, and after step 4
def test_interrupted_and_resumed_is_as_if_never_interrupted(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, calls: int
) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(calls))
    saved = {p.name for p in (tmp_path / "checkpoint").iterdir()}
    assert saved == {"weights.safetensors", "moments.safetensors", "state.json"}
    steps: list[str] = []
    summary = train(tmp_path, resume=True, log=steps.append)
    assert steps[0] == f"resumed at step {calls + 1}"
    assert (summary["steps"], summary["loss_first_100"]) == (9, whole[1]["loss_first_100"])
    _same(tmp_path, whole[0])
    assert not (tmp_path / "checkpoint").exists()


def test_the_folder_names_no_path_of_the_training_machine(whole: tuple[Path, dict[str, Any]]) -> None:
    config = json.loads((whole[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


def test_training_goes_on_from_an_adapter(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns where it asks the network for the base
        summary = train(tmp_path, replace(RECIPE, epochs=1, learning_rate=1e-4), start=whole[0])
    before, after = (loss for _, loss in summary["validation"])
    assert before == pytest.approx(whole[1]["validation"][-1][1], rel=0.02), "it begins where the other ended"
    assert after == pytest.approx(before, rel=0.2)
    weights = [load_file(p / "adapter_model.safetensors") for p in (whole[0], tmp_path)]
    assert weights[0].keys() == weights[1].keys()
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_does_not_go_on_from_an_adapter_of_another_base(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(whole[0], other)
    manifest = json.loads((other / "reading-room.json").read_text())
    (other / "reading-room.json").write_text(json.dumps(manifest | {"base_digest": "0" * 64}))
    with pytest.raises(Refused, match="another base"):
        train(tmp_path / "out", start=other)


def test_interrupted_twice(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(tmp_path, stop=After(2), resume=True)
    train(tmp_path, resume=True)
    _same(tmp_path, whole[0])


def test_a_stop_keeps_the_step_that_it_ends(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(2))
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["state"]["step"] == 3


def test_without_resume_it_starts_anew(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, replace(RECIPE, seed=1), stop=After(2))
    train(tmp_path)
    _same(tmp_path, whole[0])


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(2))
    with pytest.raises(Refused, match="another recipe"):
        train(tmp_path, replace(RECIPE, learning_rate=1e-3), resume=True)


def test_a_checkpoint_of_other_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(2))
    state = tmp_path / "checkpoint" / "state.json"
    saved = json.loads(state.read_text())
    saved["state"]["pairs"] = "0" * 64
    state.write_text(json.dumps(saved))
    with pytest.raises(Refused, match="other pairs"):
        train(tmp_path, resume=True)


def test_a_crash_between_the_two_renames_loses_nothing(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(2))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    told: list[str] = []
    train(tmp_path, resume=True, log=told.append)
    assert any("resumed at step" in line for line in told)
    _same(tmp_path, whole[0])


def test_a_loss_that_is_not_finite_is_refused_and_the_checkpoint_kept(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=After(2))
    with pytest.raises(Refused, match="The loss is nan at step 4"):
        train(tmp_path, resume=True, poison=True)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["state"]["step"] == 3
    assert not (tmp_path / "adapter_model.safetensors").exists()


def _wrapped() -> tuple[Any, VisionLanguage]:
    from peft import LoraConfig, get_peft_model

    base = tiny.vision_language()
    config = LoraConfig(r=2, target_modules=LORA_MODULES, modules_to_save=[PROJECTOR])
    return get_peft_model(base.model, config).eval(), base


def test_the_loss_is_that_of_the_target_tokens_alone() -> None:
    model, base = _wrapped()
    examples = [*pairs(0)[:3], replace(pairs(0)[1], picture="b")]
    batch = adapter._encode(base, examples, 96)
    assert [picture for _, _, picture in batch] == ["a", "", "", "b"]
    got = adapter._loss(model, base.image_token, SEEN, *adapter._collate(batch))
    # By hand: each pair alone, without padding; the loss of each target token, from the token before it.
    losses = []
    for prompt, target, picture in batch:
        embedded = model.get_input_embeddings()(torch.tensor([prompt + target]))
        if picture:
            seen = base.model.model.multi_modal_projector(SEEN[picture][None])
            embedded = torch.cat((embedded[:, :1], seen, embedded[:, 1 + base.image_places :]), 1)
        logits = model(inputs_embeds=embedded).logits[0]
        n = len(prompt)
        losses.append(cross_entropy(logits[n - 1 : -1], torch.tensor(target), reduction="none"))
    torch.testing.assert_close(got, torch.cat(losses).mean(), rtol=1e-4, atol=1e-5)


def test_what_was_learnt_of_a_picture_is_what_the_whole_model_sees() -> None:
    """The encoder's tokens are made once for training; writing runs the encoder itself."""
    model, base = _wrapped()
    picture = np.random.default_rng(0).random((90, 70))
    known = adapter.tokens_of(base, iter([("a", picture)]))
    assert (known["a"].shape, known["a"].dtype) == ((tiny.GRID**2, 1280), torch.float16)
    ((prompt, target, _),) = batch = adapter._encode(base, pairs(0)[:1], 96)
    got = adapter._loss(model, base.image_token, known, *adapter._collate(batch))
    logits = model(
        input_ids=torch.tensor([prompt + target]), pixel_values=vision_language.pixels(picture, base.image_size)
    ).logits[0]
    wanted = cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(target))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_labels_stand_on_the_target_and_its_end_only() -> None:
    base = tiny.vision_language()
    ((prompt, target, _),) = batch = adapter._encode(base, pairs(0)[:1], 96)
    ids, labels, mask, pictures = adapter._collate(batch)
    n = len(prompt) + len(target)
    assert prompt[0] == 2, "the prompt begins with <bos>"
    assert prompt[1 : 1 + base.image_places] == [base.image_token] * base.image_places, "then the picture"
    assert target[-1] == 1, "the target ends with <eos>"
    assert ids[0, :n].tolist() == prompt + target
    assert labels[0, : len(prompt)].eq(-100).all()
    assert labels[0, len(prompt) : n].tolist() == target
    assert labels[0, n:].eq(-100).all()
    assert mask[0].tolist() == [1] * n + [0] * (ids.shape[1] - n)
    assert pictures == ["a"]


@pytest.mark.parametrize("picture", ["", "a"])
def test_a_target_that_is_too_long_loses_whole_lines(picture: str) -> None:
    base = tiny.vision_language()
    long = Example("L", "E1\n", "\n".join(f"line {n} of the target" for n in range(20)), False, picture)
    ((prompt, target, _),) = adapter._encode(base, [long], 96)
    kept = base.tokenizer.decode(target[:-1])
    assert long.target.startswith(kept + "\n")
    assert len(prompt) + len(target) <= 96 + (base.image_places if picture else 0)
    assert adapter._encode(base, [replace(long, prompt="x" * 96)], 96) == []


def test_batches_hold_each_pair_once_and_are_drawn_anew_each_epoch() -> None:
    encoded = [([n], [n] * (n % 7), "") for n in range(230)]
    one, again, other = (adapter._batches(encoded, RECIPE, e) for e in (0, 0, 1))
    assert one == again != other
    assert sorted(p[0] for batch in one for p, _, _ in batch) == list(range(230))
    assert max(map(len, one)) == RECIPE.batch


def test_the_rate_rises_then_falls_to_a_twentieth() -> None:
    rates = [adapter._schedule(step, 100, 10) for step in range(1, 101)]
    assert rates[0] < rates[4] < rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)
