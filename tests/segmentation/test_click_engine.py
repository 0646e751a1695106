"""The learned engine with tiny random weights: what holds whatever the weights are."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from core_models.errors import Cancelled, ModelMissing, Refused
from core_models.foundation.reading import Structure
from core_models.segmentation import registry, watershed_engine
from core_models.segmentation.clicks import choice, click_net, looking, running, train_choice, train_clicks
from core_models.segmentation.clicks.click_engine import ClickEngine
from core_models.segmentation.engine import Alternative, Box, Click, Mask, Scribble
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import morphology
from core_models.study.volume import Volume


def _ball(shape=(40, 44, 48), centre=(20, 22, 24), radius=10, inside=120.0) -> Volume:
    array = np.random.default_rng(0).normal(-80, 5, shape).astype(np.float32)
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    array[sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) < radius**2] += inside + 80
    return Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]), "CT", "HU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("weights")
    train_clicks.ship(click_net.ClickNet(click_net.Config(8, 4)), {}, where)
    train_choice.ship(choice.Chooser(np.zeros((4, choice.FEATURES), np.float32), np.ones(4, np.float32)), where)
    return where


@pytest.fixture(scope="module")
def engine(folder):
    return ClickEngine(folder, anatomy=lambda volume: ())


@pytest.fixture
def prepared(engine):
    return engine.prepare(_ball())


ROW = (Click((24, 22, 20)), Click((30, 22, 20)), Click((40, 22, 20), False))


def test_an_answer_is_a_function_of_the_prompts_alone(engine, prepared):
    step_by_step = [engine.segment(prepared, ROW[:n]).mask.full() for n in (1, 2, 3, 2, 1)]
    at_once = [engine.segment(engine.prepare(_ball()), ROW[:n]).mask.full() for n in (1, 2, 3, 2, 1)]
    for a, b in zip(step_by_step, at_once, strict=True):
        assert np.array_equal(a, b)


def test_every_click_is_on_its_side_of_the_mask(engine, prepared):
    mask = engine.segment(prepared, ROW).mask.full()
    assert mask[20, 22, 24]
    assert mask[20, 22, 30]
    assert not mask[20, 22, 40]


@pytest.mark.parametrize(
    "prompt",
    [Box((14, 12, 20), (34, 32, 20)), Scribble(tuple((i, 22, 20) for i in range(18, 31)))],
    ids=["box", "scribble"],
)
def test_lines_and_boxes_are_answered_in_one_look(engine, prepared, prompt, monkeypatch):
    looks = []
    real = looking.look
    monkeypatch.setattr(looking, "look", lambda *args: looks.append(args) or real(*args))
    answer = engine.segment(prepared, (prompt,))
    assert len(looks) == 1
    assert answer.mask.full()[20, 22, 24]


def test_a_removing_click_first_is_answered_with_the_one_that_adds(engine, prepared):
    mask = engine.segment(prepared, (Click((40, 22, 20), False), Click((24, 22, 20)))).mask.full()
    assert mask[20, 22, 24]
    assert not mask[20, 22, 40]
    with pytest.raises(Refused, match="at least one positive"):
        engine.segment(prepared, (Click((40, 22, 20), False),))


OTHER = Alternative()


def test_the_other_answer_is_that_of_the_other_engine_and_a_second_one_goes_back(engine):
    prepared = engine.prepare(replace(_ball(), modality="MR", unit="1"))

    def answer(*prompts):
        return engine.segment(prepared, prompts).mask.full()

    def author(*prompts):
        return engine._answer(prepared, prompts, lambda: False).author

    first, second = answer(ROW[0]), answer(ROW[0], OTHER)
    assert not np.array_equal(first, second)
    assert {author(ROW[0]), author(ROW[0], OTHER)} == {"network", "watershed"}
    assert np.array_equal(answer(ROW[0], OTHER, OTHER), first)
    assert np.array_equal(answer(ROW[0], OTHER, OTHER, OTHER), second)
    for row in (ROW[:1], ROW[:2]):
        other = author(*row, OTHER)
        assert other != author(*row)
        if other == "watershed":
            by_itself = watershed_engine.WatershedEngine().segment(prepared.grid, row).mask.full()
        else:
            alone = engine._answer(prepared, row, lambda: False, "network")
            by_itself = looking.Answer(alone.box, alone.inside, 0.0, "").full(prepared.grid.shape) > 0.5
        assert np.mean(answer(*row, OTHER) != by_itself) < 1e-3, "to all clicks, by itself"
    assert np.array_equal(answer(ROW[0], OTHER, ROW[1], OTHER, OTHER), answer(ROW[0], OTHER, ROW[1]))


def test_what_comes_after_the_other_answer_builds_on_it(engine, prepared):
    rows = [(ROW[0], OTHER), (ROW[0], OTHER, ROW[1]), (ROW[0], OTHER, ROW[1], OTHER), (ROW[0], ROW[1], OTHER, ROW[2])]
    one_by_one = [engine.segment(prepared, row).mask.full() for row in rows]
    at_once = [engine.segment(engine.prepare(_ball()), row).mask.full() for row in reversed(rows)][::-1]
    for a, b in zip(one_by_one, at_once, strict=True):
        assert np.array_equal(a, b)
    assert not (one_by_one[0] & ~one_by_one[1]).any(), "a click that adds takes nothing of it away"
    assert not one_by_one[3][20, 22, 40]


def test_on_ct_the_networks_rim_is_moved_to_the_edge_and_what_is_thin_stays(prepared):
    grid, click = prepared.grid, ROW[0]
    grids = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    far = sum((g - c) ** 2 for g, c in zip(grids, (20, 22, 24), strict=True)) ** 0.5
    for radius in (8, 10):
        rough = looking.kept(grid.spacing, (far < radius) * np.float32(0.9), [(20, 22, 24)], 0.5, _all(grid))
        mask = looking.at_edges(grid, [click], rough).full(grid.shape) > 0.5
        assert dice(mask, far < 10) > 0.97
    rod = (abs(grids[0] - 20) < 3) & (abs(grids[1] - 22) < 3) & (grids[2] > 4) & (grids[2] < 44)
    rough = looking.kept(grid.spacing, rod * np.float32(0.9), [(20, 22, 24)], 0.5, _all(grid))
    assert (looking.at_edges(grid, [click], rough).full(grid.shape) > 0.5)[20, 22, 7:41].all()
    nothing = looking.kept(grid.spacing, np.zeros(grid.shape, np.float32), [(20, 22, 24)], 0.5, _all(grid))
    assert not looking.at_edges(grid, [click], nothing).mask.any()


def test_the_network_finishes_what_the_classical_engine_answered_around_the_newest_click(folder, prepared):
    """With any weights: clicks keep their sides, nothing changes far away, and a radiograph or an MR is left alone."""
    grid, net = prepared.grid, running.load(folder)
    grids = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    far = sum((g - c) ** 2 for g, c in zip(grids, (20, 22, 24), strict=True)) ** 0.5
    other = replace(
        looking.kept(grid.spacing, (far < 9) * np.float32(1), [(20, 22, 24)], 0.5, _all(grid)), author="watershed"
    )
    row = [ROW[0], ROW[2]]
    after = looking.finished(grid, prepared.pyramid, net, row, 1, other, lambda: False)
    assert after.author == "watershed"
    mask = after.full(grid.shape) > 0.5
    assert mask[20, 22, 24]
    assert not mask[20, 22, 40]
    assert not np.array_equal(mask, other.full(grid.shape) > 0.5)
    unknown = replace(grid, hounsfield=False)
    assert looking.finished(unknown, prepared.pyramid, net, row, 1, other, lambda: False) is other
    with pytest.raises(Cancelled):
        looking.finished(grid, prepared.pyramid, net, row, 1, other, lambda: True)


def test_where_the_network_agrees_the_classical_rim_stays_and_thick_pieces_go_or_come():
    before = np.zeros((40, 40, 40), bool)
    before[5:30, 5:30, 5:30] = True
    piece, layer = np.zeros_like(before), np.zeros_like(before)
    piece[10:20, 10:20, 30:38] = True
    layer[5:30, 5:30, 4] = True
    hole = np.zeros_like(before)
    hole[5:13, 5:13, 5:13] = True
    spacing = (2.0, 2.0, 2.0)
    assert np.array_equal(looking._worth_it(spacing, before, before | layer), before)
    after = looking._worth_it(spacing, before, (before | layer | piece) & ~hole)
    assert (after & piece).sum() > 0.85 * piece.sum(), "but for its corners"
    assert (hole & ~after).sum() > 0.85 * hole.sum()
    assert np.array_equal(after & ~piece & ~hole & ~layer, before & ~hole)
    assert not after[:, 14:, 4].any(), "the layer is gone where nothing thick touches it"
    much = before.copy()
    much[5:30, 5:30, 24:30] = False
    assert np.array_equal(looking._worth_it(spacing, before, much | layer), much | layer), "so much changed: all of it"


def test_a_bone_told_by_its_shape_is_not_finished(folder, prepared, monkeypatch):
    grid, net = prepared.grid, running.load(folder)
    monkeypatch.setattr(looking, "told", lambda *args: True)
    everything = np.ones(grid.shape, np.float32)
    other = replace(looking.kept(grid.spacing, everything, [(20, 22, 24)], 1.0, _all(grid)), author="watershed")
    assert looking.finished(grid, prepared.pyramid, net, ROW[:1], 1, other, lambda: False) is other


def _all(grid):
    return tuple(slice(0, n) for n in grid.shape)


def test_a_row_of_hundreds_of_prompts_is_answered_anew(engine, monkeypatch):
    for module, name in ((looking, "learned"), (looking, "finished"), (choice, "classical"), (choice, "better")):
        monkeypatch.setattr(module, name, lambda *args: some)
    volume = _ball()
    some = looking.Answer(tuple(slice(0, n) for n in volume.shape), np.ones(volume.shape, np.float16), 0.5, "network")
    row = tuple(Click((n % 40, n // 40, 20)) for n in range(600))
    assert not engine.segment(engine.prepare(volume), row).mask.empty


def _engine_that_takes(author, folder, tmp_path) -> ClickEngine:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    bias = np.full(4, 1.0 if author == "network" else -1.0, np.float32)
    train_choice.ship(choice.Chooser(np.zeros((4, choice.FEATURES), np.float32), bias), tmp_path)
    return ClickEngine(tmp_path)


def test_on_ct_what_the_classical_engine_began_it_goes_on_with_finished_by_the_network(folder, tmp_path):
    engine = _engine_that_takes("watershed", folder, tmp_path)
    prepared = engine.prepare(_ball())
    grid, net = prepared.grid, running.load(folder)
    before = None
    for n in (1, 2, 3):
        clicks = list(ROW[:n])
        other = choice.classical(grid, clicks, clicks[-1:], before)
        before = looking.finished(grid, prepared.pyramid, net, clicks, 1, other, lambda: False)
        answer = engine._answer(prepared, ROW[:n], lambda: False)
        assert answer.author == "watershed"
        assert np.array_equal(answer.full(grid.shape), before.full(grid.shape))
    rows = (ROW[:1], (ROW[0], OTHER), (ROW[0], OTHER, ROW[1]), (ROW[0], OTHER, OTHER, ROW[1]), (*ROW[:2], OTHER))
    told = [engine._answer(prepared, row, lambda: False).author for row in rows]
    assert told[:2] == ["watershed", "network"]
    assert told[3:] == ["watershed", "network"]


def test_on_ct_what_the_network_began_is_chosen_at_each_click(folder, tmp_path, monkeypatch):
    prepared = _engine_that_takes("network", folder, tmp_path).prepare(_ball())
    grid = prepared.grid
    learned, other = (
        looking.Answer(_all(grid), np.ones(grid.shape, np.float16), 0.5, a) for a in ("network", "watershed")
    )
    assert choice.led(grid, other)
    assert not choice.led(grid, learned)
    assert not choice.led(grid, None)
    assert not choice.led(replace(grid, hounsfield=False), other)
    unsure = choice.Chooser(np.zeros((4, choice.FEATURES), np.float32), np.full(4, choice.AHEAD / 2, np.float32))
    assert choice.better(grid, ROW[:1], None, learned, other, unsure) is other, "a first answer must gain more"
    assert choice.better(grid, ROW[:2], learned, learned, other, unsure) is learned
    assert choice.better(replace(grid, hounsfield=False), ROW[:1], None, learned, other, unsure) is learned


def test_a_long_row_that_the_classical_engine_began_on_ct_is_answered_by_its_last_prompts(
    folder, tmp_path, monkeypatch
):
    """The same from memory as anew, in a bounded number of steps; the first ones are answered together."""
    engine = _engine_that_takes("watershed", folder, tmp_path)
    monkeypatch.setattr(looking, "finished", lambda *args: args[-2])  # weights matter nothing here, and time does
    row = tuple(Click((24 + n % 9 - 4, 22 + n // 9 % 9 - 4, 20)) for n in range(watershed_engine.IN_TURN + 5))
    prepared = engine.prepare(_ball())
    step_by_step = [engine.segment(prepared, row[:n]).mask.full() for n in range(1, len(row) + 1)]
    calls = []
    real = choice.classical
    monkeypatch.setattr(choice, "classical", lambda *args: calls.append(args) or real(*args))
    at_once = engine.segment(engine.prepare(_ball()), row).mask.full()
    assert np.array_equal(at_once, step_by_step[-1])
    assert len(calls) == 1 + 5, "the first click, which says who began, and those after the fiftieth"
    assert engine._anew(prepared, (*row, OTHER), lambda: False, "") == 0
    assert engine._anew(prepared, row, lambda: False, "network") == 0


def test_the_other_answer_to_a_click_on_a_radiograph_is_the_networks(folder):
    lung = np.zeros((1, 200, 160), bool)
    lung[0, 20:180, 20:80] = True
    drawn = ClickEngine(folder, anatomy=lambda volume: (Structure("right lung", Mask.from_full(lung), 0.9),))
    plain = ClickEngine(folder, anatomy=lambda volume: ())
    values = np.random.default_rng(0).normal(100, 20, (1, 200, 160)).astype(np.float32)
    prepared = [e.prepare(Volume(values, np.eye(4), "DX", "1", False)) for e in (drawn, plain)]
    clicks = (Click((50, 100, 0)),)
    other = drawn.segment(prepared[0], (*clicks, OTHER))
    assert other.label == ""
    grid = prepared[1].grid
    looked = looking.look(grid, prepared[1].pyramid, running.load(folder), list(clicks), 1, None, lambda: False)
    expected = looking.first(grid, clicks, looked, None)
    assert np.array_equal(drawn._answer(prepared[0], (*clicks, OTHER), lambda: False).inside, expected.inside)
    assert drawn.segment(prepared[0], (*clicks, OTHER, OTHER)).label == "right lung"
    later = (*clicks, Click((120, 100, 0)))
    assert drawn._answer(prepared[0], (*later, OTHER), lambda: False).name == "", "without what was drawn"
    assert drawn._answer(prepared[0], (later[1], OTHER), lambda: False).author == "watershed"


def test_a_cancelled_answer_leaves_nothing_behind(engine, prepared):
    with pytest.raises(Cancelled):
        engine.segment(prepared, ROW[:1], lambda: True)
    assert not prepared.answers
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        engine.segment(prepared, ROW[:1], lambda: next(asked, True))
    assert not prepared.answers
    assert not engine.segment(prepared, ROW[:1]).mask.empty


def test_a_click_outside_or_in_a_hole_of_values_is_told_in_words(engine):
    volume = _ball()
    volume.array[:, :, :10] = np.nan
    prepared = engine.prepare(volume)
    with pytest.raises(Refused, match="outside the volume"):
        engine.segment(prepared, (Click((48, 0, 0)),))
    answer = engine.segment(prepared, (Click((4, 4, 4)),))
    assert np.isfinite(answer.confidence)


@pytest.mark.parametrize("shape", [(1, 90, 80), (3, 40, 40), (60, 5, 40)])
def test_thin_scans_and_pictures_are_answered(engine, shape):
    volume = Volume(np.random.default_rng(1).normal(0, 1, shape).astype(np.float32), np.eye(4), "OT", "1", False)
    middle = tuple(n // 2 for n in shape)[::-1]
    assert engine.segment(engine.prepare(volume), (Click(middle),)).mask.full()[middle[::-1]]


@pytest.mark.parametrize("modality", ["DX", "OT"])
def test_in_a_radiograph_a_first_click_takes_the_smallest_structure_under_it(folder, modality):
    lung, clavicle = np.zeros((1, 200, 160), bool), np.zeros((1, 200, 160), bool)
    lung[0, 20:180, 20:80] = True
    clavicle[0, 30:45, 10:90] = True
    structures = tuple(
        Structure(name, Mask.from_full(m), 0.9) for name, m in (("right lung", lung), ("clavicle", clavicle))
    )
    engine = ClickEngine(folder, anatomy=lambda volume: structures)
    prepared = engine.prepare(Volume(np.zeros((1, 200, 160), np.uint8), np.eye(4), modality, "1", False))
    assert np.mean(engine.segment(prepared, (Click((50, 100, 0)),)).mask.full() != lung) < 0.01
    assert np.mean(engine.segment(prepared, (Click((50, 37, 0)),)).mask.full() != clavicle) < 0.01
    row = (Click((50, 100, 0)), Click((120, 100, 0)))
    assert [engine.segment(prepared, row[:n]).label for n in (1, 2)] == ["right lung", "right lung"]
    assert engine.segment(prepared, row[1:]).label == "", "beside what was drawn nothing has a name"
    of_ct = engine.prepare(Volume(np.zeros((1, 200, 160), np.uint8), np.eye(4), "CT", "1", False))
    assert not of_ct.structures


def test_a_radiograph_of_another_kind_is_answered_by_clicks_alone(folder):
    def refuses(volume):
        raise Refused("not a chest")

    engine = ClickEngine(folder, anatomy=refuses)
    prepared = engine.prepare(Volume(np.zeros((1, 64, 64), np.uint8), np.eye(4), "DX", "1", False))
    assert engine.segment(prepared, (Click((30, 30, 0)),)).mask.full()[0, 30, 30]


def test_without_weights_the_engine_says_how_to_make_them(tmp_path):
    with pytest.raises(ModelMissing, match="train segmenter"):
        ClickEngine(tmp_path).prepare(_ball())


def test_the_hint_is_where_the_network_is_unsure_and_none_where_it_is_sure(engine, prepared):
    box = (slice(0, 20), slice(0, 20), slice(0, 20))
    inside = np.zeros((20, 20, 20), np.float16)
    inside[2:10, 2:10, 2:10] = 1.0
    sure = looking.Answer(box, inside, 0.9, "network")
    assert choice.hint(prepared.grid, sure) is None
    inside = inside.copy()
    inside[10:16, 2:10, 2:10] = 0.6
    hint = choice.hint(prepared.grid, looking.Answer(box, inside, 0.9, "network"))
    assert hint.positive
    assert 0.25 < inside[prepared.grid.from_native(hint.index[::-1])] < 0.75
    assert choice.hint(prepared.grid, looking.Answer(box, inside, 0.9, "watershed")) is None


def test_the_engine_never_claims_that_another_click_would_not_help(engine, prepared, monkeypatch):
    """Nobody measured when that is so: an answer without an unsure place is not one that is right."""
    monkeypatch.setattr(choice, "hint", lambda *_: None)
    assert not engine.segment(prepared, ROW[:1]).settled


def test_an_answer_is_the_same_in_any_box():
    inside = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    answer = looking.Answer((slice(2, 5), slice(1, 5), slice(0, 5)), inside, 0.5, "network")
    whole = answer.full((8, 9, 10))
    assert np.array_equal(whole[answer.box], inside.astype(np.float32))
    assert whole.sum() == pytest.approx(inside.astype(np.float32).sum())
    for box in ((slice(0, 4), slice(3, 9), slice(2, 7)), (slice(6, 8), slice(0, 9), slice(0, 10))):
        assert np.array_equal(answer.within(box), whole[box])
    other = (slice(4, 8), slice(0, 2), slice(3, 10))
    assert morphology.joined([answer.box, other]) == (slice(2, 8), slice(0, 5), slice(0, 10))


def test_a_first_answer_takes_what_is_likely_more_so_where_the_classical_engine_agrees(prepared):
    """Of one probability throughout: with a low one only what the other engine takes, on CT alone."""
    grid = prepared.grid
    box = tuple(slice(0, n) for n in grid.shape)
    taken = np.zeros(grid.shape, bool)
    z, y, x = looking.grid_point(grid, ROW[0])
    taken[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = True
    other = looking.Answer(box, taken.astype(np.float16), 0.5, "watershed")

    def first(probability: float, classical: looking.Answer | None, hounsfield: bool = True) -> np.ndarray:
        answer = looking.Answer(box, np.full(grid.shape, probability, np.float16), 0.5, "network")
        own = replace(grid, hounsfield=hounsfield)
        return looking.first(own, ROW[:1], answer, classical).full(grid.shape) > 0.5

    assert np.array_equal(first(0.06, other), taken)
    assert not first(0.02, other).any()
    assert first(0.5, other).all()
    assert first(0.1, None).all()
    assert not first(0.05, None).any()
    for classical in (other, None):
        assert first(0.42, classical, hounsfield=False).all()
        assert not first(0.2, classical, hounsfield=False).any()


def test_a_body_with_a_rim_of_its_own_needs_the_gentlest_opening_alone(prepared):
    grid = prepared.grid
    assert watershed_engine.held(grid, looking.grid_point(grid, ROW[0])) == 0
    wide = _ball(centre=(20, 22, 33), radius=13)
    wide.array[17:24, 19:26, 4:24] = 120.0  # a stem of it, thin enough to be another structure
    assert watershed_engine.held(watershed_engine.grids.build(wide), (20, 22, 8)) > 0


def test_the_classical_answer_keeps_what_the_network_gave(prepared):
    """A click that adds takes nothing from an answer, whoever gave it, and one that removes adds nothing to it."""
    grid = prepared.grid
    box = tuple(slice(0, n) for n in grid.shape)
    there = np.zeros(grid.shape, bool)
    there[18:23, 18:23, 10:30] = True  # half in the ball, half beside it
    before = looking.Answer(box, there.astype(np.float16), 0.5, "network")
    alone, adds = (choice.classical(grid, ROW[:2], ROW[1:2], b).full(grid.shape) > 0.5 for b in (None, before))
    assert (there & ~alone).any()
    assert np.array_equal(adds, there | alone)
    removes = choice.classical(grid, ROW, ROW[2:], before).full(grid.shape) > 0.5
    assert removes.any()
    assert not (removes & ~there).any()


@pytest.mark.parametrize("keeps", [True, False], ids=["edges keep it", "edges part it too"])
@pytest.mark.parametrize(("taken", "what"), [(0.01, "less"), (0.06, "as it is"), (0.4, "more")])
def test_what_the_network_takes_away_is_weighed_against_edges(prepared, monkeypatch, taken, what, keeps):
    grid = prepared.grid
    box = tuple(slice(0, n) for n in grid.shape)
    old = np.zeros(grid.shape, np.float16)
    old[10:30, 10:30, 10:30] = 0.8
    new = old.copy()
    new[:, :, 30 - round(20 * taken) :] = 0.1
    if taken < 0.05:
        new = old.copy()
        new[10:12, 10:30, 10:12] = 0.1
    edges = (old > 0.5) if keeps else (old > 0.5) & (np.indices(grid.shape)[0] < 28)
    monkeypatch.setattr(looking, "parted", lambda grid, box, depth, *clicks: edges[box])
    clicks = [Click((20, 20, 20)), Click((29, 20, 20), False)]
    before, answer = (looking.Answer(box, p, 0.5, "network") for p in (old, new))
    found = looking.weighed(grid, clicks, 1, before, answer).full(grid.shape) > 0.5
    wanted = {"less": (new > 0.5) & edges, "as it is": new > 0.5, "more": (new > 0.5) | edges}[what]
    assert np.array_equal(found, wanted)


def test_a_large_organ_counts_more_in_the_choice_than_a_rib():
    organ, rib, small_organ = (train_choice._weight(*row) for row in ((5, 1.6e6), (92, 1e4), (1, 1e4)))
    assert organ > small_organ == 4 * rib
    rows = []
    for n in range(40):  # the same features: what is right for the organ is wrong for the ribs
        features = np.zeros(choice.FEATURES, np.float32)
        features[choice.HOUNSFIELD] = 1
        of_organ = n % 4 == 0
        learned = 0.4 if of_organ else 0.6
        rows += [
            train_choice.Pair(f"a {n}", later, False, features, learned, 0.5, organ if of_organ else rib)
            for later in (False, True)
        ]
    chooser, figures = train_choice.fit(rows)
    assert chooser.gain(rows[0].features, False) < 0
    for told in figures.values():
        assert told["chosen"] == told["classical"] == 0.5 < told["network"]
        assert told["weighted"]["chosen"] > told["weighted"]["network"]


def test_the_chooser_learns_which_engine_to_believe():
    rng = np.random.default_rng(0)
    found = []
    for n, hounsfield in itertools.product(range(120), (0.0, 1.0)):
        features = rng.normal(0, 1, choice.FEATURES).astype(np.float32)
        features[choice.HOUNSFIELD] = hounsfield
        sign = 1 if hounsfield else -1  # what tells who is right on CT tells the contrary elsewhere
        gain = float(np.tanh(sign * features[3] + 0.2 * rng.normal()))
        for later in (False, True):
            row = (features, 0.5 + gain / 2, 0.5 - gain / 2)
            found.append(train_choice.Pair(f"patient {n % 40}", later, n % 2 == 0, *row))
    chooser, each = train_choice.fit(found)
    assert len(each) == 4
    for figures in each.values():
        assert figures["chosen"] > max(figures["network"], figures["classical"]) + 0.2
        assert figures["chosen"] <= figures["oracle"]
        assert figures["kept_back"]["clicks"] + figures["trained_on"]["clicks"] == figures["clicks"]
    for pair in found:
        assert chooser.gain(pair.features, pair.later) * (pair.learned - pair.classical) > -0.1
    alone, _ = train_choice.fit([p for p in found if p.features[choice.HOUNSFIELD] == 1])
    assert np.array_equal(alone.weights[:2], alone.weights[2:]), "without other scans, as on CT"
    with pytest.raises(Refused, match="too few"):
        train_choice.fit(found[:3])


@pytest.mark.parametrize("modality", ["CT", "MR", "DX", "OT", "PT"])
def test_the_click_engine_leads_and_the_classical_one_where_the_network_cannot_run(modality, monkeypatch):
    assert registry.default_for(modality).name == "click"
    there = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "openvino" else there(name))
    assert registry.default_for(modality).name == "watershed"
