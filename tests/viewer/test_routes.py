"""The viewer's routes: voxels byte for byte, clicks that become rows and masks, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.viewer.harness import ORIGIN, SHAPE, SPACING, Harness, ct, radiograph
from webapp.viewer import voxels

INSIDE = (20, 16, 8)  # (i, j, k)


@pytest.fixture
def series(harness: Harness) -> str:
    return harness.add(ct()).series[0].id


def _click(client: TestClient, series: str, index: Any = INSIDE, **body: Any) -> Any:
    return client.post(f"/api/series/{series}/click", json={"index": index, **body})


def _segment(answer: Any) -> dict[str, Any]:
    """The segment that a click or an undo answered."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return next(row for row in body["segments"] if row["id"] == body["segment"])


def _mask(client: TestClient, segment: str) -> tuple[list[int], np.ndarray]:
    answer = client.get(f"/api/segments/{segment}/mask")
    box = json.loads(answer.headers["x-box"])
    return box, np.frombuffer(answer.content, np.uint8).reshape(box[:2:-1])


# ---- voxels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("z", "k"), [("0", 0), ("7", 7), ("mid", 10)])
def test_a_slice_is_the_volumes(client: TestClient, series: str, z: str, k: int) -> None:
    answer = client.get(f"/api/series/{series}/volume", params={"z": z})
    assert answer.content == ct().array[k].astype("<i2").tobytes()
    assert json.loads(answer.headers["x-geometry"])["index"] == k


@pytest.mark.parametrize(("query", "encoding"), [("", "gzip"), ("", "identity"), ("?raw=1", "gzip")])
def test_the_whole_volume_is_the_volumes(client: TestClient, series: str, query: str, encoding: str) -> None:
    answer = client.get(f"/api/series/{series}/volume{query}", headers={"accept-encoding": encoding})
    assert answer.content == ct().array.astype("<i2").tobytes()
    assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" and not query else None)


def test_the_geometry_is_in_the_header(client: TestClient, harness: Harness, series: str) -> None:
    answer = client.get(f"/api/series/{series}/volume?z=mid")
    geometry = json.loads(answer.headers["x-geometry"])
    assert geometry["dims"] == [*SHAPE[::-1]]
    assert np.array_equal(geometry["affine"], ct().affine)
    assert [row[3] for row in geometry["affine"][:3]] == [*ORIGIN]
    assert [geometry["affine"][a][a] for a in range(3)] == [*SPACING]
    assert (geometry["modality"], geometry["unit"], geometry["window"]) == ("CT", "HU", [40.0, 400.0])
    assert (geometry["spacing_known"], geometry["letters_known"]) == (True, True)
    assert (answer.headers["x-slope"], answer.headers["x-intercept"], answer.headers["x-stride"]) == ("1.0", "0.0", "1")


def test_a_radiograph_has_no_letters_and_comes_back_through_its_coding(client: TestClient, harness: Harness) -> None:
    series = harness.add(radiograph()).series[0].id
    answer = client.get(f"/api/series/{series}/volume?z=0")
    assert json.loads(answer.headers["x-geometry"])["letters_known"] is False
    raw = np.frombuffer(answer.content, "<i2").astype(np.float64)
    values = raw * float(answer.headers["x-slope"]) + float(answer.headers["x-intercept"])
    assert np.array_equal(values, radiograph().array.ravel())


def test_an_unchanged_volume_is_not_sent_again(client: TestClient, series: str) -> None:
    path = f"/api/series/{series}/volume"
    etag = client.get(path).headers["etag"]
    again = client.get(path, headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    plain = client.get(path, headers={"if-none-match": etag, "accept-encoding": "identity"})
    assert plain.status_code == 200, "the etag is of the compressed bytes"


@pytest.mark.parametrize(
    ("z", "status"), [("20", 404), ("999999", 404), ("-1", 422), ("1.5", 422), ("", 422), ("٣", 422), ("9999999", 422)]
)
def test_a_bad_slice_is_refused_in_one_sentence(client: TestClient, series: str, z: str, status: int) -> None:
    answer = client.get(f"/api/series/{series}/volume", params={"z": z})
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


def test_an_unknown_series_or_segment_is_404(client: TestClient, series: str) -> None:
    answers = [
        client.get("/api/series/none/volume"),
        client.get("/api/studies/none/segments"),
        client.get("/api/segments/none/mask"),
        _click(client, "none"),
        _click(client, series, segment="none"),
        client.post("/api/segments/none/undo"),
        client.post("/api/segments/none/redo"),
        client.patch("/api/segments/none", json={"label": "liver"}),
        client.patch("/api/segments/none", json={"visible": False}),
        client.delete("/api/segments/none"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)


def test_a_deleted_study_gives_no_voxels(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    path = f"/api/series/{study.series[0].id}/volume"
    assert client.get(path).status_code == 200
    harness.store.delete_study(study.id)
    assert client.get(path).status_code == 404, "also where the bytes are still in memory"


# ---- clicks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_click_outside_the_scan_is_refused(client: TestClient, series: str, axis: int, side: str) -> None:
    index = list(INSIDE)
    index[axis] = -1 if side == "before" else SHAPE[::-1][axis]
    answer = _click(client, series, index)
    assert answer.status_code == 422
    assert "60 × 40 × 20" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"index": [True, 16, 8]},
        {"index": [20.0, 16, 8]},
        {"index": ["20", 16, 8]},
        {"index": [20, 16]},
        {"index": [20, 16, 8, 0]},
        {"index": None},
        {},
        {"index": [20, 16, 8], "positive": 1},
        {"index": [20, 16, 8], "positive": "yes"},
        {"index": [20, 16, 8], "segment": 3},
        {"index": [20, 16, 8], "colour": "#ffffff"},
    ],
)
def test_a_malformed_click_is_refused_and_stores_nothing(client: TestClient, series: str, body: dict) -> None:
    answer = client.post(f"/api/series/{series}/click", json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert _segment(_click(client, series))["number"] == 1


def test_a_first_click_that_removes_is_refused(client: TestClient, series: str) -> None:
    answer = _click(client, series, positive=False)
    assert answer.status_code == 422
    assert "begins with a click that adds" in answer.json()["error"]


def test_a_click_becomes_a_measured_segment(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    answer = _click(client, study.series[0].id)
    row = _segment(answer)
    assert row["series"] == study.series[0].id
    assert row["box"] == [18, 14, 7, 5, 5, 3]
    assert row["clicks"] == [{"index": [*INSIDE], "positive": True}]
    assert (row["can_undo"], row["can_redo"], row["suggested"], row["visible"]) == (True, False, True, True)
    assert row["engine"] == "box 1"
    assert row["measurement"]["volume_ml"] == pytest.approx(75 * np.prod(SPACING) / 1000)
    assert row["measurement"]["mean"] == pytest.approx(40)
    assert client.get(f"/api/studies/{study.id}/segments").json() == answer.json()["segments"]
    harness.service.told()
    assert harness.changes == [study.id]


def test_a_second_click_changes_the_segment_it_names(client: TestClient, series: str) -> None:
    first = _segment(_click(client, series))
    second = _segment(_click(client, series, (30, 16, 8), segment=first["id"]))
    assert (second["id"], len(second["clicks"])) == (first["id"], 2)
    assert second["box"] == [18, 14, 7, 15, 5, 3]
    assert _segment(_click(client, series, (40, 30, 3)))["number"] == 2


def test_a_segment_takes_no_click_in_another_series(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct(), ct((8, 40, 60)))
    one, other = (row.id for row in study.series)
    segment = _segment(_click(client, one))["id"]
    answer = _click(client, other, (20, 16, 4), segment=segment)
    assert answer.status_code == 422
    assert "another series" in answer.json()["error"]


def test_a_mask_is_its_box_of_bytes(client: TestClient, series: str) -> None:
    segment = _segment(_click(client, series))["id"]
    _segment(_click(client, series, (18, 14, 7), segment=segment, positive=False))  # a corner of the box
    box, voxels = _mask(client, segment)
    expected = np.ones((3, 5, 5), np.uint8)
    expected[0, 0, 0] = 0
    assert box == [18, 14, 7, 5, 5, 3]
    assert np.array_equal(voxels, expected)


def test_undo_and_redo_lead_through_the_same_masks(client: TestClient, series: str) -> None:
    first = _segment(_click(client, series))
    path = f"/api/segments/{first['id']}"
    one = _mask(client, first["id"])[1]
    _click(client, series, (30, 16, 8), segment=first["id"])
    both = _mask(client, first["id"])[1]
    undone = _segment(client.post(f"{path}/undo"))
    assert (len(undone["clicks"]), undone["can_undo"], undone["can_redo"]) == (1, True, True)
    assert np.array_equal(_mask(client, first["id"])[1], one)
    redone = _segment(client.post(f"{path}/redo"))
    assert (len(redone["clicks"]), redone["can_redo"]) == (2, False)
    assert np.array_equal(_mask(client, first["id"])[1], both)
    assert _segment(client.post(f"{path}/redo")) == redone, "with nothing left to redo nothing changes"


def test_looks_and_name_are_changed_and_the_board_hears_of_the_name(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    path = f"/api/segments/{_segment(_click(client, study.series[0].id))['id']}"
    harness.service.told()
    harness.changes.clear()
    shown = _segment(client.patch(path, json={"visible": False, "colour": "#AA0011"}))
    assert (shown["visible"], shown["colour"], shown["suggested"]) == (False, "#aa0011", True)
    harness.service.told()
    assert harness.changes == []
    named = _segment(client.patch(path, json={"label": "spleen"}))
    assert (named["label"], named["suggested"], named["visible"]) == ("spleen", False, False)
    harness.service.told()
    assert harness.changes == [study.id]
    for body in ({"colour": "red"}, {"visible": 1}, {"number": 9}):
        assert client.patch(path, json=body).status_code == 422
    assert _segment(client.patch(path, json={})) == named


def test_a_deleted_segment_is_gone_and_its_number_too(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    series = study.series[0].id
    segment = _segment(_click(client, series))["id"]
    answer = client.delete(f"/api/segments/{segment}")
    assert (answer.json()["segment"], answer.json()["segments"]) == (None, [])
    assert client.get(f"/api/segments/{segment}/mask").status_code == 404
    assert harness.changes == [study.id] * 2
    assert _segment(_click(client, series))["number"] == 2


def test_of_two_answers_the_later_has_the_higher_order(client: TestClient, harness: Harness) -> None:
    series = harness.add(ct()).series[0].id
    first = _click(client, series).json()
    path = f"/api/segments/{first['segment']}"
    answers = [
        first,
        client.post(f"{path}/undo").json(),
        client.post(f"{path}/redo").json(),
        client.delete(path).json(),
    ]
    orders = [answer["order"] for answer in answers]
    assert orders == sorted(set(orders))


def test_a_deleted_segment_is_restored_as_it_was(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    series = study.series[0].id
    first = _segment(_click(client, series))["id"]
    _click(client, series, (30, 25, 10), segment=first)
    client.post(f"/api/segments/{first}/undo")
    _segment(_click(client, series, (40, 30, 12)))
    path = f"/api/segments/{first}"
    before, drawn = client.get(f"/api/studies/{study.id}/segments").json(), _mask(client, first)
    assert len(client.delete(path).json()["segments"]) == 1
    gone = [
        client.delete(path),
        client.post(f"{path}/undo"),
        client.post(f"{path}/redo"),
        client.patch(path, json={"visible": False}),
        _click(client, series, (30, 25, 10), segment=first),
    ]
    assert [answer.status_code for answer in gone] == [404] * len(gone)
    harness.changes.clear()
    answer = client.post(f"{path}/restore").json()
    assert (answer["segment"], answer["segments"]) == (first, before)
    assert harness.changes == [study.id]
    assert _mask(client, first)[0] == drawn[0]
    np.testing.assert_array_equal(_mask(client, first)[1], drawn[1])
    assert len(_segment(client.post(f"{path}/redo"))["steps"]) == 2, "what was undone before is still redone"


def test_what_is_not_deleted_is_not_restored_and_nothing_on_a_signed_study(
    client: TestClient, harness: Harness
) -> None:
    study = harness.add(ct())
    series = study.series[0].id
    kept, gone = (_segment(_click(client, series, index))["id"] for index in (INSIDE, (40, 30, 12)))
    client.delete(f"/api/segments/{gone}")
    for which in (kept, "none"):
        answer = client.post(f"/api/segments/{which}/restore")
        assert (answer.status_code, answer.json()["error"][-1]) == (404, ".")
    state = harness.store.save_report(study.id, statements=[], free_text="Normal.", base_revision=0)
    harness.store.sign(study.id, author="Dr Able", base_revision=state.revision)
    answer = client.post(f"/api/segments/{gone}/restore")
    assert answer.status_code == 409
    assert "signed" in answer.json()["error"]
    assert [row["id"] for row in client.get(f"/api/studies/{study.id}/segments").json()] == [kept]


def test_a_signed_study_takes_no_change_but_of_looks(client: TestClient, harness: Harness) -> None:
    study = harness.add(ct())
    series = study.series[0].id
    before = _segment(_click(client, series))
    path = f"/api/segments/{before['id']}"
    state = harness.store.save_report(study.id, statements=[], free_text="Normal.", base_revision=0)
    harness.store.sign(study.id, author="Dr Able", base_revision=state.revision)
    harness.changes.clear()
    answers = [
        _click(client, series),
        _click(client, series, (30, 16, 8), segment=before["id"]),
        client.post(f"{path}/undo"),
        client.patch(path, json={"label": "spleen"}),
        client.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [409] * len(answers)
    assert client.get(f"/api/studies/{study.id}/segments").json() == [before]
    assert harness.changes == []
    assert client.patch(path, json={"visible": False}).status_code == 200


def test_a_slice_of_a_thinned_volume_comes_whole_when_asked(
    client: TestClient, series: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voxels, "REDUCE_ABOVE", 1000)
    thinned = client.get(f"/api/series/{series}/volume?z=3")
    whole = client.get(f"/api/series/{series}/volume?z=3&full=1")
    assert (thinned.headers["x-stride"], whole.headers["x-stride"]) == ("2", "1")
    np.testing.assert_array_equal(np.frombuffer(whole.content, "<i2"), ct().array[3].ravel())
    np.testing.assert_array_equal(np.frombuffer(thinned.content, "<i2"), ct().array[3, ::2, ::2].ravel())


# ---- prompts and edits of every kind -------------------------------------------------------------------------------


def _prompt(client: TestClient, series: str, prompt: dict[str, Any], **body: Any) -> Any:
    return client.post(f"/api/series/{series}/prompt", json={"prompt": prompt, **body})


PROMPTS: list[dict[str, Any]] = [
    {"kind": "click", "index": [20, 16, 8]},
    {"kind": "scribble", "points": [[20, 16, 8], [26, 16, 8]]},
    {"kind": "box", "first": [15, 10, 8], "last": [25, 20, 8]},
    {"kind": "lasso", "points": [[15, 10, 8], [25, 10, 8], [25, 20, 8]]},
    {"kind": "stroke", "points": [[20, 16, 8], [26, 16, 8]], "radius_mm": 2.5, "axis": 2},
    {"kind": "grow", "seed": [20, 16, 8], "low": -1000, "high": 1000},
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=[p["kind"] for p in PROMPTS])
def test_every_prompt_becomes_a_segment_that_tells_its_step(client: TestClient, series: str, prompt: dict) -> None:
    row = _segment(_prompt(client, series, prompt, begins="word"))
    (step,) = row["steps"]
    assert step["kind"] == prompt["kind"]
    assert (step["unit"], step["removed"]) == ("ml", 0.0)
    assert step["added"] == pytest.approx(row["measurement"]["volume_ml"])
    assert step["ms"] > 0
    shown = {key: value for key, value in prompt.items() if (prompt["kind"], key) != ("stroke", "points")}
    assert shown.items() <= step.items()
    again = _segment(_prompt(client, series, {"kind": "click", "index": [30, 16, 8]}, begins="word"))
    assert (again["id"], len(again["steps"])) == (row["id"], 2), "the page's own word leads to the same segment"
    assert again["version"] != row["version"]


def test_a_brush_tells_its_slice_and_keeps_its_line_to_itself(client: TestClient, series: str) -> None:
    (step,) = _segment(_prompt(client, series, PROMPTS[4]))["steps"]
    assert step["slice"] == 8
    assert "points" not in step


@pytest.mark.parametrize(
    "prompt",
    [
        {"kind": "circle", "index": [20, 16, 8]},
        {"index": [20, 16, 8]},
        {"kind": "click", "index": [20, 16]},
        {"kind": "scribble", "points": []},
        {"kind": "scribble", "points": [[20, 16, 8]] * 4001},
        {"kind": "scribble", "points": [[20, 16, 99]]},
        {"kind": "box", "first": [15, 10, 8], "last": [25, 20, 20]},
        {"kind": "lasso", "points": [[15, 10, 8], [15, 10, 8]]},
        {"kind": "lasso", "points": [[15, 10, 8], [25, 11, 9], [20, 20, 7]]},
        {"kind": "stroke", "points": [[20, 16, 8]], "radius_mm": 1e9, "axis": 2},
        {"kind": "stroke", "points": [[20, 16, 8]], "radius_mm": 1, "axis": 3},
        {"kind": "stroke", "points": [[20, 16, 8], [20, 16, 9]], "radius_mm": 1, "axis": 2},
        {"kind": "grow", "seed": [20, 16, 8], "low": 500, "high": 400},
        {"kind": "grow", "seed": [20, 16, 8], "low": "low", "high": 400},
        {"kind": "interpolation", "axis": 2},
        {"kind": "alternative"},
        {"kind": "alternative", "index": [20, 16, 8]},
    ],
)
def test_a_malformed_prompt_is_refused_in_one_sentence(client: TestClient, series: str, prompt: dict) -> None:
    answer = _prompt(client, series, prompt)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"]
    assert _segment(_click(client, series))["number"] == 1


def test_numbers_that_are_none_are_refused(client: TestClient, series: str) -> None:
    body = '{"prompt": {"kind": "grow", "seed": [20, 16, 8], "low": -Infinity, "high": NaN}}'
    answer = client.post(f"/api/series/{series}/prompt", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


# ---- masks as what changed -------------------------------------------------------------------------------------------


def test_of_a_known_mask_only_the_box_that_changed_is_sent(client: TestClient, series: str) -> None:
    first = _segment(_prompt(client, series, {"kind": "grow", "seed": [20, 16, 8], "low": -100, "high": 100}))
    path = f"/api/segments/{first['id']}/mask"
    before = client.get(path)
    assert before.headers["x-version"] == first["version"]
    old_box, old = _mask(client, first["id"])
    hole = {"kind": "stroke", "points": [[20, 16, 8]], "radius_mm": 2, "axis": 2, "positive": False}
    after = _segment(_prompt(client, series, hole, segment=first["id"]))
    sent = client.get(path, params={"since": first["version"]})
    assert (sent.headers["x-since"], sent.headers["x-version"]) == (first["version"], after["version"])
    assert len(sent.content) < len(before.content) / 50
    new_box, new = _mask(client, first["id"])
    assert json.loads(sent.headers["x-whole"]) == new_box == old_box
    x, y, z, dx, dy, dz = json.loads(sent.headers["x-box"])
    put = old.copy()
    at = (slice(z - old_box[2], None), slice(y - old_box[1], None), slice(x - old_box[0], None))
    put[at][:dz, :dy, :dx] = np.frombuffer(sent.content, np.uint8).reshape(dz, dy, dx)
    assert np.array_equal(put, new)


@pytest.mark.parametrize("since", ["none", "0123456789abcdef"])
def test_of_a_version_that_nobody_knows_the_whole_mask_is_sent(client: TestClient, series: str, since: str) -> None:
    segment = _segment(_click(client, series))["id"]
    sent = client.get(f"/api/segments/{segment}/mask", params={"since": since})
    assert "x-since" not in sent.headers
    assert len(sent.content) == 75


def test_a_change_of_everything_goes_as_the_whole_mask(client: TestClient, series: str) -> None:
    first = _segment(_click(client, series))
    client.post(f"/api/segments/{first['id']}/undo")
    gone = client.get(f"/api/segments/{first['id']}/mask", params={"since": first["version"]})
    assert (gone.content, "x-since" in gone.headers) == (b"", False)
    there = _segment(client.post(f"/api/segments/{first['id']}/redo"))
    again = client.get(f"/api/segments/{first['id']}/mask", params={"since": first["version"]})
    assert json.loads(again.headers["x-whole"]) == there["box"]
    assert again.content == b"", "the same voxels in another version"
