"""As many priors as are of use: one for what is said once, more for more findings, and never support that denies."""

from __future__ import annotations

from dataclasses import replace

from retrieval.choice import Finding, chosen
from retrieval.report import Prior
from tests.retrieval.conftest import report

HEART, EFFUSION, NODULE = (
    Finding("E1", "Cardiomegaly/mild"),
    Finding("E2", "Pleural Effusion/left/small"),
    Finding("E3", "Nodule/lung/right"),
)


def hit(text: str, score: float = 0.8, close: bool = True, **fields: object) -> Prior:
    return Prior(report(text, text, **fields), score, (text,), close=close)


def ids(priors: tuple[Prior, ...]) -> list[str]:
    return [p.report.findings for p in priors]


def test_one_is_enough_where_it_states_all() -> None:
    both = "The heart is enlarged. Small left pleural effusion."
    hits = [hit(both), hit("The heart is enlarged."), hit("Small left effusion.")]
    (only,) = chosen(hits, [HEART, EFFUSION])
    assert only.report.findings == both
    assert (only.stance, only.close) == ("supports", True)
    assert only.said == (("E1", "The heart is enlarged."), ("E2", "Small left pleural effusion."))


def test_each_further_one_adds_a_finding_however_far_down_it_stands() -> None:
    hits = [hit(f"The heart is enlarged, case {n}.") for n in range(20)] + [hit("Small left pleural effusion.")]
    shown = chosen(hits, [HEART, EFFUSION])
    assert ids(shown) == ["The heart is enlarged, case 0.", "Small left pleural effusion."]


def test_never_more_than_are_wanted_the_contradicting_one_included() -> None:
    cards = [
        Finding(f"E{n}", term)
        for n, term in enumerate(
            ["Cardiomegaly", "Pleural Effusion", "Nodule", "Scoliosis", "Pneumothorax", "Hernia, Hiatal"], 1
        )
    ]
    texts = ["Cardiomegaly.", "Effusion.", "A nodule.", "Scoliosis.", "Pneumothorax.", "Hiatal hernia."]
    hits = [*map(hit, texts), hit("No pneumothorax.")]
    assert ids(chosen(hits[:-1], cards)) == texts[:5]
    shown = chosen(hits, cards)
    assert ids(shown) == [*texts[:4], "No pneumothorax."]
    assert [p.stance for p in shown] == ["supports"] * 4 + ["contradicts"]


def test_the_nearest_one_that_denies_a_card_stands_beside_the_support_and_is_the_only_one() -> None:
    hits = [
        hit("The heart is enlarged. No pleural effusion.", 0.9),
        hit("The heart is normal in size. Small left pleural effusion.", 0.85),
        hit("The heart is enlarged.", 0.7),
        hit("Small left pleural effusion.", 0.6),
    ]
    shown = chosen(hits, [HEART, EFFUSION])
    assert [(p.report.findings, p.stance) for p in shown] == [
        ("The heart is enlarged.", "supports"),
        ("Small left pleural effusion.", "supports"),
        ("The heart is enlarged. No pleural effusion.", "contradicts"),
    ]
    assert shown[-1].said == (("E2", "No pleural effusion."),)


def test_where_every_precedent_denies_something_the_nearest_still_support() -> None:
    hits = [hit("The heart is enlarged. No pleural effusion."), hit("No pleural effusion. The lungs are clear.")]
    first, second = chosen(hits, [HEART, EFFUSION])
    assert (first.stance, first.said) == ("supports", (("E1", "The heart is enlarged."),))
    assert (second.stance, second.report.findings) == ("contradicts", "No pleural effusion. The lungs are clear.")


def test_where_none_is_close_the_nearest_is_shown_and_marked() -> None:
    hits = [hit("The heart is enlarged.", 0.3, close=False), hit("Small left effusion.", 0.2, close=False)]
    (only,) = chosen(hits, [HEART])
    assert (only.report.findings, only.close, only.stance) == ("The heart is enlarged.", False, "")
    assert chosen([], [HEART]) == ()


def test_what_states_no_finding_of_the_board_is_no_precedent_however_alike() -> None:
    (only,) = chosen([hit("The tube ends above the carina.", 0.9), hit("No pleural effusion.")], [EFFUSION])
    assert (only.report.findings, only.close) == ("The tube ends above the carina.", False)
    unknown = [Finding("E1", "Appendicitis")]
    assert not chosen([hit("The heart is enlarged.")], unknown)[0].close
    assert chosen([hit("As described.", terms=("Appendicitis",))], unknown)[0].close


def test_without_findings_on_the_board_each_tells_something_new() -> None:
    hits = [hit("The heart is enlarged."), hit("Cardiomegaly."), hit("Small left effusion."), hit("Clear lungs.")]
    assert ids(chosen(hits, [])) == ["The heart is enlarged.", "Small left effusion."]
    assert ids(chosen([hit("Clear lungs."), hit("Lungs are clear.")], [])) == ["Clear lungs."]
    assert ids(chosen(hits[:2], [Finding("E1", "No pneumothorax")])) == ["The heart is enlarged."]


def test_the_patient_s_own_earlier_report_is_always_of_use() -> None:
    own = replace(hit("The lungs are clear, as before."), same_patient=True)
    shown = chosen([hit("The heart is enlarged."), own], [HEART])
    assert ids(shown) == ["The heart is enlarged.", "The lungs are clear, as before."]
    assert ids(chosen([own], [HEART])) == ["The lungs are clear, as before."]
    far = replace(own, close=False)
    assert ids(chosen([hit("The heart is enlarged."), far], [HEART])) == ["The heart is enlarged."]
