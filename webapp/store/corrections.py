"""A signed report beside the model's draft → what became of each drafted sentence, kept so that a model can learn.

Two tables, filled in the signing transaction: one case a study (the cards that a prompt is made of, the indication and
the signed statements) and one correction a statement.  Both hold the study's id and nothing of the patient: name,
number, accession and birth date are taken out of every text.  They go when the study goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa

from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.findings import concepts_of_term
from webapp.store import encoding, schema
from webapp.store.base import Base
from webapp.store.rows import Version

READER = "reader"  # who writes the versions that no model drafted
PROMPTED = ("finding", "measurement", "comparison")  # the kinds of cards that a draft is written from

Outcome = Literal["kept", "edited", "removed", "struck", "restored", "added"]


@dataclass(frozen=True)
class Correction:
    """What became of one statement.

    Attributes:
        evidence: the cards that the draft cited; () for the reader's own.
        drafted, template: as the model wrote it; "" for the reader's own.
        signed: the text that was signed; "" where it is not in the report.
        outcome: "kept" word for word (a live number that the reader agreed to anew counts as the same words),
            "edited", "removed"; "struck": the check found no support and the reader let it go; "restored": the reader
            kept it all the same, word for word; "added": the reader's own sentence.
        concepts: the findings of the cited cards, names of `core_models.drafting.findings`.
        model, adapter, index_digest: what drafted it; of an added one, what wrote the draft it was added to.
        signed_at: ISO 8601 UTC.
    """

    study_id: str
    statement_id: str
    section: str
    region: str
    evidence: tuple[str, ...]
    drafted: str
    template: str
    signed: str
    outcome: Outcome
    concepts: tuple[str, ...]
    model: str
    adapter: str
    index_digest: str
    signed_at: str


@dataclass(frozen=True)
class KeptCase:
    """One signed study that a model drafted.

    Attributes:
        patient: the same number for studies of one patient, within one answer of the store; no identifier.
        cards: finding, measurement and comparison cards as they stood at signing, without places in the image.
        statements: as signed, the reader's own included.
    """

    study_id: str
    patient: int
    signed_at: str
    indication: str
    modality: str
    cards: tuple[Evidence, ...]
    statements: tuple[Statement, ...]


class Corrections(Base):
    """The learning part of `Store`."""

    def corrections(self) -> tuple[Correction, ...]:
        """All of them, oldest signature first, in the order of each report."""
        t = schema.corrections.c
        with self._db.read() as c:
            rows = c.execute(sa.select(schema.corrections).order_by(t.signed_at, t.study_id, t.position))
            return tuple(
                Correction(
                    **{n: getattr(r, n) for n in Correction.__annotations__}
                    | {"evidence": tuple(r.evidence), "concepts": tuple(r.concepts)}
                )
                for r in rows
            )

    def signed_cases(self) -> tuple[KeptCase, ...]:
        """All of them, oldest signature first."""
        t, studies = schema.signed_cases.c, schema.studies.c
        query = sa.select(schema.signed_cases, studies.patient_id).join(schema.studies)
        with self._db.read() as c:
            rows = c.execute(query.order_by(t.signed_at, t.study_id)).all()
        numbers: dict[str, int] = {}
        return tuple(
            KeptCase(
                r.study_id,
                numbers.setdefault(r.patient_id.strip() or r.study_id, len(numbers)),
                r.signed_at,
                r.indication,
                r.modality,
                tuple(encoding.evidence(e) for e in r.cards),
                tuple(encoding.statement(s) for s in r.statements),
            )
            for r in rows
        )

    def _keep_corrections(self, c: sa.Connection, signed: Version) -> None:
        """Compare the signed version with the drafts before it; a report that no model drafted leaves nothing."""
        t = schema.versions.c
        by_model = sa.and_(t.study_id == signed.study_id, t.kind == "draft", t.author != READER)
        drafts = c.execute(sa.select(schema.versions).where(by_model).order_by(t.number)).all()
        if not drafts:
            return
        study = self._study(c, signed.study_id)
        final = {s.id: s for s in signed.statements if s.text.strip()}
        written: dict[str, tuple[Statement, sa.Row]] = {}  # each statement as the draft had it that wrote it
        for draft in drafts:
            for s in draft.content["statements"]:
                if s["origin"] == "model":
                    written.setdefault(s["id"], (encoding.statement(s), draft))
        last = drafts[-1]
        ids = dict.fromkeys([*(s["id"] for s in last.content["statements"]), *final])
        for position, ident in enumerate(i for i in ids if i in written or i in final):
            before, draft = written.get(ident, (None, last))
            now = final.get(ident)
            shown = before or now
            model = draft.content["model"]
            c.execute(
                schema.corrections.insert().values(
                    study_id=study.id,
                    statement_id=ident,
                    position=position,
                    section=shown.section,
                    region=shown.region,
                    evidence=list(before.evidence) if before else [],
                    drafted=_without_patient(before.text, study) if before else "",
                    template=_without_patient(before.template, study) if before else "",
                    signed=_without_patient(now.text, study) if now else "",
                    outcome=outcome(before, now),
                    concepts=_concepts(before, draft) if before else [],
                    model=model["name"],
                    adapter=model["adapter"],
                    index_digest=model["index_digest"],
                    signed_at=signed.created_at,
                )
            )
        c.execute(
            schema.signed_cases.insert().values(
                study_id=study.id,
                signed_at=signed.created_at,
                indication=_without_patient(signed.indication, study),
                modality=study.modality,
                cards=[encoding.evidence_json(e) for e in _cards(signed.evidence, study)],
                statements=[encoding.statement_json(_bare(s, study)) for s in final.values()],
            )
        )


def outcome(drafted: Statement | None, signed: Statement | None) -> Outcome:
    """What became of a statement; one of the two may be absent, not both."""
    if drafted is None:
        return "added"
    unsupported = drafted.support == "unsupported"
    if signed is None:
        return "struck" if unsupported else "removed"
    # Still of the model's origin: no reader touched the words, at most a live number was filled in anew.
    if signed.text != drafted.text and signed.origin != "model":
        return "edited"
    return "restored" if unsupported else "kept"


def _concepts(statement: Statement, draft: sa.Row) -> list[str]:
    """The findings of the cards that a statement cites, as the board stood when it was drafted."""
    terms = [
        e["statement"] for e in draft.content["evidence"] if e["kind"] == "finding" and e["id"] in statement.evidence
    ]
    return sorted(set().union(*map(concepts_of_term, terms)))


def _cards(board: Sequence[Evidence], study: sa.Row) -> list[Evidence]:
    """The cards that a prompt is made of, without where they lie in the image."""
    return [
        replace(card, statement=_without_patient(card.statement, study), segment_id=None, location=None)
        for card in board
        if card.kind in PROMPTED
    ]


def _bare(statement: Statement, study: sa.Row) -> Statement:
    """A statement with what a training pair needs of it."""
    return replace(
        statement,
        text=_without_patient(statement.text, study),
        template=_without_patient(statement.template, study),
        note="",
        copied_from="",
        rewritten="",
    )


def _without_patient(text: str, study: sa.Row) -> str:
    from webapp.indexing import without_identifiers  # it imports the store

    kept = without_identifiers(text, study)
    return text if kept == text else " ".join(kept.split())
