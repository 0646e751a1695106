"""The report: statements in; the working copy, frozen versions and the outbox for the index out.

Versions are append-only.  One is added when a model's draft is stored, at the first edit after a draft, when a draft
is about to replace edits that no version holds yet, at signing, and for each addendum.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from core_models.drafting.evidence import DraftModel, Statement
from core_models.errors import Conflict, NotFound, Refused, TooLarge
from webapp.store import deleted, encoding, schema
from webapp.store.base import limited, now
from webapp.store.corrections import READER, Corrections
from webapp.store.evidence import EvidenceBoard
from webapp.store.rows import OutboxRow, ReportState, Version

MAX_STATEMENTS = 500


class Reports(EvidenceBoard, Corrections):
    """The report part of `Store`."""

    def report(self, study_id: str) -> ReportState:
        """The working report; before the first save it is empty at revision 0.  Raises NotFound."""
        with self._db.read() as c:
            self._study(c, study_id)
            return _state(self._report(c, study_id))

    def _report(self, c: sa.Connection, study_id: str) -> sa.Row:
        return c.execute(sa.select(schema.reports).where(schema.reports.c.study_id == study_id)).one()

    def save_report(
        self,
        study_id: str,
        *,
        statements: Sequence[Statement],
        free_text: str,
        base_revision: int,
        unseen: Sequence[str] | None = None,
        model: DraftModel | None = None,
    ) -> ReportState:
        """Replace the working copy, if nobody changed it since `base_revision`.

        Args:
            unseen: None keeps what is stored.
            model: given when this is a model's draft; None for a reader's edit (the stored model stays).

        Returns:
            the new state; the same revision when nothing differs.

        Raises:
            NotFound; Conflict: it changed meanwhile (the stored one stays), or it is signed; TooLarge.
        """
        if len(statements) > MAX_STATEMENTS:
            raise TooLarge(f"A report holds at most {MAX_STATEMENTS} statements; this one has {len(statements)}.")
        if len({s.id for s in statements}) != len(statements):
            raise Refused("Two statements of the report have the same id.")
        for s in statements:
            limited(s.text, "statement")
        new = {
            "statements": [encoding.statement_json(s) for s in statements],
            "free_text": limited(free_text, "free text"),
        }
        with self._db.write() as c:
            self._changeable(c, study_id)
            row = self._report(c, study_id)
            _check_base(row, base_revision)
            new["unseen"] = row.unseen if unseen is None else [encoding.plain(u) for u in unseen]
            new["model"] = row.model if model is None else encoding.model_json(model)
            old = {key: getattr(row, key) for key in new}
            if encoding.digest(old) == encoding.digest(new):
                return _state(row)
            last = self._last_version(c, study_id)
            if model is not None and not _is_empty(row) and (last is None or not _same_text(last.content, old)):
                self._append(c, study_id, row, "draft", READER)
            self._update_report(c, study_id, row.revision, new)
            row = self._report(c, study_id)
            if model is not None:
                self._append(c, study_id, row, "draft", model.name)
            elif last is not None and last.author != READER and not _same_text(last.content, new):
                self._append(c, study_id, row, "draft", READER)
            return _state(row)

    def _update_report(self, c: sa.Connection, study_id: str, revision: int, values: dict) -> None:
        """Compare-and-swap on the revision, for databases whose writers do not queue."""
        t = schema.reports.c
        state = "drafted" if values["statements"] or values["free_text"].strip() else "new"
        model = values["model"] if values["model"] is not None else sa.null()
        changed = c.execute(
            schema.reports.update()
            .where(t.study_id == study_id, t.revision == revision, t.signed_version.is_(None))
            .values(**{**values, "model": model}, state=state, revision=revision + 1)
        )
        if changed.rowcount != 1:
            raise Conflict("The report was changed elsewhere meanwhile; nothing was overwritten.")

    def versions(self, study_id: str) -> tuple[Version, ...]:
        """All versions, oldest first.  Raises NotFound."""
        t = schema.versions.c
        with self._db.read() as c:
            self._study(c, study_id)
            rows = c.execute(sa.select(schema.versions).where(t.study_id == study_id).order_by(t.number))
            return tuple(_version(r) for r in rows)

    def version(self, study_id: str, number: int) -> Version:
        """One version.  Raises NotFound."""
        for version in self.versions(study_id):
            if version.number == number:
                return version
        raise NotFound(f"This report has no version {number}.")

    def _last_version(self, c: sa.Connection, study_id: str) -> sa.Row | None:
        t = schema.versions.c
        query = sa.select(schema.versions).where(t.study_id == study_id).order_by(t.number.desc()).limit(1)
        return c.execute(query).one_or_none()

    def _append(
        self, c: sa.Connection, study_id: str, report: sa.Row, kind: str, author: str, addenda: Sequence = ()
    ) -> Version:
        last = self._last_version(c, study_id)
        content = {
            "kind": kind,
            "statements": report.statements,
            "free_text": report.free_text,
            "unseen": report.unseen,
            "model": report.model,
            "indication": self._study(c, study_id).indication,
            "evidence": [encoding.evidence_json(e) for e in self._cards(c, study_id)],
            "addenda": list(addenda),
        }
        values = {
            "study_id": study_id,
            "number": 1 if last is None else last.number + 1,
            "kind": kind,
            "author": author,
            "created_at": now(),
            "content": content,
            "sha256": encoding.digest(content),
        }
        c.execute(schema.versions.insert().values(**values))
        row = self._last_version(c, study_id)
        assert row is not None
        return _version(row)

    def sign(self, study_id: str, *, author: str, base_revision: int) -> Version:
        """Freeze the report; the index's outbox row and what became of the draft are written in the same transaction.

        What was kept aside for undo is let go: masks of deleted segments, and retired cards.

        Raises:
            NotFound; Conflict: it changed since `base_revision` or is signed already; Refused: no author, no text.
        """
        author = author_of(author)
        with self._db.write() as c:
            self._changeable(c, study_id)
            row = self._report(c, study_id)
            _check_base(row, base_revision)
            if _is_empty(row):
                raise Refused("There is nothing to sign: the report is empty.")
            version = self._append(c, study_id, row, "signed", author)
            self._keep_corrections(c, version)
            t = schema.reports.c
            c.execute(
                schema.reports.update()
                .where(t.study_id == study_id)
                .values(state="signed", signed_version=version.number, revision=row.revision + 1)
            )
            self._post(c, version)
            self._audit(c, "sign", study_id, f"version {version.number}")
            self._drop_retired(c, study_id)
            files = deleted.emptied(c, study_id)
        self._files.drop_masks(files)
        return version

    def addendum(self, study_id: str, *, author: str, text: str) -> Version:
        """Add text to a signed report as a new version.  Raises NotFound, Refused, Conflict when not yet signed."""
        author, text = author_of(author), limited(text, "addendum").strip()
        if not text:
            raise Refused("An addendum needs a text.")
        with self._db.write() as c:
            self._study(c, study_id, lock=True)
            row = self._report(c, study_id)
            if row.signed_version is None:
                raise Conflict("The report is not signed yet: edit it instead of writing an addendum.")
            last = self._last_version(c, study_id)
            assert last is not None
            addenda = [*last.content["addenda"], {"author": author, "created_at": now(), "text": text}]
            # The signed content stands as it was signed, so it is taken from there and not from the board of today.
            content = {**last.content, "kind": "addendum", "addenda": addenda}
            c.execute(
                schema.versions.insert().values(
                    study_id=study_id,
                    number=last.number + 1,
                    kind="addendum",
                    author=author,
                    created_at=addenda[-1]["created_at"],
                    content=content,
                    sha256=encoding.digest(content),
                )
            )
            row = self._last_version(c, study_id)
            assert row is not None
            version = _version(row)
            self._post(c, version)
            self._audit(c, "addendum", study_id, f"version {version.number}")
            return version

    def _post(self, c: sa.Connection, version: Version) -> None:
        c.execute(
            schema.outbox.insert().values(
                study_id=version.study_id, version=version.number, kind=version.kind, created_at=now()
            )
        )

    def outbox(self) -> tuple[OutboxRow, ...]:
        """What the index has yet to take, oldest first."""
        t = schema.outbox.c
        with self._db.read() as c:
            rows = c.execute(sa.select(schema.outbox).where(t.done_at.is_(None)).order_by(t.id)).all()
        return tuple(OutboxRow(r.id, r.study_id, r.version, r.kind, r.created_at) for r in rows)

    def outbox_done(self, row_id: int) -> None:
        """Mark one as taken; marking it again changes nothing."""
        with self._db.write() as c:
            t = schema.outbox.c
            c.execute(schema.outbox.update().where(t.id == row_id, t.done_at.is_(None)).values(done_at=now()))


def author_of(author: str) -> str:
    author = limited(author, "author", 200).strip()
    if not author:
        raise Refused("Signing needs the name of the reader.")
    return author


def _check_base(row: sa.Row, base_revision: int) -> None:
    if row.revision != base_revision:
        raise Conflict("The report was changed elsewhere meanwhile; nothing was overwritten. Reload to see it.")


def _is_empty(row: sa.Row) -> bool:
    return not row.free_text.strip() and not any(s["text"].strip() for s in row.statements)


def _same_text(a: dict, b: dict) -> bool:
    return a["statements"] == b["statements"] and a["free_text"] == b["free_text"]


def _state(r: sa.Row) -> ReportState:
    return ReportState(
        study_id=r.study_id,
        revision=r.revision,
        statements=tuple(encoding.statement(s) for s in r.statements),
        free_text=r.free_text,
        unseen=tuple(r.unseen),
        model=encoding.model(r.model),
        state=r.state,
        signed_version=r.signed_version,
    )


def _version(r: sa.Row) -> Version:
    content = r.content
    return Version(
        study_id=r.study_id,
        number=r.number,
        kind=r.kind,
        author=r.author,
        created_at=r.created_at,
        statements=tuple(encoding.statement(s) for s in content["statements"]),
        free_text=content["free_text"],
        indication=content["indication"],
        evidence=tuple(encoding.evidence(e) for e in content["evidence"]),
        unseen=tuple(content["unseen"]),
        model=encoding.model(content["model"]),
        addenda=tuple(encoding.addendum(a) for a in content["addenda"]),
        sha256=r.sha256,
    )
