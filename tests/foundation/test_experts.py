"""Experts: radiographs are answered the same to the last bit, one expert's training touches nothing else, and the lazy
way, which does forget, is told from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from core_models.errors import Conflict, ModelMissing, NotFound, Refused
from core_models.foundation import forgetting, slices, train_experts
from core_models.foundation.encoder import RadiographEncoder, RadiographEncoderConfig
from core_models.foundation.experts import add_expert, expert_of
from core_models.foundation.model import FoundationModel
from core_models.foundation.train_experts import ExpertRecipe, fit, load_expert, new_head, save_expert, train_expert
from tests.foundation.pools import on_side, pool

RECIPE = ExpertRecipe(size=64, batch=4, steps=6, rank=4)


def trunk(seed: int = 0) -> RadiographEncoder:
    torch.manual_seed(seed)
    return RadiographEncoder(RadiographEncoderConfig(image_size=64)).eval()


def some(name: str = "mr", seed: int = 3) -> slices.Slices:
    """Sixteen training and eight test slices with a bright square."""
    one = pool("acdc", 24, 64, seed=seed)
    sides = ("train",) * 16 + ("test",) * 8
    return replace(slices.mr_slices(replace(one, sides=sides)), name=name)


def picture() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.inference_mode()
def answers(encoder: RadiographEncoder, expert: str | None) -> list[torch.Tensor]:
    out = encoder(picture(), expert=expert)
    return [out.last_hidden_state, out.pooler_output, *out.pyramid]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# The router


def test_the_router_knows_each_modality_and_says_where_there_is_none():
    assert [expert_of(m) for m in ("CR", "DX", " dx ", "CT", "MR")] == [None, None, None, "ct", "mr"]
    for other in ("US", "", "PT"):
        with pytest.raises(NotFound, match="no expert for the modality"):
            expert_of(other)


# Adding


def test_a_new_expert_is_the_trunk_itself():
    encoder = trunk()
    before = answers(encoder, None)
    add_expert(encoder, "mr", rank=4)
    assert same(before, answers(encoder, None))
    assert same(before, answers(encoder, "mr"))
    assert encoder.config.experts == ["mr"]


def test_the_same_expert_twice_or_another_rank_is_refused():
    encoder = trunk()
    add_expert(encoder, "mr", rank=4)
    with pytest.raises(Conflict, match="'mr' already"):
        add_expert(encoder, "mr")
    with pytest.raises(Conflict, match="rank 4"):
        add_expert(encoder, "ct", rank=8)
    with pytest.raises(NotFound, match="no expert for 'ct'; there are mr"):
        encoder(picture(), expert="ct")


# Forgetting


def test_radiographs_are_answered_the_same_to_the_last_bit_after_each_expert():
    encoder = trunk()
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    before = answers(encoder, expert_of("DX"))
    train_expert(encoder, some("ct"), RECIPE)
    assert same(before, answers(encoder, expert_of("DX")))
    ct = answers(encoder, "ct")
    assert not same(before, ct)  # it did learn
    train_expert(encoder, some("mr", seed=4), RECIPE)
    assert same(before, answers(encoder, expert_of("CR")))
    assert same(ct, answers(encoder, "ct"))
    now = encoder.state_dict()
    assert all(torch.equal(now[k], v) for k, v in state.items())  # running statistics included


def test_the_lazy_way_changes_radiographs_and_a_head_alone_does_not():
    for way, changes in (("frozen", False), ("whole", True)):
        encoder = trunk()
        before = answers(encoder, None)
        fit(encoder, new_head(encoder, some(), 0), some(), RECIPE, way)
        assert same(before, answers(encoder, None)) != changes


def test_every_way_starts_from_the_same_head_and_sees_the_same_batches():
    encoder = trunk()
    one, two = (new_head(encoder, some(), 0).state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    rows = some().rows("train")
    first, again = (train_experts.batch(some(), rows, RECIPE, 2) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_an_expert_learns():
    encoder, data = trunk(), some()
    recipe = replace(RECIPE, steps=50, batch=8, rate=2e-2)
    head = new_head(encoder, data, 0)
    assert train_experts.overlap(encoder, head, data, 64, None)["mean"] < 0.1
    add_expert(encoder, "mr", 4)
    fit(encoder, head, data, recipe, "expert")
    assert train_experts.overlap(encoder, head, data, 64, "mr")["mean"] > 0.5


def test_nothing_to_train_on_is_refused():
    data = replace(some(), sides=("test",) * 24)
    with pytest.raises(Refused, match="no MR slice"):
        train_expert(trunk(), data, RECIPE)


def test_measured_beside_the_lazy_way(tmp_path):
    torch.manual_seed(0)
    model = FoundationModel(trunk(), ("findings", "segmentation"), 16)
    pools = {n: on_side(pool(n, 8), "test") for n in ("nih-cxr14-1000", "jsrt")}
    modalities = (some("ct"), some("mr", seed=4))
    said: list[str] = []
    result = forgetting.measure(model, modalities, pools, 64, RECIPE, tmp_path, said.append)
    assert result["bitwise_equal"] == {"ct": True, "mr": True}
    before = result["radiograph"]["before"]
    assert result["radiograph"]["experts"] == {"ct": before, "mr": before}
    assert result["radiograph"]["lazy"]["mr"] != before
    assert set(forgetting.forgotten(result, "experts").values()) == {0.0}
    for name, one in result["modalities"].items():
        assert set(one["dice"]) == {"expert", "frozen", "whole"}
        assert result["at_the_end"][name]["expert"] == one["dice"]["expert"]["mean"]
    assert json.loads(json.dumps(result)) == result
    table = forgetting.markdown(result)
    assert "equal to the last bit" in table
    assert "| findings AUROC |" in table
    assert table in (tmp_path / "README.md").read_text()
    drawn = forgetting.plot(result)
    import xml.etree.ElementTree as tree

    assert tree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<rect") == 1 + 3 * 2

    again = FoundationModel(trunk(), ("findings", "segmentation"), 16).eval()
    checked = forgetting.check(again, modalities, pools, 64, tmp_path)
    assert checked["bitwise_equal"]
    for name, one in result["modalities"].items():  # float16 on disk
        assert checked["dice"][name]["mean"] == pytest.approx(one["dice"]["expert"]["mean"], abs=0.02)


# Keeping


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    encoder, data = trunk(), some()
    head = train_expert(encoder, data, RECIPE)
    folder = tmp_path_factory.mktemp("experts")
    save_expert(encoder, head, data, 64, folder)
    return folder, answers(encoder, "mr")


def test_a_kept_expert_opens_on_its_trunk(kept):
    folder, expected = kept
    encoder = trunk()
    expert = load_expert(encoder, "mr", folder)
    assert (expert.structures, expert.size) == (slices.CARDIAC, 64)
    assert all(torch.allclose(a, b, atol=0.01) for a, b in zip(expected, answers(encoder, "mr"), strict=True))
    assert (folder / "mr.safetensors").stat().st_size < 2**20
    assert load_file(folder / "mr.safetensors")["adapters.0.0.weight"].dtype == torch.float16


def test_an_expert_of_another_trunk_missing_or_damaged_is_refused(kept, tmp_path):
    folder, _ = kept
    with pytest.raises(Refused, match="another encoder"):
        load_expert(trunk(seed=1), "mr", folder)
    with pytest.raises(ModelMissing, match="evaluate experts"):
        load_expert(trunk(), "ct", folder)
    whole = (folder / "mr.safetensors").read_bytes()
    for cut in (10, len(whole) - 9):
        (tmp_path / "mr.safetensors").write_bytes(whole[:cut])
        encoder = trunk()
        with pytest.raises(Refused, match="damaged"):
            load_expert(encoder, "mr", tmp_path)
        assert encoder.config.experts == []


@torch.inference_mode()
def test_an_encoder_with_experts_is_saved_and_opened_whole(kept, tmp_path):
    folder, _ = kept
    encoder = trunk()
    load_expert(encoder, "mr", folder)
    encoder.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    assert again.config.experts == ["mr"]
    assert same(answers(encoder, "mr"), answers(again, "mr"))


# Slices


def ct(name: str = "a", depth: int = 60) -> slices.LabelledCt:
    hu = np.full((depth, 40, 50), -1000, np.int16)
    labels = np.zeros((depth, 40, 50), np.uint8)
    hu[:, 5:35, 5:45] = 40
    for place, value in enumerate((5, 1, 2, 52, 51, 10)):
        labels[:, 8:14, 5 + 6 * place : 9 + 6 * place] = value
    return slices.LabelledCt(name, hu, labels, 2.5)


def test_ct_slices_are_windowed_padded_and_labelled():
    made = slices.ct_slices([ct()], 50)
    assert made.images.shape == made.masks.shape == (60, 50, 50)
    assert made.images[0, 0, 0] == 0
    assert made.images[0, 25, 25] == pytest.approx(0.5 * 255, abs=1)  # 40 HU is the window's middle
    assert set(np.unique(made.masks)) == {0, 1, 2, 3, 4, 5, 6}
    planes = made.planes(np.array([0]))
    assert planes.shape == (1, 6, 50, 50)
    assert int(planes[0, 2].sum()) == int((ct().labels[0] == 5).sum())  # the liver, pixel by pixel
    assert (planes.sum(1) <= 1).all()


def test_ct_slabs_keep_a_gap_between_the_sides():
    made = slices.ct_slices([ct(depth=130)], 50)
    train, test = made.rows("train"), made.rows("test")
    assert len(train) > len(test) > 10
    assert np.abs(train[:, None] - test[None]).min() * 2.5 > slices.GAP_MM - 1e-6


def test_volumes_without_organs_and_other_pools_are_refused():
    with pytest.raises(Refused, match="at least one CT"):
        slices.ct_slices([], 64)
    empty = ct()
    empty.labels[:] = 0
    with pytest.raises(Refused, match="holds its organs"):
        slices.ct_slices([empty], 64)
    with pytest.raises(Refused, match="acdc"):
        slices.mr_slices(pool("jsrt"))


def test_a_twin_of_a_test_slice_is_on_no_side():
    one = pool("acdc", 4)
    usable = np.array([True, False, True, True])
    made = slices.mr_slices(replace(one, usable=usable))
    assert made.rows("train").tolist() == [0, 2, 3]


def test_overlap_is_counted_over_a_patient_and_without_absent_structures():
    """A head that answers everywhere: Dice of a square of a sixteenth is 2/17; two patients of unlike size."""

    class Everywhere(torch.nn.Module):
        def forward(self, pyramid, size):
            return torch.ones(len(pyramid[0]), 3, *size)

    masks = np.zeros((3, 64, 64), np.uint8)
    masks[:, :16, :16] = 1
    one = replace(some(), masks=masks, images=masks, keys=("p", "p", "q"), sides=("test",) * 3)
    found = train_experts.overlap(trunk(), Everywhere(), one, 64, None)
    assert found == {"right ventricle": pytest.approx(2 / 17), "mean": pytest.approx(2 / 17)}
