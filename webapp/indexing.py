"""Signed reports and what the eyes saw of their images → the index of priors, fed from the outbox of signing.

Concurrency: one daemon thread does all the work and sleeps until `wake`; the outbox row is marked only after the index
was published, and adding a report twice replaces it, so a crash between the two costs nothing but the repeat.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_models.errors import Busy, ModelMissing, NotFound, ReadingRoomError
from webapp.errors import logged
from webapp.priors import EmbeddingOf, shared_text, text_encoder
from webapp.store import OutboxRow, Store, StudyRow, Version

if TYPE_CHECKING:
    import numpy as np

SALT_BYTES = 32
RETRY_S = 30.0


class Indexer:
    """Takes the outbox into the index.

    Args:
        published: called after the index changed, so that the next search opens it anew.
        encoder: makes the text encoder; called at the first report, not before.
        embedding_of: what the eyes saw of a study's image; stored with its report.
        shared: makes the text tower of the shared image-text space, or None; called only where the index needs it.
    """

    def __init__(
        self,
        store: Store,
        index: Path,
        salt: bytes,
        published: Callable[[], None] = lambda: None,
        encoder: Callable[[], Any] = lambda: text_encoder(1),
        embedding_of: EmbeddingOf = lambda _: None,
        shared: Callable[[], Any | None] = lambda: shared_text(1),
    ) -> None:
        self._store, self._index, self._salt, self._published = store, index, salt, published
        self._make_encoder, self._make_shared, self._embedding_of = encoder, shared, embedding_of
        self._encoder: Any = None
        self._compared = False  # whether the index was looked through for what it lacks of signed studies
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def wake(self) -> None:
        """There may be work; returns at once."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
                self._thread.start()
        self._woken.set()

    def seen(self, study_id: str) -> None:
        """A study's image was read: where its report is in the index already, the image joins it."""
        if self._store.study(study_id).state == "signed":
            self._compared = False
            self.wake()

    def _run(self) -> None:
        wait: float | None = None
        while True:
            self._woken.wait(wait)
            self._woken.clear()
            wait = None
            try:
                self.take()
            except Busy:
                wait = RETRY_S  # another process writes the index
            except ReadingRoomError:
                pass  # there is no index yet: the rows stay and are taken at the next wake or start
            except Exception as error:
                logged(error)

    def take(self) -> int:
        """Bring every waiting row into the index; returns how many were taken.

        Raises:
            ModelMissing: there is no index or no text encoder (the rows stay); Busy: another process writes the index.
        """
        from retrieval import index

        rows = self._store.outbox()
        signed = () if self._compared else self._store.studies(state="signed")
        if not rows and not signed:
            return 0
        held = index.open_index(self._index)  # before the encoder is loaded for nothing
        waiting = {row.study_id for row in rows}
        lost = self._lost((s for s in signed if s.id not in waiting), held)
        if not rows and not lost:
            self._compared = True
            return 0
        if self._encoder is None:
            self._encoder = self._make_encoder()
        try:
            for row in rows:
                report = self._report(row)
                if report is None:
                    index.remove(self._index, [row.study_id], self._encoder)
                else:
                    self._add(held, [report])
                self._store.outbox_done(row.id)
            if lost:
                self._add(held, lost)
            self._compared = True
        finally:
            self._published()  # also where a later row failed: the earlier ones are in the index
        return len(rows) + len(lost)

    def _add(self, held: Any, reports: list[Any]) -> None:
        """Add reports with their images; the shared text tower is loaded only where the index has its vectors."""
        from retrieval import index

        seen = {r.study_id: e for r in reports if (e := self._embedding(r.study_id)) is not None}
        model = next((model for _, model in seen.values()), "")
        images = index.ImageVectors(model, {study: vector for study, (vector, of) in seen.items() if of == model})
        shared = self._make_shared() if held.shared.texts is not None else None
        index.add(self._index, reports, self._encoder, shared=shared, images=images)

    def _lost(self, studies: Iterable[StudyRow], held: Any) -> list[Any]:
        """What the index lacks of signed studies: the reports, where it was damaged and built anew; the images, where
        it was built by another model or a study was read only after it was signed."""
        from retrieval import index

        present = {r.id for r in held.reports if r.source == index.SIGNED}
        lacking = [s for s in studies if s.id not in present or self._unseen(s.id, held)]
        reports = [corpus_report(s, self._store.versions(s.id)[-1], self._salt) for s in lacking]
        return [r for r in reports if r.text]

    def _unseen(self, study_id: str, held: Any) -> bool:
        """Whether the index has no image of the study, and would take the one that there is."""
        if study_id in held.with_image:
            return False
        seen = self._embedding(study_id)
        return seen is not None and held.takes(seen[1])

    def _embedding(self, study_id: str) -> tuple[np.ndarray, str] | None:
        """What the eyes saw; a report enters the index whether they saw something or failed."""
        from retrieval.shared import unit

        try:
            seen = self._embedding_of(study_id)
            return seen and (unit(seen[0]), seen[1])
        except ReadingRoomError:
            return None
        except Exception as error:
            logged(error)
            return None

    def _report(self, row: OutboxRow) -> Any | None:
        """The version as the index holds it, or None where the study is gone or empty."""
        if row.kind == "deleted":
            return None
        try:
            return corpus_report(
                self._store.study(row.study_id), self._store.version(row.study_id, row.version), self._salt
            )
        except NotFound:  # deleted since; its own row follows
            return None


def corpus_report(study: StudyRow, version: Version, salt: bytes) -> Any:
    """A signed version as a report of the index: no name, no number of the patient in it, its text cleaned."""
    from retrieval import clean
    from retrieval.report import CorpusReport

    def text(*parts: str) -> tuple[str, tuple[str, ...]]:
        kept, flags, _ = clean.section(without_identifiers(" ".join(p for p in parts if p.strip()), study))
        return kept, flags

    def section(name: str) -> tuple[str, ...]:
        return tuple(s.text for s in version.statements if s.section == name)

    findings, first = text(*section("findings"), version.free_text)
    impression, second = text(*section("impression"), *(a.text for a in version.addenda))
    indication, third = clean.indication(without_identifiers(version.indication, study))
    accepted = (c for c in version.evidence if c.kind == "finding" and c.status == "accepted")
    return CorpusReport(
        id=study.id,
        study_id=study.id,
        indication=indication,
        findings=findings,
        impression=impression,
        terms=tuple(dict.fromkeys(t for c in accepted if (t := text(c.statement)[0].rstrip(".")))),
        modality=study.modality,
        region=study.body_part.lower(),
        source="signed",
        patient_key=patient_key(study.patient_id, salt),
        date=study.date,
        flags=tuple(dict.fromkeys((*first, *second, *third))),
    )


def without_identifiers(text: str, study: StudyRow) -> str:
    """The text without the patient's own name, number, accession and birth date, wherever they were typed."""
    words = {study.patient_id, study.accession, *_written(study.birth_date)}
    words |= set(re.split(r"[\s^=,]+", study.patient_name))
    for word in sorted((w.strip() for w in words), key=len, reverse=True):
        if len(word) > 2:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", text, flags=re.IGNORECASE)
    return text


def _written(day: str) -> tuple[str, ...]:
    """A day as a header has it (YYYYMMDD) and as people type it."""
    if not re.fullmatch(r"\d{8}", day):
        return (day,)
    year, month, date = day[:4], day[4:6], day[6:]
    orders = ((year, month, date), (date, month, year), (month, date, year))
    plain = [sep.join(parts) for parts in orders for sep in "-./"]
    return (day, *plain, *(re.sub(r"(?<!\d)0", "", p) for p in plain))


def patient_key(patient_id: str, salt: bytes) -> str:
    """A salted digest that is the same for one patient on this machine and says nothing elsewhere; "" without an id."""
    if not patient_id.strip():
        return ""
    return hashlib.blake2b(patient_id.strip().encode(), key=salt, digest_size=16).hexdigest()


def salt_of(home: Path) -> bytes:
    """This machine's own salt, made once and readable by its owner alone."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "salt"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SALT_BYTES))
    except FileExistsError:
        pass
    salt = path.read_bytes()
    if len(salt) != SALT_BYTES:
        raise ModelMissing(f"The file {path.name!r} in the application's folder is damaged: remove it and start again.")
    return salt
