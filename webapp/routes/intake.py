"""Uploads and demo scans → studies in the store, read in a job: `POST /api/upload`, `/api/demo`, `/api/jobs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from core_models.errors import Cancelled, Refused
from webapp import uploads
from webapp.jobs import Progress, Stopped
from webapp.routes.services import services_of
from webapp.service import Services
from webapp.store import Intake

router = APIRouter(prefix="/api")
SIGNED = (
    "A study of this upload is signed: its report stays as it was and says nothing of the images that arrived now. "
    "Write an addendum if it should."
)


@router.post("/upload")
async def upload(request: Request) -> dict:
    services = services_of(request)
    folder = uploads.private_folder(services.settings.home)
    try:
        files = await uploads.receive(request.headers.get("content-type", ""), request.stream(), folder)
        if await request.is_disconnected():  # nobody would learn the job's id, so nobody could stop it
            raise ClientDisconnect
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
    """Read every study of the files, then store them; a refused or cancelled upload leaves nothing that it brought.

    Args:
        title: described so where a scan's header says nothing of the patient or the date.

    Returns:
        the studies' ids, and a sentence where a signed one gained images ("" otherwise).
    """
    from webapp import attached  # DICOM readers and scipy: not needed to show the page

    stored: list[Intake] = []
    drawn: list[str] = []
    received: list[str] = []
    try:
        studies = services.read_scan(files, progress=progress, cancelled=cancelled)
        for n, study in enumerate(studies):
            _go_on(cancelled)
            progress(n, len(studies), "Storing")
            if title and not (study.patient.name or study.patient.id or study.date):
                study = replace(study, description=title)
            if study.series:
                stored.append(services.store.take_in(study))
            else:
                own = attached.study_of(services.store, study.uid, study.attachments)
                stored.append(Intake(own, new=False, series=()))
        _go_on(cancelled)  # who left while the last one was stored wanted none of it
        for intake, study in zip(stored, studies, strict=True):
            if study.attachments:
                _go_on(cancelled)
                progress(len(studies), len(studies), "Laying segments on the images")
                drawn += attached.draw(services.store, services.segments, intake.study_id, study.attachments)
        for intake, study in zip(stored, studies, strict=True):
            received += attached.receive(services.store, intake.study_id, study.attachments)
    except Exception as error:
        for segment_id in drawn:
            services.segments.delete(segment_id)
        for received_id in received:
            services.store.delete_received(received_id)
        for intake in stored:
            services.store.take_back(intake)
        if not isinstance(error, Cancelled):
            _audit_refusal(services, error)
        raise
    added = any(intake.signed and intake.series for intake in stored)
    return {"studies": [intake.study_id for intake in stored], "sentence": SIGNED if added else ""}


def _go_on(cancelled: Stopped) -> None:
    if cancelled():
        raise Cancelled("The upload was stopped; nothing was stored.")


def _audit_refusal(services: Services, error: Exception) -> None:
    services.store.audit("upload refused", detail=type(error).__name__)
