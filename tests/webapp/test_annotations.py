"""The routes of what a reader measures by hand: measured, stored, on the board, refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webapp.conftest import Room

LENGTH = {"kind": "length", "plane": "axial", "points": [[4, 5, 3], [14, 5, 3]]}


@pytest.fixture
def study(room: Room) -> dict[str, Any]:
    return room.study(n=12)


def _add(room: Room, study: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = room.client.post(f"/api/series/{study['series'][0]['id']}/annotations", json={**LENGTH, **body})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return next(row for row in found["annotations"] if row["id"] == found["annotation"])


def _cards(room: Room, study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["statement"]: c for c in room.get(f"/api/studies/{study['id']}/evidence")}


def test_a_length_is_stored_and_is_a_card_that_leads_to_it(room: Room, study: dict[str, Any]) -> None:
    made = _add(room, study)
    assert made["numbers"] == [{"key": "length", "words": "length", "value": 10.0, "unit": "mm"}]
    assert room.get(f"/api/studies/{study['id']}/annotations") == [made]
    card = _cards(room, study)["axial slice 4: length"]
    assert (card["value_text"], card["source"], card["kind"]) == ("10.0 mm", "reader", "measurement")
    assert card["annotation_id"] == made["id"]
    assert card["segment_id"] is None
    volume = room.services.store.volume(study["series"][0]["id"])
    assert card["location"] == pytest.approx(volume.to_world((9, 5, 3)).tolist())


def test_a_moved_point_changes_the_same_card_and_a_label_names_it(room: Room, study: dict[str, Any]) -> None:
    made = _add(room, study)
    before = _cards(room, study)["axial slice 4: length"]
    path = f"/api/annotations/{made['id']}"
    assert room.client.patch(path, json={"points": [[4, 5, 3], [24, 5, 3]], "label": "liver"}).status_code == 200
    after = _cards(room, study)["liver: length"]
    assert (after["id"], after["value"], after["region"]) == (before["id"], 20.0, "abdomen")
    answer = room.client.delete(path).json()
    assert answer == {"annotation": None, "annotations": []}
    assert _cards(room, study) == {}


def test_an_ellipse_gives_mean_and_area_and_keeps_the_deviation(room: Room, study: dict[str, Any]) -> None:
    made = _add(room, study, kind="ellipse", points=[[8, 8, 5], [20, 16, 5]])
    assert [n["key"] for n in made["numbers"]] == ["mean", "sd", "area"]
    cards = _cards(room, study)
    assert set(cards) == {"axial slice 6: mean attenuation", "axial slice 6: area"}
    assert cards["axial slice 6: mean attenuation"]["value_text"] == "40 HU"


def test_a_cardiothoracic_ratio_needs_a_frontal_radiograph(room: Room, study: dict[str, Any]) -> None:
    ratio = {"kind": "ratio", "plane": "axial", "points": [[10, 20, 0], [22, 20, 0], [4, 25, 0], [34, 25, 0]]}
    on_ct = room.client.post(f"/api/series/{study['series'][0]['id']}/annotations", json=ratio)
    assert (on_ct.status_code, "frontal radiograph" in on_ct.json()["error"]) == (422, True)
    for view, status in (("PA", 200), ("LL", 422)):
        film = room.radiograph(view=view, StudyInstanceUID=f"2.25.9{status}", SeriesInstanceUID=f"2.25.8{status}")
        answer = room.client.post(f"/api/series/{film['series'][0]['id']}/annotations", json=ratio)
        assert answer.status_code == status, answer.text
        if status == 200:
            card = _cards(room, film)["heart: cardiothoracic ratio"]
            assert (card["value_text"], card["region"], card["source"]) == ("0.40", "heart", "reader")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "circle"},
        {"plane": "oblique"},
        {"points": [[0, 0, 0]]},
        {"points": [[0, 0, 0], [9999, 0, 0]]},
        {"points": [[0, 0], [1, 1]]},
        {"points": []},
        {"points": "x"},
        {"extra": 1},
        {"label": "x" * 300},
    ],
)
def test_what_cannot_be_measured_is_refused_and_stores_nothing(
    room: Room, study: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = room.client.post(f"/api/series/{study['series'][0]['id']}/annotations", json={**LENGTH, **body})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"].endswith(".")
    assert room.get(f"/api/studies/{study['id']}/annotations") == []


def test_unknown_ones_are_404_and_a_signed_study_refuses(room: Room, study: dict[str, Any]) -> None:
    assert room.client.post("/api/series/nothing/annotations", json=LENGTH).status_code == 404
    assert room.client.get("/api/studies/nothing/annotations").status_code == 404
    assert room.client.patch("/api/annotations/nothing", json={"label": "x"}).status_code == 404
    assert room.client.delete("/api/annotations/nothing").status_code == 404
    made = _add(room, study)
    store = room.services.store
    store.save_report(study["id"], statements=[], free_text="Normal.", base_revision=0)
    store.sign(study["id"], author="Dr A", base_revision=1)
    assert room.client.patch(f"/api/annotations/{made['id']}", json={"label": "x"}).status_code == 409
    assert room.client.delete(f"/api/annotations/{made['id']}").status_code == 409
    assert len(room.get(f"/api/studies/{study['id']}/annotations")) == 1
