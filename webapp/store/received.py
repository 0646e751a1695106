"""Reports of a study that came from elsewhere → rows beside its own report; none of them is ever changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from core_models.errors import NotFound, Refused
from core_models.study.received import Received
from webapp.store import schema
from webapp.store.base import Base, new_id, now

MAX_RECEIVED = 50  # of one study


@dataclass(frozen=True)
class ReceivedRow:
    """One report.

    Attributes:
        uid: its SOPInstanceUID; date: of its content, YYYYMMDD or "".
    """

    id: str
    study_id: str
    uid: str
    date: str
    report: Received


class ReceivedReports(Base):
    """The part of `Store` that keeps reports from elsewhere."""

    def received(self, study_id: str) -> tuple[ReceivedRow, ...]:
        """All of a study, the latest date first.  Raises NotFound."""
        t = schema.received.c
        query = sa.select(schema.received).where(t.study_id == study_id).order_by(t.date.desc(), t.created_at, t.id)
        with self._db.read() as c:
            self._study(c, study_id)
            return tuple(_row(r) for r in c.execute(query))

    def received_one(self, received_id: str) -> ReceivedRow:
        """Raises NotFound."""
        with self._db.read() as c:
            return self._one(c, received_id)

    def _one(self, c: sa.Connection, received_id: str) -> ReceivedRow:
        row = c.execute(sa.select(schema.received).where(schema.received.c.id == received_id)).one_or_none()
        if row is None:
            raise NotFound("There is no such report here; it may have been removed.")
        return _row(row)

    def add_received(self, study_id: str, *, uid: str, date: str, report: Received) -> str:
        """Keep a report; answers its id, or "" where the same one is here.  Raises NotFound, Conflict, Refused."""
        t = schema.received.c
        received_id = new_id()
        with self._db.write() as c:
            self._changeable(c, study_id)
            held = c.execute(sa.select(t.uid).where(t.study_id == study_id)).scalars().all()
            if uid in held:
                return ""
            if len(held) >= MAX_RECEIVED:
                raise Refused(f"A study keeps at most {MAX_RECEIVED} reports from elsewhere: remove some first.")
            values = {"id": received_id, "study_id": study_id, "uid": uid, "date": date, "created_at": now()}
            c.execute(schema.received.insert().values(**values, content=asdict(report)))
            self._audit(c, "report received", study_id)
        return received_id

    def delete_received(self, received_id: str) -> str:
        """Remove a report; answers its study's id.  Raises NotFound, Conflict when signed."""
        with self._db.write() as c:
            row = self._one(c, received_id)
            self._changeable(c, row.study_id)
            c.execute(schema.received.delete().where(schema.received.c.id == received_id))
            return row.study_id


def _row(r: sa.Row) -> ReceivedRow:
    content = {key: tuple(value) if isinstance(value, list) else value for key, value in r.content.items()}
    return ReceivedRow(r.id, r.study_id, r.uid, r.date, Received(**content))
