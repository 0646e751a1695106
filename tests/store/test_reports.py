"""Reports through the store: nothing lost between two editors, nothing changed after signing."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from core_models.errors import Conflict, NotFound, Refused, TooLarge
from tests.store.samples import MODEL, card, settings_in, statement, study
from webapp.store import Store, diff, encoding, report_text, schema


@pytest.fixture
def study_id(store):
    return store.add_study(study())


def save(store, study_id, text, revision, **more):
    statements = [statement(text=text)] if text else []
    return store.save_report(study_id, statements=statements, free_text="", base_revision=revision, **more)


def test_a_report_comes_back_as_it_was(store, study_id):
    assert store.report(study_id).revision == 0
    kept = [statement(), statement(id="s2", step=None, section="impression", stale=True, note="why")]
    state = store.save_report(
        study_id, statements=kept, free_text="More.", base_revision=0, unseen=["No prior."], model=MODEL
    )
    assert state == store.report(study_id)
    assert state.statements == tuple(kept)
    assert (state.revision, state.unseen, state.model, state.state) == (1, ("No prior.",), MODEL, "drafted")
    edited = store.save_report(study_id, statements=kept[:1], free_text="", base_revision=1)
    assert (edited.unseen, edited.model, edited.revision) == (("No prior.",), MODEL, 2)
    assert store.save_report(study_id, statements=kept[:1], free_text="", base_revision=2).revision == 2
    assert save(store, study_id, "", 2).state == "new"


def test_two_editors_conflict_and_nothing_is_lost(store, study_id, tmp_path):
    other = Store(settings_in(tmp_path))
    save(store, study_id, "mine", 0)
    with pytest.raises(Conflict):
        save(other, study_id, "theirs", 0)
    assert other.report(study_id).statements[0].text == "mine"
    assert save(other, study_id, "theirs", 1).revision == 2
    other.close()


def test_of_many_editors_at_once_exactly_one_wins(store, study_id):
    won, lost, other = [], [], []

    def edit(n):
        try:
            save(store, study_id, f"editor {n}", 0)
            won.append(f"editor {n}")
        except Conflict:
            lost.append(n)
        except Exception as e:
            other.append(e)

    threads = [threading.Thread(target=edit, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(won), len(lost), other) == (1, 7, [])
    assert store.report(study_id).statements[0].text == won[0]


def test_versions_hold_the_draft_the_first_edit_and_what_was_signed(store, study_id):
    save(store, study_id, "draft", 0, model=MODEL)
    save(store, study_id, "first edit", 1)
    save(store, study_id, "second edit", 2)
    store.sign(study_id, author="Dr A", base_revision=3)
    versions = store.versions(study_id)
    assert [(v.number, v.kind, v.author, v.statements[0].text) for v in versions] == [
        (1, "draft", "small-model", "draft"),
        (2, "draft", "reader", "first edit"),
        (3, "signed", "Dr A", "second edit"),
    ]
    assert store.version(study_id, 2) == versions[1]
    with pytest.raises(NotFound):
        store.version(study_id, 4)


def test_a_new_draft_over_unsaved_edits_keeps_them_as_a_version(store, study_id):
    save(store, study_id, "by hand", 0)
    save(store, study_id, "draft", 1, model=MODEL)
    save(store, study_id, "edit 1", 2)
    save(store, study_id, "edit 2", 3)
    save(store, study_id, "draft again", 4, model=replace(MODEL, seed=8))
    assert [v.statements[0].text for v in store.versions(study_id)] == [
        "by hand",
        "draft",
        "edit 1",
        "edit 2",
        "draft again",
    ]


def test_signing_freezes_everything_and_fills_the_outbox(store, study_id):
    store.set_indication(study_id, "cough")
    store.add_evidence(study_id, card())
    save(store, study_id, "final", 0)
    version = store.sign(study_id, author=" Dr A ", base_revision=1)
    assert (version.author, version.indication, [e.id for e in version.evidence]) == ("Dr A", "cough", ["E1"])
    assert len(version.sha256) == 64
    revision = store.report(study_id).revision
    changes = (
        lambda: save(store, study_id, "other", revision),
        lambda: save(store, study_id, "other", revision, model=MODEL),
        lambda: store.sign(study_id, author="Dr B", base_revision=revision),
        lambda: store.set_indication(study_id, "x"),
        lambda: store.add_evidence(study_id, card()),
        lambda: store.put_evidence(study_id, card(id="E1", value=1.0)),
        lambda: store.set_evidence_status(study_id, "E1", "rejected"),
        lambda: store.delete_evidence(study_id, "E1"),
        lambda: store.set_priors(study_id, []),
    )
    for change in changes:
        with pytest.raises(Conflict):
            change()
    assert store.versions(study_id) == (version,)
    assert store.report(study_id).state == "signed"
    assert store.report(study_id).signed_version == version.number
    (row,) = store.outbox()
    assert (row.study_id, row.version, row.kind) == (study_id, version.number, "signed")
    store.outbox_done(row.id)
    assert store.outbox() == ()


def test_a_failure_in_the_signing_transaction_leaves_it_unsigned(store, study_id, monkeypatch):
    save(store, study_id, "final", 0)

    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(store, "_post", broken)
    with pytest.raises(RuntimeError):
        store.sign(study_id, author="Dr A", base_revision=1)
    assert store.report(study_id).state == "drafted"
    assert store.versions(study_id) == ()
    assert store.outbox() == ()


def test_signing_needs_an_author_a_text_and_the_current_revision(store, study_id):
    with pytest.raises(Refused, match="empty"):
        store.sign(study_id, author="Dr A", base_revision=0)
    save(store, study_id, "final", 0)
    with pytest.raises(Refused, match="name"):
        store.sign(study_id, author="  ", base_revision=1)
    with pytest.raises(Conflict):
        store.sign(study_id, author="Dr A", base_revision=0)


def test_addenda_follow_signing_and_leave_the_signed_text(store, study_id):
    save(store, study_id, "final", 0)
    with pytest.raises(Conflict, match="not signed"):
        store.addendum(study_id, author="Dr A", text="more")
    signed = store.sign(study_id, author="Dr A", base_revision=1)
    with pytest.raises(Refused):
        store.addendum(study_id, author="Dr A", text=" ")
    store.addendum(study_id, author="Dr B", text="first")
    last = store.addendum(study_id, author="Dr C", text="second")
    assert last.statements == signed.statements
    assert [(a.author, a.text) for a in last.addenda] == [("Dr B", "first"), ("Dr C", "second")]
    assert store.versions(study_id)[0] == signed
    assert [r.kind for r in store.outbox()] == ["signed", "addendum", "addendum"]
    assert "ADDENDUM by Dr C\nsecond" in report_text(last)


def test_a_deleted_signed_study_tells_the_index(store, study_id):
    save(store, study_id, "final", 0)
    store.sign(study_id, author="Dr A", base_revision=1)
    store.delete_study(study_id)
    assert [(r.kind, r.study_id) for r in store.outbox()] == [("deleted", study_id)]


def test_the_digest_is_of_the_content(store, study_id):
    save(store, study_id, "final", 0)
    version = store.sign(study_id, author="Dr A", base_revision=1)
    with store._db.read() as c:
        content = c.scalar(sa.select(schema.versions.c.content))
    assert encoding.digest(content) == version.sha256
    assert encoding.digest({**content, "free_text": "x"}) != version.sha256


def test_limits(store, study_id):
    with pytest.raises(TooLarge):
        save(store, study_id, "x" * 100_001, 0)
    with pytest.raises(TooLarge):
        store.save_report(study_id, statements=[statement(f"s{n}") for n in range(501)], free_text="", base_revision=0)
    with pytest.raises(Refused, match="same id"):
        store.save_report(study_id, statements=[statement(), statement()], free_text="", base_revision=0)
    assert store.report(study_id).revision == 0


def test_the_difference_puts_both_texts_together_again(store, study_id):
    save(store, study_id, "The liver is normal in size.", 0, model=MODEL)
    save(store, study_id, "The liver is enlarged (18.2 cm).", 1)
    a, b = store.versions(study_id)
    steps = diff(a, b)
    assert "".join(t for op, t in steps if op != "insert") == report_text(a)
    assert "".join(t for op, t in steps if op != "delete") == report_text(b)
    assert steps[0] == ("same", "FINDINGS\nThe liver is ")
    assert ("insert", "enlarged") in steps


def test_the_audit_trail_names_actions_only(store, study_id):
    store.audit("export pdf", study_id, "x" * 500)
    with store._db.read() as c:
        rows = c.execute(sa.select(schema.audit)).all()
    assert [r.action for r in rows] == ["upload", "export pdf"]
    assert not any("Müller" in r.detail or "P1" in r.detail for r in rows)
