"""`POST /api/studies/{id}/why` → a job that redrafts without each thing the draft rests on; `GET` → what is kept."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from webapp.jobs import Progress, Stopped
from webapp.routes.services import services_of
from webapp.why import Why

router = APIRouter(prefix="/api/studies/{study_id}/why")
Json = dict[str, Any]


class Question(BaseModel):
    statement: str = Field("", max_length=64)
    more: bool = False


@router.post("")
def ask(study_id: str, request: Request, body: Question | None = None) -> Json:
    question = body or Question()
    services = services_of(request)
    services.store.study(study_id)
    why = _why(request)

    def work(progress: Progress, cancelled: Stopped) -> Json:
        return why.explain(study_id, question.statement, question.more, lambda text: progress(0, 0, text), cancelled)

    return {"job": services.jobs.submit(work).id}


@router.get("")
def stored(study_id: str, request: Request) -> Json:
    return _why(request).stored(study_id)


def _why(request: Request) -> Why:
    services = services_of(request)
    return Why(services.store, services.board, services.eyes, services.drafting)
