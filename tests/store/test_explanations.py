"""One explanation for each draft's version: replaced by the next, gone with the study, kept after signing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_models.errors import NotFound
from tests.store.samples import MODEL, statement, study
from webapp.store.explanations import ExplanationRow


@pytest.fixture
def study_id(store) -> str:
    return store.add_study(study())


def row(study_id: str, **values) -> ExplanationRow:
    default = ExplanationRow(study_id, 1, "k" * 64, "m", "a@1", "2026-01-01T00:00:00.000+00:00", 0.5, {"effects": [1]})
    return replace(default, **values)


def test_what_is_put_is_found_by_its_version(store, study_id):
    assert store.explanation(study_id, 1) is None
    first, second = row(study_id), row(study_id, version=2, faithfulness=None)
    store.put_explanation(first)
    store.put_explanation(second)
    assert store.explanation(study_id, 1) == first
    assert store.explanation(study_id, 2) == second


def test_the_newest_answer_replaces_the_one_before(store, study_id):
    store.put_explanation(row(study_id))
    newer = row(study_id, key="l" * 64, faithfulness=1.0, content={})
    store.put_explanation(newer)
    assert store.explanation(study_id, 1) == newer


def test_a_signed_report_may_be_asked_about(store, study_id):
    store.save_report(study_id, statements=[statement()], free_text="", base_revision=0, model=MODEL)
    store.sign(study_id, author="Dr A", base_revision=1)
    before = store.versions(study_id)
    store.put_explanation(row(study_id))
    assert store.explanation(study_id, 1) == row(study_id)
    assert store.versions(study_id) == before


def test_it_goes_with_the_study(store, study_id):
    store.put_explanation(row(study_id))
    store.delete_study(study_id)
    with pytest.raises(NotFound):
        store.explanation(study_id, 1)
    with pytest.raises(NotFound):
        store.put_explanation(row(study_id))
    again = store.add_study(study())
    assert store.explanation(again, 1) is None
