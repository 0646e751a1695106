"""The board through the store: ids once given, statuses, and priors that are replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_models.drafting.evidence import Evidence
from core_models.errors import Conflict, NotFound, Refused
from retrieval.report import CorpusReport, Prior
from tests.store.samples import card, statement, study


@pytest.fixture
def study_id(store):
    return store.add_study(study())


def prior(report_id):
    report = CorpusReport(report_id, "S", "cough", "Clear lungs.", "Normal.", ("normal",), flags=("odd",))
    return Evidence("", "prior", "lungs", "Clear lungs.", source=f"report {report_id}"), Prior(report, 0.8, ("Clear.",))


def test_cards_come_back_and_ids_are_never_reused(store, study_id):
    first = store.add_evidence(study_id, card())
    second = store.add_evidence(study_id, card("spleen: volume", location=None, value=None))
    assert (first.id, second.id) == ("E1", "E2")
    assert store.evidence(study_id) == (first, second)
    store.delete_evidence(study_id, "E2")
    assert store.add_evidence(study_id, card()).id == "E3"
    assert store.add_evidence(study_id, replace(prior("R")[0])).id == "P1"
    with pytest.raises(Conflict):
        store.add_evidence(study_id, card(id="E2"))
    with pytest.raises(Refused):
        store.add_evidence(study_id, card(id="x; drop table"))


def test_status_and_value_change(store, study_id):
    store.add_evidence(study_id, card())
    assert store.set_evidence_status(study_id, "E1", "accepted").status == "accepted"
    changed = store.put_evidence(study_id, card(id="E1", value=1600.0, status="accepted"))
    assert store.evidence(study_id) == (changed,)
    for call in (
        lambda: store.set_evidence_status(study_id, "E9", "accepted"),
        lambda: store.put_evidence(study_id, card(id="E9")),
        lambda: store.delete_evidence(study_id, "E9"),
    ):
        with pytest.raises(NotFound):
            call()


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "x"}, {"region": "x"}, {"status": "x"}, {"value": float("nan")}, {"location": (0.0, 1.0, float("inf"))}],
)
def test_a_card_of_no_known_form_is_refused(store, study_id, wrong):
    with pytest.raises(Refused):
        store.add_evidence(study_id, card(**wrong))
    assert store.evidence(study_id) == ()
    with pytest.raises(Refused):
        store.set_evidence_status(study_id, "E1", "maybe")


def test_a_retired_card_keeps_its_id_its_place_and_its_verdict(store, study_id):
    store.add_evidence(study_id, card(status="accepted"))
    store.add_evidence(study_id, card("liver: mean", value=40.0))
    before = store.evidence(study_id)
    store.retire_evidence(study_id, "E1")
    assert store.evidence(study_id) == before[1:]
    assert store.retired_evidence(study_id) == before[:1]
    for change in (
        lambda: store.set_evidence_status(study_id, "E1", "rejected"),
        lambda: store.retire_evidence(study_id, "E1"),
    ):
        with pytest.raises(NotFound):
            change()
    store.put_evidence(study_id, before[0])
    assert (store.evidence(study_id), store.retired_evidence(study_id)) == (before, ())


def test_signing_lets_go_of_retired_cards(store, study_id):
    store.add_evidence(study_id, card())
    store.retire_evidence(study_id, "E1")
    store.save_report(study_id, statements=[statement(evidence=())], free_text="", base_revision=0)
    version = store.sign(study_id, author="Dr A", base_revision=1)
    assert (version.evidence, store.evidence(study_id), store.retired_evidence(study_id)) == ((), (), ())


def test_a_new_search_replaces_priors_but_not_those_accepted_or_cited(store, study_id):
    rows = store.set_priors(study_id, [prior("A"), prior("B"), prior("C")])
    assert [(r.evidence.id, r.prior.report.id) for r in rows] == [("P1", "A"), ("P2", "B"), ("P3", "C")]
    assert rows[0].prior == prior("A")[1]
    store.set_evidence_status(study_id, "P1", "accepted")
    store.save_report(study_id, statements=[statement(evidence=("P3",))], free_text="", base_revision=0)
    rows = store.set_priors(study_id, [prior("A"), prior("D")])
    assert [(r.evidence.id, r.prior.report.id) for r in rows] == [("P1", "A"), ("P3", "C"), ("P4", "D")]
    assert store.priors(study_id) == rows
    assert [e.id for e in store.evidence(study_id)] == ["P1", "P3", "P4"]


def test_a_failed_search_result_leaves_the_board_as_it_was(store, study_id):
    rows = store.set_priors(study_id, [prior("A")])
    with pytest.raises(Refused):
        store.set_priors(study_id, [prior("B"), (card(), prior("C")[1])])
    assert store.priors(study_id) == rows
