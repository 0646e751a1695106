"""What a reader measured by hand: points and numbers in, rows out; each in one transaction, none on a signed study."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from core_models.errors import NotFound, Refused
from core_models.segmentation.lines import Number
from webapp.store import schema
from webapp.store.base import Base, limited, new_id, now
from webapp.store.rows import AnnotationRow

MAX_LABEL = 200
MAX_ANNOTATIONS = 500  # of one study: past that a list of them is read by nobody


class Annotations(Base):
    """The annotation part of `Store`.  Cards that cite an annotation are the caller's to change or delete."""

    def annotations(self, study_id: str) -> tuple[AnnotationRow, ...]:
        """All annotations of a study in order of their number.  Raises NotFound."""
        t = schema.annotations.c
        with self._db.read() as c:
            self._study(c, study_id)
            rows = c.execute(sa.select(schema.annotations).where(t.study_id == study_id).order_by(t.number))
            return tuple(_row(r) for r in rows)

    def annotation(self, annotation_id: str) -> AnnotationRow:
        """One annotation.  Raises NotFound."""
        with self._db.read() as c:
            return _row(self._annotation(c, annotation_id))

    def _annotation(self, c: sa.Connection, annotation_id: str) -> sa.Row:
        t = schema.annotations.c
        row = c.execute(sa.select(schema.annotations).where(t.id == annotation_id)).one_or_none()
        if row is None:
            raise NotFound("There is no such measurement here; it may have been deleted.")
        return row

    def add_annotation(
        self,
        series_id: str,
        *,
        kind: str,
        plane: str,
        points: tuple[tuple[float, float, float], ...],
        numbers: tuple[Number, ...],
        label: str = "",
    ) -> AnnotationRow:
        """Store a new annotation.  Raises NotFound, Conflict when signed, Refused when there are too many, TooLarge."""
        annotation_id = new_id()
        t = schema.annotations.c
        with self._db.write() as c:
            study_id = c.scalar(sa.select(schema.series.c.study_id).where(schema.series.c.id == series_id))
            if study_id is None:
                raise NotFound("There is no such series here; its study may have been deleted.")
            study = self._changeable(c, study_id)
            held = c.scalar(sa.select(sa.func.count()).select_from(schema.annotations).where(t.study_id == study_id))
            if held >= MAX_ANNOTATIONS:
                raise Refused(f"A study keeps at most {MAX_ANNOTATIONS} measurements: delete some first.")
            number = study.last_annotation + 1
            update = schema.studies.update().where(schema.studies.c.id == study_id)
            c.execute(update.values(last_annotation=number))
            c.execute(
                schema.annotations.insert().values(
                    id=annotation_id,
                    study_id=study_id,
                    series_id=series_id,
                    number=number,
                    kind=kind,
                    plane=plane,
                    label=limited(label, "label", MAX_LABEL),
                    created_at=now(),
                    **_shape(points, numbers),
                )
            )
        return self.annotation(annotation_id)

    def edit_annotation(
        self,
        annotation_id: str,
        *,
        points: tuple[tuple[float, float, float], ...] | None = None,
        numbers: tuple[Number, ...] | None = None,
        label: str | None = None,
    ) -> AnnotationRow:
        """Change the points with their numbers, or the label.  Raises NotFound, Conflict when signed, TooLarge."""
        values: dict[str, Any] = {}
        if points is not None and numbers is not None:
            values |= _shape(points, numbers)
        if label is not None:
            values["label"] = limited(label, "label", MAX_LABEL)
        with self._db.write() as c:
            row = self._annotation(c, annotation_id)
            self._changeable(c, row.study_id)
            if values:
                where = schema.annotations.c.id == annotation_id
                c.execute(schema.annotations.update().where(where).values(**values))
            return _row(self._annotation(c, annotation_id))

    def delete_annotation(self, annotation_id: str) -> None:
        """Remove an annotation; its number is not given again.  Raises NotFound, Conflict when signed."""
        with self._db.write() as c:
            row = self._annotation(c, annotation_id)
            self._changeable(c, row.study_id)
            c.execute(schema.annotations.delete().where(schema.annotations.c.id == annotation_id))


def _shape(points: tuple[tuple[float, float, float], ...], numbers: tuple[Number, ...]) -> dict[str, Any]:
    return {
        "points": [[float(v) for v in point] for point in points],
        "numbers": [asdict(number) for number in numbers],
    }


def _row(r: sa.Row) -> AnnotationRow:
    return AnnotationRow(
        id=r.id,
        study_id=r.study_id,
        series_id=r.series_id,
        number=r.number,
        kind=r.kind,
        plane=r.plane,
        points=tuple((float(i), float(j), float(k)) for i, j, k in r.points),
        label=r.label,
        numbers=tuple(Number(**n) for n in r.numbers),
    )
