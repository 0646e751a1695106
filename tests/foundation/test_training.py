"""Training: it learns, can be stopped at any step, and never goes on from what does not fit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core_models.errors import Refused
from core_models.foundation import train as room
from core_models.foundation.judge import validate
from core_models.foundation.model import ENCODER, HEADS, FoundationModel, load_encoder, new_encoder, read_into, save
from core_models.foundation.sampler import Sampler
from core_models.foundation.tasks.contrastive import SAME, SOFT_SHARE, soft_targets
from tests.foundation.pools import on_side, pools_of, recipe

ALL = ("findings", "segmentation", "contrastive", "masked", "gate")


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """accelerate keeps one precision a process; a training in a test must not decide it for the next."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def run(some, folder, **options):
    said = []
    made = room.train(some, pools_of(some), folder, log=said.append, **options)
    return *made, said


def weights(model: FoundationModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.trained().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# Learning


def test_the_loss_falls_and_the_figure_is_learnt(tmp_path):
    some = recipe(30, ("findings", "segmentation"), average=0.8, checkpoint_every=100)
    some = replace(some, stages=(replace(some.stages[0], rate=3e-3, trunk_rate=1.0),))
    lines: list[str] = []
    model, summary = room.train(some, pools_of(some), tmp_path, log=lines.append, judge=lambda m, s: {"x": 1.0})
    with torch.no_grad():
        first = FoundationModel(new_encoder("scratch"), tuple(some.tasks), some.dimensions).train()
        start = first(Sampler(pools_of(some), some.stages[0], 0).batch(0))
    assert summary["losses"]["findings"] < 0.75 * float(start["findings"])
    assert summary["losses"]["segmentation"] < 0.8 * float(start["segmentation"])
    assert summary["steps"] == 30
    assert summary["validation"] == [{"step": 30, "x": 1.0}]
    assert summary["recipe_digest"] == some.digest
    assert any(line.startswith("step 20/30") for line in lines)
    assert not model.training


# Stopping


def test_a_resumed_run_ends_with_the_very_weights_of_one_that_never_stopped(tmp_path):
    """With every task: dropout, hidden patches and the queue of the contrastive task go on where they were."""
    some = recipe(4, ALL)
    whole, _, _ = run(some, tmp_path / "whole")
    _, state, _ = run(some, tmp_path / "parts", stop_after=2)
    assert state == {"steps": 2, "stopped": True}
    torch.rand(7)  # another process would have drawn other numbers
    resumed, summary, said = run(some, tmp_path / "parts", resume=True)
    assert "resumed at step 2 of 4" in said
    assert summary["steps"] == 4
    assert equal(weights(whole), weights(resumed))


def test_a_run_is_repeatable_and_its_seed_decides(tmp_path):
    some = recipe(2)
    one, two, other = (run(s, tmp_path / str(i))[0] for i, s in enumerate((some, some, replace(some, seed=1))))
    assert equal(weights(one), weights(two))
    assert not equal(weights(one), weights(other))


def test_without_resume_a_run_begins_anew(tmp_path):
    some = recipe(2)
    first, _, _ = run(some, tmp_path)
    again, _, said = run(some, tmp_path)
    assert not any("resumed" in line for line in said)
    assert equal(weights(first), weights(again))


def test_a_finished_run_resumes_to_itself(tmp_path):
    some = recipe(2)
    first, _, _ = run(some, tmp_path)
    again, _, _ = run(some, tmp_path, resume=True)
    assert equal(weights(first), weights(again))


def test_one_checkpoint_is_kept_and_it_is_whole(tmp_path):
    run(recipe(4), tmp_path)
    (kept,) = tmp_path.glob("at-*")
    assert kept.name == "at-4"
    assert {p.name for p in kept.iterdir()} == {room.WEIGHTS, room.AVERAGE, room.OPTIMISER, room.MEMORY}


def test_a_crash_while_writing_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    some = recipe(4)
    run(some, tmp_path, stop_after=2)
    monkeypatch.setattr(room.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        run(some, tmp_path, resume=True)
    monkeypatch.undo()
    _, summary, said = run(some, tmp_path, resume=True)
    assert "resumed at step 2 of 4" in said
    assert summary["steps"] == 4


# A loss that is no number


class Fragile(nn.Module):
    """The findings task until a step, then not a number."""

    def __init__(self, inner: nn.Module, fails_at: int) -> None:
        super().__init__()
        self.inner, self.left = inner, fails_at

    def loss(self, encoder, batch, out):
        self.left -= 1
        loss = self.inner.loss(encoder, batch, out)
        return loss * float("nan") if self.left < 0 else loss


def test_a_loss_that_is_not_finite_is_refused_and_the_run_goes_on_from_before(tmp_path):
    def model(fails_at: int) -> FoundationModel:
        made = FoundationModel(new_encoder("scratch"), ("findings",), 16)
        made.add_task("findings", Fragile(made.tasks["findings"], fails_at))
        return made

    some = recipe(4)
    with pytest.raises(Refused, match=r"not finite at step 3 \(findings nan\).*--resume"):
        run(some, tmp_path, model=model(3))
    assert (tmp_path / "at-2").is_dir()
    trained, summary, said = run(some, tmp_path, model=model(100), resume=True)
    assert "resumed at step 2 of 4" in said
    assert summary["steps"] == 4
    assert all(torch.isfinite(v).all() for v in weights(trained).values() if v.is_floating_point())


# Checkpoints that do not fit


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    run(recipe(2), tmp_path)
    with pytest.raises(Refused, match="another recipe"):
        run(recipe(3), tmp_path, resume=True)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    some = recipe(2)
    run(some, tmp_path)
    other = FoundationModel(new_encoder("scratch"), ("findings", "masked"), 16)
    with pytest.raises(Refused, match="another architecture"):
        run(some, tmp_path, resume=True, model=other)


@pytest.mark.parametrize("name", [room.STATE, room.WEIGHTS, room.AVERAGE, room.OPTIMISER, room.MEMORY])
def test_a_damaged_checkpoint_is_refused(tmp_path, name):
    some = recipe(2)
    run(some, tmp_path)
    path = tmp_path / name if name == room.STATE else tmp_path / "at-2" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Refused, match="checkpoint is damaged") as caught:
        run(some, tmp_path, resume=True)
    assert str(tmp_path) not in str(caught.value)


def test_a_checkpoint_from_before_memory_was_kept_still_goes_on(tmp_path):
    some = recipe(4)
    run(some, tmp_path, stop_after=2)
    (tmp_path / "at-2" / room.MEMORY).unlink()
    assert run(some, tmp_path, resume=True)[1]["steps"] == 4


def test_a_task_that_the_model_lacks_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(Refused, match="'generation'"):
        run(recipe(2, ("findings", "generation")), tmp_path)


# What is kept


def test_saved_weights_open_again_and_damaged_ones_do_not(tmp_path):
    model = FoundationModel(new_encoder("scratch"), ("findings", "segmentation"), 16).eval()
    save(model, tmp_path)
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        again = load_encoder(tmp_path / ENCODER).eval()
        assert torch.allclose(model.encoder(x).pooler_output, again(x).pooler_output, rtol=0.02, atol=0.02)
    heads = load_file(tmp_path / HEADS)
    assert {k.split(".")[0] for k in heads} == {"findings", "segmentation"}
    assert heads["findings.linear.weight"].dtype == torch.float16
    read_into(model.tasks, tmp_path / HEADS)
    (tmp_path / HEADS).write_bytes((tmp_path / HEADS).read_bytes()[:-7])
    with pytest.raises(Refused, match="damaged"):
        read_into(model.tasks, tmp_path / HEADS)


def test_the_average_is_a_second_model_that_shares_what_never_learns():
    model = FoundationModel(new_encoder("scratch"), ("contrastive",), 16)
    twin = room.averaged(model, {"encoder.context.bias": torch.ones(1280)})
    assert not model.encoder.context.bias.any()
    assert twin.encoder.context.bias.all()
    ours, theirs = (dict(m.tasks["contrastive"].text.named_parameters()) for m in (model, twin))
    assert {k for k in ours if ours[k] is theirs[k]} == {k for k in ours if not ours[k].requires_grad}


# Captions that mean the same


def test_captions_that_mean_the_same_are_neither_target_nor_negative():
    """Three captions; the third says what the first does, the queue holds the second once more."""
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    like = torch.stack((a, b, a))
    target, barred = soft_targets(like, torch.cat((like, b[None])))
    assert barred.tolist() == [[False, False, True, False], [False, False, False, True], [True, False, False, False]]
    assert torch.allclose(target.sum(1), torch.ones(3))
    assert target[barred].max() < 1e-6
    # Row 0 against one unlike caption (twice in the queue's order): nearly all stays on its own.
    assert target[0, 0] == pytest.approx(1.0, abs=1e-4)


def test_captions_that_are_alike_share_some_of_the_target():
    near = 0.8
    assert near < SAME
    like = torch.tensor([[1.0, 0.0], [near, (1 - near**2) ** 0.5], [0.0, 1.0]])
    target, barred = soft_targets(like, like)
    assert not barred.any()
    weight = torch.tensor([1.0, near, 0.0]).div(0.07).softmax(0)
    expected = SOFT_SHARE * weight + torch.tensor([1 - SOFT_SHARE, 0.0, 0.0])
    assert torch.allclose(target[0], expected, atol=1e-5)
    assert target[0, 1] > 5 * target[0, 2]


# Judging


def test_judging_needs_no_gradient_and_leaves_nothing_behind():
    """Twice in a row on one model that trains: judging leaves nothing behind."""
    some = recipe(2, ("findings", "segmentation", "contrastive"))
    pools = {n: on_side(p, "validation") for n, p in pools_of(some).items()}
    model = FoundationModel(new_encoder("scratch"), tuple(some.tasks), 16).eval()
    figures = [validate(model, pools, 64) for _ in range(2)]
    assert figures[0] == figures[1]
    assert set(figures[0]) == {"auroc", "lungs", "heart", "clavicles", "recall@10"}
    assert all(0 <= v <= 1 for v in figures[0].values())
    losses = model(Sampler(pools_of(some), some.stages[0], 0, model.tasks["contrastive"].text.tokens,
                           {"rocov2-cxr": torch.eye(24, 384)}).batch(0))  # fmt: skip
    sum(losses.values()).backward()


# Batches


def test_every_picture_is_seen_once_before_any_is_seen_again():
    some = recipe(4)
    sampler = Sampler(pools_of(some), some.stages[0], 0)
    seen = [int(r) for step in range(4) for r in sampler._chosen("nih-cxr14-1000", 6, step)]
    assert sorted(seen) == list(range(24))
    again = [int(r) for step in range(4, 8) for r in sampler._chosen("nih-cxr14-1000", 6, step)]
    assert sorted(again) == list(range(24))
    assert again != seen, "another order in each pass"


def test_a_batch_depends_on_seed_and_step_alone():
    some = recipe(4, ("findings", "segmentation"))
    one, two = (Sampler(pools_of(some), some.stages[0], 0) for _ in range(2))
    one.batch(0)
    assert torch.equal(one.batch(3).images, two.batch(3).images)
    assert not torch.equal(one.batch(2).images, two.batch(3).images)


def test_a_source_without_a_training_picture_is_refused():
    some = recipe(4)
    held = {n: on_side(p, "test") for n, p in pools_of(some).items()}
    with pytest.raises(Refused, match="'nih-cxr14-1000' has no picture on the training side"):
        Sampler(held, some.stages[0], 0)


def test_a_batch_names_the_rows_that_have_masks_and_captions():
    some = recipe(4, ("findings", "segmentation", "generation"))
    made = Sampler(pools_of(some), some.stages[0], 0).batch(0)
    assert made.images.shape == (14, 1, 64, 64)
    assert made.mask_rows.tolist() == [6, 7, 8, 9]
    assert made.caption_rows.tolist() == [10, 11, 12, 13]
    assert len(made.captions) == 4
    assert -1 <= made.images.min() < made.images.max() <= 1
