"""What ships: weights, calibration, card and figures belong together, are small, and were kept from the test side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core_models.foundation import commands, data, experiments, recipe, weights
from core_models.foundation.judge import VALIDATED
from core_models.foundation.sampler import Sampler
from core_models.foundation.split import clusters, difference_hash
from core_models.registry import EMBEDDED, MODELS
from core_models.study.intake import read_scan
from webapp import settings as settings_module

DATA = settings_module.load({}).data
MEGABYTES = 30
needs_data = pytest.mark.skipif(not (DATA / "jsrt").is_dir(), reason="the public images are not on this machine")


def test_all_weights_of_the_room_are_safetensors_and_fit_in_30_mb() -> None:
    files = [path for path in weights.FOLDER.rglob("*") if path.suffix == ".safetensors"]
    assert len(files) >= 4
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 2**20


def test_the_weights_are_of_the_shipped_recipe_and_the_card_shows_the_recorded_figures() -> None:
    summary = json.loads((weights.FOLDER / commands.SUMMARY).read_text())
    assert summary["recipe_digest"] == recipe.read().digest
    assert summary["steps"] == recipe.read().steps
    kept = json.loads((weights.FOLDER / commands.RECORD).read_text())
    card = (weights.FOLDER / "README.md").read_text(encoding="utf-8")
    figures = card.split(experiments.BEGIN)[1].split(experiments.END)[0]
    assert f"{kept['findings']['macro_auroc']:.3f}" in figures
    assert f"{kept['anatomy']['dice']['heart']:.3f}" in figures
    assert "subgroup" in figures
    row = next(row for row in MODELS if row.name == EMBEDDED)
    assert "research" in row.licence


def test_only_labels_with_enough_positives_are_shown() -> None:
    shown = {name for name, one in weights.load_calibration().labels.items() if one.shown}
    assert shown
    assert shown <= set(VALIDATED)


@pytest.fixture(scope="module")
def pools() -> dict[str, data.Pool]:
    """Every source of the recipe at the size it was trained from: twins are found on those pictures."""
    shipped = recipe.read()
    return data.load(tuple(dict.fromkeys((*shipped.sources, "acdc"))), DATA, shipped.store_size)


@needs_data
def test_no_test_or_validation_picture_nor_its_twin_is_ever_drawn_in_training(pools: dict[str, data.Pool]) -> None:
    drawn = {name: set(Sampler(pools, recipe.read().stages[0], 0).rows[name].tolist()) for name in pools}
    hashes, number, held = [], [], []
    for at, (name, pool) in enumerate(pools.items()):
        for row, side in enumerate(pool.sides):
            assert not (row in drawn[name] and side != "train")
            hashes.append(difference_hash(pool.images[row]))
            number.append((at, row))
            held.append(side != "train")
    cluster = clusters(np.stack(hashes))
    with_held = set(cluster[np.array(held)].tolist())
    names = list(pools)
    for (at, row), one in zip(number, cluster.tolist(), strict=True):
        if one in with_held:
            assert row not in drawn[names[at]]


@needs_data
@pytest.mark.parametrize("name", ["nih-cxr14-1000", "covid-chestxray", "acdc"])
def test_no_patient_is_on_two_sides(pools: dict[str, data.Pool], name: str) -> None:
    pool = pools[name]
    sides: dict[str, set[str]] = {}
    for key, side in zip(pool.keys, pool.sides, strict=True):
        sides.setdefault(key, set()).add(side)
    assert all(len(own) == 1 for own in sides.values())


@needs_data
def test_the_shipped_model_reads_a_held_out_radiograph() -> None:
    from core_models.registry import eyes_for

    path = next(Path(DATA / "jsrt" / "images").glob("JPCLN002.*"))
    reading = eyes_for("OT").read(read_scan([path])[0].series[0].volume)
    assert reading.quality.usable
    assert not reading.quality.notes
    assert {s.label for s in reading.structures} == {
        "right lung", "left lung", "heart", "right clavicle", "left clavicle",
    }  # fmt: skip
    ratio = next(m.value for m in reading.measured if m.key == "cardiothoracic_ratio")
    assert 0.3 < ratio < 0.7
    assert reading.findings
    assert all(0 <= f.probability <= 1 for f in reading.findings)
