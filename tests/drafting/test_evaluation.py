"""The drafting figures: what is counted, and that the lazy baselines are lazy."""

from __future__ import annotations

import pytest

from core_models.drafting import evaluation as e
from core_models.drafting import verify
from core_models.drafting.dataset import SourceReport
from core_models.drafting.evidence import Statement

BIG = SourceReport("A", "Cough.", ("The heart is enlarged.", "No effusion."), ("Cardiomegaly.",), ("Cardiomegaly",))
WET = SourceReport("B", "", ("Small left pleural effusion.",), (), ("Pleural Effusion/left/small",))
NORMAL = SourceReport("C", "", ("The lungs are clear.",), ("No acute disease.",), ("normal",))
UNREAD = SourceReport("D", "", ("Something.",), (), ("No Indexing",))


def perfect(report: SourceReport, cards) -> tuple[Statement, ...]:
    """The report itself, each sentence citing every card."""
    ids = tuple(c.id for c in cards)
    texts = (*report.findings, *report.impression)
    return tuple(
        verify.check(Statement(f"s{n}", "findings", "other", t, ids, template=t), cards) for n, t in enumerate(texts)
    )


def silent(report: SourceReport, cards) -> tuple[Statement, ...]:
    return ()


def test_the_board_holds_the_headings_and_says_that_the_rest_is_normal() -> None:
    assert [c.statement for c in e.board(BIG)] == ["Cardiomegaly", "otherwise normal"]
    assert [c.statement for c in e.board(NORMAL)] == ["normal"]
    assert [r.id for r in e.usable([BIG, UNREAD, NORMAL])] == ["A", "C"]


def test_the_report_itself_scores_one_and_silence_nothing() -> None:
    result = e.evaluate([BIG, WET, NORMAL], {"perfect": perfect, "silent": silent})
    assert result["studies"] == 3
    whole = result["systems"]["perfect"]["all"]
    assert (whole["finding_recall"], whole["finding_precision"]) == (1.0, 1.0)
    assert (whole["unsupported_rate"], whole["contradicted_rate"]) == (0.0, 0.0)
    assert whole["rouge_l"] == pytest.approx(1.0)
    none = result["systems"]["silent"]["all"]
    assert none["finding_recall"] == 0.0
    assert none["finding_precision"] is None
    assert result["systems"]["perfect"]["normal"]["studies"] == 1
    assert result["systems"]["perfect"]["non_normal"]["studies"] == 2


def test_a_wrong_finding_costs_precision_and_is_unsupported() -> None:
    def wrong(report: SourceReport, cards) -> tuple[Statement, ...]:
        text = "There is a large pneumothorax."
        return (verify.check(Statement("s1", "findings", "pleura", text, ("E1",), template=text), cards),)

    row = e.evaluate([BIG], {"wrong": wrong})["systems"]["wrong"]["all"]
    assert (row["finding_recall"], row["finding_precision"], row["unsupported_rate"]) == (0.0, 0.0, 1.0)


def test_the_nearest_label_is_copied_word_for_word() -> None:
    write = e.nearest_label([WET, BIG])
    other = SourceReport("T", "", ("x",), (), ("Cardiomegaly", "Aorta/tortuous"))
    assert [s.text for s in write(other, e.board(other))] == [*BIG.findings, *BIG.impression]


def test_the_constant_is_the_same_for_everybody() -> None:
    write = e.constant_normal([NORMAL, NORMAL, BIG])
    assert [s.text for s in write(BIG, e.board(BIG))] == [s.text for s in write(WET, e.board(WET))]
    assert [s.text for s in write(BIG, e.board(BIG))] == ["The lungs are clear.", "No acute disease."]


def test_intervals_hold_the_rate_and_narrow_with_more_studies() -> None:
    def half(report: SourceReport, cards) -> tuple[Statement, ...]:
        return perfect(report, cards) if int(report.id) % 2 else ()

    def many(n: int) -> list[SourceReport]:
        return [SourceReport(str(k), "", BIG.findings, (), BIG.terms) for k in range(n)]

    def width(n: int) -> float:
        row = e.evaluate(many(n), {"half": half})["systems"]["half"]["all"]
        low, high = row["ci95"]["finding_recall"]
        assert low <= row["finding_recall"] == 0.5 <= high
        return high - low

    assert width(200) < width(20)


def test_twins_of_training_reports_are_not_evaluated_on() -> None:
    twin = SourceReport("T", "Other.", ("no effusion", "The HEART is enlarged."), ("Cardiomegaly",), ("Cardiomegaly",))
    assert [r.id for r in e.without_twins([twin, WET, NORMAL], [BIG, NORMAL])] == ["B"]
