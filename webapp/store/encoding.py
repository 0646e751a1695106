"""Frozen dataclasses ↔ the JSON that the database's columns hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from core_models.drafting.evidence import DraftModel, Evidence, Statement, Step
from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import Alternative, Box, Click, Lasso, Scribble
from core_models.segmentation.history import Action
from core_models.segmentation.history import Step as SegmentStep
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


ACTIONS: dict[str, type] = {
    "click": Click,
    "scribble": Scribble,
    "box": Box,
    "lasso": Lasso,
    "alternative": Alternative,
    "stroke": Stroke,
    "interpolation": Interpolation,
    "grow": Grow,
}
_KINDS = {made: kind for kind, made in ACTIONS.items()}


def action_json(action: Action) -> Json:
    """A prompt or an edit with its kind beside its own fields."""
    return {"kind": _KINDS[type(action)], **asdict(action)}


def action(d: Json) -> Action:
    """From `action_json`; lists of whole numbers are indices."""
    values = {key: _tuple(value) for key, value in d.items() if key != "kind"}
    return ACTIONS[d["kind"]](**values)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list | tuple) else value


def steps_json(steps: tuple[SegmentStep, ...]) -> list:
    """Each step as its action with what it cost and brought; what is not known of it is left out."""
    out = []
    for step in steps:
        cost = {key: getattr(step, key) for key in ("ms", "added", "removed") if getattr(step, key) is not None}
        out.append({**action_json(step.action), **({"unit": step.unit} if step.unit else {}), **cost})
    return out


def steps(rows: list) -> tuple[SegmentStep, ...]:
    """From a row; older rows hold clicks alone, each as [i, j, k, positive]."""
    return tuple(SegmentStep(Click((r[0], r[1], r[2]), r[3])) if isinstance(r, list) else _step(r) for r in rows)


def _step(d: Json) -> SegmentStep:
    known = {key: d[key] for key in ("ms", "added", "removed", "unit") if key in d}
    return SegmentStep(action({key: value for key, value in d.items() if key not in known}), **known)


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
