"""`POST /api/studies/{id}/draft` → server-sent events while a draft is written; `DELETE`, or leaving, stops it."""

from __future__ import annotations

import json
import queue
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from webapp.drafting import Run
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/studies/{study_id}/draft")
HEARTBEAT_S = 5.0  # a comment, so that a closed tab is noticed while the model is silent


class Wish(BaseModel):
    search: bool = True
    seed: int = 0


@router.post("")
def draft(study_id: str, request: Request, body: Wish | None = None) -> StreamingResponse:
    wish = body or Wish()
    run = services_of(request).drafting.start(study_id, search=wish.search, seed=wish.seed)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(run), media_type="text/event-stream", headers=headers)


@router.delete("")
def stop(study_id: str, request: Request) -> dict:
    return {"stopped": services_of(request).drafting.stop(study_id)}


async def _events(run: Run) -> AsyncIterator[str]:
    try:
        while True:
            try:
                item = await run_in_threadpool(run.events.get, True, HEARTBEAT_S)
            except queue.Empty:
                yield ": still here\n\n"
                continue
            if item is None:
                return
            name, data = item
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n"
    finally:
        run.cancel.set()  # nobody listens any more; after the end it changes nothing
