"""The working report, its versions and its signature under `/api/studies/{id}`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from core_models.errors import Conflict, NotFound
from webapp.report import Edit
from webapp.routes import shapes
from webapp.routes.services import services_of
from webapp.store import Store, diff
from webapp.store.received import ReceivedRow

router = APIRouter(prefix="/api/studies/{study_id}")


class StatementIn(BaseModel):
    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    section: str = Field(pattern="^(findings|impression)$")
    text: str
    restored: bool = False
    agree: bool = False


class ReportIn(BaseModel):
    revision: int
    statements: list[StatementIn] = Field(max_length=500)
    free_text: str = ""


class Signature(BaseModel):
    """`cards`: id → status of the evidence that the reader saw when signing began; None where nobody looked at it."""

    author: str
    revision: int
    cards: dict[str, str] | None = None


class AddendumIn(BaseModel):
    author: str
    text: str


@router.get("/report")
def report(study_id: str, request: Request) -> dict:
    services = services_of(request)
    return shapes.report(*services.reports.current(study_id))


@router.put("/report", response_model=None)
def save(study_id: str, body: ReportIn, request: Request) -> dict | JSONResponse:
    services = services_of(request)
    edits = [Edit(s.id, s.section, s.text, s.restored, s.agree) for s in body.statements]  # type: ignore[arg-type]
    try:
        return shapes.report(*services.reports.save(study_id, edits, body.free_text, body.revision))
    except Conflict as error:
        # The reader's text stays in the editor; the newer one comes along for the comparison.
        newer = shapes.report(*services.reports.current(study_id))
        return JSONResponse({"error": str(error), "report": newer}, error.status)


@router.get("/received")
def received(study_id: str, request: Request) -> list[dict]:
    """Reports of the study that came from elsewhere, to be read beside its own."""
    return [shapes.received(row) for row in services_of(request).store.received(study_id)]


@router.post("/received/{received_id}/take")
def take_over(study_id: str, received_id: str, request: Request) -> dict:
    """Its sentences become the reader's own in the working report."""
    from webapp import attached

    services = services_of(request)
    row = _of(services.store, study_id, received_id)
    attached.take_over(services.reports, study_id, row.report, row.date)
    return shapes.report(*services.reports.current(study_id))


@router.delete("/received/{received_id}")
def remove_received(study_id: str, received_id: str, request: Request) -> list[dict]:
    store = services_of(request).store
    store.delete_received(_of(store, study_id, received_id).id)
    return [shapes.received(row) for row in store.received(study_id)]


def _of(store: Store, study_id: str, received_id: str) -> ReceivedRow:
    row = store.received_one(received_id)
    if row.study_id != study_id:
        raise NotFound("There is no such report of this study.")
    return row


@router.get("/versions")
def versions(study_id: str, request: Request) -> list[dict]:
    return [shapes.version(v) for v in services_of(request).store.versions(study_id)]


@router.get("/versions/{number}")
def version(study_id: str, number: int, request: Request) -> dict:
    return shapes.version(services_of(request).store.version(study_id, number), whole=True)


@router.get("/diff")
def difference(study_id: str, request: Request, a: int, b: int = 0) -> list[dict]:
    """Word by word from version `a` to version `b`, or to the working report where `b` is 0."""
    store = services_of(request).store
    newer = store.version(study_id, b) if b else store.report(study_id)
    return [{"op": op, "text": text} for op, text in diff(store.version(study_id, a), newer)]


@router.post("/sign")
def sign(study_id: str, body: Signature, request: Request) -> dict:
    services = services_of(request)
    services.drafting.stop(study_id)
    services.reports.sign(study_id, body.author, body.revision, body.cards)
    services.indexer.wake()
    return shapes.report(*services.reports.current(study_id))


@router.post("/addendum")
def addendum(study_id: str, body: AddendumIn, request: Request) -> dict:
    services = services_of(request)
    added = services.store.addendum(study_id, author=body.author, text=body.text)
    services.indexer.wake()
    return shapes.version(added)
