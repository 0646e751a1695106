"""A segmentation, a structure set or our own structured report, uploaded with or after its images, by the routes."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from core_models.study.intake import read_scan
from tests import builders
from tests.builders import ct_files, edited, uid
from tests.study.attached_files import box_contour, structure_set
from tests.webapp.conftest import Room

CENTRE = (12, 10, 4)


def exported(room: Room, kind: str) -> tuple[bytes, np.ndarray]:
    """A study with one named segment: its export, and the mask; the study is deleted again."""
    study = room.study()
    segment = room.click(study, CENTRE)
    room.name(segment, "liver")
    data = room.client.get(f"/api/studies/{study['id']}/export/{kind}").content
    mask = room.services.store.mask(segment["id"]).full()
    assert room.client.delete(f"/api/studies/{study['id']}").status_code == 204
    return data, mask


def only(room: Room, job: dict) -> dict:
    assert job["state"] == "done", job
    return room.get(f"/api/studies/{job['result']['studies'][0]}")


def mask_of(room: Room, segment: dict) -> np.ndarray:
    return room.services.store.mask(segment["id"]).full()


@pytest.mark.parametrize("together", [True, False], ids=["with its images", "after its images"])
def test_a_segmentation_becomes_segments_of_its_study(room: Room, together: bool) -> None:
    seg, mask = exported(room, "seg")
    if together:
        study = only(room, room.upload(*ct_files(), seg))
    else:
        before = room.study()
        study = only(room, room.upload(seg))
        assert study["id"] == before["id"]
    (segment,) = study["segments"]
    assert (segment["label"], segment["engine"], segment["based"]) == ("liver", "DICOM SEG SEMIAUTOMATIC ball", True)
    assert segment["series"] == study["series"][0]["id"]
    np.testing.assert_array_equal(mask_of(room, segment), mask)
    assert segment["measurement"]["volume_ml"] == pytest.approx(mask.sum() * 2 / 1000)
    cards = room.get(f"/api/studies/{study['id']}/evidence")
    assert any(c["statement"] == "liver: volume" and c["segment_id"] == segment["id"] for c in cards)
    assert room.client.get(f"/api/segments/{segment['id']}/mask").status_code == 200


def test_a_segmentation_that_came_is_corrected_by_clicks_and_exported_again(room: Room) -> None:
    seg, mask = exported(room, "seg")
    study = only(room, room.upload(*ct_files(), seg))
    (segment,) = study["segments"]
    grown = room.click(study, (22, 16, 4), segment["id"])
    assert mask_of(room, grown).sum() > mask.sum()
    undone = room.client.post(f"/api/segments/{segment['id']}/undo").json()
    assert undone["segments"][0]["measurement"] == segment["measurement"]
    assert room.client.get(f"/api/studies/{study['id']}/export/seg").content.startswith(bytes(128) + b"DICM")


@pytest.mark.parametrize("label", ["heart", "right lung"])
def test_a_structure_that_a_model_here_draws_quietly_is_measured_when_it_came(room: Room, label: str) -> None:
    study = room.study()
    volume = room.services.store.volume(study["series"][0]["id"])
    contours = [box_contour(volume, k, (5, 12), (8, 20)) for k in (2, 3)]
    only(room, room.upload(structure_set({label: contours}, study=uid("study"), series=uid("series"))))
    cards = room.get(f"/api/studies/{study['id']}/evidence")
    assert f"{label}: volume" in {c["statement"] for c in cards}


def test_the_same_segmentation_twice_stays_one_segment(room: Room) -> None:
    seg, _ = exported(room, "seg")
    study = only(room, room.upload(*ct_files(), seg))
    assert only(room, room.upload(seg))["segments"] == study["segments"]


def test_a_structure_set_becomes_segments(room: Room, tmp_path) -> None:
    for n, data in enumerate(ct_files()):
        (tmp_path / str(n)).write_bytes(data)
    volume = read_scan(tmp_path)[0].series[0].volume
    contours = [box_contour(volume, k, (5, 12), (8, 20)) for k in (2, 3, 4)]
    contours.append(box_contour(volume, 3, (7, 9), (10, 13)))  # a hole in the middle slice
    rt = structure_set({"GTV": contours}, study=uid("study"), series=uid("series"))
    study = only(room, room.upload(*ct_files(), rt))
    (segment,) = study["segments"]
    expected = np.zeros(volume.shape, bool)
    expected[2:5, 5:12, 8:20] = True
    expected[3, 7:9, 10:13] = False
    np.testing.assert_array_equal(mask_of(room, segment), expected)
    assert (segment["label"], segment["engine"]) == ("GTV", "DICOM RTSTRUCT MANUAL")
    assert "DICOM RTSTRUCT" in segment["note"]
    again = room.client.get(f"/api/studies/{study['id']}/export/seg").content
    assert pydicom.dcmread(io.BytesIO(again)).SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


ROWS = [
    {"id": "a", "section": "findings", "text": "The liver is ≥ 20 cm — groß <b>."},
    {"id": "b", "section": "findings", "text": "No effusion."},
    {"id": "c", "section": "impression", "text": "Large liver."},
]


def reported(room: Room, sign: bool = True) -> tuple[bytes, float]:
    """A study with a named segment and a report, signed or not: its SR, and the segment's ml; the study is deleted."""
    study = room.study()
    segment = room.click(study, CENTRE)
    room.name(segment, "liver")
    path = f"/api/studies/{study['id']}"
    saved = room.client.put(
        f"{path}/report", json={"revision": 0, "statements": ROWS, "free_text": "First line.\nSecond."}
    ).json()
    if sign:
        cards = {c["id"]: c["status"] for c in room.get(f"{path}/evidence")}
        body = {"author": "Dr Anna O", "revision": saved["revision"], "cards": cards}
        assert room.client.post(f"{path}/sign", json=body).status_code == 200
    data = room.client.get(f"{path}/export/sr").content
    ml = room.services.store.mask(segment["id"]).full().sum() * 2 / 1000
    assert room.client.delete(path).status_code == 204
    return data, ml


def test_our_structured_report_comes_back_as_the_report_it_was_and_not_into_this_one(room: Room) -> None:
    sr, ml = reported(room)
    study = room.study()
    for _ in range(2):
        assert only(room, room.upload(sr))["id"] == study["id"]
    path = f"/api/studies/{study['id']}"
    (report,) = room.get(f"{path}/received")
    assert (report["author"], report["final"]) == ("Dr Anna O", True)
    assert report["findings"] == [ROWS[0]["text"], ROWS[1]["text"]]
    assert (report["impression"], report["text"]) == ([ROWS[2]["text"]], "First line.\nSecond.")
    (measured,) = report["measured"]
    assert measured.startswith(f"Liver: volume {ml:.1f} ml, attenuation coefficient ")
    own = room.get(f"{path}/report")
    assert (own["statements"], own["free_text"], own["revision"]) == ([], "", 0)


def test_its_sentences_are_taken_over_when_the_reader_asks_and_once(room: Room) -> None:
    sr, _ = reported(room, sign=False)
    study = room.study()
    only(room, room.upload(sr))
    path = f"/api/studies/{study['id']}"
    (report,) = room.get(f"{path}/received")
    assert (report["author"], report["final"]) == ("", False)
    for _ in range(2):
        taken = room.client.post(f"{path}/received/{report['id']}/take").json()
    said = [(s["section"], s["origin"], s["support"]) for s in taken["statements"]]
    assert said == [("findings", "human", "supported")] * 3 + [("impression", "human", "supported")]
    assert "(structured report of 20" in taken["statements"][2]["text"]
    assert taken["statements"][2]["region"] == "abdomen"
    assert room.get(f"{path}/received") == [report], "it stays as it came"
    assert room.client.delete(f"{path}/received/{report['id']}").json() == []
    assert room.client.post(f"{path}/received/{report['id']}/take").status_code == 404


def test_a_report_of_another_study_is_not_reached_through_this_one(room: Room) -> None:
    sr, _ = reported(room)
    first = room.study()
    only(room, room.upload(sr))
    (report,) = room.get(f"/api/studies/{first['id']}/received")
    other = room.study(StudyInstanceUID=uid("another"), SeriesInstanceUID=uid("another series"))
    for method, tail in (("POST", "/take"), ("DELETE", "")):
        path = f"/api/studies/{other['id']}/received/{report['id']}{tail}"
        assert room.client.request(method, path).status_code == 404
    assert room.get(f"/api/studies/{first['id']}/received") == [report]


def test_without_its_images_it_is_refused_and_nothing_is_stored(room: Room) -> None:
    seg, _ = exported(room, "seg")
    job = room.upload(seg)
    assert (job["state"], job["status"]) == ("failed", 404)
    assert "upload its images first" in job["error"]
    assert room.get("/api/studies") == []


def test_of_another_patient_it_is_refused(room: Room) -> None:
    seg, _ = exported(room, "seg")
    other = edited(seg, PatientID="RR-0002")
    job = room.upload(*ct_files(), other)
    assert (job["state"], room.get("/api/studies")) == ("failed", [])
    assert "mixes patients" in job["error"]
    study = room.study()
    assert room.upload(other)["state"] == "failed"
    assert room.get(f"/api/studies/{study['id']}")["segments"] == []


def test_beside_every_image_it_is_refused_with_the_upload(room: Room) -> None:
    far = box_contour(builders_volume(), 40, (5, 12), (8, 20))
    rt = structure_set({"GTV": [far]}, study=uid("study"), series=uid("series"))
    job = room.upload(*ct_files(), rt)
    assert job["state"] == "failed"
    assert "lies on the images" in job["error"]
    assert room.get("/api/studies") == []


def builders_volume():
    from core_models.study.volume import Volume

    return Volume(builders.phantom((8, 24, 32)), builders.affine(), "CT", "HU")


def test_to_a_signed_study_nothing_is_added(room: Room) -> None:
    seg, _ = exported(room, "seg")
    study = room.study()
    path = f"/api/studies/{study['id']}/report"
    saved = room.client.put(path, json={"revision": 0, "statements": [], "free_text": "Normal."}).json()
    body = {"author": "Dr A", "revision": saved["revision"], "cards": {}}
    assert room.client.post(f"/api/studies/{study['id']}/sign", json=body).status_code == 200
    job = room.upload(seg)
    assert (job["state"], job["status"]) == ("failed", 409)
    assert room.get(f"/api/studies/{study['id']}")["segments"] == []


def test_when_a_later_study_of_the_upload_is_refused_its_segments_are_taken_back(room: Room) -> None:
    seg, _ = exported(room, "seg")
    study = room.study()
    far = box_contour(builders_volume(), 40, (5, 12), (8, 20))
    other = {"StudyInstanceUID": uid("second"), "SeriesInstanceUID": uid("second series")}
    rt = structure_set({"GTV": [far]}, study=uid("second"), series=uid("second series"))
    job = room.upload(*ct_files(), seg, *ct_files(n=3, **other), rt)
    assert job["state"] == "failed"
    assert [s["id"] for s in room.get("/api/studies")] == [study["id"]]
    assert room.get(f"/api/studies/{study['id']}")["segments"] == []
