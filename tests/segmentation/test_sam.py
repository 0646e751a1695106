"""Folders with tiny random SAM weights of the real classes → the same masks as the library's own steps give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor, SamImageProcessor, SamModel, SamProcessor

from core_models.errors import Cancelled, ModelMissing, ReadingRoomError, Refused
from core_models.segmentation import optional
from core_models.segmentation.bigger import sam as sams
from core_models.segmentation.bigger import slices
from core_models.segmentation.engine import Box, Click, Lasso, Scribble
from core_models.study.volume import SourceLayout, Volume
from tests.segmentation import foreign
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

SHAPE = (10, 40, 48)
AFFINE = affine_of((3.0, 1.0, 1.0))
CENTRE = (24, 20, 5)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return ct([(ellipsoid(SHAPE, AFFINE, CENTRE, (10, 9, 11)), 60)], SHAPE, AFFINE)


@pytest.fixture(scope="module", params=["sam", "sam2", "sam2_video"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp(request.param)
    return foreign.sam(where) if request.param == "sam" else foreign.sam2(where, request.param == "sam2_video")


def opened(folder: Path, volume: Volume):
    return optional.chooser(f"sam:{folder}", threads=1)(volume)


def own_steps(folder: Path, plane: np.ndarray, points, labels, box=None) -> np.ndarray:
    """The published way: the processor over a picture and prompts, the model over both, and back."""
    first = json.loads((folder / "config.json").read_text())["model_type"] == "sam"
    grey = np.clip((plane.astype(np.float32) + 160) / 400 * 255, 0, 255).round().astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, -1)
    if first:
        model, processor = SamModel.from_pretrained(folder), SamProcessor(SamImageProcessor.from_pretrained(folder))
    else:
        model, processor = Sam2Model.from_pretrained(folder), Sam2Processor(Sam2ImageProcessor.from_pretrained(folder))
    prompts = {"input_points": [[points]], "input_labels": [[labels]]}
    if box is not None:
        prompts["input_boxes"] = [[box]]
    inputs = processor(images=picture, return_tensors="pt", **prompts)
    sizes = {"original_sizes": inputs.pop("original_sizes")}
    if first:
        sizes["reshaped_input_sizes"] = inputs.pop("reshaped_input_sizes")
    several = len(points) == 1 and box is None
    with torch.inference_mode():
        answer = model.eval()(**inputs, multimask_output=several)
        masks = processor.post_process_masks(answer.pred_masks, *sizes.values())[0]
    return np.asarray(masks[0, int(answer.iou_scores[0, 0].argmax())], bool)


@pytest.mark.parametrize(
    ("prompts", "points", "labels", "box"),
    [
        ((Click(CENTRE),), [[24, 20]], [1], None),
        ((Click(CENTRE), Click((40, 8, 5), False)), [[24, 20], [40, 8]], [1, 0], None),
        ((Box((12, 9, 5), (36, 31, 5)), Click(CENTRE)), [[24, 20]], [1], [12, 9, 36, 31]),
    ],
)
def test_the_prompted_slice_is_as_the_librarys_own_steps_draw_it(folder, volume, prompts, points, labels, box) -> None:
    engine = opened(folder, volume)
    prepared = engine.prepare(volume)
    plan = slices.plan(volume, prompts)
    mask, sure = engine._answer(prepared, plan, (40.0, 400.0), 5, plan.asked[5])
    np.testing.assert_array_equal(mask, own_steps(folder, volume.array[5], points, labels, box))
    assert mask.any()
    assert 0 <= sure <= 1
    answer = engine.segment(prepared, prompts)
    expected = mask.copy()
    for click in prompts:
        if isinstance(click, Click):
            expected[click.index[1], click.index[0]] = click.positive
    np.testing.assert_array_equal(answer.mask.full()[5], expected)


def test_an_answer_depends_on_volume_and_prompts_alone_and_embeddings_are_kept(folder, volume) -> None:
    engine = opened(folder, volume)
    prepared = engine.prepare(volume)
    assert not prepared.cache
    first = engine.segment(prepared, (Click(CENTRE),))
    known = {key: id(value[0]) for key, value in prepared.cache.items()}
    assert (5, (40.0, 400.0)) in known
    engine.segment(prepared, (Click(CENTRE), Click((30, 20, 5))))
    assert id(prepared.cache[5, (40.0, 400.0)][0]) == known[5, (40.0, 400.0)]
    again = engine.segment(engine.prepare(volume), (Click(CENTRE),))
    np.testing.assert_array_equal(first.mask.full(), again.mask.full())
    assert engine.version.startswith(("SamModel ", "Sam2Model "))


def test_only_so_many_embeddings_are_kept(folder, volume, monkeypatch) -> None:
    engine = opened(folder, volume)
    prepared = engine.prepare(volume)
    monkeypatch.setattr(sams, "CACHE_BYTES", 1)
    plan = slices.plan(volume, (Click(CENTRE),))
    for at in range(4):
        engine._answer(prepared, plan, (40.0, 400.0), at, plan.asked[5])
    assert list(prepared.cache) == [(3, (40.0, 400.0))]


@pytest.mark.parametrize(("hu", "window"), [(-800, (-600.0, 1500.0)), (60, (40.0, 400.0)), (700, (400.0, 1800.0))])
def test_the_window_is_that_of_the_tissue_under_the_first_prompt(hu, window) -> None:
    volume = ct([(np.ones(SHAPE, bool), hu)], SHAPE, AFFINE)
    for prompts in ((Click(CENTRE),), (Box((12, 9, 5), (36, 31, 5)),)):
        assert sams._window(volume, slices.plan(volume, prompts)) == window
    other = Volume(volume.array, AFFINE, modality="MR", window=(100.0, 0.0))
    assert sams._window(other, slices.plan(other, (Click(CENTRE),)))[0] == 100.0


def test_cancelled_between_slices_leaves_nothing_wrong(folder, volume) -> None:
    engine = opened(folder, volume)
    prepared = engine.prepare(volume)
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        engine.segment(prepared, (Click(CENTRE), Click((24, 20, 8))), lambda: next(asked))
    fresh = engine.segment(engine.prepare(volume), (Click(CENTRE),))
    np.testing.assert_array_equal(engine.segment(prepared, (Click(CENTRE),)).mask.full(), fresh.mask.full())


@pytest.mark.parametrize(
    "prompts", [(Click(CENTRE, False),), (Click((99, 0, 0)),), (Box((0, 0, 0), (99, 9, 0)),), (Scribble(()),)]
)
def test_prompts_that_say_nothing_are_refused(folder, volume, prompts) -> None:
    engine = opened(folder, volume)
    with pytest.raises(Refused):
        engine.segment(engine.prepare(volume), prompts)


# ---- from slice to slice, with a model that knows the truth ----------------------------------------------------------


def truth(volume: Volume, axis: int, told: list):
    """Everything bright inside the box; everything bright where there is none."""
    planes = np.moveaxis(volume.array > 0, 2 - axis, 0)

    def answer(at, asked):
        told.append((at, asked))
        mask = planes[at].copy()
        if asked.box is not None:
            x0, y0, x1, y1 = asked.box
            keep = np.zeros_like(mask)
            keep[y0 : y1 + 1, x0 : x1 + 1] = True
            mask &= keep
        return mask, 0.8

    return answer


@pytest.mark.parametrize("layout", [SourceLayout(), SourceLayout((1, 0, 2)), SourceLayout((2, 1, 0))])
def test_a_mask_wanders_through_the_slices_of_the_source_until_the_structure_ends(layout) -> None:
    shape = (30, 30, 30)
    affine = affine_of((1.0, 1.0, 1.0))
    body = ellipsoid(shape, affine, (15, 15, 15), (7, 7, 7))
    other = ellipsoid(shape, affine, (25, 25, 25), (3, 3, 3))
    volume = ct([(body, 80), (other, 80)], shape, affine, noise=1.0, layout=layout)
    plan = slices.plan(volume, (Click((15, 15, 15)), Box((7, 7, 7), (23, 23, 23))))
    assert plan.axis == 2 - layout.axes.index(0)
    told: list = []
    found = slices.wander(plan, truth(volume, plan.axis, told), lambda: False)
    full = slices.stacked(volume, plan, {at: mask for at, (mask, _) in found.items()}, ())
    assert not (full & ~body).any()
    assert full.sum() > 0.97 * body.sum()
    assert len({at for at, _ in told}) == len(told)


def test_between_two_prompted_slices_each_goes_half_the_way_and_removing_clicks_are_told_where_they_are() -> None:
    shape = (20, 20, 20)
    volume = Volume(np.full(shape, 50, np.int16), affine_of((1.0, 1.0, 1.0)), modality="CT", unit="HU")
    told: dict = {}

    def answer(at, asked):
        assert at not in told
        told[at] = asked
        mask = np.zeros((20, 20), bool)
        mask[4:10, 4 : (10 if at < 10 else 8)] = True
        return mask, 1.0

    prompts = (Click((5, 5, 4)), Click((5, 5, 15)), Click((12, 12, 7), False))
    found = slices.wander(slices.plan(volume, prompts), answer, lambda: False)
    assert sorted(found) == list(range(20))
    assert told[7].sides == (True, False)
    assert told[7].points[1] == (12, 12)
    assert told[8].box == (2, 2, 11, 11)
    assert told[12].box == (2, 2, 9, 11)
    assert told[4] == slices.Asked(((5, 5),), (True,))


def test_a_cuboid_holds_the_mask_between_its_slices_and_a_ring_is_a_box_with_clicks() -> None:
    volume = Volume(np.full((20, 20, 20), 50, np.int16), affine_of((1.0, 1.0, 1.0)), modality="CT", unit="HU")
    everything = np.ones((20, 20), bool)
    plan = slices.plan(volume, (Box((2, 2, 5), (15, 15, 9)),))
    assert sorted(slices.wander(plan, lambda at, asked: (everything, 1.0), lambda: False)) == [5, 6, 7, 8, 9]
    ring = slices.plan(volume, (Lasso(((4, 4, 6), (12, 4, 6), (12, 12, 6), (4, 12, 6))),))
    asked = ring.asked[6]
    assert asked.box == (4, 4, 12, 12)
    assert asked.sides[0]
    assert not any(asked.sides[1:])
    across = slices.plan(volume, (Box((2, 8, 5), (15, 8, 12)),))
    assert across.asked[8].begins


def test_of_two_clicks_at_one_place_the_last_counts() -> None:
    volume = Volume(np.zeros((5, 9, 9), np.int16), affine_of(), modality="CT", unit="HU")
    plan = slices.plan(volume, (Click((3, 3, 2)), Click((4, 4, 2)), Click((3, 3, 2), False)))
    assert plan.asked[2] == slices.Asked(((4, 4), (3, 3)), (True, False))


# ---- folders that are not what they should be ------------------------------------------------------------------------


def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without(folder, "model.safetensors")


def changed(folder: Path, change) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lacking(weights) -> None:
    del weights["mask_decoder.iou_token.weight"]


def infinite(weights) -> None:
    weights["mask_decoder.iou_token.weight"][:] = torch.nan


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def with_code(folder: Path) -> None:
    path = folder / "config.json"
    told = json.loads(path.read_text()) | {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}
    path.write_text(json.dumps(told))
    (folder / "mine.py").write_text("raise SystemExit('ran')")


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (pickled, Refused, "can run code"),
        (lambda f: without(f, "model.safetensors"), ModelMissing, "facebook/sam-vit-base"),
        (lambda f: without(f, "config.json"), Refused, "config.json"),
        (lambda f: (f / "config.json").write_text("[1]"), Refused, "config.json"),
        (with_code, Refused, "another model"),
        (lambda f: without(f, "preprocessor_config.json"), ModelMissing, "image processor"),
        (lambda f: changed(f, lacking), Refused, "lack 1 tensor"),
        (lambda f: changed(f, infinite), Refused, "not finite"),
        (cut, Refused, "damaged"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_sentence(tmp_path, volume, damage, error, said) -> None:
    foreign.sam(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=said) as caught:
        opened(tmp_path, volume)
    assert isinstance(caught.value, ReadingRoomError)


def test_a_folder_that_is_not_there_says_what_to_fetch_and_what_its_licence_allows(tmp_path, volume) -> None:
    with pytest.raises(ModelMissing, match="not there; fetch a folder"):
        opened(tmp_path / "nowhere", volume)
