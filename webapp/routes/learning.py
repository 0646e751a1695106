"""What signing taught: the adapters with who is in use, and how much of what was drafted here is accepted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from core_models.drafting import promotion
from core_models.errors import Conflict, ReadingRoomError
from webapp import learning
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/learning")
Json = dict[str, Any]

FIXED = "READING_ROOM_ADAPTER names the adapter that is used; while it is set, none that was promoted is."


@router.get("")
def overview(request: Request, adapter: str | None = None) -> Json:
    """`adapter` (as drafts name it) narrows `acceptance`; a damaged list of adapters is told in `sentence`."""
    services = services_of(request)
    fixed = bool(services.settings.adapter)
    adapters, before, sentence = [], None, FIXED if fixed else ""
    try:
        adapters = [asdict(a) | {"current": a.current and not fixed} for a in promotion.listed(services.settings.home)]
        before = None if fixed else promotion.before(services.settings.home)
    except ReadingRoomError as error:
        sentence = str(error)
    return {
        "adapters": adapters,
        "before": before,
        "sentence": sentence,
        "signed_cases": len({row.study_id for row in services.store.corrections()}),
        "writers": learning.writers(services.store),
        "acceptance": learning.acceptance(services.store, adapter),
    }


@router.post("/return")
def go_back(request: Request) -> Json:
    """To the adapter before the current one."""
    services = services_of(request)
    if services.settings.adapter:
        raise Conflict(FIXED)
    name = promotion.back(services.settings.home)
    services.store.audit("adapter return", detail=name)
    services.drafting.forget()
    return {"current": name, "sentence": f"The {name} adapter writes the drafts from now on."}
