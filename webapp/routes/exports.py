"""`GET /api/studies/{id}/export/{kind}` (`exports.EXPORTS`, and research) → a download, or one sentence why none."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from webapp import exports, uploads
from webapp.indexing import salt_of
from webapp.routes.services import services_of

router = APIRouter(prefix="/api/studies/{study_id}/export")


@router.get("/research")
def for_research(study_id: str, request: Request, flagged: bool = False) -> FileResponse:
    from webapp import research  # DICOM readers: not needed to show the page

    services = services_of(request)
    folder = uploads.private_folder(services.settings.home)
    try:
        path = folder / research.FILENAME
        told = research.write(services.store, study_id, salt_of(services.settings.home), path, flagged)
    except BaseException:
        uploads.discard(folder)
        raise
    services.store.audit("export research", study_id, f"{told['files']} files")
    return FileResponse(
        path,
        media_type="application/zip",
        filename=research.FILENAME,
        background=BackgroundTask(uploads.discard, folder),
    )


@router.get("/{kind}")
def export(study_id: str, kind: str, request: Request) -> Response:
    services = services_of(request)
    format_ = exports.export(kind)
    services.board.sync(study_id)
    bundle = exports.collect(services.store, study_id)
    data = format_.write(bundle)
    services.store.audit(f"export {format_.name}", study_id)
    media_type, filename = format_.named(bundle)
    headers = {"content-disposition": f'attachment; filename="{filename}"'}
    return Response(data, media_type=media_type, headers=headers)
