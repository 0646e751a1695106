"""Uploads and demo scans → studies in the store, read in a job: `POST /api/upload`, `/api/demo`, `/api/jobs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from core_models.errors import Cancelled, Refused
from webapp import attached, uploads
from webapp.jobs import Progress, Stopped
from webapp.routes.services import services_of
from webapp.service import Services

router = APIRouter(prefix="/api")


@router.post("/upload")
async def upload(request: Request) -> dict:
    services = services_of(request)
    folder = uploads.private_folder(services.settings.home)
    try:
        files = await uploads.receive(request.headers.get("content-type", ""), request.stream(), folder)
    except BaseException as error:
        await run_in_threadpool(uploads.discard, folder)
        if isinstance(error, Refused):
            await run_in_threadpool(_audit_refusal, services, error)
        if isinstance(error, ClientDisconnect):
            raise Cancelled("The upload was stopped before it was complete; nothing was stored.") from None
        raise
    job = services.jobs.submit(
        lambda progress, cancelled: read_into_store(services, files, progress, cancelled),
        cleanup=lambda: uploads.discard(folder),
    )
    return {"job": job.id}


@router.get("/demo")
def demo_list(request: Request) -> list[dict]:
    return services_of(request).demos.list()


@router.post("/demo/{name}")
def demo_open(name: str, request: Request) -> dict:
    services = services_of(request)
    services.demos.check(name)

    def work(progress: Progress, cancelled: Stopped) -> dict:
        paths = services.demos.paths(name, progress, cancelled)
        return read_into_store(services, paths, progress, cancelled, title=services.demos.title(name))

    return {"job": services.jobs.submit(work).id}


@router.get("/jobs/{job_id}")
def job_state(job_id: str, request: Request) -> dict:
    return services_of(request).jobs.get(job_id).as_json()


@router.delete("/jobs/{job_id}")
def job_cancel(job_id: str, request: Request) -> dict:
    return services_of(request).jobs.cancel(job_id).as_json()


def read_into_store(
    services: Services, files: Sequence[Path], progress: Progress, cancelled: Stopped, title: str = ""
) -> dict:
    """Read every study of the files, then store them; a refused or cancelled upload leaves no study that it brought.

    Args:
        title: described so where a scan's header says nothing of the patient or the date.
    """
    ids: list[str] = []
    brought: list[str] = []
    try:
        studies = services.read_scan(files, progress=progress, cancelled=cancelled)
        for n, study in enumerate(studies):
            if cancelled():
                raise Cancelled("The upload was stopped; nothing was stored.")
            progress(n, len(studies), "Storing")
            if title and not (study.patient.name or study.patient.id or study.date):
                study = replace(study, description=title)
            present = {row.id for row in services.store.studies()}
            if study.series:
                ids.append(services.store.add_study(study))
            else:
                ids.append(attached.study_of(services.store, study.uid, study.attachments))
            if ids[-1] not in present:
                brought.append(ids[-1])
            if study.attachments:
                progress(n, len(studies), "Laying segments on the images")
                attached.attach(services.store, services.segments, services.reports, ids[-1], study.attachments)
    except Exception as error:
        for study_id in brought:
            services.store.delete_study(study_id)
        if not isinstance(error, Cancelled):
            _audit_refusal(services, error)
        raise
    return {"studies": ids}


def _audit_refusal(services: Services, error: Exception) -> None:
    services.store.audit("upload refused", detail=type(error).__name__)
