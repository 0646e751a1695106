"""Studies and series: a read `Study` in, worklist rows and volumes out."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from core_models.errors import Busy, Conflict, NotFound, Refused
from core_models.study.study import Series, Study
from core_models.study.volume import Volume
from webapp.store import encoding, schema
from webapp.store.base import Base, limited, new_id, now
from webapp.store.encoding import plain
from webapp.store.rows import Intake, SeriesRow, StudyRow

VOLUMES_HELD = 4
MAX_INDICATION = 20_000
EARLIER = 20  # studies of the same patient that are offered to compare with


class Studies(Base):
    """The study part of `Store`."""

    def __init__(self) -> None:
        self._volumes: OrderedDict[str, Volume] = OrderedDict()
        self._volumes_lock = threading.Lock()
        self._intake_lock = threading.Lock()

    def add_study(self, study: Study) -> str:
        """`take_in`, of which only the study's id is wanted."""
        return self.take_in(study).study_id

    def take_in(self, study: Study) -> Intake:
        """Store a study whole, or nothing of it.

        A study that is here already (same StudyInstanceUID) keeps its id and gains the series that are new; where its
        report is signed, they are marked as `after_signing`.

        Raises:
            Refused: the same study holds another patient, or it has no series.
            Conflict: a series is here already with other voxels.
            Busy, ReadingRoomError (507): the store is locked, the disk is full.
        """
        if not study.series:
            raise Refused("The upload holds no series that can be opened.")
        digests = [_digest(s) for s in study.series]
        # One intake at a time, but files are written before the transaction begins: clicks need not wait for them.
        with self._intake_lock:
            with self._db.read() as c:
                known = self._known(c, study)
                new = self._new_series(c, known, study.series, digests)
            study_id, ids = known or new_id(), [new_id() for _ in new]
            try:
                for series_id, (series, _) in zip(ids, new, strict=True):
                    with self._db.plain_errors():
                        self._files.put_series(study_id, series_id, series.volume.array, series.sources)
                with self._db.write() as c:
                    if known is None:
                        c.execute(schema.studies.insert().values(**_study_values(study_id, study)))
                        c.execute(schema.reports.insert().values(**_empty_report(study_id)))
                    else:
                        self._study(c, study_id, lock=True)
                    state = sa.select(schema.reports.c.state).where(schema.reports.c.study_id == study_id)
                    signed = c.scalar(state) == "signed"
                    start = self._series_count(c, study_id)
                    for n, (series_id, (series, digest)) in enumerate(zip(ids, new, strict=True), start):
                        values = _series_values(study_id, series_id, n, series, digest) | {"after_signing": signed}
                        c.execute(schema.series.insert().values(**values))
                    if new:
                        self._audit(c, "upload", study_id, f"{len(new)} series")
            except BaseException as e:
                for series_id in ids:
                    self._files.drop_series(study_id, series_id)
                if known is None:
                    self._files.drop_study(study_id)
                if isinstance(e, IntegrityError):
                    raise Busy("The same study is being uploaded elsewhere: try again in a moment.") from e
                raise
        return Intake(study_id, known is None, tuple(ids), signed)

    def take_back(self, intake: Intake) -> None:
        """Remove what an intake brought, and nothing that was here before it."""
        if intake.new:
            self.delete_study(intake.study_id)
            return
        with self._db.write() as c:
            t = schema.series.c
            c.execute(schema.series.delete().where(t.study_id == intake.study_id, t.id.in_(intake.series)))
            self._audit(c, "upload taken back", intake.study_id, f"{len(intake.series)} series")
        with self._volumes_lock:
            self._volumes.clear()
        for series_id in intake.series:
            self._files.drop_series(intake.study_id, series_id)

    def _known(self, c: sa.Connection, study: Study) -> str | None:
        """The id of the same study if it is here.  Raises Refused when it is another patient's."""
        if not study.uid:
            return None
        row = c.execute(sa.select(schema.studies).where(schema.studies.c.uid == plain(study.uid))).one_or_none()
        if row is None:
            return None
        if row.patient_id != plain(study.patient.id):
            raise Refused("This study is here already for another patient; mixed patients are refused.")
        return row.id

    def _new_series(
        self, c: sa.Connection, study_id: str | None, series: tuple[Series, ...], digests: list[str]
    ) -> list:
        table = schema.series.c
        known: dict[str, set[str]] = {}
        for uid, digest in c.execute(sa.select(table.uid, table.digest).where(table.study_id == study_id)):
            known.setdefault(uid, set()).add(digest)
        new = []
        for one, digest in zip(series, digests, strict=True):
            if plain(one.uid) not in known:
                new.append((one, digest))
            elif digest not in known[plain(one.uid)]:
                raise Conflict(
                    "A series of this study is here already with other images; delete the study before uploading "
                    "its new version."
                )
        return new

    def _series_count(self, c: sa.Connection, study_id: str) -> int:
        query = sa.select(sa.func.count()).select_from(schema.series).where(schema.series.c.study_id == study_id)
        return c.scalar(query) or 0

    def studies(self, *, text: str = "", modality: str = "", state: str = "") -> tuple[StudyRow, ...]:
        """The worklist, newest first; every word of `text` must occur in name, id, description or indication."""
        t = schema.studies.c
        query = sa.select(schema.studies, schema.reports.c.state).join(schema.reports)
        for word in _searchable(text).split():
            query = query.where(t.search.contains(word, autoescape=True))
        if modality:
            held = sa.select(schema.series.c.study_id).where(schema.series.c.modality == modality)
            query = query.where(sa.or_(t.modality == modality, t.id.in_(held)))
        if state:
            query = query.where(schema.reports.c.state == state)
        with self._db.read() as c:
            rows = c.execute(query.order_by(t.created_at.desc(), t.id)).all()
            series: dict[str, list[SeriesRow]] = {}
            for row in c.execute(sa.select(schema.series).order_by(schema.series.c.position)):
                series.setdefault(row.study_id, []).append(_series_row(row))
        return tuple(_study_row(r, tuple(series.get(r.id, ()))) for r in rows)

    def study(self, study_id: str) -> StudyRow:
        """One study.  Raises NotFound."""
        with self._db.read() as c:
            return self._study_row(c, study_id)

    def _study_row(self, c: sa.Connection, study_id: str) -> StudyRow:
        self._study(c, study_id)
        query = sa.select(schema.studies, schema.reports.c.state).join(schema.reports)
        row = c.execute(query.where(schema.studies.c.id == study_id)).one()
        series = c.execute(
            sa.select(schema.series).where(schema.series.c.study_id == study_id).order_by(schema.series.c.position)
        )
        return _study_row(row, tuple(_series_row(s) for s in series))

    def earlier(self, study_id: str) -> tuple[StudyRow, ...]:
        """The same patient's studies of an earlier date, the latest first; () where no patient or date is known.

        One patient id may mean two people in two hospitals: a birth date that differs tells them apart.

        Raises:
            NotFound: no such study.
        """
        t = schema.studies.c
        with self._db.read() as c:
            own = self._study(c, study_id)
            if not own.patient_id or not own.date:
                return ()
            query = (
                sa.select(t.id, t.birth_date)
                .where(t.patient_id == own.patient_id, t.date != "", t.date < own.date)
                .order_by(t.date.desc(), t.created_at.desc())
                .limit(EARLIER)
            )
            ids = [
                r.id
                for r in c.execute(query)
                if not (r.birth_date and own.birth_date and r.birth_date != own.birth_date)
            ]
            return tuple(self._study_row(c, i) for i in ids)

    def delete_study(self, study_id: str) -> None:
        """Remove a study, its files and its pending work; a signed one leaves an outbox row for the index."""
        with self._db.write() as c:
            self._study(c, study_id, lock=True)
            signed = c.scalar(sa.select(schema.reports.c.signed_version).where(schema.reports.c.study_id == study_id))
            c.execute(schema.outbox.delete().where(schema.outbox.c.study_id == study_id))
            if signed is not None:
                c.execute(
                    schema.outbox.insert().values(study_id=study_id, version=signed, kind="deleted", created_at=now())
                )
            c.execute(schema.studies.delete().where(schema.studies.c.id == study_id))
            self._audit(c, "delete study", study_id)
        with self._volumes_lock:
            self._volumes.clear()
        self._files.drop_study(study_id)

    def series(self, series_id: str) -> tuple[StudyRow, SeriesRow]:
        """A series with its study.  Raises NotFound."""
        with self._db.read() as c:
            row = self._series(c, series_id)
            return self._study_row(c, row.study_id), _series_row(row)

    def _series(self, c: sa.Connection, series_id: str) -> sa.Row:
        row = c.execute(sa.select(schema.series).where(schema.series.c.id == series_id)).one_or_none()
        if row is None:
            raise NotFound("There is no such series here; its study may have been deleted.")
        return row

    def volume(self, series_id: str) -> Volume:
        """The series' canonical volume (z, y, x), memory-mapped read-only; the last few are held open."""
        with self._volumes_lock:
            if series_id in self._volumes:
                self._volumes.move_to_end(series_id)
                return self._volumes[series_id]
        with self._db.read() as c:
            row = self._series(c, series_id)
        volume = Volume(
            self._files.array(row.study_id, series_id),
            np.asarray(row.affine, np.float64),
            modality=row.volume_modality,
            unit=row.unit,
            spacing_known=row.spacing_known,
            window=tuple(row.window),
            layout=encoding.layout(row.layout),
        )
        with self._volumes_lock:
            self._volumes[series_id] = volume
            while len(self._volumes) > VOLUMES_HELD:
                self._volumes.popitem(last=False)
        return volume

    def sources(self, series_id: str) -> tuple[Path, ...]:
        """The original DICOM files in the source's slice order; () for other formats."""
        with self._db.read() as c:
            row = self._series(c, series_id)
        return self._files.sources(row.study_id, series_id, row.sources)

    def set_indication(self, study_id: str, text: str) -> None:
        """Store why the scan was asked for.  Raises Conflict when signed, TooLarge."""
        text = limited(text, "indication", MAX_INDICATION)
        with self._db.write() as c:
            row = self._changeable(c, study_id)
            search = _search_text(row.patient_name, row.patient_id, row.description, row.accession, text)
            c.execute(
                schema.studies.update().where(schema.studies.c.id == study_id).values(indication=text, search=search)
            )


def _digest(series: Series) -> str:
    """SHA-256 of the voxels and the geometry, so that a second upload of the same series is recognised."""
    array = series.volume.array
    h = hashlib.sha256(f"{array.dtype.str}{array.shape}{np.round(series.volume.affine, 4).tolist()}".encode())
    for plane in array:
        h.update(np.ascontiguousarray(plane))
    return h.hexdigest()


def _searchable(text: str) -> str:
    return plain(text).replace("^", " ").replace("=", " ").casefold()


def _search_text(*parts: str) -> str:
    return _searchable(" ".join(parts))


def _study_values(study_id: str, study: Study) -> dict:
    p = study.patient
    return {
        "id": study_id,
        "uid": plain(study.uid) or None,
        "accession": plain(study.accession),
        "patient_id": plain(p.id),
        "patient_name": plain(p.name),
        "patient_sex": plain(p.sex),
        "birth_date": plain(p.birth_date),
        "age": plain(p.age),
        "date": plain(study.date),
        "modality": plain(study.modality),
        "description": plain(study.description),
        "body_part": plain(study.body_part),
        "indication": "",
        "notes": encoding.notes_json(study.notes),
        "search": _search_text(p.name, p.id, study.description, study.accession),
        "created_at": now(),
        "last_segment": 0,
        "last_evidence": 0,
        "last_prior": 0,
    }


def _empty_report(study_id: str) -> dict:
    return {"study_id": study_id, "revision": 0, "state": "new", "statements": [], "free_text": "", "unseen": []}


def _series_values(study_id: str, series_id: str, position: int, series: Series, digest: str) -> dict:
    v = series.volume
    return {
        "id": series_id,
        "study_id": study_id,
        "position": position,
        "uid": plain(series.uid),
        "digest": digest,
        "number": int(series.number),
        "description": plain(series.description),
        "modality": plain(series.modality),
        "volume_modality": plain(v.modality),
        "shape": [int(n) for n in v.shape],
        "affine": v.affine.tolist(),
        "window": [float(w) for w in v.window],
        "unit": v.unit,
        "spacing_known": bool(v.spacing_known),
        "layout": encoding.layout_json(v.layout),
        "receipt": encoding.receipt_json(series.receipt),
        "sources": len(series.sources),
        "view": plain(series.view),
    }


def _series_row(r: sa.Row) -> SeriesRow:
    return SeriesRow(
        id=r.id,
        study_id=r.study_id,
        uid=r.uid,
        number=r.number,
        description=r.description,
        modality=r.modality,
        shape=tuple(r.shape),
        affine=tuple(tuple(line) for line in r.affine),
        window=tuple(r.window),
        unit=r.unit,
        spacing_known=r.spacing_known,
        layout=encoding.layout(r.layout),
        receipt=encoding.receipt(r.receipt),
        has_sources=r.sources > 0,
        view=r.view,
        after_signing=r.after_signing,
    )


def _study_row(r: sa.Row, series: tuple[SeriesRow, ...]) -> StudyRow:
    return StudyRow(
        id=r.id,
        uid=r.uid or "",
        accession=r.accession,
        patient_name=r.patient_name,
        patient_id=r.patient_id,
        patient_sex=r.patient_sex,
        birth_date=r.birth_date,
        age=r.age,
        date=r.date,
        modality=r.modality,
        description=r.description,
        body_part=r.body_part,
        state=r.state,
        created_at=r.created_at,
        indication=r.indication,
        notes=encoding.notes(r.notes),
        series=series,
    )
