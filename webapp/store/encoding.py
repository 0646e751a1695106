"""Frozen dataclasses ↔ the JSON that the database's columns hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from core_models.drafting.evidence import DraftModel, Evidence, Statement, Step
from core_models.segmentation.engine import Click
from core_models.study.study import Note, Receipt
from core_models.study.volume import SourceLayout
from retrieval.report import CorpusReport, Prior
from webapp.store.rows import Addendum

Json = dict[str, Any]


def dumps(value: Any) -> str:
    """The database's JSON: no NaN (PostgreSQL refuses it), ASCII escapes (lone surrogates stay storable)."""
    return json.dumps(value, allow_nan=False)


def digest(content: Json) -> str:
    """SHA-256 of the content's canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(text: Any) -> str:
    """Text that every database takes: no NUL, no lone surrogate."""
    return str(text or "").replace("\x00", "").encode("utf-8", "replace").decode()


def statement_json(s: Statement) -> Json:
    return {**asdict(s), "text": plain(s.text), "template": plain(s.template), "evidence": list(s.evidence)}


def statement(d: Json) -> Statement:
    step = d.get("step")
    return Statement(
        **{
            **d,
            "evidence": tuple(d["evidence"]),
            "step": Step(tuple(step["considered"]), step["follows"]) if step else None,
        }
    )


def evidence_json(e: Evidence) -> Json:
    return asdict(e)


def evidence(d: Json, status: str | None = None) -> Evidence:
    location = d.get("location")
    return Evidence(
        **{
            **d,
            "location": tuple(location) if location else None,
            "status": status or d["status"],
        }
    )


def model_json(m: DraftModel | None) -> Json | None:
    return None if m is None else asdict(m)


def model(d: Json | None) -> DraftModel | None:
    return None if d is None else DraftModel(**d)


def clicks_json(clicks: tuple[Click, ...]) -> list:
    return [[*(int(v) for v in c.index), bool(c.positive)] for c in clicks]


def clicks(rows: list) -> tuple[Click, ...]:
    return tuple(Click((r[0], r[1], r[2]), r[3]) for r in rows)


def notes_json(notes: tuple[Note, ...]) -> list:
    return [[n.level, plain(n.text)] for n in notes]


def notes(rows: list) -> tuple[Note, ...]:
    return tuple(Note(level, text) for level, text in rows)


def receipt_json(r: Receipt) -> Json:
    return {**asdict(r), "notes": notes_json(r.notes)}


def receipt(d: Json) -> Receipt:
    spacing = d["spacing"]
    return Receipt(
        **{
            **d,
            "dimensions": tuple(d["dimensions"]),
            "spacing": tuple(spacing) if spacing else None,
            "notes": notes(d["notes"]),
        }
    )


def layout_json(layout: SourceLayout) -> Json:
    return {"axes": [int(a) for a in layout.axes], "flips": [bool(f) for f in layout.flips]}


def layout(d: Json) -> SourceLayout:
    return SourceLayout(tuple(d["axes"]), tuple(d["flips"]))


def prior_json(p: Prior) -> Json:
    return asdict(p)


def prior(d: Json) -> Prior:
    """From a row; what older rows do not have keeps its default."""
    report = {k: tuple(v) if isinstance(v, list) else v for k, v in d["report"].items()}
    pairs = {name: tuple(map(tuple, d.get(name, ()))) for name in ("found_by", "said")}
    return Prior(**{**d, "report": CorpusReport(**report), "matched": tuple(d["matched"]), **pairs})


def addendum(d: Json) -> Addendum:
    return Addendum(**d)
