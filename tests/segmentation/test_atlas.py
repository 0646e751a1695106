"""Names from the atlas: the file that ships, what is refused, sides by the patient's axes, and what gets no name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from core_models.errors import ModelMissing, Refused
from core_models.segmentation.engine import Mask
from core_models.segmentation.naming import atlas, evaluate_names, labels, train_atlas
from core_models.study.intake import read_scan
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid


@pytest.fixture(scope="module")
def chest():
    """A phantom's chest with two lungs, a spleen and a spine, 4 × 3 × 3 mm, and its masks."""
    shape, affine = (70, 110, 150), affine_of((4.0, 3.0, 3.0))
    body = ellipsoid(shape, affine, (75, 55, 35), (190, 130, 4000))
    right = ellipsoid(shape, affine, (48, 55, 42), (55, 85, 95))
    left = ellipsoid(shape, affine, (102, 55, 42), (55, 85, 95))
    spleen = ellipsoid(shape, affine, (112, 70, 14), (20, 50, 40)) & ~left
    spine = ellipsoid(shape, affine, (75, 82, 35), (20, 20, 4000))
    volume = ct([(body, 0), (right, -850), (left, -850), (spleen, 110), (spine, 250)], shape, affine, -1000)
    return volume, {"right lung": right, "left lung": left, "spleen": spleen}


def flipped(volume, mask, axis):
    """The same patient with one array axis stored the other way round, which the affine tells."""
    affine = volume.affine.copy()
    column = 2 - axis
    affine[:3, 3] += affine[:3, column] * (volume.shape[axis] - 1)
    affine[:3, column] *= -1
    return replace(volume, array=np.flip(volume.array, axis).copy(), affine=affine), np.flip(mask, axis).copy()


def test_what_ships_is_what_the_builder_writes():
    known = atlas.shipped()
    stored = json.loads(atlas.FILE.read_text(encoding="utf-8"))
    assert stored == atlas.to_json(known.rows, atlas.CALIBRATION, stored["about"])
    assert {row.scan for row in known.rows} == {train_atlas.DEMO, train_atlas.EXAMPLE} == set(stored["about"]["scans"])
    assert set(known.names) <= set(labels.ORGANS)
    assert {"liver", "spleen", "left kidney", "aorta", "vertebra", "rib", "urinary bladder"} <= set(known.names)


def test_the_builder_makes_what_ships(demo_ct):
    volume = read_scan(demo_ct)[0].series[0].volume
    label_map = read_scan(demo_ct.with_name("mask.nii.gz"))[0].series[0].volume.array
    stored = {row.structure: row for row in atlas.shipped().rows if row.scan == train_atlas.DEMO}
    built = list(train_atlas.rows(volume, np.where(np.isin(label_map, (1, 2, 52)), label_map, 0), train_atlas.DEMO))
    assert [row.name for row in built] == ["spleen", "right kidney", "aorta"]
    for row in built:
        known = stored[row.structure].traits
        assert row.traits.cut == known.cut
        assert row.traits.values == pytest.approx(dict(known.values), abs=0.02, nan_ok=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format=99),
        lambda d: d.update(features=d["features"][::-1]),
        lambda d: d["rows"][3]["values"].pop(),
        lambda d: d["rows"][3]["values"].__setitem__(0, None),
        lambda d: d["rows"][3].pop("name"),
        lambda d: d.update(rows=[]),
        lambda d: d["calibration"].update(temperature=0),
        lambda d: d["calibration"].update(other=1),
        lambda d: d["calibration"].update(none=None),
    ],
)
def test_a_damaged_atlas_is_refused(damage, tmp_path):
    stored = json.loads(atlas.FILE.read_text(encoding="utf-8"))
    damage(stored)
    path = tmp_path / "atlas.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ModelMissing, match="train atlas"):
        atlas.read(path)


def test_a_missing_or_cut_off_atlas_is_refused(tmp_path):
    with pytest.raises(ModelMissing):
        atlas.read(tmp_path / "atlas.json")
    (tmp_path / "atlas.json").write_bytes(atlas.FILE.read_bytes()[:2000])
    with pytest.raises(ModelMissing):
        atlas.read(tmp_path / "atlas.json")


def test_one_scan_alone_makes_no_atlas(tmp_path):
    with pytest.raises(Refused, match="totalseg-example"):
        train_atlas.run(tmp_path, None, tmp_path, lambda done, total, text: None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Refused):
        evaluate_names.run(tmp_path, None)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("name", ["right lung", "left lung", "spleen"])
def test_sides_are_the_patients_however_the_array_lies(chest, name, axis):
    volume, masks = chest
    mask = masks[name]
    if axis is not None:
        volume, mask = flipped(volume, mask, axis)
    found = labels.suggest(volume, Mask.from_full(mask))
    assert found.label == name
    assert atlas.CALIBRATION.least <= found.confidence < 1
    assert found.basis == f"position, HU and shape, {100 * min(found.confidence, labels.MOST):.0f} %"


def test_a_mirrored_patient_is_a_mirrored_measurement(chest):
    volume, masks = chest
    one = atlas.traits(volume, Mask.from_full(masks["spleen"])).values
    mirrored = replace(volume, array=np.flip(volume.array, 2).copy())  # the affine says nothing of it
    other = atlas.traits(mirrored, Mask.from_full(np.flip(masks["spleen"], 2))).values
    assert other["left"] == pytest.approx(-one["left"], abs=0.03)
    assert other["back"] == pytest.approx(one["back"], abs=0.02)
    assert other["above_base"] == pytest.approx(one["above_base"], abs=5)


def test_traits_are_measured_in_the_body(chest):
    volume, masks = chest
    found = atlas.traits(volume, Mask.from_full(masks["left lung"]))
    assert not found.cut
    assert found.values["left"] == pytest.approx(81 / 190, abs=0.05)
    assert found.values["back"] == pytest.approx(0.5, abs=0.03)
    assert found.values["hu"] == pytest.approx(-850, abs=5)
    assert np.exp(found.values["log_ml"]) == pytest.approx(4 / 3 * np.pi * 5.5 * 8.5 * 9.5, rel=0.03)
    assert np.exp(found.values["log_z"]) == pytest.approx(190, rel=0.05)
    ball = ellipsoid(volume.shape, volume.affine, (75, 30, 35), (30, 30, 30))
    measured = atlas.traits(volume, Mask.from_full(ball)).values
    for name, (middle, wide) in atlas.BALL.items():
        assert abs(measured[name] - middle) < 1.5 * wide


@pytest.mark.parametrize("at", [(75, 22, 12), (30, 62, 8), (112, 40, 10)], ids=["front", "right", "left"])
def test_a_ball_where_no_organ_is_gets_no_name(chest, at):
    volume, _ = chest
    array = volume.array.copy()
    ball = ellipsoid(volume.shape, volume.affine, at, (16, 16, 16))
    array[ball] = 35
    found = labels.suggest(replace(volume, array=array), Mask.from_full(ball))
    assert found == labels.UNSURE


def test_what_cannot_be_measured_gets_no_name(chest):
    volume, _ = chest
    few = np.zeros(volume.shape, bool)
    few[30, 40, 60:64] = True
    assert atlas.traits(volume, Mask.from_full(few)) is None
    air = np.zeros(volume.shape, bool)
    air[10:40, 30:60, 60:90] = True
    empty = replace(volume, array=np.full(volume.shape, -1000, np.int16))
    assert atlas.traits(empty, Mask.from_full(air)) is None
    assert labels.suggest(empty, Mask.from_full(air)) == labels.UNSURE


def test_beliefs_add_up_and_a_strange_thing_is_most_likely_nothing():
    known = atlas.shipped()
    liver = next(row for row in known.rows if row.name == "liver")
    beliefs = known.belief(liver.traits)
    assert sum(beliefs.values()) == pytest.approx(1)
    assert max(beliefs, key=beliefs.__getitem__) == "liver"
    strange = atlas.Traits({**liver.traits.values, "left": 0.9, "hu": -300.0, "log_ml": 1.0}, False)
    assert max(known.belief(strange).values()) == known.belief(strange)[""] > 0.8


def test_a_cut_mask_may_be_a_part_of_something_larger():
    known = atlas.shipped()
    spleen = next(row for row in known.rows if row.name == "spleen" and not row.traits.cut)
    half = dict(spleen.traits.values)
    for size in ("log_ml", "log_z"):
        half[size] -= 1.2
    whole, cut = (known.belief(atlas.Traits(half, c))["spleen"] for c in (False, True))
    assert cut > whole


def test_where_the_atlas_holds_the_rules_name_for_unlikely_nothing_is_said(monkeypatch, chest):
    volume, masks = chest
    mask = Mask.from_full(masks["spleen"])
    for share, weight, expected in (
        (0.3, 0.6, "stomach"),
        (0.01, 0.6, "structure"),
        (0.01, labels.SURE, "stomach"),
        (0.6, 0.0, "stomach"),
    ):
        ruled = labels.Suggestion("stomach", weight) if weight else labels.UNSURE
        monkeypatch.setattr(labels, "by_rules", lambda volume, mask, ruled=ruled: ruled)
        monkeypatch.setattr(atlas.Atlas, "belief", lambda self, t, share=share: {"stomach": share, "": 1 - share})
        assert labels.suggest(volume, mask).label == expected


@pytest.mark.parametrize(("share", "expected"), [(0.25, "kidney"), (0.1, "muscle")])
def test_where_rules_and_atlas_differ_the_rules_name_stands_if_the_atlas_believes_it_too(
    monkeypatch, chest, share, expected
):
    volume, masks = chest
    monkeypatch.setattr(labels, "by_rules", lambda volume, mask: labels.Suggestion("kidney", 0.5))
    monkeypatch.setattr(atlas.Atlas, "belief", lambda self, t: {"kidney": share, "muscle": 0.7, "": 0.3 - share})
    assert labels.suggest(volume, Mask.from_full(masks["spleen"])).label == expected


def test_confidence_is_judged_in_bands_and_shares_add_up():
    told = [("liver", 0.95, "liver"), ("liver", 0.93, "spleen"), ("", 0.0, "aorta"), ("rib", 0.6, "rib")]
    low, high = evaluate_names._calibration(told)
    assert (low["n"], low["right"]) == (1, 1.0)
    assert (high["n"], high["told"], high["right"]) == (2, pytest.approx(0.94), 0.5)


def test_balls_are_the_same_each_time_and_lie_in_tissue(chest):
    volume, _ = chest
    first, second = (list(evaluate_names._balls(volume)) for _ in range(2))
    assert len(first) == evaluate_names.BALLS
    for one, other in zip(first, second, strict=True):
        assert one.mask.offset == other.mask.offset
        assert (one.mask.voxels == other.mask.voxels).all()
        assert isinstance(one.volume, Volume)
        assert one.name == ""
