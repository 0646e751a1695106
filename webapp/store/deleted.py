"""Deleted segments, kept aside for undo → those that are forgotten for good, and the mask files that go with them.

A deleted segment is a row with `deleted_at`: nothing lists it, and its masks stay until

- its study is deleted (the row goes with it);
- the report is signed: the masks go, and the row alone stays, so that a late restore is told why it is refused;
- its study has more than `KEPT` deleted ones: the oldest go;
- the store is opened more than `KEPT_S` after the deletion: no page holds an undo of it any more.

All functions work inside the caller's transaction and answer (study id, file name); the caller removes the files once
it is committed, and what a killed process left is an orphan that the sweep removes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from webapp.store import schema

KEPT = 20  # of one study
KEPT_S = 3600

File = tuple[str, str]


def past_number(c: sa.Connection, study_id: str) -> tuple[File, ...]:
    """Forget what a study has deleted beyond the latest `KEPT`."""
    t = schema.segments.c
    latest = sa.select(t.id).where(t.study_id == study_id, t.deleted_at.is_not(None))
    ids = c.scalars(latest.order_by(t.deleted_at.desc(), t.number.desc()).offset(KEPT)).all()
    return _forget(c, t.id.in_(ids)) if ids else ()


def past_time(c: sa.Connection) -> tuple[File, ...]:
    """Forget what was deleted more than `KEPT_S` ago, in every study."""
    before = (datetime.now(UTC) - timedelta(seconds=KEPT_S)).isoformat(timespec="milliseconds")
    return _forget(c, schema.segments.c.deleted_at < before)  # ISO 8601 in UTC: the order of words is that of time


def emptied(c: sa.Connection, study_id: str) -> tuple[File, ...]:
    """Let go of the masks of all that a study has deleted; the rows stay."""
    t = schema.segments.c
    gone = sa.and_(t.study_id == study_id, t.deleted_at.is_not(None))
    files = _files(c, gone)
    c.execute(schema.segments.update().where(gone).values(mask_file="", base_file=""))
    return files


def _forget(c: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[File, ...]:
    files = _files(c, which)
    c.execute(schema.segments.delete().where(which))
    return files


def _files(c: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[File, ...]:
    t = schema.segments.c
    rows = c.execute(sa.select(t.study_id, t.mask_file, t.base_file).where(which)).all()
    return tuple((study_id, name) for study_id, *names in rows for name in names if name)
