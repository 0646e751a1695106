"""`GET /api/studies/{id}/export/{pdf,sr,seg,fhir,json}` → a download, or one sentence why there is none."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from webapp import exports
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/studies/{study_id}/export")


@router.get("/{kind}")
def export(study_id: str, kind: str, request: Request) -> Response:
    services = services_of(request)
    format_ = exports.export(kind)
    services.board.sync(study_id)
    data = format_.write(exports.collect(services.store, study_id))
    services.store.audit(f"export {format_.name}", study_id)
    headers = {"content-disposition": f'attachment; filename="{format_.filename}"'}
    return Response(data, media_type=format_.media_type, headers=headers)
