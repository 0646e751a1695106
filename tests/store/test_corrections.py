"""What signing keeps of a draft: one outcome a statement, nothing of the patient, gone with the study."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from core_models.drafting.evidence import DraftModel, Evidence, Statement
from tests.store.samples import MODEL, card, statement, study
from webapp.store import encoding, schema

HEART = Evidence("", "finding", "heart", "Cardiomegaly", source="reader", status="accepted")


@pytest.fixture
def study_id(store):
    study_id = store.add_study(study())
    store.add_evidence(study_id, HEART)  # E1
    store.add_evidence(study_id, card(status="accepted"))  # E2
    return study_id


def said(ident: str, text: str, **values) -> Statement:
    return statement(ident, text, region="heart", template=text, **values)


def drafted(store, study_id, *statements: Statement, model: DraftModel = MODEL) -> None:
    revision = store.report(study_id).revision
    store.save_report(study_id, statements=statements, free_text="", base_revision=revision, model=model)


def sign(store, study_id, *statements: Statement) -> None:
    revision = store.report(study_id).revision
    state = store.save_report(study_id, statements=statements, free_text="", base_revision=revision)
    store.sign(study_id, author="Dr A", base_revision=state.revision)


def outcomes(store) -> dict[str, str]:
    return {row.statement_id: row.outcome for row in store.corrections()}


def test_every_statement_of_the_draft_gets_its_outcome(store, study_id):
    kept, edited, removed = said("s1", "Big heart."), said("s2", "Clear lungs."), said("s3", "No mass.")
    struck, restored = (said(f"s{n}", f"Odd {n}.", support="unsupported") for n in (4, 5))
    reverted = said("s6", "Normal bones.")
    drafted(store, study_id, kept, edited, removed, struck, restored, reverted)
    own = Statement("h1", "impression", "other", "Cardiomegaly.")
    sign(
        store,
        study_id,
        kept,
        edited.edited("The lungs are clear."),
        replace(restored, restored=True),
        reverted.edited("Bones.").edited("Normal bones."),
        own,
    )
    assert outcomes(store) == {
        "s1": "kept",
        "s2": "edited",
        "s3": "removed",
        "s4": "struck",
        "s5": "restored",
        "s6": "kept",
        "h1": "added",
    }
    rows = {row.statement_id: row for row in store.corrections()}
    assert (rows["s2"].drafted, rows["s2"].signed) == ("Clear lungs.", "The lungs are clear.")
    assert (rows["s3"].drafted, rows["s3"].signed) == ("No mass.", "")
    assert (rows["h1"].drafted, rows["h1"].signed, rows["h1"].section) == ("", "Cardiomegaly.", "impression")
    assert rows["s1"].concepts == ("cardiomegaly",), "of the cards it cites"
    assert rows["s1"].evidence == ("E1",)
    assert rows["h1"].concepts == ()
    written = {(row.model, row.adapter, row.index_digest) for row in rows.values()}
    assert written == {(MODEL.name, MODEL.adapter, MODEL.index_digest)}
    assert {row.signed_at for row in rows.values()} == {store.versions(study_id)[-1].created_at}


def test_a_live_number_that_was_filled_in_anew_is_still_the_models_sentence(store, study_id):
    said_then = statement("s1", "The liver has 1512 ml.", evidence=("E2",), template="The liver has {E2}.")
    drafted(store, study_id, said_then)
    sign(store, study_id, replace(said_then, text="The liver has 1600 ml."))
    assert outcomes(store) == {"s1": "kept"}


def test_each_statement_is_the_work_of_the_draft_that_wrote_it(store, study_id):
    other = replace(MODEL, adapter="adapter-2")
    first, untouched = said("s1", "Big heart."), said("s2", "Replaced.")
    drafted(store, study_id, first, untouched)
    mine = first.edited("The heart is large.")
    store.save_report(
        study_id, statements=[mine, untouched], free_text="", base_revision=store.report(study_id).revision
    )
    again = said("s3", "No effusion.")
    drafted(store, study_id, mine, again, model=other)
    sign(store, study_id, mine, again)
    rows = {row.statement_id: (row.outcome, row.adapter, row.drafted) for row in store.corrections()}
    assert rows == {
        "s1": ("edited", "adapter-1", "Big heart."),
        "s3": ("kept", "adapter-2", "No effusion."),
    }, "what the second draft replaced was not judged by the reader"


def test_a_restored_statement_stays_the_work_of_the_draft_before(store, study_id):
    odd = said("s1", "Odd heart.", support="unsupported")
    drafted(store, study_id, odd)
    mine = replace(odd, restored=True)
    new = said("s2", "Clear lungs.")
    drafted(store, study_id, mine, new, model=replace(MODEL, adapter="adapter-2"))
    sign(store, study_id, mine, new)
    rows = {row.statement_id: (row.outcome, row.adapter) for row in store.corrections()}
    assert rows == {"s1": ("restored", "adapter-1"), "s2": ("kept", "adapter-2")}


def test_a_report_that_no_model_drafted_teaches_nothing(store, study_id):
    sign(store, study_id, Statement("h1", "findings", "other", "Clear lungs."))
    assert store.corrections() == ()
    assert store.signed_cases() == ()


def test_the_case_makes_a_pair_again_without_the_board(store, study_id):
    store.set_indication(study_id, "Cough.")
    store.set_evidence_status(study_id, "E2", "rejected")
    one = said("s1", "Big heart.", note="why", copied_from="P1")
    drafted(store, study_id, one)
    sign(store, study_id, one)
    (case,) = store.signed_cases()
    assert (case.study_id, case.indication, case.modality) == (study_id, "Cough.", "CT")
    assert [(c.id, c.kind, c.region, c.statement, c.status, c.unit) for c in case.cards] == [
        ("E1", "finding", "heart", "Cardiomegaly", "accepted", ""),
        ("E2", "measurement", "abdomen", "liver: volume", "rejected", "ml"),
    ]
    assert all(c.location is None and c.segment_id is None for c in case.cards)
    assert [(s.text, s.evidence, s.step, s.note) for s in case.statements] == [("Big heart.", ("E1",), one.step, "")]


def test_no_text_that_is_kept_names_the_patient(store):
    study_id = store.add_study(study(patient="PID-77", accession="ACC-9"))
    store.set_indication(study_id, "Anna Müller, born 2.1.1960, PID-77: cough.")
    store.add_evidence(study_id, replace(HEART, statement="Cardiomegaly of Anna"))
    one = said("s1", "Mrs Müller has a big heart.")
    drafted(store, study_id, one, said("s2", "ACC-9 removed."))
    sign(store, study_id, one, Statement("h1", "findings", "other", "Told anna on 19600102."))
    with store._db.read() as c:
        tables = (schema.corrections, schema.signed_cases)
        text = encoding.dumps([[list(row) for row in c.execute(sa.select(t))] for t in tables]).casefold()
    assert "big heart" in text
    for word in ("anna", "müller", encoding.dumps("müller")[1:-1], "pid-77", "acc-9", "1960", "dr a"):
        assert word not in text, word
    assert outcomes(store)["s1"] == "kept", "compared before anything was taken out"


def test_studies_of_one_patient_bear_one_number_and_unnamed_ones_their_own(store):
    for n, patient in enumerate(("P1", "P2", "P1", "", "")):
        study_id = store.add_study(study(uid=f"1.{n}", patient=patient))
        drafted(store, study_id, said("s1", "Big heart."))
        sign(store, study_id, said("s1", "Big heart."))
    numbers = [case.patient for case in store.signed_cases()]
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 4


def test_what_signing_kept_goes_with_the_study_and_is_not_there_when_signing_fails(store, study_id, monkeypatch):
    drafted(store, study_id, said("s1", "Big heart."))

    def broken(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(store, "_post", broken)
        with pytest.raises(RuntimeError):
            store.sign(study_id, author="Dr A", base_revision=1)
    assert (store.corrections(), store.signed_cases()) == ((), ())
    store.sign(study_id, author="Dr A", base_revision=1)
    assert len(store.corrections()) == len(store.signed_cases()) == 1
    store.delete_study(study_id)
    assert (store.corrections(), store.signed_cases()) == ((), ())


def test_a_signed_study_of_before_has_none_and_stays(store, study_id):
    drafted(store, study_id, said("s1", "Big heart."))
    store.sign(study_id, author="Dr A", base_revision=1)
    store._db.migrate("0002")
    store._db.migrate()
    assert store.corrections() == ()
    assert store.report(study_id).state == "signed"
