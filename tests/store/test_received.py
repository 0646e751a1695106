"""Reports from elsewhere: kept as they came, once each, beside the study's own report, and gone with the study."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from core_models.errors import Conflict, NotFound, Refused
from core_models.study.received import Received
from tests.store.samples import MODEL, statement, study
from webapp.store import received as module
from webapp.store import schema

REPORT = Received("Dr A", True, ("Clear lungs.",), ("Normal.",), "One.\nTwo.", ("Liver: volume 1500 ml.",))


@pytest.fixture
def study_id(store) -> str:
    return store.add_study(study())


def test_it_is_read_back_as_it_came_the_latest_first_and_once(store, study_id):
    assert store.add_received(study_id, uid="2.25.1", date="20230101", report=REPORT)
    assert store.add_received(study_id, uid="2.25.2", date="20240101", report=REPORT)
    assert store.add_received(study_id, uid="2.25.1", date="20250101", report=REPORT) == ""
    rows = store.received(study_id)
    assert [(row.uid, row.date, row.report) for row in rows] == [
        ("2.25.2", "20240101", REPORT),
        ("2.25.1", "20230101", REPORT),
    ]
    assert store.report(study_id).statements == ()


def test_it_is_removed_alone_or_with_its_study(store, study_id):
    first = store.add_received(study_id, uid="2.25.1", date="", report=REPORT)
    store.add_received(study_id, uid="2.25.2", date="", report=REPORT)
    assert store.delete_received(first) == study_id
    with pytest.raises(NotFound):
        store.delete_received(first)
    store.delete_study(study_id)
    with store._db.read() as c:
        assert c.scalar(sa.select(sa.func.count()).select_from(schema.received)) == 0


def test_a_signed_study_and_a_full_one_take_none(store, study_id, monkeypatch):
    monkeypatch.setattr(module, "MAX_RECEIVED", 1)
    kept = store.add_received(study_id, uid="2.25.1", date="", report=REPORT)
    with pytest.raises(Refused, match="at most 1 reports"):
        store.add_received(study_id, uid="2.25.2", date="", report=REPORT)
    saved = store.save_report(study_id, statements=[statement()], free_text="", base_revision=0, model=MODEL)
    store.sign(study_id, author="Dr B", base_revision=saved.revision)
    with pytest.raises(Conflict):
        store.add_received(study_id, uid="2.25.3", date="", report=REPORT)
    with pytest.raises(Conflict):
        store.delete_received(kept)
