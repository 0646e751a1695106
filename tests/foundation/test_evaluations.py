"""The evaluations score what they say they score, and what is recorded reaches the page and the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.foundation import commands, evaluate_findings, evaluate_retrieval, experiments
from core_models.foundation.judge import VALIDATED
from core_models.foundation.labels import NAMES

GATE_RESULT = {
    "data": "d",
    "pictures": 9,
    "plain_frontal": 4,
    "plain_frontal_let_through": 0.75,
    "questions": {"chest": {"yes": 5, "no": 4, "auroc": 0.987, "sensitivity": 0.9, "specificity": float("nan")}},
}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_findings, "REPEATS", 10)


class _Pool:
    """What `score` asks of a pool."""

    keys = tuple(f"p{i // 2}" for i in range(40))
    columns = {  # noqa: RUF012
        "view": tuple("AP" if i % 2 else "PA" for i in range(40)),
        "sex": tuple("F" if i < 20 else "M" for i in range(40)),
        "age": tuple(str(20 + i) for i in range(40)),
    }
    findings = np.zeros((40, len(NAMES)), np.float32)

    def rows(self, side: str) -> np.ndarray:
        assert side == "train", "the lazy baseline learns from the training side alone"
        return np.arange(40)


def _scored(p: np.ndarray, truth: np.ndarray) -> dict:
    return evaluate_findings.score(_Pool(), np.arange(40), truth, p, dict.fromkeys(VALIDATED, 0.5))


def test_a_right_model_scores_one_in_every_view_and_a_wrong_one_nought() -> None:
    truth = (np.random.default_rng(0).random((40, len(VALIDATED))) < 0.5).astype(float)
    right, wrong = _scored(truth * 0.8 + 0.1, truth), _scored(0.9 - truth * 0.8, truth)
    assert right["macro_auroc"] == 1.0
    assert right["macro_auroc_within"] == {"AP": 1.0, "PA": 1.0}
    assert wrong["macro_auroc"] == 0.0
    assert right["test_patients"] == 20
    assert right["per_finding"]["Effusion"]["sensitivity"] == 1.0
    assert wrong["per_finding"]["Effusion"]["sensitivity"] == 0.0
    assert right["subgroups"]["sex"]["F"]["n"] == 20
    assert sum(g["n"] for g in right["subgroups"]["age"].values()) == 40


def test_a_model_that_knows_the_view_alone_is_nothing_within_a_view() -> None:
    view = np.array([v == "AP" for v in _Pool.columns["view"]], float)
    truth = np.repeat(view[:, None], len(VALIDATED), 1)
    truth[:4] = 1 - truth[:4]  # so that both classes are in both views
    shortcut = np.repeat(0.2 + 0.6 * view[:, None], len(VALIDATED), 1)
    result = _scored(shortcut, truth)
    assert result["macro_auroc"] > 0.85
    assert result["macro_auroc_within"] == {"AP": 0.5, "PA": 0.5}


@pytest.mark.parametrize("sick", ["AP", "PA"])
def test_the_lazy_baseline_learns_which_view_goes_with_a_label(sick: str) -> None:
    of_view = np.array([v == sick for v in _Pool.columns["view"]], float)
    pool = _Pool()
    pool.findings = np.repeat(of_view[:, None], len(NAMES), 1).astype(np.float32)
    truth = np.repeat(of_view[:, None], len(VALIDATED), 1)
    result = evaluate_findings.score(pool, np.arange(40), truth, truth, dict.fromkeys(VALIDATED, 0.5))
    assert result["baselines"]["view_alone"] == 1.0


def test_retrieval_is_perfect_on_a_diagonal_and_chance_on_noise() -> None:
    assert evaluate_retrieval.figures(np.eye(50))["image_to_text"]["recall@1"] == 1.0
    noise = np.random.default_rng(0).random((200, 200))
    assert evaluate_retrieval.figures(noise)["text_to_image"]["recall@10"] == pytest.approx(0.05, abs=0.04)


def test_a_record_makes_the_page_and_fills_the_card(tmp_path: Path) -> None:
    folder, docs = tmp_path / "w", tmp_path / "docs"
    folder.mkdir()
    (folder / "README.md").write_text(f"# Card\n\n{experiments.BEGIN}\nold\n{experiments.END}\n\n## Limits\n")
    commands.record("gate", GATE_RESULT, folder, docs)
    kept = json.loads((folder / commands.RECORD).read_text())
    assert kept["gate"]["questions"]["chest"]["specificity"] is None  # nan is not JSON
    card = (folder / "README.md").read_text()
    assert "0.987" in card
    assert "old" not in card
    assert card.endswith("## Limits\n")
    assert "0.987" in (docs / "experiments.md").read_text()
    commands.record("gate", GATE_RESULT | {"pictures": 10}, folder, docs)  # again: replaced, not added
    assert (folder / "README.md").read_text().count("evaluate gate") == 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no evaluation"):
        commands.evaluate("poetry", tmp_path, tmp_path, lambda *_: None)
    with pytest.raises(Refused, match="does not exist"):
        commands.train_encoder(tmp_path / "nothing", tmp_path / "out", tmp_path / "work", log=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_what_ships_is_what_the_commands_recorded(tmp_path: Path) -> None:
    """The page and the card are made again from the recorded figures and come out as they stand."""
    kept = json.loads((commands.FOLDER / commands.RECORD).read_text(encoding="utf-8"))
    assert set(kept) == set(commands.EVALUATIONS)
    experiments.write(kept, tmp_path)
    assert (tmp_path / "experiments.md").read_text() == (commands.DOCS / "experiments.md").read_text()
    card = tmp_path / "README.md"
    card.write_text((commands.FOLDER / "README.md").read_text())
    experiments.fill_card(kept, card)
    assert card.read_text() == (commands.FOLDER / "README.md").read_text()


def test_figures_of_a_part_of_the_cases_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not kept"):
        commands.evaluate("gate", tmp_path, tmp_path, lambda *_: None, limit=3, keep=True)
    with pytest.raises(Refused, match="all cases"):
        commands.evaluate("fusion", tmp_path, tmp_path, lambda *_: None, limit=3)


def test_crowding_is_all_where_one_text_is_near_to_every_image_and_little_where_none_is() -> None:
    near = np.eye(100)
    near[:, 7] = 0.5
    assert evaluate_retrieval.crowded(near, 2) == 1.0
    assert evaluate_retrieval.crowded(np.eye(100), 1) == 0.01


def test_intervals_of_retrieval_are_over_patients_where_they_are_known() -> None:
    noise = np.random.default_rng(0).random((60, 60))
    by_pair = evaluate_retrieval.figures(noise)["image_to_text_ci"]["recall@10"]
    by_patient = evaluate_retrieval.figures(noise, [f"p{i // 20}" for i in range(60)])["image_to_text_ci"]["recall@10"]
    assert by_pair != by_patient
