"""Uploads: a scan becomes a study; what is no scan gets a sentence and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os

import pytest
import sqlalchemy as sa

from core_models.errors import Cancelled
from tests.builders import ct_files, edited
from tests.webapp.conftest import Room
from webapp import uploads
from webapp.routes.intake import SIGNED
from webapp.routes.shapes import AFTER_SIGNING
from webapp.store import schema


def _incoming(room: Room) -> list:
    folder = room.settings.home / "incoming"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_series_becomes_a_study_with_its_receipt(room: Room) -> None:
    study = room.study(n=8)
    assert study["modality"] == "CT"
    assert study["state"] == "new"
    assert study["series"][0]["receipt"]["loaded"] == 8
    assert study["series"][0]["shape"] == [8, 24, 32]
    assert study["segments"] == []
    assert [s["id"] for s in room.get("/api/studies")] == [study["id"]]
    assert _incoming(room) == []


def test_the_worklist_filters(room: Room) -> None:
    study = room.study(PatientName="Sample^One")
    assert [s["id"] for s in room.get("/api/studies?text=sample")] == [study["id"]]
    assert room.get("/api/studies?text=nobody") == []
    assert room.get("/api/studies?modality=MR") == []
    assert room.get("/api/studies?state=signed") == []


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\0" * 128 + b"DICM" + b"\xff" * 400, b"\x89PNG\r\n\x1a\n broken", b"PK\x03\x04 broken"],
    ids=["empty", "text", "broken DICOM", "broken PNG", "broken ZIP"],
)
def test_what_is_no_scan_is_refused_with_a_sentence(room: Room, data: bytes) -> None:
    job = room.upload(data)
    assert job["state"] == "failed"
    assert job["status"] in (413, 422)
    assert job["error"].endswith(".")
    assert "Traceback" not in job["error"]
    assert room.get("/api/studies") == []
    assert _incoming(room) == []


def test_a_truncated_slice_stores_nothing_of_the_series(room: Room) -> None:
    files = ct_files(n=4)
    job = room.upload(*files[:3], files[3][:-100])
    assert job["state"] == "failed"
    assert room.get("/api/studies") == []


def test_two_patients_in_one_study_are_refused(room: Room) -> None:
    files = ct_files(n=4)
    job = room.upload(*files[:3], edited(files[3], PatientID="RR-0002"))
    assert job["state"] == "failed"
    assert room.get("/api/studies") == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/octet-stream"),
        (b"", "multipart/form-data"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (b"--x\r\nX: " + b"a" * 9000 + b"\r\n\r\nabc\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    ],
    ids=["not multipart", "no boundary", "no part", "nonsense", "cut short", "no file name", "long header"],
)
def test_malformed_uploads_are_422(room: Room, content: bytes, kind: str) -> None:
    answer = room.client.post("/api/upload", content=content, headers={"content-type": kind})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].endswith(".")
    assert _incoming(room) == []
    assert _refusals(room) == ["Refused"]


def _refusals(room: Room) -> list[str]:
    query = sa.select(schema.audit.c.detail).where(schema.audit.c.action == "upload refused")
    with room.services.store._db.read() as c:
        return list(c.scalars(query))


def test_a_study_that_the_store_refuses_takes_the_others_of_its_upload_with_it(room: Room) -> None:
    own = {"StudyInstanceUID": "2.25.77", "SeriesInstanceUID": "2.25.78"}
    kept = room.study(n=3, **own)
    others = ct_files(n=3, StudyInstanceUID="2.25.87", SeriesInstanceUID="2.25.88")
    job = room.upload(*others, *ct_files(n=3, patient="RR-9", **own))
    assert (job["state"], job["status"]) == ("failed", 422)
    assert [s["id"] for s in room.get("/api/studies")] == [kept["id"]]
    assert _refusals(room) == ["Refused"]


def test_too_many_files_are_413(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    parts = [("files", ("a", b"x"))] * 3
    assert room.client.post("/api/upload", files=parts).status_code == 413


def test_names_never_become_paths(room: Room) -> None:
    parts = [
        ("files", (name, data)) for name, data in zip(["../../evil", "/etc/x", "C:\\x"], ct_files(n=3), strict=True)
    ]
    job = room.wait(room.client.post("/api/upload", files=parts).json()["job"])
    assert job["state"] == "done"
    assert not list(room.settings.home.parent.rglob("*evil*"))


def test_a_cancelled_upload_stores_nothing(room: Room) -> None:
    seen = room.services.read_scan

    def stopped(files, *, progress, cancelled):
        studies = seen(files, progress=progress, cancelled=cancelled)
        for job in list(room.services.jobs._jobs.values()):
            job.cancel.set()
        return studies

    object.__setattr__(room.services, "read_scan", stopped)
    job = room.upload(*ct_files(n=3))
    assert job["state"] == "cancelled"
    assert room.get("/api/studies") == []
    assert _incoming(room) == []


def test_cancelled_while_the_last_study_is_stored_leaves_what_was_here_before(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"StudyInstanceUID": "2.25.77"}
    kept = room.study(n=3, SeriesInstanceUID="2.25.78", **own)
    take_in = room.services.store.take_in

    def stopped(study):
        taken = take_in(study)
        for job in list(room.services.jobs._jobs.values()):
            job.cancel.set()
        return taken

    monkeypatch.setattr(room.services.store, "take_in", stopped)
    job = room.upload(*ct_files(n=3, SeriesInstanceUID="2.25.79", **own))
    assert (job["state"], job["result"]) == ("cancelled", None)
    assert room.get(f"/api/studies/{kept['id']}") == kept
    job = room.upload(*ct_files(n=3, StudyInstanceUID="2.25.87", SeriesInstanceUID="2.25.88"))
    assert job["state"] == "cancelled"
    assert [s["id"] for s in room.get("/api/studies")] == [kept["id"]]
    assert [p.name for p in room.settings.studies.iterdir()] == [kept["id"]]
    assert _incoming(room) == []


@pytest.mark.parametrize("whole", [False, True], ids=["while sending", "after sending"])
def test_a_sender_who_is_gone_leaves_nothing(room: Room, whole: bool) -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + ct_files(n=1)[0]
    messages = [{"type": "http.request", "body": start, "more_body": True}]
    if whole:
        messages.append({"type": "http.request", "body": b"\r\n--x--\r\n", "more_body": False})
    answers: list[dict] = []

    async def receive() -> dict:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        answers.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/upload",
        "raw_path": b"/api/upload",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 7860),
    }
    asyncio.run(room.client.app(scope, receive, send))
    assert answers[0]["status"] == Cancelled.status
    assert list(room.services.jobs._jobs) == []
    assert room.get("/api/studies") == []
    assert _incoming(room) == []


def test_a_series_for_a_signed_study_is_said_to_be_in_no_report(room: Room) -> None:
    own = {"StudyInstanceUID": "2.25.77"}
    study = room.study(n=3, SeriesInstanceUID="2.25.78", **own)
    path = f"/api/studies/{study['id']}"
    room.client.put(f"{path}/report", json={"revision": 0, "statements": [], "free_text": "Normal."})
    again = room.upload(*ct_files(n=3, SeriesInstanceUID="2.25.78", **own))
    assert again["result"] == {"studies": [study["id"]], "sentence": ""}
    cards = {card["id"]: card["status"] for card in room.get(f"{path}/evidence")}
    revision = room.get(f"{path}/report")["revision"]
    body = {"author": "Dr A", "revision": revision, "cards": cards}
    assert room.client.post(f"{path}/sign", json=body).status_code == 200
    signed, report = room.get(f"{path}/versions"), room.get(f"{path}/report")
    again = room.upload(*ct_files(n=3, SeriesInstanceUID="2.25.78", **own))
    assert again["result"]["sentence"] == "", "nothing arrived that was not here"
    job = room.upload(*ct_files(n=4, SeriesInstanceUID="2.25.79", **own))
    assert job["result"] == {"studies": [study["id"]], "sentence": SIGNED}
    first, late = room.get(path)["series"]
    assert first == study["series"][0]
    assert late["receipt"]["notes"][-1] == {"level": "warning", "text": AFTER_SIGNING}
    assert (room.get(f"{path}/versions"), room.get(f"{path}/report")) == (signed, report)


def test_demo_scans_are_listed_and_open_with_one_request(room: Room) -> None:
    listed = room.get("/api/demo")
    assert {"name", "title", "description", "ready"} <= set(listed[0])
    ready = next(d["name"] for d in listed if d["ready"])
    job = room.wait(room.client.post(f"/api/demo/{ready}").json()["job"])
    assert job["state"] == "done", job
    assert len(room.get("/api/studies")) == 1
    assert room.client.post("/api/demo/none").status_code == 404


def test_deleting_a_study_removes_it(room: Room) -> None:
    study = room.study()
    assert room.client.delete(f"/api/studies/{study['id']}").status_code == 204
    assert room.get("/api/studies") == []
    assert room.client.get(f"/api/studies/{study['id']}").status_code == 404


def test_leftovers_of_a_killed_process_are_swept_but_not_a_running_upload(tmp_path) -> None:
    old, fresh = uploads.private_folder(tmp_path), uploads.private_folder(tmp_path)
    (old / "00000").write_bytes(b"x")
    os.utime(old, (0, 0))
    uploads.sweep(tmp_path)
    assert not old.exists()
    assert fresh.exists()
    uploads.sweep(tmp_path / "none")
