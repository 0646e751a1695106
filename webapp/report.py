"""A reader's edits and a model's draft → the working report, each without undoing the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from core_models.drafting.evidence import DraftModel, Section, Statement
from core_models.errors import Conflict, Refused
from webapp.board import Board, agreed, bound, reworded
from webapp.store import ReportState, Store, Version
from webapp.store.reports import author_of

MERGE_TRIES = 5
SECTIONS: tuple[Section, ...] = ("findings", "impression")


@dataclass(frozen=True)
class Edit:
    """One row as the editor holds it.  What a model knows of a statement (evidence, step) never comes from there."""

    id: str
    section: Section
    text: str
    restored: bool = False
    agree: bool = False


class Reports:
    """The working report of every study."""

    def __init__(self, store: Store, board: Board) -> None:
        self._store = store
        self._board = board

    def current(self, study_id: str) -> tuple[ReportState, tuple[Statement, ...]]:
        """The stored report, and its statements bound to the board as it is now."""
        cards = self._board.sync(study_id)
        state = self._store.report(study_id)
        return state, (state.statements if state.state == "signed" else bound(state.statements, cards))

    def save(
        self, study_id: str, edits: Sequence[Edit], free_text: str, revision: int
    ) -> tuple[ReportState, tuple[Statement, ...]]:
        """Store the editor's rows in their order; a row that is missing was removed.

        Raises:
            Conflict: the report changed since `revision`, or is signed.
        """
        cards = self._board.sync(study_id)
        known = {s.id: s for s in self._store.report(study_id).statements}
        if any(edit.id not in known for edit in edits):
            # A row that another editor removed comes back with its own past, never as the reader's invention.
            known = {s.id: s for v in self._store.versions(study_id) for s in v.statements} | known
        statements = []
        for edit in edits:
            old = known.get(edit.id) or Statement(edit.id, edit.section, "other", "", support="supported")
            new = replace(reworded(old, edit.text, cards), section=edit.section, restored=edit.restored)
            if edit.agree:
                new = agreed(new, cards)
            statements.append(new)
        state = self._store.save_report(
            study_id, statements=bound(statements, cards), free_text=free_text, base_revision=revision
        )
        return state, state.statements

    def merge_draft(
        self, study_id: str, drafted: Sequence[Statement], model: DraftModel, unseen: Sequence[str]
    ) -> tuple[ReportState, tuple[Statement, ...]]:
        """Put a draft in place of the untouched statements of the previous one; the reader's own stay.

        Raises:
            Conflict: the report is signed, or changes faster than this can follow.
        """
        for _ in range(MERGE_TRIES):
            cards = self._board.sync(study_id)
            state = self._store.report(study_id)
            past = [s.id for v in self._store.versions(study_id) for s in v.statements]
            merged = merge(state.statements, drafted, past)
            try:
                saved = self._store.save_report(
                    study_id,
                    statements=bound(merged, cards),
                    free_text=state.free_text,
                    base_revision=state.revision,
                    unseen=unseen,
                    model=model,
                )
            except Conflict:
                if self._store.report(study_id).revision == state.revision:
                    raise  # signed: it will not change any more
                continue
            return saved, saved.statements
        raise Conflict("The report is being changed elsewhere: the draft was not stored, ask for it again.")

    def add_lines(self, study_id: str, lines: Sequence[tuple[Section, str, str]]) -> None:
        """Add (section, region, sentence)s as the reader's own, as they may be changed and removed; none twice.

        Raises:
            Conflict: the report is signed, or changes faster than this can follow.
        """
        for _ in range(MERGE_TRIES):
            state = self._store.report(study_id)
            past = [s.id for v in self._store.versions(study_id) for s in v.statements]
            said = {s.text for s in state.statements}
            first = _next_number([*past, *(s.id for s in state.statements)])
            new = [line for line in dict.fromkeys(lines) if line[2] not in said]
            added = [
                Statement(f"s{n}", section, region, text, support="supported")
                for n, (section, region, text) in enumerate(new, first)
            ]
            every = [*state.statements, *added]
            try:
                self._store.save_report(
                    study_id,
                    statements=[s for section in SECTIONS for s in every if s.section == section],
                    free_text=state.free_text,
                    base_revision=state.revision,
                )
                return
            except Conflict:
                if self._store.report(study_id).revision == state.revision:
                    raise  # signed
        raise Conflict("The report is being changed elsewhere: take the sentences over again.")

    def sign(self, study_id: str, author: str, revision: int, seen: Mapping[str, str] | None = None) -> Version:
        """Freeze the report as the reader saw it: what stood struck out is left out, what is stale says so.

        Args:
            seen: id → status of the cards that the reader had before them; None asks nothing.

        Raises:
            Conflict: it changed since `revision`, or is signed already; the board is not what was seen.
            Refused: no author, or nothing is left to sign; the report stays as it is.
        """
        author = author_of(author)
        cards = self._board.sync(study_id)
        state = self._store.report(study_id)
        if seen is not None and state.state != "signed" and dict(seen) != {c.id: c.status for c in cards}:
            raise Conflict("The evidence changed while you were signing: look at the board, then sign again.")
        if state.revision == revision and state.state != "signed":
            meant = bound((s for s in state.statements if not struck_out(s)), cards)
            if not state.free_text.strip() and not any(s.text.strip() for s in meant):
                raise Refused(
                    "There is nothing to sign: every statement of the report stands struck out, or it is empty."
                )
            if meant != state.statements:
                saved = self._store.save_report(
                    study_id, statements=meant, free_text=state.free_text, base_revision=revision
                )
                revision = saved.revision
        return self._store.sign(study_id, author=author, base_revision=revision)


def struck_out(statement: Statement) -> bool:
    """A model's statement that no evidence supports and that the reader neither edited nor restored."""
    return statement.origin == "model" and statement.support == "unsupported" and not statement.restored


def merge(
    present: Sequence[Statement], drafted: Sequence[Statement], past: Sequence[str] = ()
) -> tuple[Statement, ...]:
    """The reader's own statements, then the drafted ones, section by section; drafted ids are made new.

    A statement the reader restored is theirs too: the check had dropped it, they decided otherwise.

    Args:
        past: ids that earlier versions used; none is given again.
    """
    kept = [s for s in present if s.origin != "model" or s.restored]
    first = _next_number([*past, *(s.id for s in present)])
    new = [replace(s, id=f"s{n}") for n, s in enumerate(drafted, first)]
    said = {(s.section, s.text.casefold()) for s in kept}
    new = [s for s in new if (s.section, s.text.casefold()) not in said]
    # What the reader reworded is not said again in the model's words: each takes the place of the one most like it.
    for mine in (s for s in kept if s.origin == "edited" and s.evidence):
        alike = [s for s in new if (s.section, set(s.evidence)) == (mine.section, set(mine.evidence))]
        if alike:
            new.remove(max(alike, key=lambda s: SequenceMatcher(None, s.text, mine.text).ratio()))
    return tuple(s for section in SECTIONS for s in (*kept, *new) if s.section == section)


def _next_number(used: Sequence[str]) -> int:
    """The first n for which no statement "sN" with N >= n was ever used."""
    return 1 + max((int(m[1]) for i in used if (m := re.fullmatch(r"s(\d{1,9})", i))), default=0)
