"""The drafting figures: what is counted, that the lazy baselines are lazy, and that the page says what was recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sacrebleu

from core_models.drafting import baselines, evaluate_pictures, evaluation_report, promotion, scores, verify
from core_models.drafting import evaluation as e
from core_models.drafting.dataset import SourceReport
from core_models.drafting.drafter import OWN_WORDS, Drafter, Job, PriorText
from core_models.drafting.evidence import Draft, DraftModel, Evidence, Statement, Step
from core_models.drafting.scores import Memory, Study
from core_models.foundation.reading import Finding, Quality, Reading
from tests.drafting import tiny
from tests.drafting.cards import finding, measurement, statement

BIG = SourceReport("A", "Cough.", ("The heart is enlarged.", "No effusion."), ("Cardiomegaly.",), ("Cardiomegaly",))
WET = SourceReport("B", "", ("Small left pleural effusion.",), (), ("Pleural Effusion/left/small",))
NORMAL = SourceReport("C", "", ("The lungs are clear.",), ("No acute disease.",), ("normal",))
UNREAD = SourceReport("D", "", ("Something.",), (), ("No Indexing",))
WRITER = DraftModel("m", "a", "", 0)


def study(report: SourceReport, **values: Any) -> Study:
    return Study(report, e.board(report), **values)


def drafted(cards: Sequence[Evidence], *texts: str) -> tuple[Statement, ...]:
    """Sentences that cite every card, checked."""
    ids = tuple(c.id for c in cards)
    return tuple(verify.check(statement(t, *ids, cards=tuple(cards)), cards) for t in texts)


def one(report: SourceReport, *texts: str, memory: Sequence[SourceReport] = ()) -> dict[str, Any]:
    task = study(report)
    return scores.summary([scores.score(task, drafted(task.cards, *texts), Memory(memory))])


class Told:
    """Stands for the drafter: it writes what `write` says of each job.

    Attributes:
        jobs: all that it was given.
    """

    model = SimpleNamespace(name="told", adapter="a@1", sees=True)

    def __init__(self, write: Callable[[Job], Sequence[str]]) -> None:
        self.write = write
        self.jobs: list[Job] = []

    def many(self, jobs: Sequence[Job], progress: Callable[[int, int], None] = lambda *_: None) -> list[Draft]:
        self.jobs += jobs
        progress(len(jobs), len(jobs))
        return [Draft(drafted(job.cards, *self.write(job)), WRITER) for job in jobs]


def in_words(job: Job) -> list[str]:
    """Every card in its own words."""
    task = Study(BIG, tuple(c for c in job.cards if c.kind == "finding"))
    return [s.text for s in baselines.templates(task)]


# ---- the studies -----------------------------------------------------------------------------------------------------


def test_the_board_holds_the_headings_and_says_that_the_rest_is_normal() -> None:
    assert [c.statement for c in e.board(BIG)] == ["Cardiomegaly", "otherwise normal"]
    assert [c.statement for c in e.board(NORMAL)] == ["normal"]
    assert [r.id for r in e.usable([BIG, UNREAD, NORMAL])] == ["A", "C"]
    assert not study(BIG).normal
    assert study(NORMAL).normal


def test_twins_of_training_reports_are_known_and_stand_last() -> None:
    twin = SourceReport("0", "Other.", ("no effusion", "The HEART is enlarged."), ("Cardiomegaly",), ("Cardiomegaly",))
    assert [r.id for r in e.without_twins([twin, WET, NORMAL], [BIG, NORMAL])] == ["B"]
    found = e.studies_of([twin, NORMAL, UNREAD, WET], Memory([BIG]))
    assert [(s.report.id, s.twin) for s in found] == [("B", False), ("C", False), ("0", True)]


# ---- counting --------------------------------------------------------------------------------------------------------


def test_the_report_itself_scores_one_and_silence_nothing() -> None:
    whole = one(BIG, *BIG.findings, *BIG.impression)
    for name in ("finding_recall", "finding_precision", "text_recall", "text_precision", "negation_recall", "bleu4"):
        assert whole[name] == 1.0, name
    assert whole["rouge_l"] == pytest.approx(1.0)
    assert (whole["unsupported_rate"], whole["contradicted_rate"]) == (0.0, 0.0)
    none = one(BIG)
    assert (none["finding_recall"], none["finding_f1"], none["bleu4"], none["rouge_l"]) == (0.0, 0.0, 0.0, 0.0)
    assert none["finding_precision"] is None
    assert none["unsupported_rate"] is None


def test_a_wrong_finding_costs_precision_and_is_struck() -> None:
    row = one(BIG, "There is a large pneumothorax.")
    assert (row["finding_recall"], row["finding_precision"], row["unsupported_rate"]) == (0.0, 0.0, 1.0)


def test_a_finding_in_a_struck_sentence_counts_as_written_and_not_as_recalled() -> None:
    row = one(BIG, "The heart is enlarged and there is a pneumothorax.")
    assert (row["finding_recall"], row["finding_recall_written"]) == (0.0, 1.0)
    assert row["finding_precision"] == 0.5


def test_what_the_radiologist_denies_and_the_draft_affirms_is_counted_and_the_other_way_round() -> None:
    row = one(BIG, "There is an effusion.", "The heart is normal in size.")
    assert row["text_contradicted"] == 1.0  # the effusion
    assert row["text_denied"] == 1.0  # the heart
    assert row["negation_recall"] == 0.0
    kept = scores.per_finding([scores.score(study(BIG), drafted(e.board(BIG), "There is an effusion."), Memory([]))])
    assert kept["effusion"]["against_text"] == 1
    assert (kept["cardiomegaly"]["given"], kept["cardiomegaly"]["stated"]) == (1, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small left pleural effusion.", (1, 0)),
        ("Small right pleural effusion.", (1, 1)),
        ("Bilateral pleural effusions.", (1, 1)),
        ("Small pleural effusion.", (0, 0)),
        ("No right pleural effusion.", (0, 0)),
        ("The right lung holds a nodule.", (0, 0)),  # no card names it: unsupported, not on the wrong side
    ],
)
def test_sides_are_held_against_the_cards(text: str, expected: tuple[int, int]) -> None:
    assert scores.side_errors(text, e.board(WET)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The liver has a volume of 1512 ml.", (1, 0)),
        ("The liver has a volume of 1511 ml.", (1, 1)),
        ("The spleen has a volume of 1512 ml.", (1, 1)),
        ("The heart has a cardiothoracic ratio of 0.56.", (1, 0)),
        ("The liver has a mean attenuation of -20 HU.", (1, 0)),
        ("The liver has a volume of [?].", (1, 1)),
        ("Fracture of the 7th rib.", (0, 0)),
    ],
)
def test_numbers_are_held_against_the_cards_of_what_the_sentence_names(text: str, expected: tuple[int, int]) -> None:
    cards = (
        measurement("E1", "liver: volume", 1512.0),
        measurement("E2", "heart: cardiothoracic ratio", 0.56, ""),
        measurement("E3", "liver: mean attenuation", -20.0, "HU"),
    )
    assert scores.number_errors(text, cards) == expected


def test_measurements_are_recalled_by_their_number() -> None:
    cards = (measurement("E1", "liver: volume", 1512.0), measurement("E2", "spleen: volume", 200.0))
    text = "The liver has a volume of {E1}."
    row = scores.against_cards(cards, [verify.check(statement(text, "E1", cards=cards), cards)])
    assert (row["measured"], row["measured_stated"], row["given"]) == (2, 1, 0)


def test_copies_second_tries_and_own_words_are_counted() -> None:
    cards = e.board(BIG)
    first, second = drafted(cards, "The heart is enlarged.", "Cardiomegaly is seen.")
    said = (
        dataclasses.replace(first, rewritten="The heart is normal."),
        dataclasses.replace(second, step=Step(("E1",), OWN_WORDS)),
    )
    other = SourceReport("T", "", ("the heart is ENLARGED", "x y"), (), ("Cardiomegaly",))
    row = scores.summary([scores.score(study(BIG), said, Memory([other]))])
    assert (row["copied_rate"], row["copied_whole_rate"]) == (0.5, 0.0)
    assert (row["rewritten_rate"], row["own_words_rate"], row["left_out_rate"]) == (0.5, 0.5, 0.0)
    taken_back = scores.summary([scores.score(study(BIG), said, Memory([other]), left_out=3)])
    assert taken_back == row | {"left_out_rate": 1.5, "ci95": row["ci95"] | {"left_out_rate": [1.5, 1.5]}}
    assert one(BIG, "X y.", "The heart is enlarged.", memory=[other])["copied_whole_rate"] == 1.0


def test_bleu_is_sacrebleus() -> None:
    texts = [(BIG, ["The heart is mildly enlarged.", "No effusion."]), (WET, ["There is an effusion."]), (NORMAL, [])]
    rows = [scores.score(study(r), drafted(e.board(r), *said), Memory([])) for r, said in texts]
    for chosen in (rows, rows[:1], rows[1:]):
        references = [" ".join((*r.findings, *r.impression)) for r, _ in texts if r.id in {c.study for c in chosen}]
        theirs = sacrebleu.corpus_bleu([c.draft for c in chosen], [references], lowercase=True).score / 100
        assert scores.summary(chosen)["bleu4"] == pytest.approx(theirs, abs=1e-4)


def test_intervals_hold_the_rate_and_narrow_with_more_studies() -> None:
    def width(n: int) -> float:
        rows = []
        for k in range(n):
            task = study(dataclasses.replace(BIG, id=str(k)))
            rows.append(scores.score(task, drafted(task.cards, *BIG.findings) if k % 2 else (), Memory([])))
        row = scores.summary(rows)
        low, high = row["ci95"]["finding_recall"]
        assert low <= row["finding_recall"] == 0.5 <= high
        return high - low

    assert width(200) < width(20)


def test_a_difference_is_of_the_same_studies_and_says_whether_intervals_touch() -> None:
    tasks = [study(dataclasses.replace(BIG, id=str(k))) for k in range(30)]
    good = [scores.score(s, drafted(s.cards, *BIG.findings), Memory([])) for s in tasks]
    bad = [scores.score(s, (), Memory([])) for s in tasks[:20]]
    found = scores.difference(good, bad, ["finding_recall"])
    assert found["studies"] == 20
    assert found["finding_recall"] == {"one": 1.0, "other": 0.0, "difference": 1.0, "ci95": [1.0, 1.0], "apart": True}
    assert not scores.difference(good, good, ["finding_recall"])["finding_recall"]["apart"]


def test_variety_is_low_where_everybody_gets_the_same() -> None:
    rows = [scores.score(study(r), drafted(e.board(r), "The lungs are clear."), Memory([])) for r in (BIG, WET, NORMAL)]
    row = scores.summary(rows)
    assert row["distinct_reports"] == pytest.approx(1 / 3, abs=1e-4)
    assert row["distinct_2"] == pytest.approx(1 / 3, abs=1e-4)


# ---- baselines -------------------------------------------------------------------------------------------------------


def test_the_nearest_label_is_copied_word_for_word() -> None:
    other = SourceReport("T", "", ("x",), (), ("Cardiomegaly", "Aorta/tortuous"))
    said = baselines.nearest_label([WET, BIG])(study(other))
    assert [s.text for s in said] == [*BIG.findings, *BIG.impression]
    assert [s.section for s in said] == ["findings", "findings", "impression"]


def test_the_nearest_text_is_the_one_whose_vector_is() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        found = np.array([[float("effusion" in t.lower()), float("heart" in t.lower())] for t in texts])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    write = baselines.nearest_text([BIG, WET], embed)
    assert [s.text for s in write(study(dataclasses.replace(WET, id="T")))] == list(WET.findings)


def test_the_constant_is_the_same_for_everybody() -> None:
    write = baselines.constant_normal([NORMAL, NORMAL, BIG])
    assert [s.text for s in write(study(BIG))] == [s.text for s in write(study(WET))]
    assert [s.text for s in write(study(BIG))] == ["The lungs are clear.", "No acute disease."]


def test_templates_state_every_card_and_say_normal_only_where_a_card_does() -> None:
    said = baselines.templates(study(WET))
    assert said[0].text == "Small left pleural effusion."
    assert all(s.support == "supported" for s in said)
    texts = [s.text for s in said]
    assert baselines.STOCK["heart"] in texts
    assert baselines.STOCK["pleura"] not in texts
    alone = baselines.templates(Study(WET, (finding("E1", "Pneumonia", probability=0.6),)))
    assert [s.text for s in alone] == ["Possible pneumonia.", "Pneumonia."]
    assert baselines.templates(study(NORMAL))[-1].text == baselines.NOTHING


# ---- the drafter among them ------------------------------------------------------------------------------------------


def evaluated(told: Told, limit: int = 0) -> dict[str, Any]:
    held = [dataclasses.replace(r, id=f"{r.id}{k}") for k in range(3) for r in (BIG, WET, NORMAL)]

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1))

    return e.run(told, [BIG, NORMAL], held, lambda r: [PriorText(f"P{r.id}")], embed, limit)  # type: ignore[arg-type]


def test_every_system_writes_the_same_studies_as_it_should() -> None:
    told = Told(in_words)
    result = evaluated(told)
    assert (result["studies"], result["twins"]) == (3, 6)  # BIG and NORMAL stand in training
    assert list(result["systems"]) == list(evaluation_report.NAMES)
    assert result["systems"]["model"]["with_twins"]["studies"] == 9
    assert result["systems"]["model"]["all"]["finding_recall"] == 1.0
    assert [s["study"] for s in result["examples"]] == sorted(f"{r}{k}" for r in "ABC" for k in range(3))
    kinds = {(bool(j.priors), j.steps, j.seed, j.temperature) for j in told.jobs}
    assert kinds == {
        (True, True, 0, 0.0),
        (False, True, 0, 0.0),
        (True, False, 0, 0.0),
        *((True, True, seed, e.TEMPERATURE) for seed in e.SEEDS),
    }
    assert all(j.priors in ((), (PriorText(f"P{result_id}"),)) for j in told.jobs for result_id in [_of(j)])
    assert evaluated(Told(in_words), limit=2)["systems"]["model"]["with_twins"]["studies"] == 2


def _of(job: Job) -> str:
    return job.priors[0].id[1:] if job.priors else ""


def test_contradictions_are_shown_each_and_where_there_is_none_what_was_unsupported() -> None:
    denies = evaluated(Told(lambda job: ["The heart is normal in size."]))["failures"]
    assert (denies["kind"], denies["count"]) == ("contradicted", 3)
    assert {one["study"] for one in denies["shown"]} == {"A0", "A1", "A2"}
    adds = evaluated(Told(lambda job: ["There is a pneumothorax."]))["failures"]
    assert adds["kind"] == "unsupported"
    assert adds["count"] == 9


def test_boards_with_numbers_are_the_same_each_time_and_hold_only_what_a_reader_may_measure() -> None:
    studies = [study(dataclasses.replace(WET, id=str(k))) for k in range(6)]
    boards = e.measured_boards(studies, 4)
    assert boards == e.measured_boards(studies, 4)
    assert [b.modality for b in boards] == ["CR", "CT", "CR", "CT"]
    for board in boards:
        assert [c.id for c in board.cards] == [f"E{n}" for n in range(1, len(board.cards) + 1)]
        measured = [c for c in board.cards if c.kind == "measurement"]
        assert measured
        assert all(c.value_text for c in measured)
    assert any(c.kind == "finding" for c in boards[0].cards)


def test_rows_for_a_promotion_are_what_it_asks_for_and_an_empty_board_is_an_empty_report() -> None:
    cases = [
        ("1", e.board(BIG), "Cough.", "CR"),
        ("2", (finding("E1", "Nodule", status="rejected"),), "", "CR"),
        ("3", e.board(WET), "", "CR"),
    ]
    rows = e.score_rows(Told(in_words), cases)  # type: ignore[arg-type]
    assert [r["study"] for r in rows] == ["1", "2", "3"]
    assert (rows[0]["given"], rows[0]["stated"]) == (1, 1)
    assert (rows[1]["given"], rows[1]["statements"]) == (0, 0)
    verdict = promotion.decide(rows, rows, rows, rows)  # every key that it reads is there
    assert not verdict.promote


@pytest.mark.usefixtures("one_thread")
def test_a_real_drafter_can_be_evaluated() -> None:
    rows = e.score_rows(Drafter(tiny.vision_language()), [("1", e.board(BIG), "", "CR")])
    assert rows[0]["given"] == 1
    assert rows[0]["statements"] >= 1


# ---- from the image alone --------------------------------------------------------------------------------------------


def reading(usable: bool = True, **p: float) -> Reading:
    found = tuple(Finding(name, name, "lungs", value, 0.3) for name, value in p.items())
    return Reading("eyes/1", "", Quality(1.0, 1.0, 0.0, 0.0, usable), found)


def test_what_reaches_its_threshold_becomes_a_card_and_nothing_of_a_refused_image_does() -> None:
    cards = evaluate_pictures.proposed(reading(Pneumonia=0.5, Atelectasis=0.3, Edema=0.29))
    assert [(c.id, c.statement, c.status, c.probability) for c in cards] == [
        ("E1", "Pneumonia", "proposed", 0.5),
        ("E2", "Atelectasis", "proposed", 0.3),
    ]
    assert evaluate_pictures.proposed(reading(usable=False, Pneumonia=0.9)) == ()


def test_only_supported_sentences_state_a_label() -> None:
    labels = (finding("a", "Pneumonia"), finding("b", "Pleural Effusion"))
    board = evaluate_pictures.proposed(reading(Pneumonia=0.5))
    draft = Draft(drafted(board, "Possible pneumonia.", "There is an effusion."), WRITER)
    assert evaluate_pictures.stated(draft, labels) == [True, False]
    assert evaluate_pictures.stated(None, labels) == [False, False]


def test_always_normal_has_no_f1_and_a_fair_accuracy() -> None:
    truth = np.zeros((40, 2), bool)
    truth[:4, 0] = True
    patients = [f"p{k // 2}" for k in range(40)]
    normal = evaluate_pictures.score(truth, np.zeros_like(truth), patients, ["x", "y"])
    assert (normal["f1"], normal["recall"], normal["accuracy"], normal["exact"]) == (0.0, 0.0, 0.95, 0.9)
    right = evaluate_pictures.score(truth, truth, patients, ["x", "y"])
    assert (right["f1"], right["macro_f1"], right["precision"]) == (1.0, 1.0, 1.0)
    half = evaluate_pictures.score(truth, truth & (np.arange(40)[:, None] % 2 == 0), patients, ["x", "y"])
    assert half["recall"] == 0.5
    assert half["per_label"]["x"] == {"positives": 4, "said": 2, "precision": 1.0, "recall": 0.5, "f1": 0.6667}


# ---- the page --------------------------------------------------------------------------------------------------------


def test_a_record_makes_the_page_with_its_plots_and_copies_nothing_of_the_corpus(tmp_path: Path) -> None:
    result = evaluated(Told(lambda job: [*in_words(job), "There is a pneumothorax | <b>."])) | {"index": "abc"}
    truth = np.eye(5, dtype=bool)
    one_system = evaluate_pictures.score(truth, truth, list("ppqrs"), list("vwxyz"))
    checked = {"drafts": 5, "statements": 5, "unsupported_rate": 0.0, "contradicted_rate": 0.0}
    result["pictures"] = {
        "systems": dict.fromkeys(evaluation_report.PICTURE_NAMES, one_system | checked),
        "images": 5,
        "patients": 4,
        "labels": list("vwxyz"),
        "without_card": 1,
        "refused_by_quality_gate": 0,
        "cards": 6,
        "sees": True,
        "model": "eyes/1",
        "data": "Somewhere",
        "agrees_with_head": 1.0,
        "agrees_without_picture": 0.9,
    }
    path = evaluation_report.record(result, tmp_path / "evaluation.json", tmp_path / "docs")
    kept = json.loads(path.read_text(encoding="utf-8"))
    page = (tmp_path / "docs" / evaluation_report.PAGE).read_text(encoding="utf-8")
    assert page == evaluation_report.page(kept)
    for name in (evaluation_report.PLOT, evaluation_report.PICTURES_PLOT):
        assert name in page
        assert (tmp_path / "docs" / name).stat().st_size > 1000
    assert "~~There is a pneumothorax \\| \\<b\\>.~~" in page
    assert "Cough." not in page
    assert "No effusion." not in page
    assert "Cough." not in path.read_text()


def test_what_ships_is_what_the_command_recorded() -> None:
    """The page is made again from the recorded figures and comes out as it stands, of the adapter that ships."""
    kept = json.loads(evaluation_report.RECORD.read_text(encoding="utf-8"))
    page = (evaluation_report.DOCS / evaluation_report.PAGE).read_text(encoding="utf-8")
    assert page == evaluation_report.page(kept)
    assert kept["adapter"] == promotion.listed(Path("/nonexistent"))[0].label
