"""Rows of the store → the JSON of the routes.  Header text stays as it is: the page shows it as text only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core_models.drafting.evidence import Evidence, Statement
from core_models.segmentation import registry
from core_models.segmentation.edits import Edit
from webapp.store import AnnotationRow, PriorRow, ReportState, SegmentRow, SeriesRow, StudyRow, Version, encoding
from webapp.store.received import ReceivedRow

Json = dict[str, Any]
AFTER_SIGNING = "This series arrived after the report was signed: the signed report says nothing of it."


def series(row: SeriesRow) -> Json:
    out = asdict(row)
    out["spacing"] = list(row.receipt.spacing) if row.receipt.spacing else None
    if row.after_signing:
        out["receipt"]["notes"] = [*out["receipt"]["notes"], {"level": "warning", "text": AFTER_SIGNING}]
    return out


def study(row: StudyRow, segments: tuple[SegmentRow, ...] | None = None) -> Json:
    """A study as the worklist and `GET /api/studies/{id}` answer it; segments only where given."""
    out = {
        "id": row.id,
        "accession": row.accession,
        "patient": {
            "name": row.patient_name,
            "id": row.patient_id,
            "sex": row.patient_sex,
            "birth_date": row.birth_date,
            "age": row.age,
        },
        "date": row.date,
        "modality": row.modality,
        "description": row.description,
        "body_part": row.body_part,
        "state": row.state,
        "created_at": row.created_at,
        "indication": row.indication,
        "notes": [asdict(n) for n in row.notes],
        "series": [series(s) for s in row.series],
    }
    if segments is not None:
        out["segments"] = [segment(s) for s in segments]
    return out


def segment(row: SegmentRow) -> Json:
    return {
        "id": row.id,
        "series": row.series_id,
        "number": row.number,
        "label": row.label,
        "suggested": row.suggested,
        "colour": row.colour,
        "visible": row.visible,
        "clicks": [{"index": list(c.index), "positive": c.positive} for c in row.clicks],
        "steps": _steps(row),
        "version": row.version,
        "hint": None if row.hint is None else {"index": list(row.hint.index), "positive": row.hint.positive},
        "settled": row.settled,
        "alternatives": _alternatives(row),
        "can_undo": bool(row.steps),
        "can_redo": bool(row.undone),
        "measurement": row.measurement,
        "engine": f"{row.engine} {row.engine_version}".strip(),
        "confidence": row.confidence,
        "note": row.note,
        "box": list(row.box),
        "based": row.based,
        "outline": row.outline,
    }


def _alternatives(row: SegmentRow) -> bool:
    """Whether the last step may have another answer: of prompts alone, by an engine that knows one."""
    prompted = bool(row.steps) and not row.based and not any(isinstance(s.action, Edit) for s in row.steps)
    return prompted and any(e.name == row.engine and e.alternatives for e in registry.ENGINES)


def _steps(row: SegmentRow) -> list[Json]:
    """The steps in force; of a brush's line only its slice, since the mask shows the rest."""
    out = encoding.steps_json(row.steps)
    for step in out:
        if step["kind"] == "stroke":
            step["slice"] = step["points"][0][step["axis"]]
            del step["points"]
    return out


def annotation(row: AnnotationRow, flat: bool) -> Json:
    """An annotation as the viewer draws it and the list names it; `flat`: its series is a single image."""
    return {
        "id": row.id,
        "series": row.series_id,
        "number": row.number,
        "kind": row.kind,
        "plane": row.plane,
        "points": [list(point) for point in row.points],
        "label": row.label,
        "title": row.title(flat),
        "numbers": [asdict(number) for number in row.numbers],
    }


def received(row: ReceivedRow) -> Json:
    """A report from elsewhere as the page shows it."""
    return {"id": row.id, "date": row.date, **asdict(row.report)}


def card(row: Evidence) -> Json:
    return {**asdict(row), "value_text": row.value_text, "text": row.text}


def prior(row: PriorRow) -> Json:
    """A prior's card with what the expandable part shows of its report."""
    report = row.prior.report
    return {
        **card(row.evidence),
        "score": row.prior.score,
        "matched": list(row.prior.matched),
        "found": row.prior.found_words,
        "close": row.prior.close,
        "same_patient": row.prior.same_patient,
        "stance": row.prior.stance,
        "said": [list(pair) for pair in row.prior.said],
        "report": {
            "id": report.id,
            "source": report.source,
            "date": report.date,
            "indication": report.indication,
            "findings": report.findings,
            "impression": report.impression,
            "terms": list(report.terms),
            "flags": list(report.flags),
        },
    }


def statement(row: Statement) -> Json:
    return {**asdict(row), "evidence": list(row.evidence)}


def report(row: ReportState, statements: tuple[Statement, ...] | None = None) -> Json:
    """The working report; `statements` where they were bound to the board anew."""
    shown = row.statements if statements is None else statements
    return {
        "revision": row.revision,
        "statements": [statement(s) for s in shown],
        "free_text": row.free_text,
        "unseen": list(row.unseen),
        "model": asdict(row.model) if row.model else None,
        "state": row.state,
        "signed_version": row.signed_version,
    }


def version(row: Version, whole: bool = False) -> Json:
    out: Json = {
        "number": row.number,
        "kind": row.kind,
        "author": row.author,
        "created_at": row.created_at,
        "sha256": row.sha256,
        "addenda": [asdict(a) for a in row.addenda],
        "model": asdict(row.model) if row.model else None,
    }
    if whole:
        out |= {
            "statements": [statement(s) for s in row.statements],
            "free_text": row.free_text,
            "indication": row.indication,
            "unseen": list(row.unseen),
        }
    return out
