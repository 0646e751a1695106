"""The click network: its cubes, its cues, that it learns, that a stopped training goes on as if it had not been."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from core_models.errors import ModelMissing, Refused
from core_models.segmentation import cohorts
from core_models.segmentation.clicks import click_net, click_samples, cues, rough, running, tissue_maps, train_clicks
from core_models.segmentation.clicks.click_net import ClickNet, Config
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid
from core_models.study.volume import Volume

TINY = Config(width=8, embedding=4)


def test_blocks_become_channels_and_come_back():
    x = torch.randn(2, 1, 4, 6, 8)
    folded = click_net._folded(x)
    assert folded.shape == (2, 8, 2, 3, 4)
    assert torch.equal(click_net._unfolded(folded), x)
    assert torch.equal(folded[0, :, 1, 2, 3], x[0, 0, 2:4, 4:6, 6:8].flatten())


@pytest.mark.parametrize("shape", [(48, 48, 48), cues.FLAT, (16, 24, 32)])
def test_an_answer_has_the_size_of_its_cube(shape):
    net = ClickNet(TINY).eval()
    features, embedding = net.encode(torch.zeros(1, 2, *shape))
    half = tuple(n // 2 for n in shape)
    assert features.shape[2:] == embedding.shape[2:] == half
    logits, expected = net.decode(features, torch.zeros(1, cues.CUES, *half))
    assert logits.shape == (1, 1, *shape)
    assert expected.shape == (1,)


def test_a_picture_is_answered_as_the_middle_of_a_slab_without_end():
    """Kernels summed along z over one slice give what they give in the midst of very many equal slices."""
    torch.manual_seed(0)
    net = ClickNet(TINY).eval()
    for block in net.modules():  # the ends of a slab are in its statistics, and an endless one has none
        if isinstance(block, click_net._Block):
            block[1] = torch.nn.Identity()
    picture, told = torch.randn(1, 2, 1, 24, 24), torch.rand(1, cues.CUES, 1, 12, 12)
    answers = []
    with torch.inference_mode():
        for depth in (2, 96):
            features, _ = net.encode(picture.expand(-1, -1, depth, -1, -1))
            logits, _ = net.decode(features, told.expand(-1, -1, depth // 2, -1, -1))
            answers.append(logits[0, 0, depth // 2 - depth // 2 % 2 :][:2])
    assert torch.allclose(*answers, rtol=1e-4, atol=1e-6)
    assert answers[0].std() > 1e-4


@pytest.mark.parametrize("shape", [(48, 48, 48), cues.FLAT])
def test_bfloat16_gives_the_same_answer(shape):
    """The processor decides which arithmetic is used; nobody should see which."""
    torch.manual_seed(0)
    net, cube = ClickNet(TINY).eval(), torch.randn(1, 2, *shape)
    told = torch.rand(1, cues.CUES, *(n // 2 for n in shape))
    answers = []
    with torch.inference_mode():
        for net.bfloat16 in (False, True):
            features, embedding = net.encode(cube)
            logits, expected = net.decode(features, told)
            assert {x.dtype for x in (features, embedding, logits, expected)} == {torch.float32}
            answers.append((logits.sigmoid(), expected.sigmoid()))
    for full, short in zip(*answers, strict=True):
        assert (full - short).abs().mean() < 0.005
        assert torch.allclose(full, short, atol=0.1)
        assert not torch.equal(full, short)


@pytest.mark.parametrize("shape", [(48, 48, 48), cues.FLAT], ids=["cube", "picture"])
def test_the_network_that_runs_is_the_one_that_was_trained(shape, tmp_path):
    torch.manual_seed(0)
    net = ClickNet(TINY).eval()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)  # so that no layer adds nothing
    train_clicks.ship(net, {}, tmp_path)
    runs = running.load(tmp_path)
    rng = np.random.default_rng(0)
    half = tuple(n // 2 for n in shape)
    cube, told = (rng.normal(size=(c, *n)).astype(np.float32) for c, n in ((2, shape), (cues.CUES, half)))
    cube[:, 1] = cube[:, 0] if shape == cues.FLAT else cube[:, 1]
    features, embedding = runs.encode(cube)
    answer, expected = runs.decode(features, told)
    with torch.inference_mode():
        true_features, true_embedding = net.encode(torch.from_numpy(cube)[None])
        logits, quality = net.decode(true_features, torch.from_numpy(told)[None])
    assert np.abs(embedding - true_embedding[0].numpy()).mean() < 0.01
    assert np.abs(answer - logits[0, 0].sigmoid().numpy()).mean() < 0.005
    assert answer.std() > 0.01
    assert expected == pytest.approx(float(quality.sigmoid()), abs=0.02)


def test_weights_that_do_not_fit_are_no_network(tmp_path):
    train_clicks.ship(ClickNet(TINY), {}, tmp_path)
    for other in (replace(TINY, width=16), replace(TINY, deep=2), None):
        folder = tmp_path if other else tmp_path / "nowhere"
        if other:
            (folder / "config.json").write_text(click_net.saved_config(other))
        with pytest.raises(ModelMissing, match="train segmenter"):
            running.load(folder)


WITHOUT_BFLOAT16 = """
import sys
import numpy as np
from pathlib import Path
from core_models.segmentation.clicks import cues, running
full = {"INFERENCE_PRECISION_HINT": "f32"}
assert running.arithmetic(full) == "float32"
rng = np.random.default_rng(0)
for shape in ((16, 16, 16), (2, 16, 16)):
    cube = rng.normal(size=(2, *shape)).astype(np.float32)
    told = rng.normal(size=(cues.CUES, *(n // 2 for n in shape))).astype(np.float32)
    nets = [running.load(Path(sys.argv[1])) for _ in range(2)]
    nets[1]._options.update(full)
    nets[1]._ready.clear()
    answers = [net.decode(net.encode(cube)[0], told)[0] for net in nets]
    assert np.abs(answers[0] - answers[1]).mean() < 0.01
"""


def test_it_runs_where_the_processor_has_no_bfloat16(tmp_path):
    """In a process of its own: after it, a fork as training makes one for its samples came to a bad end."""
    train_clicks.ship(ClickNet(TINY), {}, tmp_path)
    subprocess.run([sys.executable, "-c", WITHOUT_BFLOAT16, str(tmp_path)], check=True)


def test_nothing_that_reports_use_is_loaded():
    """OpenVINO would bring a package that sends figures of use to its makers."""
    code = (
        "import sys\n"
        "from core_models.segmentation.clicks import running\n"
        "assert running.arithmetic() in ('bfloat16', 'float32')\n"
        "print([m for m in sys.modules if 'openvino_telemetry' in m and sys.modules[m] is not None])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cube_is_cut_where_it_is_asked_for():
    """The voxel under the cube's middle is the grid's own, and a step along x is a step along x."""
    values = np.arange(10 * 12 * 14, dtype=np.float32).reshape(10, 12, 14)
    cube = cues.sample(values, (3.0, 2.0, 2.0), (4.0, 5.0, 6.0), 2.0, (3, 3, 3))
    assert cube[1, 1, 1] == values[4, 5, 6]
    assert cube[1, 1, 2] == values[4, 5, 7]
    assert cube[1, 2, 1] == values[4, 6, 6]
    assert cube[2, 1, 1] == pytest.approx(float(values[4, 5, 6]) + 2 / 3 * 12 * 14)
    outside = cues.sample(values, (3.0, 2.0, 2.0), (-20.0, 5.0, 6.0), 2.0, (3, 3, 3))
    assert outside[1, 1, 1] == values[0, 5, 6]


def test_training_cuts_its_cubes_as_the_page_does():
    values = np.random.default_rng(0).normal(size=(9, 12, 14)).astype(np.float32)
    at = ((3.0, 2.0, 2.5), (4.3, 5.1, 11.7), 1.7, (8, 10, 12))
    turned = click_samples._cut(torch.from_numpy(values)[None], *at, torch.eye(3))
    assert np.allclose(turned[0].numpy(), cues.sample(values, *at), atol=1e-4)


def test_cues_say_where_the_clicks_are_and_what_was_clicked():
    values = np.zeros((2, 16, 16, 16), np.float32)
    values[:, :, :, 8:] = 2.0
    embedding = torch.nn.functional.normalize(torch.randn(4, 8, 8, 8), dim=0).numpy()
    told = cues.cues(
        values,
        embedding,
        np.array([[4.5, 4.5, 2.5]]),
        np.zeros((0, 3)),
        np.ones((16, 16, 16), np.float32),
        np.full((3, 8, 8, 8), 0.5, np.float32),
    )
    assert told.shape == (cues.CUES, 8, 8, 8)
    inside, _, outside, _, before, likely, alike, unlike = told[:8]
    assert (told[8:] == 0.5).all()
    assert inside[2, 2, 1] == inside.max() == 1.0
    assert outside.max() == 0.0
    assert before.min() == 1.0
    assert likely[:, :, :3].min() > 0.99
    assert likely[:, :, 5:].max() < 0.01
    assert alike[2, 2, 1] == pytest.approx(1.0, abs=1e-5)
    assert unlike.max() == -1.0


def test_the_embedding_is_told_to_training_as_to_the_page(scans):
    """Training computes these two cues once more, so that the embedding is learned through them."""
    sample = click_samples.Sampler(scans, 0)(0)
    torch.manual_seed(0)
    embedding = torch.nn.functional.normalize(torch.randn(1, 4, *(n // 2 for n in sample.cube.shape[1:])), dim=1)
    clicks = [sample.first[0]]
    before, tissue = torch.zeros(sample.cube.shape[1:]), sample.tissue[:1]
    for_training = train_clicks._cues(sample, embedding, [clicks], [[]], before[None], list(tissue))[0]
    for_the_page = cues.cues(
        sample.cube.numpy(), embedding[0].numpy(), clicks[0][None], np.zeros((0, 3)), before.numpy(), tissue[0].numpy()
    )
    assert np.allclose(for_training.numpy(), for_the_page, atol=1e-5)


def _case(number: int) -> cohorts.Case:
    """A bright ball and a bright bar in noise."""

    def load():
        rng = np.random.default_rng(number)
        array = rng.normal(0, 10, (40, 48, 48)).astype(np.float32)
        z, y, x = np.ogrid[:40, :48, :48]
        ball = (z - 20) ** 2 + (y - 16) ** 2 + (x - 16) ** 2 < 100
        bar = (abs(y - 36) < 5) & (abs(x - 36) < 5) & (z > -1)
        array[ball | bar] += 150
        labels = np.where(ball, 1, np.where(bar, 2, 0)).astype(np.uint8)
        return Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]), "CT", "HU"), labels

    return cohorts.Case("demo-ct", f"made {number}", "train", load)


@pytest.fixture(scope="module")
def scans():
    return [click_samples.source(_case(n)) for n in range(2)]


def test_a_sample_is_the_same_for_the_same_step_and_its_clicks_are_inside(scans):
    sampler = click_samples.Sampler(scans, seed=3)
    for step in range(6):
        sample, again = sampler(step), sampler(step)
        assert torch.equal(sample.cube, again.cube)
        for target, click in zip(sample.targets, sample.first, strict=True):
            assert target[tuple(click.astype(int))]
    assert not torch.equal(sampler(0).cube, click_samples.Sampler(scans, seed=4)(0).cube)


def test_tissue_maps_stop_at_a_neck_and_follow_what_is_thick():
    values = np.full((24, 24, 40), -100.0, np.float32)
    z, y, x = np.ogrid[:24, :24, :40]
    left, right = ((z - 12) ** 2 + (y - 12) ** 2 + (x - c) ** 2 < 64 for c in (10, 30))
    bridge = (abs(z - 12) < 2) & (abs(y - 12) < 2) & (x > 10) & (x < 30)
    values[left | right | bridge] = 60.0
    kept, connected, depth = tissue_maps.maps(values, True, [(12, 12, 10)], 2.0)
    assert connected[left | right | bridge].all()
    assert not connected[values < 0].any()
    assert (kept[left] > 0.9).mean() > 0.95
    assert kept[right].max() == 0.0
    assert depth[12, 12, 10] == 1.0
    assert depth[values < 0].max() == 0.0


def test_the_next_click_is_in_the_largest_error():
    target, answer = np.zeros((12, 12, 12), bool), np.zeros((12, 12, 12), bool)
    target[2:10, 2:10, 2:10] = True
    place, adds = click_samples.correction(target, answer, flat=False)
    assert adds
    assert target[tuple(place.astype(int))]
    answer[target] = True
    assert click_samples.correction(target, answer, flat=False) is None
    answer[11, 11, 11] = True
    assert click_samples.correction(target, answer, flat=False)[1] is False


def test_rough_answers_are_those_of_the_classical_engine_to_clicks_on_what_is_wrong():
    volume, labels = _case(0).load()
    built = grid.build(volume)
    found = rough.answers(built, {1: labels == 1, 2: labels == 2, 3: labels == 3}, 2, seed=0)
    assert set(found) == {1, 2}, "nothing is labelled 3"
    for label, own in found.items():
        for one in own:
            place, adds = one.clicks[-1].astype(int), bool(one.adds[-1])
            at = tuple(c - s.start for c, s in zip(place, one.box, strict=True))
            held = all(0 <= c < n for c, n in zip(at, one.mask.shape, strict=True)) and bool(one.mask[at])
            assert held is adds
            assert bool(labels[tuple(place)] == label) is adds
    again = rough.answers(built, {1: labels == 1}, 2, seed=0)
    assert all(np.array_equal(a.packed, b.packed) for a, b in zip(found[1], again[1], strict=True))


def test_what_is_to_be_finished_is_seen_where_it_lies(monkeypatch):
    monkeypatch.setattr(click_samples, "FINISHED", 1.0)
    scan = click_samples.source(_case(0), readers=2)
    seen = 0
    for step in range(12):
        sample = click_samples.draw(scan, np.random.default_rng(step))
        for target, before, inside in zip(sample.targets, sample.begun.before, sample.begun.inside, strict=True):
            assert len(inside)
            assert dice(target, before > 0.5) > 0.5, "two bright things in noise are answered well, turned alike"
            seen += 1
    assert seen >= 12


@pytest.fixture
def small(monkeypatch):
    """Cubes of 16 voxels, so that a step takes no time."""
    monkeypatch.setattr(cues, "SIDE", 16)


def test_training_learns(small, scans, tmp_path):
    recipe = train_clicks.Recipe(steps=50, warm=5, width=8, rate=1e-2)
    trained = train_clicks.train(scans, recipe, tmp_path, False, lambda _: None).net
    fresh = ClickNet(trained.config)
    before, after = (np.mean([_loss_of(net, scans, step) for step in range(200, 212)]) for net in (fresh, trained))
    assert after < 0.85 * before


def test_training_learns_to_finish(small, tmp_path, monkeypatch):
    monkeypatch.setattr(click_samples, "FINISHED", 1.0)
    own = [click_samples.source(_case(0), readers=2)]
    recipe = train_clicks.Recipe(steps=50, warm=5, width=8, rate=1e-2)
    said = []
    trained = train_clicks.train(own, recipe, tmp_path, False, said.append).net
    fresh = ClickNet(trained.config)
    before, after = (np.mean([_loss_of(net, own, step) for step in range(200, 212)]) for net in (fresh, trained))
    assert after < 0.85 * before
    assert "finished" in said[0]


def test_a_stopped_training_goes_on_as_if_it_had_not_been(small, scans, tmp_path):
    recipe = train_clicks.Recipe(steps=8, warm=2, width=8)
    said = []
    whole = train_clicks.train(scans, recipe, tmp_path / "whole", False, said.append).net
    stopped = tmp_path / "stopped"
    _stop_after(scans, recipe, stopped, 4)
    resumed = train_clicks.train(scans, recipe, stopped, True, said.append).net
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(Refused, match="another recipe"):
        train_clicks.train(scans, train_clicks.Recipe(steps=31, width=8), stopped, True, said.append)


def test_training_goes_on_from_other_weights(small, scans, tmp_path):
    torch.manual_seed(1)
    first = ClickNet(Config(width=8))
    recipe = train_clicks.Recipe(steps=2, warm=1000, width=8)
    trained = train_clicks.train(scans, recipe, tmp_path, False, lambda _: None, first)
    pairs = zip(first.parameters(), trained.net.parameters(), strict=True)
    apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
    assert 0 < apart < 0.01, "two steps at a low rate do not lead far from where it began"
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as stored:
        taken = float(stored.metadata()["seconds"])
    resumed = train_clicks.train(scans, recipe, tmp_path, True, lambda _: None, first)
    assert resumed.seconds >= taken > 0, "no step was left: it took what it had taken"
    assert resumed.loss == trained.loss


def test_a_deeper_network_begins_as_the_one_it_goes_on_from(scans, tmp_path):
    torch.manual_seed(1)
    first, deeper = ClickNet(Config(8, 4, deep=2)).eval(), ClickNet(Config(8, 4, deep=4)).eval()
    with torch.no_grad():
        for p in first.parameters():
            p += 0.1 * torch.randn_like(p)  # as trained: its own residual pairs say something too
    train_clicks._begin(deeper, first)
    cube, told = torch.randn(1, 2, 16, 16, 16), torch.rand(1, cues.CUES, 8, 8, 8)
    with torch.inference_mode():
        answers = [net.decode(net.encode(cube)[0], told)[0] for net in (first, deeper)]
    assert torch.equal(*answers)
    assert click_net.parameters(deeper) > click_net.parameters(first)
    recipe = train_clicks.Recipe(steps=2, width=8, deep=2)
    with pytest.raises(Refused, match="deeper network"):
        train_clicks.train(scans, recipe, tmp_path, False, lambda _: None, ClickNet(Config(8, deep=4)))


def _loss_of(net: ClickNet, scans, step: int) -> float:
    sample = click_samples.Sampler(scans, 0)(step)
    return float(train_clicks._loss(net, sample, np.random.default_rng(step))[0].detach())


def _stop_after(scans, recipe, work, steps):
    class Stopped(Exception):
        pass

    kept = train_clicks._keep
    every = train_clicks.EVERY
    train_clicks.EVERY = steps

    def keep(*args):
        kept(*args)
        raise Stopped

    train_clicks._keep = keep
    try:
        with pytest.raises(Stopped):
            train_clicks.train(scans, recipe, work, False, lambda _: None)
    finally:
        train_clicks._keep, train_clicks.EVERY = kept, every


def test_weights_come_back_and_others_are_refused(tmp_path):
    net = ClickNet(TINY).eval()
    digest = train_clicks.ship(net, {"recipe": {}}, tmp_path)
    assert json.loads((tmp_path / "training.json").read_text())["sha256"] == digest
    loaded = click_net.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), loaded.parameters(), strict=True))
    (tmp_path / "config.json").write_text(click_net.saved_config(Config(width=16)))
    with pytest.raises(ModelMissing, match="train segmenter"):
        click_net.load(tmp_path)
    with pytest.raises(ModelMissing):
        click_net.load(tmp_path / "nowhere")


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("steps = 5\nspeed = 3\n")
    with pytest.raises(Refused, match=r"recipe\.toml"):
        train_clicks.recipe_from(path)
    path.write_text('start = "abc"\n')
    with pytest.raises(Refused, match="--from"):
        train_clicks.recipe_from(path)
    path.write_text("steps = 5\n")
    assert train_clicks.recipe_from(path).steps == 5
