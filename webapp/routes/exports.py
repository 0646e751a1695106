"""`GET /api/studies/{id}/export/{pdf,sr,seg,fhir,json}` → a download, or one sentence why there is none."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from core_models.errors import NotFound
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/studies/{study_id}/export")

# kind → (module of webapp.exports, media type, file name); a new export is a file there and a row here.
KINDS = {
    "pdf": ("pdf", "application/pdf", "report.pdf"),
    "sr": ("sr", "application/dicom", "report.dcm"),
    "seg": ("seg", "application/dicom", "segments.dcm"),
    "fhir": ("fhir", "application/fhir+json", "fhir.json"),
    "json": ("json", "application/json", "report.json"),
}


@router.get("/{kind}")
def export(study_id: str, kind: str, request: Request) -> Response:
    if kind not in KINDS:
        raise NotFound(f"There is no export {kind!r}; there are {', '.join(KINDS)}.")
    from webapp.exporting import export as write

    services = services_of(request)
    module, media_type, name = KINDS[kind]
    services.board.sync(study_id)
    data = write(services.store, study_id, module)
    services.store.audit(f"export {kind}", study_id)
    # A fixed name: a patient's name has no place in a browser's download list.
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)
