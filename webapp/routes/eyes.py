"""What the image models say: `/api/studies/{id}/reading`, `/api/series/{id}/anatomy`, `/api/evaluation`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel

from core_models.foundation.reading import Finding, Quality
from webapp.eyes import Look, draw_anatomy, outlook
from webapp.routes import shapes
from webapp.routes.services import services_of

router = APIRouter(prefix="/api")
Json = dict[str, Any]

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EVALUATION, DRAFTS = ASSETS / "foundation" / "evaluation.json", ASSETS / "adapter" / "evaluation.json"
CLICKS = ASSETS / "segmentation" / "evaluation.json"
COMMAND = "`python app.py evaluate findings --record`"
NOT_EVALUATED = f"The models were not evaluated here yet: run {COMMAND} once."
DAMAGED = f"The stored evaluation cannot be read: run {COMMAND} again."
HEAT_SIDE = 48  # the longest side of a heat map that is sent


class Wanted(BaseModel):
    label: str | None = None


@router.get("/studies/{study_id}/reading")
def reading(study_id: str, request: Request) -> Json:
    """Begins the reading where it was not; `state` is "reading" until every radiograph is done with."""
    services = services_of(request)
    looks = services.eyes.look(study_id)
    return {
        "state": "done" if all(look.over for look in looks) else "reading",
        "sentence": outlook(services.store.study(study_id)),
        "images": [image(look) for look in looks],
    }


@router.post("/series/{series_id}/anatomy")
def anatomy(series_id: str, body: Wanted, request: Request) -> Json:
    """Adds what the model drew under `label`, or everything where it is null; answers as a click does."""
    services = services_of(request)
    study, _ = services.store.series(series_id)
    rows = draw_anatomy(services.eyes, services.segments, series_id, body.label)
    return {"segment": rows[0].id, "segments": [shapes.segment(row) for row in services.store.segments(study.id)]}


@router.get("/evaluation")
def evaluation() -> Json:
    """The models' marks as `evaluate` wrote them, or why there are none; `drafting`, `clicks`: those of other parts."""
    try:
        found = json.loads(EVALUATION.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {"missing": NOT_EVALUATED}
    except (OSError, ValueError):
        found = {"missing": DAMAGED}
    return (found if isinstance(found, dict) else {"missing": NOT_EVALUATED}) | {
        "drafting": drafting_marks(),
        "clicks": click_marks(),
    }


def drafting_marks() -> Json | None:
    """The recorded figures of drafts without the drafts themselves; None where there are none that can be read."""
    try:
        found = json.loads(DRAFTS.read_text(encoding="utf-8"))
        systems = {
            name: {group: one[group] for group in ("all", "non_normal")} for name, one in found["systems"].items()
        }
        return {name: found[name] for name in ("studies", "adapter")} | {
            "systems": systems,
            "pictures": found.get("pictures"),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def image(look: Look) -> Json:
    """One radiograph's reading; findings and structures only where the gate lets them through."""
    out: Json = {"series": look.series_id, "state": look.state, "sentence": look.sentence}
    if look.reading is None:
        return out
    r = look.reading
    return out | {
        "model": r.model,
        "licence": r.licence,
        "inputs": list(r.inputs),
        "missing": list(r.missing),
        "notes": list(r.notes),
        "seconds": r.seconds,
        "quality": quality(r.quality),
        "findings": [finding(f) for f in look.findings],
        "structures": [{"label": s.label, "confidence": s.confidence} for s in look.structures if not s.mask.empty],
    }


def quality(q: Quality) -> Json:
    return {
        "chest": q.chest,
        "frontal": q.frontal,
        "inverted": q.inverted,
        "rotated": q.rotated,
        "usable": q.usable,
        "notes": list(q.notes),
    }


def finding(f: Finding) -> Json:
    """A finding with its box in pixels (x0, y0, x1, y1) and its heat map as uint8 in base64, row by row."""
    return {
        "name": f.name,
        "term": f.term,
        "region": f.region,
        "probability": f.probability,
        "threshold": f.threshold,
        "calibrated": f.calibrated,
        "present": f.present,
        "box": list(f.box) if f.box is not None else None,
        "heat": heat(f.heat) if f.heat is not None else None,
    }


def heat(values: np.ndarray) -> Json:
    """A map of 0 to 1, (h, w), thinned to at most HEAT_SIDE a side by the means of its blocks."""
    step = max(1, -(-max(values.shape) // HEAT_SIDE))
    rows, columns = (max(1, side // step) for side in values.shape)
    cut = values[: rows * step, : columns * step] if step > 1 else values
    small = cut.reshape(rows, -1, columns, cut.shape[1] // columns).mean(axis=(1, 3))
    codes = np.rint(np.clip(np.nan_to_num(small), 0, 1) * 255).astype(np.uint8)
    return {"rows": rows, "columns": columns, "values": base64.b64encode(codes.tobytes()).decode()}


def click_marks() -> Json | None:
    """The recorded figures of click segmentation, a row for each source and engine; None where there are none."""
    from core_models.segmentation.judging import evaluation_report as report

    keys = ("n", "dice", "dice_ci", "hausdorff95", "clicks_to", "click_s")
    try:
        found = json.loads(CLICKS.read_text(encoding="utf-8"))
        rows = [
            {"data": report.plain(cohort), "trains": found["data"][cohort]["trains"], "engine": name}
            | {"taken": name == found["defaults"][cohort]}
            | {key: one[key] for key in keys}
            for cohort in report.cohorts(found)
            for name, one in report.of(found, cohort)
        ]
        targets = found["engines"][found["default"]]["targets"]
        return {key: found[key] for key in ("default", "clicks", "threads")} | {"rows": rows, "targets": targets}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
