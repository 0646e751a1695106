"""Phantoms and the demo CT through the default engine."""

from dataclasses import replace

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation import watershed_engine
from core_models.segmentation.engine import Click, never
from core_models.segmentation.history import History
from core_models.segmentation.metrics import dice
from core_models.segmentation.voxels import grid as grids
from core_models.segmentation.voxels.morphology import depth_of
from core_models.segmentation.watershed_engine import WatershedEngine
from core_models.study.volume import Volume, canonical
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

ENGINE = WatershedEngine()


def answer(volume, *clicks):
    return ENGINE.segment(ENGINE.prepare(volume), tuple(clicks))


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (5.0, 0.8, 0.8), (1.0, 1.5, 1.0)])
@pytest.mark.parametrize("shear", [None, 0.4])
def test_one_click_finds_an_organ_in_fat(spacing, shear):
    affine = affine_of(spacing, shear)
    shape = tuple(int(110 / s) for s in spacing)
    centre = tuple(n / 2 for n in shape[::-1])
    truth = ellipsoid(shape, affine, centre, (28, 24, 30))
    volume = ct([(truth, 60)], shape, affine)
    off_centre = tuple(int(c + d / s) for c, d, s in zip(centre, (9, -6, 5), spacing[::-1], strict=True))
    found = answer(volume, Click(off_centre))
    assert dice(found.mask.full(), truth) >= 0.9
    assert found.used == 1
    assert found.note == ""
    assert 0 < found.confidence <= 1


@pytest.fixture(scope="module")
def touching():
    """Two balls of the same HU that overlap in a neck."""
    shape, affine = (50, 110, 110), affine_of((2.0, 1.0, 1.0))
    left = ellipsoid(shape, affine, (35, 55, 25), (22, 22, 22))
    right = ellipsoid(shape, affine, (75, 55, 25), (22, 22, 22)) & ~left
    volume = ct([(left | right, 60)], shape, affine)
    return volume, ENGINE.prepare(volume), left, right


def test_a_negative_click_parts_touching_organs(touching):
    _, prepared, left, right = touching
    both = ENGINE.segment(prepared, (Click((35, 55, 25)), Click((75, 55, 25)))).mask.full()
    assert dice(both, left | right) >= 0.9
    one = ENGINE.segment(prepared, (Click((35, 55, 25)), Click((75, 55, 25), False))).mask.full()
    assert dice(one, left) >= 0.9
    assert one[25, 55, 35]
    assert not one[25, 55, 75]


def test_clicked_voxels_end_up_on_their_side(touching):
    _, prepared, _, _ = touching
    clicks = (Click((35, 55, 25)), Click((3, 3, 3)), Click((36, 57, 25), False), Click((75, 60, 20), False))
    full = ENGINE.segment(prepared, clicks).mask.full()
    for click in clicks:
        assert full[click.index[::-1]] == click.positive, click


def test_undo_and_redo_equal_a_fresh_answer(touching):
    volume, prepared, _, _ = touching
    history = History().add(Click((35, 55, 25))).add(Click((75, 55, 25), False)).add(Click((55, 40, 25)))
    before = ENGINE.segment(prepared, history.done)
    back = history.undo().undo()
    fresh = ENGINE.segment(ENGINE.prepare(volume), back.done)
    assert np.array_equal(ENGINE.segment(prepared, back.done).mask.full(), fresh.mask.full())
    again = ENGINE.segment(prepared, back.redo().redo().done)
    assert np.array_equal(again.mask.full(), before.mask.full())
    assert again.confidence == before.confidence


def test_a_click_that_adds_takes_nothing_away_nor_the_other_way_round(touching):
    _, prepared, _, _ = touching
    row = [Click((35, 55, 25)), Click((75, 55, 25), False), Click((55, 40, 25)), Click((30, 60, 20), False)]
    row += [Click((75, 60, 25)), Click((60, 55, 30), False)]
    whole = []
    for n in range(1, len(row) + 1):
        mask, box = watershed_engine.in_turn(prepared, tuple(row[:n]), never)
        whole.append(np.zeros(prepared.shape, bool))
        whole[-1][box] = mask
    for click, old, new in zip(row[1:], whole, whole[1:], strict=False):
        less, more = (old, new) if click.positive else (new, old)
        assert not (less & ~more).any(), click
        assert new[prepared.from_native(click.index[::-1])] == click.positive
    assert len({m.tobytes() for m in whole}) > 3, "most of these clicks change something"


def test_a_long_row_is_answered_by_its_last_prompts_and_the_same_from_memory(touching, monkeypatch):
    monkeypatch.setattr(watershed_engine, "IN_TURN", 3)
    volume = touching[0]
    row = [Click((35, 55, 25)), Click((75, 55, 25), False), Click((55, 40, 25)), Click((30, 60, 20), False)]
    row += [Click((75, 60, 25)), Click((60, 55, 30), False), Click((40, 50, 22))]
    kept = ENGINE.prepare(volume)
    for n in range(1, len(row) + 1):
        answered = []
        fresh, real = ENGINE.prepare(volume), watershed_engine.coarse
        with monkeypatch.context() as patch:
            patch.setattr(watershed_engine, "coarse", lambda *args, r=real, a=answered: a.append(args) or r(*args))
            mask, box = watershed_engine.in_turn(fresh, tuple(row[:n]), never)
        assert len(answered) <= 3
        again, there = watershed_engine.in_turn(kept, tuple(row[:n]), never)
        assert box == there
        assert np.array_equal(mask, again)


@pytest.mark.parametrize(
    ("signs", "whole"),
    [("+", "###.####...."), ("-", "............"), ("+-", "....##......")],
    ids=["what adds keeps the old", "what removes adds nothing", "both begin anew"],
)
def test_only_parts_with_a_click_that_adds_are_kept_from_before(signs, whole):
    def line(text: str) -> np.ndarray:
        return np.array([[[c == "#" for c in text]]])

    grid = ENGINE.prepare(Volume(np.zeros((1, 1, 12), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), "MR", "1"))
    old, new = line("###...##..#."), line("..##..")
    newest = [Click((4, 0, 0), sign == "+") for sign in signs]
    places = (slice(0, 1), slice(0, 1))
    before = watershed_engine.Answered(old, (*places, slice(0, 12)))
    now = (new, (*places, slice(2, 8)))
    after = watershed_engine.on_top(grid, before, now, [Click((0, 0, 0)), *newest], newest)
    full = np.zeros(grid.shape, bool)
    full[after.box] = after.mask
    assert np.array_equal(full, line(whole))


def test_a_flipped_scan_gives_the_flipped_mask(touching):
    volume, prepared, _, _ = touching
    straight = ENGINE.segment(prepared, (Click((35, 55, 25)),)).mask.full()
    flipped = replace(volume, array=np.ascontiguousarray(volume.array[:, :, ::-1]))
    mirrored = answer(flipped, Click((volume.shape[2] - 1 - 35, 55, 25))).mask.full()
    assert dice(mirrored[:, :, ::-1], straight) > 0.97


def test_a_source_stored_the_other_way_round_gives_the_same_organ():
    affine = affine_of((2.0, 1.0, 1.0))
    shape = (40, 90, 90)
    truth = ellipsoid(shape, affine, (50, 40, 20), (22, 26, 24))
    volume = ct([(truth, 60)], shape, affine)
    source_affine = affine.copy()
    source_affine[:3, 3] += affine[:3, 2] * (shape[0] - 1) + affine[:3, 0] * (shape[2] - 1)
    source_affine[:3, [0, 2]] *= -1
    array, restored, layout = canonical(volume.array[::-1, :, ::-1], source_affine)
    again = Volume(array, restored, "CT", "HU", layout=layout)
    assert np.allclose(restored, affine)
    click = Click((50, 40, 20))
    assert np.array_equal(answer(again, click).mask.full(), answer(volume, click).mask.full())


def test_mr_like_values_need_no_hounsfield():
    shape, affine = (40, 100, 100), affine_of((2.0, 1.0, 1.0))
    truth = ellipsoid(shape, affine, (55, 45, 20), (25, 22, 26))
    signal = np.where(truth, 900.0, 350.0)
    signal *= 1 + 0.08 * np.linspace(-1, 1, shape[1])[:, None]  # a mild coil shading
    signal += np.random.default_rng(1).normal(0, 30, shape)
    volume = Volume(signal.astype(np.float32), affine, "MR", "1")
    assert dice(answer(volume, Click((50, 50, 18))).mask.full(), truth) >= 0.9


def test_a_radiograph_is_segmented_in_its_plane():
    y, x = np.mgrid[:1400, :1200]
    lung = ((x - 380) / 190) ** 2 + ((y - 650) / 400) ** 2 <= 1
    image = np.where(lung, 900.0, 2600.0) + np.random.default_rng(2).normal(0, 80, lung.shape)
    volume = Volume(image[None].astype(np.uint16), affine_of((1.0, 0.15, 0.15)), "DX", "1")
    found = answer(volume, Click((400, 600, 0))).mask
    assert found.shape == (1, 1400, 1200)
    assert dice(found.full()[0], lung) >= 0.95


def test_a_small_single_slice_with_unknown_spacing():
    y, x = np.mgrid[:128, :128]
    disc = (x - 70) ** 2 + (y - 60) ** 2 <= 25**2
    volume = ct([(disc[None], 60)], (1, 128, 128), np.eye(4), spacing_known=False)
    assert dice(answer(volume, Click((66, 62, 0))).mask.full()[0], disc) >= 0.9


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (2, 3, 3), (3, 64, 2), (2, 40, 40)])
@pytest.mark.parametrize("unit", ["HU", "1"])
def test_tiny_and_constant_scans_still_answer(shape, unit):
    volume = Volume(np.zeros(shape, np.int16), np.eye(4), "CT" if unit == "HU" else "MR", unit)
    assert answer(volume, Click((0, 0, 0))).mask.full()[0, 0, 0]


def test_values_that_are_not_finite_do_not_spread():
    shape, affine = (30, 60, 60), affine_of((2.0, 1.0, 1.0))
    truth = ellipsoid(shape, affine, (30, 30, 15), (16, 16, 16))
    array = np.where(truth, 800.0, 200.0).astype(np.float32)
    array[0, 0, :3] = (np.nan, np.inf, -np.inf)
    assert dice(answer(Volume(array, affine, "MR", "1"), Click((30, 30, 15))).mask.full(), truth) >= 0.9


def test_a_click_in_the_air_around_the_patient_says_so():
    shape, affine = (30, 90, 90), affine_of((2.0, 1.0, 1.0))
    body = ellipsoid(shape, affine, (45, 45, 15), (32, 28, 200))
    volume = ct([(body, 40)], shape, affine, background=-1000)
    assert "air around the patient" in answer(volume, Click((2, 2, 15))).note
    assert answer(volume, Click((45, 45, 15))).note == ""


def test_the_last_of_two_contradicting_clicks_counts(touching):
    _, prepared, _, _ = touching
    here = (35, 55, 25)
    found = ENGINE.segment(prepared, (Click(here, False), Click(here, True)))
    assert found.mask.full()[here[::-1]]
    assert found.used == 1
    assert "last one counts" in found.note
    with pytest.raises(Refused, match="positive click"):
        ENGINE.segment(prepared, (Click(here, True), Click(here, False)))


@pytest.mark.parametrize("index", [(-1, 0, 0), (110, 0, 0), (0, 110, 0), (0, 0, 50)])
def test_a_click_outside_the_volume_is_refused(touching, index):
    _, prepared, _, _ = touching
    with pytest.raises(Refused, match="outside the volume of 110 × 110 × 50"):
        ENGINE.segment(prepared, (Click(index),))


@pytest.mark.parametrize("clicks", [(), (Click((5, 5, 5), False),)])
def test_without_a_positive_click_there_is_no_segment(touching, clicks):
    _, prepared, _, _ = touching
    with pytest.raises(Refused, match="at least one positive click"):
        ENGINE.segment(prepared, clicks)


def test_a_thin_cord_in_tissue_of_its_own_value_does_not_flood_it():
    """A cord of 8 mm that opens into a large block at one end: the leak that a spinal canal makes."""
    shape, affine = (60, 110, 110), affine_of((2.0, 1.0, 1.0))
    k, j, i = np.indices(shape)
    cord = np.hypot(j - 55, i - 30) <= 8
    block = (i >= 50) & (np.abs(j - 55) < 45)
    bridge = (np.abs(k - 30) <= 3) & (np.abs(j - 55) <= 6) & (i >= 30) & (i < 50)
    volume = ct([(cord | block | bridge, 40)], shape, affine, noise=8)
    found = answer(volume, Click((30, 55, 12))).mask.full()
    assert dice(found, cord) >= 0.8


def test_marrow_brings_its_cortex_along():
    shape, affine = (40, 90, 90), affine_of((2.0, 1.0, 1.0))
    bone = ellipsoid(shape, affine, (45, 45, 20), (19, 17, 18))
    marrow = ellipsoid(shape, affine, (45, 45, 20), (12, 10, 11))
    volume = ct([(bone, 420), (marrow, 95)], shape, affine, background=20)
    assert dice(answer(volume, Click((45, 45, 20))).mask.full(), bone) >= 0.85


def test_a_click_beside_the_segment_extends_it():
    """Two halves of other values, as kidney cortex and medulla: the second click brings the second half."""
    shape, affine = (50, 100, 100), affine_of((2.0, 1.0, 1.0))
    organ = ellipsoid(shape, affine, (50, 50, 25), (26, 20, 26))
    upper = organ & (np.indices(shape)[2] < 50)
    volume = ct([(organ, 20), (upper, 110)], shape, affine)
    prepared = ENGINE.prepare(volume)
    one = ENGINE.segment(prepared, (Click((36, 50, 25)),)).mask.full()
    two = ENGINE.segment(prepared, (Click((36, 50, 25)), Click((58, 50, 25)))).mask.full()
    assert dice(one, upper) >= 0.85
    assert dice(two, organ) >= 0.88


def test_a_second_click_adds_a_second_organ():
    shape, affine = (50, 120, 120), affine_of((2.0, 1.0, 1.0))
    nodule = ellipsoid(shape, affine, (25, 25, 25), (12, 12, 12))
    organ = ellipsoid(shape, affine, (80, 75, 25), (38, 40, 45))
    volume = ct([(nodule, 110), (organ, 60)], shape, affine)
    found = answer(volume, Click((25, 25, 25)), Click((70, 75, 25))).mask.full()
    assert dice(found, nodule | organ) >= 0.9


def test_a_correcting_click_adds_less_of_a_spread_out_structure_than_a_first_click():
    """Alone, a click claims the whole slab; added to a nodule a fiftieth its size, only what is near it."""
    shape, affine = (60, 130, 130), affine_of((2.0, 1.0, 1.0))
    nodule = ellipsoid(shape, affine, (18, 18, 10), (10, 10, 10))
    k, j, i = np.indices(shape)
    slab = (np.abs(i - 90) <= 9) & (np.abs(j - 65) <= 56) & (np.abs(k - 30) <= 28)
    volume = ct([(nodule, 140), (slab, 60)], shape, affine)
    prepared = ENGINE.prepare(volume)
    on_slab = Click((90, 65, 30))
    alone = ENGINE.segment(prepared, (on_slab,)).mask.full()
    added = ENGINE.segment(prepared, (Click((18, 18, 10)), on_slab)).mask.full()
    assert dice(alone, slab) >= 0.85
    assert (added & slab).sum() < 0.75 * slab.sum()
    assert (added & nodule).sum() > 0.8 * nodule.sum()


def _ball(prepared, centre: tuple[int, int, int], radius: float) -> np.ndarray:
    z, y, x = np.indices(prepared.shape)
    at = prepared.from_native(centre[::-1])
    return sum(((c - o) * s) ** 2 for c, o, s in zip((z, y, x), at, prepared.spacing, strict=True)) <= radius**2


def _whole(prepared, row: tuple[Click, ...]) -> np.ndarray:
    full = np.zeros(prepared.shape, bool)
    mask, box = watershed_engine.in_turn(prepared, row, never)
    full[box] = mask
    return full


def test_a_removing_click_in_a_layer_leaves_the_organ_and_takes_the_layer():
    shape, affine = (60, 110, 110), affine_of((2.0, 1.0, 1.0))
    organ = ellipsoid(shape, affine, (50, 55, 30), (26, 26, 26))
    layer = ellipsoid(shape, affine, (54, 55, 30), (32, 32, 32)) & ~organ
    prepared = ENGINE.prepare(ct([(organ, 60), (layer, 100)], shape, affine))
    core, rim, both = (
        grids.averaged(m.astype(np.float32), prepared.shape) > 0.9 for m in (organ, layer, organ | layer)
    )
    box = tuple(slice(0, n) for n in prepared.shape)
    clicks = [Click((50, 55, 30)), Click((81, 55, 30), False)]
    depth = depth_of(both, prepared.spacing)
    left = watershed_engine.parted(prepared, box, depth, clicks, clicks[1:])
    assert not (left & ~both).any()
    assert (left & core).sum() > 0.9 * core.sum()
    assert (left & rim).sum() < 0.4 * rim.sum()


@pytest.mark.parametrize(("radius", "goes"), [(24, True), (19, False)], ids=["a layer", "more than a layer"])
def test_what_edges_part_goes_where_shape_parts_nothing_and_does_not_come_back(monkeypatch, radius, goes):
    shape, affine = (60, 110, 110), affine_of((2.0, 1.0, 1.0))
    organ = ellipsoid(shape, affine, (50, 55, 30), (26, 26, 26))
    prepared = ENGINE.prepare(ct([(organ, 60)], shape, affine))
    inner = _ball(prepared, (50, 55, 30), radius)
    monkeypatch.setattr(watershed_engine, "parted", lambda grid, box, depth, *clicks: (depth > 0) & inner[box])
    row = (Click((50, 55, 30)), Click((75, 55, 30), False), Click((50, 80, 30)))
    first, second, third = (_whole(prepared, row[:n]) for n in (1, 2, 3))
    layer = first & ~inner & ~_ball(prepared, (75, 55, 30), 6.0)
    assert layer.sum() > 0.1 * first.sum()
    assert bool((layer & ~second).sum() > 0.9 * layer.sum()) is goes
    if goes:
        back = third & first & ~second
        assert back[prepared.from_native((30, 80, 50))]
        assert not (back & ~_ball(prepared, (50, 80, 30), 20.0)).any(), "only what is near the click"


def test_a_click_that_adds_does_not_bring_back_what_others_cut_off(monkeypatch):
    volume = ct([], (60, 110, 110), affine_of((2.0, 1.0, 1.0)), background=60)
    prepared = ENGINE.prepare(volume)
    small, large = _ball(prepared, (50, 55, 30), 12), _ball(prepared, (50, 55, 30), 40)
    box = tuple(slice(0, n) for n in prepared.shape)
    answers = {1: large, 2: small, 3: large}
    monkeypatch.setattr(watershed_engine, "coarse", lambda grid, clicks, cancelled: (answers[len(clicks)], box))
    row = (Click((50, 55, 30)), Click((80, 55, 30), False), Click((50, 69, 30)))
    first, second, third = (_whole(prepared, row[:n]) for n in (1, 2, 3))
    assert first.sum() > 10 * second.sum()
    assert third[prepared.from_native((30, 69, 50))]
    assert second.sum() < third.sum() < 3 * second.sum()


def test_a_click_just_beside_the_segment_adds_no_more_than_the_gap_tells():
    shape, affine = (60, 130, 130), affine_of((2.0, 1.0, 1.0))
    organ = ellipsoid(shape, affine, (35, 65, 30), (20, 20, 20))
    neighbour = ellipsoid(shape, affine, (90, 65, 30), (38, 38, 38)) & ~organ
    prepared = ENGINE.prepare(ct([(organ, 40), (neighbour, 160)], shape, affine))
    before, after = (_whole(prepared, (Click((35, 65, 30)), Click((59, 65, 30)))[:n]) for n in (1, 2))
    added = after & ~before
    assert added[prepared.from_native((30, 65, 59))]
    assert not (added & ~_ball(prepared, (59, 65, 30), 14.0)).any()
