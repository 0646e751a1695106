"""What the store's parts share: the database, the files, and the rule that a signed study stays as it is."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa

from core_models.errors import Conflict, NotFound, TooLarge
from webapp.store import schema
from webapp.store.database import Database
from webapp.store.encoding import plain
from webapp.store.files import Files

MAX_TEXT = 100_000  # characters in one text that a person or a model writes


def new_id() -> str:
    return uuid.uuid4().hex


def now(timespec: str = "milliseconds") -> str:
    return datetime.now(UTC).isoformat(timespec=timespec)


def limited(text: str, what: str, limit: int = MAX_TEXT) -> str:
    """The text as the database takes it.  Raises TooLarge."""
    text = plain(text)
    if len(text) > limit:
        raise TooLarge(f"The {what} has {len(text)} characters; at most {limit} can be stored.")
    return text


class Base:
    """Holds the database and the files; the parts (`studies`, `segments`, ...) inherit from it."""

    _db: Database
    _files: Files

    def _study(self, c: sa.Connection, study_id: str, *, lock: bool = False) -> sa.Row:
        """The study's database row; with `lock` other writers of the study wait (where the database can)."""
        query = sa.select(schema.studies).where(schema.studies.c.id == study_id)
        row = c.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise NotFound("There is no such study here; it may have been deleted.")
        return row

    def _changeable(self, c: sa.Connection, study_id: str) -> sa.Row:
        """Lock the study for a change of anything that its report rests on.  Raises NotFound, Conflict if signed."""
        row = self._study(c, study_id, lock=True)
        state = c.scalar(sa.select(schema.reports.c.state).where(schema.reports.c.study_id == study_id))
        if state == "signed":
            raise Conflict("This study is signed and may not change; write an addendum instead.")
        return row

    def audit(self, action: str, study_id: str | None = None, detail: str = "") -> None:
        """Note that something was done; `action` and `detail` must not hold patient identifiers."""
        with self._db.write() as c:
            self._audit(c, action, study_id, detail)

    def _audit(self, c: sa.Connection, action: str, study_id: str | None = None, detail: str = "") -> None:
        c.execute(
            schema.audit.insert().values(
                created_at=now(), action=plain(action)[:64], study_id=study_id, detail=plain(detail)[:200]
            )
        )
