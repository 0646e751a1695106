"""The evidence board: cards, finding chips and priors under `/api/studies/{id}`, and the vocabulary of findings."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from webapp.routes import shapes
from webapp.routes.services import services_of

router = APIRouter(prefix="/api")
SUGGESTED = 30
READING_S = 20.0
"""A search waits so long for the image: with it, it finds other reports."""
UNREAD = "The image is still being read and was not searched with: search again in a moment."


class Finding(BaseModel):
    term: str


class Status(BaseModel):
    status: str


@router.get("/studies/{study_id}/evidence")
def evidence(study_id: str, request: Request) -> list[dict]:
    """All cards; priors carry their report."""
    services = services_of(request)
    cards = services.board.sync(study_id)
    priors = {row.evidence.id: row for row in services.store.priors(study_id)}
    return [shapes.prior(priors[c.id]) if c.id in priors else shapes.card(c) for c in cards]


@router.post("/studies/{study_id}/evidence")
def add_finding(study_id: str, body: Finding, request: Request) -> dict:
    return shapes.card(services_of(request).board.add_finding(study_id, body.term))


@router.patch("/studies/{study_id}/evidence/{card_id}")
def set_status(study_id: str, card_id: str, body: Status, request: Request) -> dict:
    return shapes.card(services_of(request).board.set_status(study_id, card_id, body.status))


@router.delete("/studies/{study_id}/evidence/{card_id}", status_code=204)
def remove(study_id: str, card_id: str, request: Request) -> Response:
    services_of(request).board.remove(study_id, card_id)
    return Response(status_code=204)


@router.get("/studies/{study_id}/evidence/{card_id}/calipers")
def calipers(study_id: str, card_id: str, request: Request) -> dict:
    """The lengths that a card's number is made of, in pixels of one series' image; none for most cards."""
    series, lines = services_of(request).board.calipers(study_id, card_id)
    return {"series": series, "lines": [{"words": c.words, "start": c.start, "end": c.end} for c in lines]}


@router.post("/studies/{study_id}/priors")
def find_priors(study_id: str, request: Request) -> dict:
    services = services_of(request)
    looks = services.eyes.wait(study_id, seconds=READING_S)
    services.board.sync(study_id)
    found = services.priors.find(study_id)
    late = " " + UNREAD if any(not look.over for look in looks) else ""
    return {"priors": [shapes.prior(row) for row in found.rows], "sentence": f"{found.sentence}{late}".strip()}


@router.get("/findings")
def findings(q: str = "") -> list[str]:
    """Terms that hold every word of `q`, those that begin with it first, then the frequent ones."""
    words = q.casefold().split()[:8]
    matches = [term for term in _vocabulary() if all(word in term.casefold() for word in words)]
    if words:
        matches.sort(key=lambda term: not term.casefold().startswith(words[0]))  # stable: frequency decides the rest
    return matches[:SUGGESTED]


@cache
def _vocabulary() -> tuple[str, ...]:
    from core_models.drafting.findings import vocabulary

    return vocabulary()
