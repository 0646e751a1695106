"""The export for research, the folder command and de-identification on intake: by the routes and the command line."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

import app
from core_models.study.intake import read_scan
from tests.builders import ct_files, ct_series, edited, zipped
from tests.webapp.conftest import Room, radiograph_file
from webapp.server import create_app

PATIENT = (b"Phantom", b"Anna", b"RR-0001", b"19600229", b"20240131")


def archive(room: Room, study: dict, query: str = "") -> dict[str, bytes]:
    answer = room.client.get(f"/api/studies/{study['id']}/export/research{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        return {name: found.read(name) for name in found.namelist()}


def test_a_study_goes_out_with_its_segments_and_without_its_patient(room: Room, tmp_path: Path) -> None:
    study = room.study(n=4)
    room.name(room.click(study, (12, 10, 2)), "liver")
    files = archive(room, study)
    told = json.loads(files.pop("report.json"))
    assert set(files) == {*(f"series001/{k:05d}.dcm" for k in range(4)), "segments.dcm"}
    assert told["files"] == 5
    for name, data in files.items():
        assert not any(word in data for word in PATIENT), name
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if shutil.which("dciodvfy"):
        command = ["dciodvfy", str(tmp_path / "out" / "segments.dcm")]
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
    (back,) = read_scan(tmp_path / "out")
    volume = room.services.store.volume(study["series"][0]["id"])
    np.testing.assert_array_equal(back.series[0].volume.array, volume.array)
    (attachment,) = back.attachments
    assert [d.label for d in attachment.drawings] == ["liver"]
    assert attachment.series_uids == (back.series[0].uid,)
    sources = {plane.source for d in attachment.drawings for plane in d.planes}
    assert sources <= {str(pydicom.dcmread(io.BytesIO(s)).SOPInstanceUID) for s in back.series[0].sources}
    assert list((room.settings.home / "incoming").iterdir()) == []


def test_a_deleted_segment_leaves_in_no_export(room: Room, tmp_path: Path) -> None:
    study = room.study(n=12)
    room.name(room.click(study, (16, 12, 6)), "liver")
    other = room.click(study, (6, 5, 3))
    room.name(other, "spleen")
    room.services.store.save_report(study["id"], statements=[], free_text="Seen.", base_revision=0)
    room.client.delete(f"/api/segments/{other['id']}")
    folder = tmp_path / "out"
    folder.mkdir()
    for name, data in archive(room, study).items():
        if name.endswith(".dcm"):
            (folder / name.replace("/", "-")).write_bytes(data)
    (back,) = read_scan(folder)
    assert [d.label for d in back.attachments[0].drawings] == ["liver"]
    for kind in ("sr", "seg", "rtstruct", "nifti", "stl", "json", "fhir"):
        answer = room.client.get(f"/api/studies/{study['id']}/export/{kind}")
        assert answer.status_code == 200, answer.text
        found = answer.content
        if zipfile.is_zipfile(io.BytesIO(found)):
            with zipfile.ZipFile(io.BytesIO(found)) as parts:
                found = b"".join(name.encode() + parts.read(name) for name in parts.namelist())
        assert b"spleen" not in found, kind


def test_two_exports_of_one_patient_belong_together(room: Room) -> None:
    first = room.study(n=2)
    second = room.study(n=2, StudyInstanceUID="2.25.7", SeriesInstanceUID="2.25.8")
    a, b = (pydicom.dcmread(io.BytesIO(archive(room, s)["series001/00000.dcm"])) for s in (first, second))
    assert a.PatientID == b.PatientID
    assert (a.StudyDate, a.FrameOfReferenceUID) == (b.StudyDate, b.FrameOfReferenceUID)
    assert a.StudyInstanceUID != b.StudyInstanceUID


def test_what_its_pixels_may_tell_stays_until_it_is_asked_for(room: Room) -> None:
    study = room.radiograph(BurnedInAnnotation="YES")
    refused = room.client.get(f"/api/studies/{study['id']}/export/research")
    assert refused.status_code == 422
    assert "pixels may show" in refused.json()["error"]
    files = archive(room, study, "?flagged=true")
    assert set(files) == {"series001/00000.dcm", "report.json"}
    (flagged,) = json.loads(files["report.json"])["pixels"]
    assert flagged["the image"] == ["declares that text is burned into its pixels"]
    assert list((room.settings.home / "incoming").iterdir()) == []


def test_a_study_that_is_not_there_is_404(room: Room) -> None:
    assert room.client.get("/api/studies/none/export/research").status_code == 404


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = app.main([str(a) for a in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_folder_is_deidentified_by_the_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ct_series(tmp_path / "in" / "Phantom Anna", n=3)
    (tmp_path / "in" / "notes.txt").write_text("Phantom Anna")
    (tmp_path / "in" / "us.dcm").write_bytes(edited(ct_files(n=1)[0], Modality="US"))
    out = tmp_path / "out"
    code, shown, _ = run(capsys, "deidentify", tmp_path / "in", "--out", out, "--json")
    assert code == 0
    assert "3 files cleaned, 2 left out" in shown
    assert sorted(p.name for p in out.iterdir()) == ["00000.dcm", "00001.dcm", "00002.dcm", "report.json"]
    assert not any(word in p.read_bytes() for p in out.iterdir() for word in PATIENT)
    told = json.loads(shown.splitlines()[-1])
    assert told == json.loads((out / "report.json").read_text())
    assert {row["why"]: row["files"] for row in told["left_out"]} == {
        "no DICOM file": 1,
        "its pixels may show who the patient is": 1,
    }
    assert [p["written"] for p in told["pixels"]] == [False]
    code, _, said = run(capsys, "deidentify", tmp_path / "in", "--out", out)
    assert code == 2
    assert "not empty" in said
    code, shown, _ = run(capsys, "deidentify", tmp_path / "in", "--out", tmp_path / "all", "--flagged")
    assert (code, len(list((tmp_path / "all").glob("*.dcm")))) == (0, 4)


def test_a_zip_with_a_damaged_file_writes_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = ct_files(n=1)[0]
    source = zipped(tmp_path / "in.zip", [("a", good), ("b", good[:-10])])
    code, _, said = run(capsys, "deidentify", source, "--out", tmp_path / "out")
    assert code == 2
    assert "bytes of pixels; 1,536 were expected." in said
    assert list((tmp_path / "out").iterdir()) == []


def test_by_the_setting_nothing_of_the_patient_is_stored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    from tests.webapp.conftest import ADDRESS

    monkeypatch.setenv("READING_ROOM_DEIDENTIFY", "1")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "restored after the test")
    application = create_app()
    services = application.state.services
    with TestClient(application, base_url=ADDRESS) as client:

        def upload(*files: bytes) -> dict:
            job = client.post("/api/upload", files=[("files", ("Phantom.dcm", f)) for f in files]).json()["job"]
            services.jobs.get(job).finished.wait(30)
            done = client.get(f"/api/jobs/{job}").json()
            assert done["state"] == "done", done
            return client.get(f"/api/studies/{done['result']['studies'][0]}").json()

        files = ct_files(n=4)
        study = upload(*files[:2])
        assert study["patient"]["name"].startswith("RR-")
        assert any("De-identified on intake" in n["text"] for n in study["notes"])
        again = upload(*ct_files(n=2, SeriesInstanceUID="2.25.99"))  # the same study: its UID is replaced alike
        assert (again["id"], len(again["series"])) == (study["id"], 2)
        flagged = upload(radiograph_file(BurnedInAnnotation="YES"))
        assert any("may still show" in n["text"] and n["level"] == "warning" for n in flagged["notes"])
        services.eyes.close()
        services.segments.close()
        services.store.close()
    for path in home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(word in data for word in PATIENT), path.name
