"""The whole report as data: report.json with study, receipt, segments, evidence, priors, statements and reasoning.

A statement with `struck_out` is no part of the report: the check found no support and the reader did not restore it.
It is among the statements, so that what a model wrote can be traced, and not in `text`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from webapp.exports.bundle import ReportBundle
from webapp.report import struck_out
from webapp.store import SegmentRow, Version, encoding, report_text

Json = dict[str, Any]


def available(bundle: ReportBundle) -> str:
    """Always: an empty report is data too."""
    return ""


def write(bundle: ReportBundle) -> bytes:
    """UTF-8 JSON."""
    return json.dumps(content(bundle), ensure_ascii=False, indent=2, allow_nan=False).encode("utf-8", "replace")


def content(bundle: ReportBundle) -> Json:
    """The same as a dict; lengths in mm, volumes in ml, points in LPS mm."""
    report, study = bundle.report, bundle.study
    cards = bundle.evidence
    return {
        "notice": bundle.notice,
        "study": {
            "id": study.id,
            "uid": study.uid,
            "patient": {
                "name": study.patient_name,
                "id": study.patient_id,
                "sex": study.patient_sex,
                "birth_date": study.birth_date,
                "age": study.age,
            },
            "date": study.date,
            "accession": study.accession,
            "modality": study.modality,
            "description": study.description,
            "body_part": study.body_part,
            "indication": bundle.indication,
            "series": [
                {"uid": s.uid, "number": s.number, "description": s.description, "modality": s.modality}
                for s in study.series
            ],
        },
        "receipt": asdict(bundle.receipt),
        "segments": [_segment(s) for s in bundle.segments],
        "evidence": [{**asdict(e), "text": e.text} for e in cards],
        "priors": [
            {
                "id": p.evidence.id,
                "report": p.prior.report.id,
                "source": p.prior.report.source,
                "score": p.prior.score,
                "matched": list(p.prior.matched),
                "found_by": [{"list": name, "rank": rank, "score": score} for name, rank, score in p.prior.found_by],
                "findings": p.prior.report.findings,
                "impression": p.prior.report.impression,
                "terms": list(p.prior.report.terms),
                "flags": list(p.prior.report.flags),
                "status": p.evidence.status,
            }
            for p in bundle.priors
        ],
        "statements": [
            {
                "id": s.id,
                "section": s.section,
                "region": s.region,
                "text": s.text,
                "evidence": list(s.evidence),
                "support": s.support,
                "origin": s.origin,
                "note": s.note,
                "struck_out": struck_out(s),
                "restored": s.restored,
                "stale": s.stale,
            }
            for s in report.statements
        ],
        "free_text": report.free_text,
        "received": [{"date": row.date, **asdict(row.report)} for row in bundle.received],
        "text": report_text(bundle.meant().report),
        "reasoning": [
            {"statement": s.id, "considered": list(s.step.considered), "follows": s.step.follows}
            for s in report.statements
            if s.step is not None
        ],
        "unseen": list(report.unseen),
        "model": None if report.model is None else asdict(report.model),
        "state": _state(bundle),
    }


def _segment(row: SegmentRow) -> Json:
    measurement = row.measurement or {}
    return {
        "id": row.id,
        "number": row.number,
        "label": row.label,
        "suggested": row.suggested,
        "volume_ml": measurement.get("volume_ml"),
        "measurement": row.measurement,
        "engine": row.engine,
        "engine_version": row.engine_version,
        "confidence": row.confidence,
        "note": row.note,
        "clicks": [{"index": list(c.index), "positive": c.positive} for c in row.clicks],
        "steps": encoding.steps_json(row.steps),
        "box": list(row.box),
    }


def _state(bundle: ReportBundle) -> Json:
    report = bundle.report
    if not isinstance(report, Version):
        return {"kind": "draft", "revision": report.revision}
    return {
        "kind": report.kind,
        "version": report.number,
        "author": report.author,
        "signed_by": bundle.signature.author if bundle.signature else None,
        "created_at": report.created_at,
        "sha256": report.sha256,
        "addenda": [asdict(a) for a in report.addenda],
    }
