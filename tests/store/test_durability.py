"""kill -9, a locked database, a full disk, and migrations: what was stored stays whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from core_models.errors import Busy, ReadingRoomError
from tests.store.samples import add_segment, card, mask, series, settings_in, statement, study
from webapp.store import Store, schema
from webapp.store import files as store_files
from webapp.store.database import Database

ROOT = Path(__file__).resolve().parents[2]


def kill_while(tmp_path, body: str, seconds: float = 0.5) -> None:
    """Run `body` in an endless loop in another process on the same home, and kill -9 it after some rounds."""
    script = f"""
        from pathlib import Path
        from tests.store.samples import *
        from webapp.store import Store
        store = Store(settings_in(Path({str(tmp_path)!r})))
        study_id = store.studies()[0].id
        n = 0
        while True:
    """
    script = textwrap.dedent(script) + textwrap.indent(textwrap.dedent(body), "    ") + "\n    n += 1\n    print(n)\n"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline(), process.stderr.read().decode()
        time.sleep(seconds)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("seconds", [0.05, 0.171, 0.313])
def test_killed_while_saving_masks_leaves_a_whole_mask(store, tmp_path, seconds):
    study_id = store.add_study(study())
    segment = add_segment(store, study_id)
    store.close()
    body = """
        segment = store.segments(study_id)[0]
        steps = (SegmentStep(Click((n % 8, 0, 0))),)
        store.save_segment(segment.id, steps=steps, undone=(), mask=mask(seed=n % 8), confidence=1.0)
    """
    kill_while(tmp_path, body, seconds)
    again = Store(settings_in(tmp_path))
    row = again.segment(segment.id)
    assert len(row.clicks) == 1, "the killed process saved at least once"
    expected = mask(seed=row.clicks[0].index[0]).full()
    assert (again.mask(segment.id).full() == expected).all(), "the mask is the one of the row's clicks"
    again.close()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("seconds", [0.05, 0.271])
def test_killed_while_saving_reports_leaves_a_whole_report(store, tmp_path, seconds):
    study_id = store.add_study(study())
    store.close()
    body = """
        store.save_report(study_id, statements=[statement(f"s{i}", f"text {n}") for i in range(50)],
                          free_text=f"text {n}", base_revision=n, model=MODEL)
    """
    kill_while(tmp_path, body, seconds)
    again = Store(settings_in(tmp_path))
    state = again.report(study_id)
    assert state.revision >= 1
    assert {s.text for s in state.statements} == {state.free_text} == {f"text {state.revision - 1}"}
    versions = again.versions(study_id)
    assert [v.number for v in versions] == list(range(1, state.revision + 1))
    assert versions[-1].free_text == state.free_text
    assert again.save_report(study_id, statements=[], free_text="on", base_revision=state.revision).free_text == "on"
    again.close()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_while_uploading_leaves_whole_studies_and_sweepable_rest(store, tmp_path):
    store.add_study(study())
    store.close()
    kill_while(tmp_path, "store.add_study(study(uid=f'u{n}', series=(series(uid=f's{n}', seed=n),)))", 0.2)
    again = Store(settings_in(tmp_path))
    rows = again.studies()
    assert len(rows) >= 2
    for row in rows:
        assert again.volume(row.series[0].id).array.shape == (4, 6, 8)
        assert all(p.is_file() for p in again.sources(row.series[0].id))
    again.close()
    root = settings_in(tmp_path).studies
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    Store(settings_in(tmp_path)).close()
    assert {p.name for p in root.iterdir()} == {r.id for r in rows}


def test_a_full_disk_while_saving_a_mask_keeps_the_old_one(store, monkeypatch):
    study_id = store.add_study(study())
    row = add_segment(store, study_id)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_files.os, "fsync", full)
    with pytest.raises(ReadingRoomError) as caught:
        store.save_segment(row.id, steps=(), undone=(), mask=mask(seed=2), confidence=1.0)
    assert caught.value.status == 507
    monkeypatch.undo()
    assert store.segment(row.id) == row
    assert (store.mask(row.id).full() == mask().full()).all()
    assert len(list((store._files.root / study_id / "masks").iterdir())) == 1


def test_a_locked_database_is_busy_and_nothing_is_lost(store, tmp_path):
    study_id = store.add_study(study())
    impatient = Database(settings_in(tmp_path).database_url, busy_timeout_s=0.05)
    patient, store._db = store._db, impatient
    with patient.write() as c:
        c.execute(schema.studies.update().values(indication="held"))
        with pytest.raises(Busy):
            store.save_report(study_id, statements=[statement()], free_text="", base_revision=0)
        assert store.study(study_id).indication == "", "readers go on and see what is committed"
    assert store.save_report(study_id, statements=[statement()], free_text="", base_revision=0).revision == 1
    store._db = patient
    impatient.close()


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    yield database
    database.close()


def tables(database):
    with database.read() as c:
        return set(sa.inspect(c).get_table_names())


def test_migrations_go_up_and_down_and_equal_the_schema(database):
    database.migrate()
    assert tables(database) == {*schema.metadata.tables, "alembic_version"}
    with database.read() as c:
        options = {"compare_type": True, "target_metadata": schema.metadata}
        assert compare_metadata(MigrationContext.configure(c, opts=options), schema.metadata) == []
    database.migrate("base")
    assert tables(database) == {"alembic_version"}
    database.migrate()
    database.migrate()


def test_going_back_one_revision_and_forth_keeps_studies_and_segments(store):
    study_id = store.add_study(study(series=(replace(series(), view="PA"),)))
    add_segment(store, study_id, based=True)
    assert store.study(study_id).series[0].view == "PA"
    store._db.migrate("0001")
    store._db.migrate()
    (segment,) = store.segments(study_id)
    assert (segment.label, segment.based, store.study(study_id).series[0].view) == ("liver", False, "")


def test_an_older_version_does_not_bring_back_what_was_deleted(store):
    study_id = store.add_study(study())
    kept, gone = add_segment(store, study_id), add_segment(store, study_id)
    for text in ("liver: volume", "liver: mean"):
        store.add_evidence(study_id, card(text))
    store.delete_segment(gone.id)
    store.retire_evidence(study_id, "E2")
    store._db.migrate("0008")
    store._db.migrate()
    assert store.segments(study_id) == (kept,)
    assert [e.id for e in store.evidence(study_id)] == ["E1"]
    assert store.retired_evidence(study_id) == ()


def test_a_failing_migration_leaves_no_half_schema(database, monkeypatch):
    real, made = sa.schema.CreateTable, []

    def fails_late(connection, clauseelement, *_):
        if isinstance(clauseelement, real):
            made.append(clauseelement)
            if len(made) > 5:
                raise RuntimeError("killed")

    sa.event.listen(database.engine, "before_execute", fails_late)
    with pytest.raises(RuntimeError):
        database.migrate()
    sa.event.remove(database.engine, "before_execute", fails_late)
    assert tables(database) == set()
    database.migrate()


def test_the_schema_and_the_locking_reads_are_not_sqlite_only():
    dialect = postgresql.dialect()
    for table in schema.metadata.sorted_tables:
        assert "CREATE TABLE" in str(sa.schema.CreateTable(table).compile(dialect=dialect))
    locking = sa.select(schema.studies).with_for_update()
    assert str(locking.compile(dialect=dialect)).endswith("FOR UPDATE")
