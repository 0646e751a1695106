"""The measurement of the search: on a corpus made so that the right answer is known."""

from __future__ import annotations

import pytest

from core_models.drafting import findings as f
from retrieval import evaluate, foreign, index
from retrieval.embedding import TextEncoder
from retrieval.report import CorpusReport
from retrieval.search import Searcher
from retrieval.split import split_of
from tests.retrieval.conftest import WordEncoder, report

KINDS = (
    ("Cardiomegaly/mild", "The heart is enlarged."),
    ("Pleural Effusion/left", "Left pleural effusion."),
    ("Nodule/lung/right", "A nodule on the right."),
    ("Scoliosis/thoracic vertebrae", "Scoliosis."),
)


def corpus(count: int = 400) -> list[CorpusReport]:
    """Every second report is normal; the others have two findings, and indications that say nothing of them."""
    out = []
    for n in range(count):
        first, second = KINDS[n % 4], KINDS[(n + 1 + n % 3) % 4]
        if n % 2:
            out.append(report(f"S{n}", f"Clear lungs, case {n}.", terms=("normal",), indication=f"Reason{n % 13}."))
        else:
            text = f"{first[1]} {second[1]} Case {n}."
            out.append(report(f"S{n}", text, terms=(first[0], second[0]), indication=f"Reason{n % 13}."))
    return out


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    words, reports = WordEncoder(), corpus()
    built = index.build(reports, words, tmp_path_factory.mktemp("index"))
    return evaluate.run(Searcher(built, words), reports)


def test_only_test_studies_are_measured_and_only_training_studies_choose_the_weight(result: dict) -> None:
    reports = corpus()
    test = [r for r in reports if split_of(r.study_id) == "test"]
    assert result["queries"][evaluate.ALL]["studies"] == len(test) > 20
    two = [r for r in test if len(r.terms) == 2]
    assert result["queries"][evaluate.MISSING]["studies"] == len(two)
    assert 0 < result["weights_chosen"]["studies"] < len([r for r in reports if split_of(r.study_id) == "train"])
    assert result["weights_chosen"]["findings_to_text"] in evaluate.GRID


def test_the_search_beats_the_lazy_ways_where_it_is_told_the_findings(result: dict) -> None:
    ways = result["queries"][evaluate.ALL]["ways"]
    best, low = ways["fused, as shipped"]["all"]["jaccard@1"], ways["random report"]["all"]["jaccard@1"]
    assert best["mean"] > 0.95
    assert best["interval"][0] > low["interval"][1]
    commonest = ways["commonest report"]
    assert commonest["not_normal"]["jaccard@1"]["mean"] < 0.5 < best["mean"]
    alone = result["queries"][evaluate.INDICATION]["ways"]
    assert alone["terms"]["all"]["jaccard@5"]["mean"] == 0.0, "there are no terms to ask with"
    assert alone["fused, as shipped"]["all"] == alone["text"]["all"]


def test_what_is_foreign_has_no_precedent(result: dict) -> None:
    said = result["no_close_precedent"]
    assert said["foreign"]["queries"] == len(foreign.SEEN) >= 40
    assert said["foreign"]["mean"] > 0.9 > said[evaluate.ALL]["mean"]
    assert 0.0 <= said["foreign"]["interval"][0] <= said["foreign"]["mean"] <= said["foreign"]["interval"][1] <= 1.0


def test_few_priors_hold_what_five_hold(result: dict) -> None:
    chosen = result["chosen"]
    assert set(chosen["priors"]) <= {"0", "1", "2", "3", "4", "5"}
    assert sum(chosen["priors"].values()) == result["queries"][evaluate.ALL]["studies"]
    assert chosen["recall"]["mean"] >= chosen["recall, first five"]["mean"] - 0.1
    assert result["search_ms_p50"] <= result["search_ms_p95"]


def test_agreement_is_worked_out_by_hand() -> None:
    wanted = frozenset("ab")
    assert evaluate._agree([frozenset("ab")], wanted) == 1.0
    assert evaluate._agree([frozenset("a"), frozenset("abc")], wanted) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert evaluate._agree([], wanted) == 0.0
    assert evaluate._concepts(report("R", "x", terms=("normal",))) == {f.NORMAL_TERM}
    assert evaluate._concepts(report("R", "x", terms=("Cardiomegaly/mild", "normal"))) == {"cardiomegaly"}
    assert evaluate._asked(report("R", "x", terms=("Cardiomegaly",)), evaluate.MISSING) is None
    dropped = evaluate._asked(report("R", "x", terms=("Cardiomegaly", "Scoliosis")), evaluate.MISSING)
    assert dropped in {("Cardiomegaly", f.OTHERWISE_NORMAL), ("Scoliosis", f.OTHERWISE_NORMAL)}


def test_every_foreign_query_is_written_once_with_its_terms() -> None:
    every = [*foreign.SEEN, *foreign.UNSEEN]
    assert len(set(every)) == len(every)
    assert all(terms and indication for indication, terms in every)


def test_the_real_index_says_so_for_what_is_foreign(real_index: index.Index, encoder: TextEncoder) -> None:
    shown = [evaluate._shown(Searcher(real_index, encoder), *query) for query in foreign.SEEN[:12]]
    assert sum(not any(p.close for p in priors) for priors in shown) >= 10
