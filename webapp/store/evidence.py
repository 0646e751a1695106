"""The evidence board: cards and priors in, the same out, with ids that are given once and never again."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from core_models.drafting.evidence import REGIONS, Evidence
from core_models.errors import Conflict, NotFound, Refused
from retrieval.report import Prior
from webapp.store import encoding, schema
from webapp.store.base import Base, limited
from webapp.store.rows import PriorRow

STATUSES = ("proposed", "accepted", "rejected")
KINDS = ("finding", "measurement", "clinical", "prior", "comparison")


class EvidenceBoard(Base):
    """The evidence part of `Store`."""

    def evidence(self, study_id: str) -> tuple[Evidence, ...]:
        """All cards in the order they were added.  Raises NotFound."""
        with self._db.read() as c:
            self._study(c, study_id)
            return self._cards(c, study_id)

    def retired_evidence(self, study_id: str) -> tuple[Evidence, ...]:
        """The cards that `retire_evidence` took off and nothing has brought back.  Raises NotFound."""
        with self._db.read() as c:
            self._study(c, study_id)
            return self._cards(c, study_id, retired=True)

    def _cards(self, c: sa.Connection, study_id: str, retired: bool = False) -> tuple[Evidence, ...]:
        t = schema.evidence.c
        which = sa.and_(t.study_id == study_id, t.retired == retired)
        rows = c.execute(sa.select(schema.evidence).where(which).order_by(t.position, t.id))
        return tuple(encoding.evidence(r.card, r.status) for r in rows)

    def add_evidence(self, study_id: str, card: Evidence) -> Evidence:
        """Store a card; one without an id gets the next "E" (or, for a prior, "P") number.

        Raises:
            NotFound; Conflict: signed, or the id is taken; Refused: kind, region, status or value is none there is.
        """
        with self._db.write() as c:
            self._changeable(c, study_id)
            return self._add_card(c, study_id, card, None)

    def _add_card(self, c: sa.Connection, study_id: str, card: Evidence, prior: Prior | None) -> Evidence:
        card = _checked(card)
        study = self._study(c, study_id)
        letter, column = ("P", "last_prior") if card.kind == "prior" else ("E", "last_evidence")
        last = getattr(study, column)
        if not card.id:
            card = replace(card, id=f"{letter}{last + 1}")
        elif not re.fullmatch(rf"{letter}[1-9]\d{{0,6}}", card.id):
            raise Refused(f"A card of this kind is called {letter}1, {letter}2, …")
        number = int(card.id[1:])
        if number <= last:
            raise Conflict(f"The id {card.id} was given before in this study.")
        c.execute(schema.studies.update().where(schema.studies.c.id == study_id).values({column: number}))
        position = study.last_evidence + study.last_prior + 1
        c.execute(
            schema.evidence.insert().values(
                study_id=study_id,
                id=card.id,
                position=position,
                status=card.status,
                card=encoding.evidence_json(card),
                prior=sa.null() if prior is None else encoding.prior_json(prior),
            )
        )
        return card

    def put_evidence(self, study_id: str, card: Evidence) -> Evidence:
        """Replace a card by its id, for instance with a changed value; a retired one is on the board again.

        Raises NotFound, Conflict, Refused.
        """
        card = _checked(card)
        with self._db.write() as c:
            self._changeable(c, study_id)
            values = {"card": encoding.evidence_json(card), "status": card.status, "retired": False}
            self._update(c, study_id, card.id, retired_too=True, **values)
        return card

    def retire_evidence(self, study_id: str, evidence_id: str) -> None:
        """Take a card off whose cause is gone; id, place and verdict are kept in case an undo brings the cause back.

        Signing lets go of all of them.  Raises NotFound, Conflict when signed.
        """
        with self._db.write() as c:
            self._changeable(c, study_id)
            self._update(c, study_id, evidence_id, retired=True)

    def _drop_retired(self, c: sa.Connection, study_id: str) -> None:
        t = schema.evidence.c
        c.execute(schema.evidence.delete().where(t.study_id == study_id, t.retired == sa.true()))

    def set_evidence_status(self, study_id: str, evidence_id: str, status: str) -> Evidence:
        """Accept, reject or reopen a card.  Raises NotFound, Conflict when signed, Refused on another status."""
        if status not in STATUSES:
            raise Refused("A card is proposed, accepted or rejected; there is no other state.")
        with self._db.write() as c:
            self._changeable(c, study_id)
            self._update(c, study_id, evidence_id, status=status)
            return next(e for e in self._cards(c, study_id) if e.id == evidence_id)

    def _update(
        self, c: sa.Connection, study_id: str, evidence_id: str, retired_too: bool = False, **values: object
    ) -> None:
        t = schema.evidence.c
        where = sa.and_(t.study_id == study_id, t.id == evidence_id)
        if not retired_too:
            where = sa.and_(where, t.retired == sa.false())
        if c.execute(schema.evidence.update().where(where).values(**values)).rowcount == 0:
            raise NotFound("There is no such card on this study's board.")

    def delete_evidence(self, study_id: str, evidence_id: str) -> None:
        """Take a card off the board; its id is not given again.  Raises NotFound, Conflict when signed."""
        t = schema.evidence.c
        with self._db.write() as c:
            self._changeable(c, study_id)
            where = sa.and_(t.study_id == study_id, t.id == evidence_id)
            if c.execute(schema.evidence.delete().where(where)).rowcount == 0:
                raise NotFound("There is no such card on this study's board.")

    def priors(self, study_id: str) -> tuple[PriorRow, ...]:
        """The prior cards with their reports, in the order they were found.  Raises NotFound."""
        with self._db.read() as c:
            self._study(c, study_id)
            return self._priors(c, study_id)

    def _priors(self, c: sa.Connection, study_id: str) -> tuple[PriorRow, ...]:
        t = schema.evidence.c
        rows = c.execute(sa.select(schema.evidence).where(t.study_id == study_id).order_by(t.position))
        return tuple(
            PriorRow(encoding.evidence(r.card, r.status), encoding.prior(r.prior)) for r in rows if r.prior is not None
        )

    def set_priors(self, study_id: str, priors: Sequence[tuple[Evidence, Prior]]) -> tuple[PriorRow, ...]:
        """Put the hits of a search on the board in place of the earlier ones.

        Kept from before are priors that the reader accepted and those that the working report cites; a hit whose
        report is among them is not added twice.  The cards' own ids are ignored: the store gives them.

        Raises:
            NotFound; Conflict: signed; Refused: a card is not of the kind "prior".
        """
        t = schema.evidence.c
        with self._db.write() as c:
            self._changeable(c, study_id)
            statements = c.scalar(sa.select(schema.reports.c.statements).where(schema.reports.c.study_id == study_id))
            cited = {e for s in statements for e in s["evidence"]}
            kept: dict[str, Evidence] = {}  # report → its card
            for row in self._priors(c, study_id):
                if row.evidence.status == "accepted" or row.evidence.id in cited:
                    kept[row.prior.report.id] = row.evidence
                else:
                    c.execute(schema.evidence.delete().where(t.study_id == study_id, t.id == row.evidence.id))
            for card, prior in priors:
                if card.kind != "prior":
                    raise Refused("Only prior reports can be stored as priors.")
                held = kept.get(prior.report.id)
                if held is None:
                    kept[prior.report.id] = self._add_card(c, study_id, replace(card, id=""), prior)
                else:  # what it says of the board may have changed
                    told = encoding.evidence_json(_checked(replace(held, statement=card.statement)))
                    self._update(c, study_id, held.id, card=told, prior=encoding.prior_json(prior))
            return self._priors(c, study_id)


def _checked(card: Evidence) -> Evidence:
    if card.kind not in KINDS or card.region not in REGIONS or card.status not in STATUSES:
        raise Refused(f"A card of kind {card.kind!r}, region {card.region!r} and state {card.status!r} is unknown.")
    numbers = [v for v in (card.value, card.probability, *(card.location or ())) if v is not None]
    if not all(math.isfinite(v) for v in numbers):
        raise Refused("A card's value, probability or location is not a finite number.")
    return replace(
        card,
        statement=limited(card.statement, "card's text", 2000),
        value=None if card.value is None else float(card.value),
        probability=None if card.probability is None else float(card.probability),
        location=None if card.location is None else tuple(float(v) for v in card.location),
    )
