"""The comparison of proxy tasks: nothing of a test side is trained on, shares are nested, cells are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core_models.foundation import evaluate_pretraining as grid
from core_models.foundation import evaluate_pretraining_starts as starts
from core_models.foundation import evaluate_pretraining_summary as summaries
from core_models.foundation import evaluate_pretraining_tasks as tasks
from core_models.foundation.data import MASK_ANATOMY, MASK_CARDIAC, MASK_NONE, Pool, leave_out_twins
from core_models.foundation.evaluate_pretraining_cells import Cell, Journal, Unit, claimed
from core_models.foundation.evaluate_pretraining_starts import ACDC, COVID, JSRT, NIH, PROXIES, ROCO, Budget, Start
from core_models.foundation.evaluate_pretraining_tasks import Scores
from core_models.foundation.labels import FINDINGS

SIZE = 64
TINY = Budget(size=SIZE, proxy_steps=1, anatomy_steps=1, anatomy_batch=2)
SIDES = ("train", "train", "train", "validation", "test", "test")


def pool(name: str, n: int = 24, kind: int = MASK_NONE, seed: int = 0) -> Pool:
    """`n` noisy pictures, two a patient, sides by patient; every second patient has the first finding."""
    random = np.random.default_rng(seed)
    patients = [i // 2 for i in range(n)]
    labels = np.zeros((n, len(FINDINGS)), np.float32)
    labels[[i for i in range(n) if patients[i] % 2], :6] = 1.0
    top = 31 if kind == MASK_ANATOMY else 3
    masks = np.zeros((n, SIZE, SIZE), np.uint8)
    masks[:, 16:48, 16:48] = top
    return Pool(
        name=name,
        files=tuple(f"{name}-{i}" for i in range(n)),
        images=random.integers(0, 255, (n, SIZE, SIZE), np.uint8),
        keys=tuple(f"{name}-p{p}" for p in patients),
        sides=tuple(SIDES[p % len(SIDES)] for p in patients),
        usable=np.ones(n, bool),
        findings=labels,
        finding_weight=np.ones_like(labels),
        context=np.ones((n, 6), np.float32),
        gate=np.ones((n, 4), np.float32),
        captions=tuple("pleural effusion" for _ in range(n)),
        masks=masks if kind else None,
        mask_kind=kind,
        has_mask=np.ones(n, bool) if kind else None,
        columns={"view": ("PA",) * n},
    )


@pytest.fixture
def pools() -> dict[str, Pool]:
    """All sources; the first captioned picture, on the training side, is a copy of a test picture of NIH."""
    out = {
        ROCO: pool(ROCO, seed=1),
        NIH: pool(NIH, seed=2),
        COVID: pool(COVID, seed=3),
        JSRT: pool(JSRT, kind=MASK_ANATOMY, seed=4),
        ACDC: pool(ACDC, kind=MASK_CARDIAC, seed=5),
    }
    out[ROCO].images[0] = out[NIH].images[out[NIH].rows("test")[0]]
    return leave_out_twins(out)


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_given_training_rows_without_twins_and_no_label_of_the_tasks_that_follow(
    name: str, pools: dict[str, Pool]
) -> None:
    given = starts.proxy_pools(name, pools)
    assert JSRT not in given
    assert set(given) == set(PROXIES[name].sources)
    for source, own in given.items():
        assert set(own.files) == {pools[source].files[r] for r in pools[source].rows("train")}
        assert set(own.sides) == {"train"}
        assert own.usable.all()
        assert not own.context.any()
    held = {pools[s].files[r] for s in pools for side in ("validation", "test") for r in pools[s].rows(side)}
    assert not held & {file for own in given.values() for file in own.files}
    assert f"{ROCO}-0" not in {file for own in given.values() for file in own.files}, "a twin of a test picture"
    if NIH in given:
        assert not given[NIH].findings.any()
        assert not given[NIH].finding_weight.any()
    if ACDC in given:
        assert set(np.unique(given[ACDC].masks)) == {0, 4}, "label 3 is the third plane"
    assert sum(PROXIES[name].sources.values()) == starts.BATCH


def test_what_is_learnt_from_is_the_labelled_part(pools: dict[str, Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[Pool] = []
    probed: list[np.ndarray] = []

    def seen(recipe, own, folder, *, model, log):
        tuned.extend(own.values())
        return model.eval(), {}

    def fitted(known, truth, penalty):
        probed.append(truth)
        return np.zeros((known.shape[1], truth.shape[1])), np.zeros(truth.shape[1])

    monkeypatch.setattr(tasks, "train", seen)
    monkeypatch.setattr(tasks, "ridge", fitted)
    monkeypatch.setattr(tasks, "vectors", lambda encoder, pool, rows, size: np.zeros((len(rows), 4)))
    rows = {name: tasks.labelled(pools[name], 0.25, 0) for name in (JSRT, NIH)}
    tasks.anatomy(Start("scratch"), pools[JSRT], rows[JSRT], 0, TINY)
    tasks.findings(Start("scratch"), pools[NIH], rows[NIH], 0, TINY)
    assert set(tuned[0].files) == {pools[JSRT].files[r] for r in rows[JSRT]}
    assert set(tuned[0].sides) == {"train"}
    assert not tuned[0].context.any()
    assert len(probed) == len(tuned) == 1
    assert np.array_equal(probed[0], pools[NIH].findings[rows[NIH]][:, tasks.COLUMNS])


def test_shares_are_nested_by_patient_and_on_the_training_side(pools: dict[str, Pool]) -> None:
    source = pools[NIH]
    for seed in (0, 1):
        before: set[int] = set()
        for share in (0.05, 0.1, 0.25, 1.0):
            rows = set(tasks.labelled(source, share, seed).tolist())
            assert before <= rows
            patients = {source.keys[r] for r in rows}
            assert rows == {r for r in source.rows("train").tolist() if source.keys[r] in patients}
            assert len(patients) == max(1, int(np.ceil(share * len({source.keys[r] for r in source.rows("train")}))))
            before = rows
        assert before == set(source.rows("train").tolist())
    draws = {tuple(tasks.labelled(source, 0.25, seed)) for seed in range(6)}
    assert len(draws) > 1, "seeds draw different patients"


def test_the_probe_ranks_what_a_plane_can_tell_apart() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((60, 6)) < 0.3).astype(float)
    known = random.normal(5, 1, (60, 200))
    known[:, :6] += 4 * truth
    weight, bias = tasks.ridge(known, truth, 10.0)
    assert tasks.macro(truth, known @ weight + bias) > 0.99
    assert np.allclose((known @ weight + bias).mean(0), truth.mean(0))
    assert np.isnan(tasks.macro(np.zeros((60, 6)), known @ weight))


def test_the_decoder_is_carried_over_without_its_last_layer(pools: dict[str, Pool], tmp_path: Path) -> None:
    start = starts.prepare("segmentation", pools, tmp_path / "segmentation", TINY, 0, lambda _: None)
    decoder = start.decoder()
    assert decoder
    assert not [name for name in decoder if ".out." in name]
    assert Start("imagenet").decoder() == {}
    again = starts.prepare("segmentation", {}, tmp_path / "segmentation", TINY, 0, lambda _: None)
    assert again == start, "a start that is there is not trained anew"


def test_a_grid_is_resumed_cell_by_cell_and_its_figures_are_those_of_the_runs(
    pools: dict[str, Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, seeds, shares = ("scratch", "imagenet", "supervised"), (0, 1), (0.1, 1.0)
    ran: list[str] = []

    def performed(unit: Unit, *_: object) -> Cell:
        if len(ran) == 9 and not resumed:
            raise KeyboardInterrupt
        ran.append(unit.key)
        value = 0.5 + 0.1 * names.index(unit.start) + 0.01 * unit.seed + 0.1 * unit.share
        rows = pools[tasks.DOWNSTREAM[unit.task].source].rows("test") if unit.task else []
        each = np.tile(np.arange(len(rows))[:, None] % 2 + value, (1, 6))
        return Cell(unit, Scores(value, value, {"a": value}, each) if unit.task else None, 3, 1.0)

    monkeypatch.setattr(grid, "perform", performed)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        grid.compare(pools, tmp_path, lambda *_: None, seeds, shares, TINY, names)
    (journal,) = tmp_path.glob("*/cells.jsonl")
    with journal.open("a") as file:
        file.write('{"unit": {"start": "scr')  # the process died while it wrote
    resumed = True
    result = grid.compare(pools, tmp_path, lambda *_: None, seeds, shares, TINY, names)
    assert len(ran) == len(set(ran)) == 1 + len(names) * 2 * len(seeds) * len(shares)
    assert result["starts"]["imagenet"]["jsrt"]["0.1"]["values"] == pytest.approx([0.61, 0.62])
    assert result["starts"]["imagenet"]["jsrt"]["0.1"]["mean"] == pytest.approx(0.615)
    best = result["best_at_5_10"]
    assert best["nih"] == "supervised"
    assert best["beats_imagenet"]["nih"]["supervised"]["values"] == pytest.approx([0.1, 0.1])
    assert best["beats_imagenet"]["nih"]["supervised"]["better_in"] == "2 of 2 seeds"
    json.dumps(result, allow_nan=False)
    text = grid.markdown(result)
    assert "| supervised | 0.715 ± 0.007 | 0.805 ± 0.007 | +0.100" in text
    assert "supervised, is above ImageNet: +0.100 at" in text
    assert "ImageNet and supervised: a 0.61 and 0.71." in text
    assert "No start learns" not in text
    for start in result["starts"].values():
        start["jsrt"]["0.1"]["parts"]["a"] = 0.0
    assert "No start learns the a in so few steps" in grid.markdown(result)
    grid.plot(result, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width == 1200


def test_cells_of_another_budget_are_not_mixed_in() -> None:
    assert TINY.digest != Budget().digest
    assert TINY.digest == Budget(**vars(TINY)).digest


def test_a_cell_that_another_process_has_is_left_to_it(tmp_path: Path) -> None:
    with claimed(tmp_path / "locks" / "a") as mine, claimed(tmp_path / "locks" / "a") as second:
        assert mine
        assert not second
    with claimed(tmp_path / "locks" / "a") as again:
        assert again


def test_a_cell_runs_from_start_to_line(pools: dict[str, Pool], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cells.jsonl")
    for task in tasks.DOWNSTREAM:
        journal.append(grid.perform(Unit("scratch", task, 0.25, 0), pools, tmp_path, TINY, lambda _: None))
    for cell in journal.cells().values():
        source = pools[tasks.DOWNSTREAM[cell.unit.task].source]
        assert cell.pictures == len(tasks.labelled(source, 0.25, 0))
        assert len(cell.scores.each) == len(source.rows("test"))
        assert 0 <= cell.scores.test <= 1
        if cell.unit.task == "jsrt":
            assert cell.scores.test == pytest.approx(cell.scores.each.mean(), abs=1e-4)


def test_differences_leave_zero_out_only_where_they_are_steady() -> None:
    steady, loose = summaries.paired(np.array([0.05, 0.06, 0.055])), summaries.paired(np.array([0.2, -0.1, 0.05]))
    assert steady["excludes_zero"]
    assert steady["interval"][0] == pytest.approx(0.055 - 4.3027 * 0.005 / 3**0.5, abs=1e-4)
    assert not loose["excludes_zero"]
    assert summaries.paired(np.array([0.1]))["interval"] == [None, None]
