"""The worklist and the opened study under `/api/studies`: itself, its indication, the patient's earlier ones."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from webapp.routes import shapes
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/studies")


class Indication(BaseModel):
    text: str


@router.get("")
def worklist(request: Request, text: str = "", modality: str = "", state: str = "") -> list[dict]:
    store = services_of(request).store
    return [shapes.study(row) for row in store.studies(text=text[:200], modality=modality[:16], state=state[:16])]


@router.get("/{study_id}")
def study(study_id: str, request: Request) -> dict:
    store = services_of(request).store
    return shapes.study(store.study(study_id), store.segments(study_id))


@router.get("/{study_id}/earlier")
def earlier(study_id: str, request: Request) -> list[dict]:
    """The same patient's earlier studies, the latest first: what the viewer offers to compare with."""
    return [shapes.study(row) for row in services_of(request).store.earlier(study_id)]


@router.delete("/{study_id}", status_code=204)
def delete(study_id: str, request: Request) -> Response:
    services = services_of(request)
    services.drafting.stop(study_id)
    services.store.delete_study(study_id)
    services.eyes.forget(study_id)
    services.indexer.wake()
    return Response(status_code=204)


@router.put("/{study_id}/indication")
def indication(study_id: str, body: Indication, request: Request) -> dict:
    services = services_of(request)
    services.store.set_indication(study_id, body.text)
    services.board.sync(study_id)
    return {"text": body.text}
