"""Segments: prompts, edits and a mask in, rows and masks out; the mask's file is replaced whole on every change."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from core_models.errors import NotFound, Refused
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.history import Step
from webapp.store import deleted, encoding, schema
from webapp.store.base import Base, limited, new_id, now
from webapp.store.rows import SegmentRow

# Distinguishable on grey, also with red-green colour blindness (Okabe-Ito first, then Tol's bright set).
PALETTE = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#66ccee",
    "#ccbb44",
    "#aa3377",
    "#ee6677",
    "#228833",
)
MAX_LABEL = 200
MAX_STEPS = 1000
MAX_POINTS = 200_000  # of all lines of a segment together


class Segments(Base):
    """The segment part of `Store`.  Cards that cite a segment are the caller's to change or delete.

    A deleted segment is NotFound for everything but `restore_segment`, and no list holds it.
    """

    def segments(self, study_id: str) -> tuple[SegmentRow, ...]:
        """All segments of a study in order of their number.  Raises NotFound."""
        t = schema.segments.c
        with self._db.read() as c:
            self._study(c, study_id)
            here = sa.and_(t.study_id == study_id, t.deleted_at.is_(None))
            rows = c.execute(sa.select(schema.segments).where(here).order_by(t.number))
            return tuple(_segment_row(r) for r in rows)

    def segment(self, segment_id: str) -> SegmentRow:
        """One segment.  Raises NotFound."""
        with self._db.read() as c:
            return _segment_row(self._segment(c, segment_id))

    def _segment(self, c: sa.Connection, segment_id: str) -> sa.Row:
        row = self._any_segment(c, segment_id)
        if row is None or row.deleted_at is not None:
            raise NotFound("There is no such segment here; it may have been deleted.")
        return row

    def _any_segment(self, c: sa.Connection, segment_id: str) -> sa.Row | None:
        return c.execute(sa.select(schema.segments).where(schema.segments.c.id == segment_id)).one_or_none()

    def mask(self, segment_id: str) -> Mask:
        """The segment's mask.  Raises NotFound."""
        missed = ""
        while True:  # a save between the row and the file removes the old file: read the row again
            with self._db.read() as c:
                row = self._segment(c, segment_id)
            if row.mask_file == missed:
                break
            try:
                return self._files.mask(row.study_id, row.mask_file)
            except FileNotFoundError:
                missed = row.mask_file
        raise NotFound("The file of this segment's mask is gone; delete the segment and click it again.")

    def base(self, segment_id: str) -> Mask | None:
        """The mask that a model drew beneath the steps, or None where steps alone made the segment."""
        with self._db.read() as c:
            row = self._segment(c, segment_id)
        try:
            return self._files.mask(row.study_id, row.base_file) if row.base_file else None
        except FileNotFoundError as e:
            raise NotFound("The model's drawing beneath this segment is gone; delete the segment.") from e

    def add_segment(
        self,
        study_id: str,
        series_id: str,
        *,
        label: str,
        suggested: bool | str,
        steps: tuple[Step, ...],
        undone: tuple[Step, ...] = (),
        mask: Mask,
        engine: str,
        engine_version: str,
        confidence: float,
        note: str = "",
        measurement: dict[str, Any] | None = None,
        based: bool = False,
        hint: Click | None = None,
        settled: bool = False,
    ) -> SegmentRow:
        """Store a new segment.

        Args:
            based: keep `mask` as the drawing that later steps act on.

        Raises:
            NotFound: no such study, or the series is not of this study.
            Refused: the mask is not of the volume's shape, or there are too many steps.
            Conflict: the study is signed.
        """
        segment_id, written, base = new_id(), "", ""
        try:
            with self._db.write() as c:
                row = self._changeable(c, study_id)
                self._check_mask(c, study_id, series_id, mask)
                number = row.last_segment + 1
                written = self._files.put_mask(study_id, segment_id, mask)
                base = self._files.put_mask(study_id, segment_id, mask) if based else ""
                c.execute(schema.studies.update().where(schema.studies.c.id == study_id).values(last_segment=number))
                values = {
                    "id": segment_id,
                    "study_id": study_id,
                    "series_id": series_id,
                    "number": number,
                    "label": limited(label, "label", MAX_LABEL),
                    "suggested": suggested,
                    "colour": PALETTE[(number - 1) % len(PALETTE)],
                    "visible": True,
                    "engine": engine,
                    "engine_version": engine_version,
                    "mask_file": written,
                    "base_file": base,
                    **_shape_values(steps, undone, mask, confidence, note, measurement, hint, settled),
                }
                c.execute(schema.segments.insert().values(**values))
        except BaseException:
            for name in filter(None, (written, base)):
                self._files.drop_mask(study_id, name)
            raise
        return self.segment(segment_id)

    def save_segment(
        self,
        segment_id: str,
        *,
        steps: tuple[Step, ...],
        undone: tuple[Step, ...],
        mask: Mask,
        confidence: float,
        note: str = "",
        measurement: dict[str, Any] | None = None,
        label: str | None = None,
        suggested: bool | str | None = None,
        hint: Click | None = None,
        settled: bool = False,
        engine: str | None = None,
        engine_version: str | None = None,
    ) -> SegmentRow:
        """Replace a segment's steps and mask; label and engine only where they are given.  Raises as `add_segment`."""
        written = old = study_id = ""
        try:
            with self._db.write() as c:
                row = self._segment(c, segment_id)
                study_id, old = row.study_id, row.mask_file
                self._changeable(c, study_id)
                self._check_mask(c, study_id, row.series_id, mask)
                written = self._files.put_mask(study_id, segment_id, mask)
                shape = _shape_values(steps, undone, mask, confidence, note, measurement, hint, settled)
                values = {"mask_file": written, **shape}
                if label is not None:
                    values["label"] = limited(label, "label", MAX_LABEL)
                if suggested is not None:
                    values["suggested"] = suggested
                if engine is not None:
                    values |= {"engine": engine, "engine_version": engine_version or ""}
                c.execute(schema.segments.update().where(schema.segments.c.id == segment_id).values(**values))
        except BaseException:
            if written:
                self._files.drop_mask(study_id, written)
            raise
        self._files.drop_mask(study_id, old)
        return self.segment(segment_id)

    def edit_segment(
        self,
        segment_id: str,
        *,
        label: str | None = None,
        colour: str | None = None,
        visible: bool | None = None,
        outline: bool | None = None,
    ) -> SegmentRow:
        """Change how a segment is called or shown; a label given here is the reader's own, no longer suggested.

        Raises:
            NotFound; Refused: no "#rrggbb" colour; Conflict: a new label on a signed study (looks may change).
        """
        values: dict[str, Any] = {}
        if label is not None:
            values |= {"label": limited(label, "label", MAX_LABEL), "suggested": False}
        if colour is not None:
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
                raise Refused("A colour is written as #rrggbb, six hexadecimal digits.")
            values["colour"] = colour.lower()
        if visible is not None:
            values["visible"] = bool(visible)
        if outline is not None:
            values["outline"] = bool(outline)
        with self._db.write() as c:
            row = self._segment(c, segment_id)
            if label is not None:
                self._changeable(c, row.study_id)
            if values:
                c.execute(schema.segments.update().where(schema.segments.c.id == segment_id).values(**values))
            return _segment_row(self._segment(c, segment_id))

    def delete_segment(self, segment_id: str) -> None:
        """Take a segment away; its number is not given again.  Raises NotFound, Conflict when signed.

        It is kept aside for `restore_segment`, for how long `store/deleted` says.
        """
        with self._db.write() as c:
            row = self._segment(c, segment_id)
            self._changeable(c, row.study_id)
            # To the microsecond: the order in which they went tells which are forgotten first.
            gone = {"deleted_at": now("microseconds")}
            c.execute(schema.segments.update().where(schema.segments.c.id == segment_id).values(gone))
            files = deleted.past_number(c, row.study_id)
        self._files.drop_masks(files)

    def restore_segment(self, segment_id: str) -> SegmentRow:
        """Bring a deleted segment back as it was: id, number, looks, steps, steps undone, masks.

        Raises:
            NotFound: nothing of that id is deleted, or it was forgotten meanwhile; Conflict: the study is signed.
        """
        with self._db.write() as c:
            row = self._any_segment(c, segment_id)
            if row is None or row.deleted_at is None:
                raise NotFound("This segment cannot be brought back: it is here already, or gone for good.")
            self._changeable(c, row.study_id)
            c.execute(schema.segments.update().where(schema.segments.c.id == segment_id).values(deleted_at=None))
            return _segment_row(self._segment(c, segment_id))

    def _check_mask(self, c: sa.Connection, study_id: str, series_id: str, mask: Mask) -> None:
        t = schema.series.c
        shape = c.scalar(sa.select(t.shape).where(t.id == series_id, t.study_id == study_id))
        if shape is None:
            raise NotFound("There is no such series in this study.")
        inside = all(o >= 0 and o + n <= s for o, n, s in zip(mask.offset, mask.voxels.shape, mask.shape, strict=True))
        if tuple(mask.shape) != tuple(shape) or not inside:
            raise Refused(f"The mask is of a volume of {tuple(mask.shape)} voxels; the series has {tuple(shape)}.")


def _shape_values(
    steps: tuple[Step, ...],
    undone: tuple[Step, ...],
    mask: Mask,
    confidence: float,
    note: str,
    measurement: dict[str, Any] | None,
    hint: Click | None,
    settled: bool,
) -> dict[str, Any]:
    both = (*steps, *undone)
    if len(both) > MAX_STEPS:
        raise Refused(f"One segment takes at most {MAX_STEPS} clicks and edits; start another one.")
    if sum(len(getattr(step.action, "points", ())) for step in both) > MAX_POINTS:
        raise Refused("The lines of this segment have too many points together; start another one.")
    z, y, x = (int(v) for v in mask.offset)
    dz, dy, dx = mask.voxels.shape
    return {
        "clicks": encoding.steps_json(steps),
        "undone": encoding.steps_json(undone),
        "confidence": float(confidence),
        "note": limited(note, "note"),
        "measurement": measurement if measurement is not None else sa.null(),
        "box": [x, y, z, dx, dy, dz],
        "hint": encoding.action_json(hint) if hint is not None else sa.null(),
        "settled": bool(settled),
    }


def _segment_row(r: sa.Row) -> SegmentRow:
    return SegmentRow(
        id=r.id,
        study_id=r.study_id,
        series_id=r.series_id,
        number=r.number,
        label=r.label,
        suggested=r.suggested,
        colour=r.colour,
        visible=r.visible,
        steps=encoding.steps(r.clicks),
        undone=encoding.steps(r.undone),
        engine=r.engine,
        engine_version=r.engine_version,
        confidence=r.confidence,
        note=r.note,
        measurement=r.measurement,
        box=tuple(r.box),
        mask_file=r.mask_file,
        based=bool(r.base_file),
        outline=bool(r.outline),
        hint=encoding.action(r.hint) if r.hint else None,
        settled=bool(r.settled),
    )
