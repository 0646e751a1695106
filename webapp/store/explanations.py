"""What asking "why?" of a draft gave → one row for each draft's version; the newest answer replaces the one before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from webapp.store import schema
from webapp.store.base import Base


@dataclass(frozen=True)
class ExplanationRow:
    """One draft's explanation.

    Attributes:
        version: number of the report's version that holds the draft.
        key: digest of all that the redrafts were written from; where it differs, this answers for another board.
        created_at: ISO 8601 UTC.
        faithfulness: 0 to 1, as `core_models.drafting.why.Explanation` defines it; None where nothing was counted.
        content: JSON of the explanation.
    """

    study_id: str
    version: int
    key: str
    model: str
    adapter: str
    created_at: str
    faithfulness: float | None
    content: dict[str, Any]


class Explanations(Base):
    """The explaining part of `Store`."""

    def explanation(self, study_id: str, version: int) -> ExplanationRow | None:
        """What is kept of that version; None where nobody asked.  Raises NotFound."""
        t = schema.explanations.c
        query = sa.select(schema.explanations).where(t.study_id == study_id, t.version == version)
        with self._db.read() as c:
            self._study(c, study_id)
            row = c.execute(query).one_or_none()
        return None if row is None else ExplanationRow(**row._mapping)

    def put_explanation(self, row: ExplanationRow) -> None:
        """Keep it in place of what there was; a signed report may be asked about, too.  Raises NotFound."""
        t = schema.explanations.c
        with self._db.write() as c:
            self._study(c, row.study_id, lock=True)
            c.execute(schema.explanations.delete().where(t.study_id == row.study_id, t.version == row.version))
            c.execute(schema.explanations.insert().values(**asdict(row)))
