"""Image models behind the page: read once in the background, proposed as cards, drawn as segments, never a crash."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_models.errors import ModelMissing, Refused
from core_models.foundation.embedded import INVERTED
from tests.webapp.conftest import Room, radiograph_file
from tests.webapp.fakes import EYES, FRONTAL, LATERAL, NODULE, PLACES, UNSEEN, finding, statement
from webapp.eyes import HELD, years
from webapp.routes import eyes as routes


@pytest.fixture
def study(room: Room) -> dict[str, Any]:
    return room.radiograph()


def _cards(room: Room, study: dict[str, Any], kind: str = "finding") -> dict[str, dict[str, Any]]:
    return {c["statement"]: c for c in room.get(f"/api/studies/{study['id']}/evidence") if c["kind"] == kind}


def _draw(room: Room, study: dict[str, Any], label: str | None = None) -> dict[str, dict[str, Any]]:
    answer = room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={"label": label})
    assert answer.status_code == 200, answer.text
    return {s["label"]: s for s in answer.json()["segments"]}


def _again(room: Room, study: dict[str, Any], *findings: Any, model: str = EYES) -> None:
    """Let the model answer otherwise and read the study anew, as another process would."""
    room.eyes.findings, room.eyes.model = findings, model
    with room.services.eyes._lock:
        room.services.eyes._looks.clear()
    room.read(study)


# ---- reading -------------------------------------------------------------------------------------------------------


def test_an_opened_radiograph_is_read_once_with_what_its_header_says(room: Room, study: dict[str, Any]) -> None:
    answer = room.read(study)
    room.read(study)
    (shape, context), *more = room.eyes.seen
    assert not more, "the same image is not read twice"
    assert shape == (1, 40, 50)
    assert (context.view, context.age, context.sex) == ("PA", 61.0, "F")
    assert answer["sentence"] == ""
    (image,) = answer["images"]
    assert (image["model"], image["inputs"]) == (EYES, ["image", "view", "age", "sex"])
    assert image["quality"]["usable"] is True
    assert [(f["term"], f["present"]) for f in image["findings"]] == [("Pleural Effusion", True), ("Nodule", False)]
    assert image["findings"][0]["heat"]["rows"] == 8
    assert {s["label"] for s in image["structures"]} == set(PLACES)


@pytest.mark.parametrize(("view", "stored"), [("AP", "AP"), ("LL", "LATERAL"), ("RLD", ""), (None, ""), ("x" * 40, "")])
def test_the_view_is_one_that_models_know_or_none(room: Room, view: str | None, stored: str) -> None:
    study = room.radiograph(view=view)
    assert study["series"][0]["view"] == stored
    room.read(study)
    assert room.eyes.seen[0][1].view == stored


@pytest.mark.parametrize(
    ("age", "born", "date", "expected"),
    [
        ("064Y", "", "", 64),
        ("018M", "", "", 1.5),
        ("", "19600101", "20200701", 60.5),
        ("", "20300101", "20200101", None),
        ("old", "", "20200101", None),
        ("", "", "", None),
    ],
)
def test_age_in_years(age: str, born: str, date: str, expected: float | None) -> None:
    assert years(age, born, date) == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_a_ct_is_not_read_and_says_so_in_one_line(room: Room) -> None:
    study = room.study()
    answer = room.get(f"/api/studies/{study['id']}/reading")
    assert (answer["state"], answer["images"], room.eyes.seen) == ("done", [], [])
    assert answer["sentence"] == "The findings model was not trained on this modality (CT): no findings are proposed."
    assert _cards(room, study) == {}
    refused = room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={})
    assert (refused.status_code, refused.json()["error"]) == (422, answer["sentence"])


def test_a_missing_model_says_how_to_get_it_and_the_rest_of_the_page_works(room: Room, study: dict[str, Any]) -> None:
    def missing(modality: str) -> Any:
        raise ModelMissing("The model is not here: run `python app.py prepare`.")

    room.services.eyes._load = missing
    (image,) = room.read(study)["images"]
    assert (image["state"], image["sentence"]) == ("missing", "The model is not here: run `python app.py prepare`.")
    assert _cards(room, study) == {}
    answer = room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={"label": "heart"})
    assert (answer.status_code, answer.json()["error"]) == (422, image["sentence"])


@pytest.mark.parametrize(
    ("error", "words"), [(Refused("The image is too small."), "too small"), (ValueError("secret"), "could not be read")]
)
def test_a_failing_model_is_a_sentence_and_is_asked_again_later(
    room: Room, study: dict[str, Any], error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.eyes.failure = error
    (image,) = room.read(study)["images"]
    assert image["state"] == "failed"
    assert words in image["sentence"]
    assert "secret" not in image["sentence"]
    room.eyes.failure = None
    assert room.read(study)["images"][0]["state"] == "failed", "not at once"
    monkeypatch.setattr("webapp.eyes.RETRY_S", -1.0)
    room.until(lambda: room.read(study)["images"][0]["state"] == "done")


def test_a_study_deleted_while_its_image_is_read_is_forgotten(room: Room, study: dict[str, Any]) -> None:
    room.eyes.gate = threading.Semaphore(0)
    assert room.get(f"/api/studies/{study['id']}/reading")["state"] == "reading"
    assert room.client.delete(f"/api/studies/{study['id']}").status_code == 204
    room.eyes.gate.release()
    room.until(lambda: not room.services.eyes._futures)
    assert room.client.get(f"/api/studies/{study['id']}/reading").status_code == 404
    assert not room.services.eyes._looks
    room.eyes.gate = None
    assert room.read(room.radiograph())["state"] == "done", "the worker lives on"


def test_a_study_of_more_images_than_are_held_is_read_to_the_end(room: Room) -> None:
    files = [radiograph_file(columns=40 + n, SeriesInstanceUID=f"2.25.6.{n}") for n in range(HELD + 2)]
    study = room.get(f"/api/studies/{room.upload(*files)['result']['studies'][0]}")
    assert len(room.read(study)["images"]) == HELD + 2
    assert len(room.eyes.seen) == HELD + 2
    assert list(_cards(room, study)) == ["Pleural Effusion"], "one card for a finding of several images"


# ---- the board -----------------------------------------------------------------------------------------------------


def test_findings_above_their_threshold_become_proposed_cards(room: Room, study: dict[str, Any]) -> None:
    room.read(study)
    (card,) = _cards(room, study).values()
    assert (card["statement"], card["region"], card["status"], card["source"]) == (
        "Pleural Effusion",
        "pleura",
        "proposed",
        EYES,
    )
    assert card["probability"] == pytest.approx(0.91)
    assert card["location"] == pytest.approx([12.5 * 2, 17.5 * 2, 0]), "the middle of the box, in mm"


def test_an_uncalibrated_score_is_no_probability(room: Room, study: dict[str, Any]) -> None:
    room.eyes.findings = (finding(calibrated=False),)
    room.read(study)
    assert _cards(room, study)["Pleural Effusion"]["probability"] is None


def test_an_image_that_fails_the_gate_gives_its_notes_and_no_findings_or_anatomy(room: Room) -> None:
    study = room.radiograph()
    room.eyes.quality = LATERAL
    (image,) = room.read(study)["images"]
    assert image["quality"]["notes"] == list(LATERAL.notes)
    assert (image["findings"], image["structures"]) == ([], [])
    assert _cards(room, study) == {}
    assert room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={}).status_code == 422


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_the_readers_verdict_outlives_a_second_reading_by_another_model(
    room: Room, study: dict[str, Any], verdict: str
) -> None:
    room.read(study)
    (card,) = _cards(room, study).values()
    room.client.patch(f"/api/studies/{study['id']}/evidence/{card['id']}", json={"status": verdict})
    _again(room, study, finding(probability=0.77), NODULE, model="fake-eyes/3 (ffff)")
    (after,) = _cards(room, study).values()
    assert (after["id"], after["status"], after["source"]) == (card["id"], verdict, "fake-eyes/3 (ffff)")
    assert after["probability"] == pytest.approx(0.77)
    _again(room, study, NODULE)
    (kept,) = _cards(room, study).values()
    assert (kept["id"], kept["status"]) == (card["id"], verdict), "a decision is not taken back by the model"


def test_a_proposal_that_is_no_longer_made_leaves_only_after_a_whole_reading(room: Room, study: dict[str, Any]) -> None:
    room.read(study)
    with room.services.eyes._lock:
        room.services.eyes._looks.clear()  # as after a restart
    assert len(_cards(room, study)) == 1, "not known yet is not gone"
    _again(room, study, NODULE)
    assert _cards(room, study) == {}


@pytest.mark.parametrize("term", ["Pleural Effusion", "pleural effusion", "Pleural Effusion/left/small"])
def test_what_the_reader_stated_is_not_doubled(room: Room, study: dict[str, Any], term: str) -> None:
    room.client.post(f"/api/studies/{study['id']}/evidence", json={"term": term})
    room.read(study)
    (card,) = _cards(room, study).values()
    assert (card["statement"], card["source"]) == (term, "reader")


def test_the_readers_denial_does_not_hide_a_proposal(room: Room, study: dict[str, Any]) -> None:
    room.client.post(f"/api/studies/{study['id']}/evidence", json={"term": "No pleural effusion"})
    room.read(study)
    assert set(_cards(room, study)) == {"No pleural effusion", "Pleural Effusion"}


def test_stating_a_proposed_finding_accepts_it_and_stating_it_closely_replaces_it(
    room: Room, study: dict[str, Any]
) -> None:
    room.read(study)
    path = f"/api/studies/{study['id']}/evidence"
    added = room.client.post(path, json={"term": "pleural effusion"}).json()
    assert (added["source"], added["status"]) == (EYES, "accepted")
    room.client.patch(f"{path}/{added['id']}", json={"status": "proposed"})
    room.client.post(path, json={"term": "Pleural Effusion/left"})
    assert set(_cards(room, study)) == {"Pleural Effusion/left"}


def test_a_models_card_is_rejected_not_removed(room: Room, study: dict[str, Any]) -> None:
    room.read(study)
    (card,) = _cards(room, study).values()
    assert room.client.delete(f"/api/studies/{study['id']}/evidence/{card['id']}").status_code == 422


def test_a_card_that_came_while_the_reader_signed_is_not_frozen_unseen(room: Room, study: dict[str, Any]) -> None:
    base = f"/api/studies/{study['id']}"
    room.client.put(f"{base}/report", json={"revision": 0, "statements": [], "free_text": "Read."})
    revision = room.get(f"{base}/report")["revision"]
    seen = {card["id"]: card["status"] for card in room.get(f"{base}/evidence")}
    room.read(study)
    sign = {"author": "Dr. Able", "revision": revision, "cards": seen}
    refused = room.client.post(f"{base}/sign", json=sign)
    assert refused.status_code == 409
    assert "evidence changed" in refused.json()["error"]
    assert room.get(f"{base}/report")["state"] != "signed"
    sign["cards"] = {card["id"]: card["status"] for card in room.get(f"{base}/evidence")}
    assert sign["cards"] != seen
    assert room.client.post(f"{base}/sign", json=sign).status_code == 200


def test_a_finding_the_reader_rejected_does_not_hide_what_the_model_proposes(room: Room, study: dict[str, Any]) -> None:
    mine = room.client.post(f"/api/studies/{study['id']}/evidence", json={"term": "Pleural Effusion/left"}).json()
    room.client.patch(f"/api/studies/{study['id']}/evidence/{mine['id']}", json={"status": "rejected"})
    room.read(study)
    assert "Pleural Effusion" in _cards(room, study)


def test_a_signed_study_does_not_change(room: Room, study: dict[str, Any]) -> None:
    base = f"/api/studies/{study['id']}"
    room.client.put(f"{base}/report", json={"revision": 0, "statements": [], "free_text": "Read."})
    revision = room.get(f"{base}/report")["revision"]
    assert room.client.post(f"{base}/sign", json={"author": "Dr. Able", "revision": revision}).status_code == 200
    assert room.read(study)["images"][0]["state"] == "done"
    assert _cards(room, study) == {}
    assert room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={}).status_code == 409


# ---- the draft -----------------------------------------------------------------------------------------------------


def test_a_draft_waits_for_the_image_and_says_who_proposed_what(room: Room, study: dict[str, Any]) -> None:
    room.eyes.gate = threading.Semaphore(0)
    room.writer.queue.append([statement(1, "There is a pleural effusion.", "E1")])
    run = room.services.drafting.start(study["id"], search=False)
    assert run.events.get(timeout=20) == ("status", {"text": "Reading the image"})
    room.eyes.gate.release()
    heard = []
    while (item := run.events.get(timeout=20)) is not None:
        heard.append(item)
    assert [c.statement for c in room.writer.asked[0].cards] == ["Pleural Effusion"]
    unseen = dict(heard)["start"]["unseen"]
    assert unseen == [*UNSEEN, "The model did not see earlier images."]


def test_a_draft_sees_the_radiograph_bright_where_it_is_dense(room: Room, study: dict[str, Any]) -> None:
    assert room.services.eyes.picture(study["id"]) is None, "nothing is read for it"
    room.read(study)
    seen = room.services.eyes.picture(study["id"])
    assert seen.shape == (40, 50)
    assert seen[0, 0] < seen[0, -1], "as in the file"
    room.eyes.quality = replace(FRONTAL, inverted=0.99, notes=(INVERTED,))
    _again(room, study, finding())
    turned = room.services.eyes.picture(study["id"])
    assert np.array_equal(turned, -seen.astype(np.float32))
    room.eyes.quality = LATERAL
    _again(room, study, finding())
    assert room.services.eyes.picture(study["id"]) is None, "what the gate does not let through is not shown"


def test_there_is_no_picture_of_a_ct(room: Room) -> None:
    study = room.study()
    room.read(study)
    assert room.services.eyes.picture(study["id"]) is None


def test_a_draft_without_a_reading_says_that_no_model_looked(room: Room, study: dict[str, Any]) -> None:
    room.eyes.failure = Refused("The image is too small.")
    room.writer.queue.append([statement(1, "Clear.")])
    run = room.services.drafting.start(study["id"], search=False)
    run.finished.wait(20)
    assert "The image is too small." in room.get(f"/api/studies/{study['id']}/report")["unseen"]


def test_the_search_for_priors_gets_what_was_seen_of_a_frontal_image(room: Room, study: dict[str, Any]) -> None:
    assert room.services.eyes.embedding(study["id"]) is None, "nothing is read for a search"
    room.eyes.embedding = np.array([0.6, 0.8], np.float32)
    room.read(study)
    room.client.post(f"/api/studies/{study['id']}/priors")
    _, options = room.search.asked[-1]
    assert options["image_model"] == EYES
    assert options["image"].tolist() == pytest.approx([0.6, 0.8])
    room.eyes.quality = LATERAL
    _again(room, study)
    room.client.post(f"/api/studies/{study['id']}/priors")
    assert room.search.asked[-1][1]["image"] is None, "what the gate does not let through is not compared"


def test_what_arrives_after_signing_is_not_compared_for_the_signed_report(room: Room, study: dict[str, Any]) -> None:
    room.eyes.quality = LATERAL
    room.eyes.embedding = np.array([0.6, 0.8], np.float32)
    room.read(study)
    store = room.services.store
    store.save_report(study["id"], statements=(), free_text="Read.", base_revision=0)
    store.sign(study["id"], author="Dr A", base_revision=store.report(study["id"]).revision)
    room.eyes.quality = FRONTAL
    late = room.radiograph(SeriesInstanceUID="2.25.5003")
    assert late["id"] == study["id"]
    assert len(late["series"]) == 2
    room.read(late)
    assert room.services.eyes.embedding(study["id"]) is None


# ---- anatomy -------------------------------------------------------------------------------------------------------


def test_one_click_draws_a_named_segment_and_the_second_no_other(room: Room, study: dict[str, Any]) -> None:
    (heart,) = _draw(room, study, "heart").values()
    assert (heart["label"], heart["suggested"], heart["engine"], heart["based"]) == (
        "heart",
        False,
        "fake-eyes 2 (0123abcd)",
        True,
    )
    assert heart["box"] == [19, 18, 0, 22, 14, 1]
    assert list(_draw(room, study, "heart")) == ["heart"]
    assert set(_draw(room, study)) == set(PLACES)
    assert len(room.get(f"/api/studies/{study['id']}/segments")) == len(PLACES)
    refused = room.client.post(f"/api/series/{study['series'][0]['id']}/anatomy", json={"label": "spleen"})
    assert refused.status_code == 422


def test_clicks_correct_the_drawing_undo_ends_at_it_and_it_outlives_the_model(
    room: Room, study: dict[str, Any]
) -> None:
    drawn = _draw(room, study, "heart")["heart"]
    store = room.services.store
    base = store.mask(drawn["id"]).full()
    series = study["series"][0]["id"]

    def click(index: tuple[int, int, int], positive: bool) -> dict[str, Any]:
        body = {"index": list(index), "positive": positive, "segment": drawn["id"]}
        answer = room.client.post(f"/api/series/{series}/click", json=body)
        assert answer.status_code == 200, answer.text
        return next(s for s in answer.json()["segments"] if s["id"] == drawn["id"])

    with room.services.eyes._lock:
        room.services.eyes._looks.clear()  # what the model answered is gone, as after a restart
    taken = click((40, 30, 0), False)
    less = store.mask(drawn["id"]).full()
    assert (base & ~less).any(), "a removing click comes first here"
    assert not (less & ~base).any()
    assert not less[0, 30, 40]
    assert (taken["label"], taken["suggested"], taken["engine"]) == ("heart", False, drawn["engine"])
    click((10, 5, 0), True)
    both = store.mask(drawn["id"]).full()
    assert both[0, 5, 10]
    assert not both[0, 30, 40]
    for _ in range(2):
        undone = room.client.post(f"/api/segments/{drawn['id']}/undo").json()
    assert np.array_equal(store.mask(drawn["id"]).full(), base), "undo returns to what the model drew"
    row = next(s for s in undone["segments"] if s["id"] == drawn["id"])
    assert (row["can_undo"], row["can_redo"], row["measurement"]) == (False, True, drawn["measurement"])
    room.client.post(f"/api/segments/{drawn['id']}/redo")
    assert np.array_equal(store.mask(drawn["id"]).full(), less)


def test_a_drawn_segment_is_renamed_and_deleted_like_any_other(room: Room, study: dict[str, Any]) -> None:
    drawn = _draw(room, study, "heart")["heart"]
    room.name(drawn, "aorta")
    room.click(study, (10, 5, 0), drawn["id"])
    assert room.get(f"/api/studies/{study['id']}/segments")[0]["label"] == "aorta"
    masks = room.settings.studies / study["id"] / "masks"
    assert len(list(masks.iterdir())) == 2
    assert room.client.delete(f"/api/segments/{drawn['id']}").status_code == 200
    assert room.client.get(f"/api/segments/{drawn['id']}/mask").status_code == 404
    assert room.client.post(f"/api/segments/{drawn['id']}/restore").status_code == 200
    assert room.services.store.base(drawn["id"]) is not None, "the drawing beneath comes back too"


# ---- measures ------------------------------------------------------------------------------------------------------


def test_the_structures_give_live_ratios(room: Room, study: dict[str, Any]) -> None:
    _draw(room, study)
    cards = _cards(room, study, "measurement")
    assert set(cards) == {
        "right lung: area",
        "left lung: area",
        "heart: cardiothoracic ratio",
        "lungs: right to left ratio",
    }, "a clavicle's area and the heart's diameter along a slant are nobody's question"
    ratio = cards["heart: cardiothoracic ratio"]
    assert (ratio["value_text"], ratio["unit"], ratio["region"]) == ("0.55", "", "heart")
    assert ratio["value"] == pytest.approx(22 / 40)
    assert ratio["source"] == "fake-eyes 2 (0123abcd)"
    heart = next(s for s in room.get(f"/api/studies/{study['id']}/segments") if s["label"] == "heart")
    assert ratio["segment_id"] == heart["id"]
    assert ratio["location"] == pytest.approx([(19 + 40) / 2 * 2, (18 + 31) / 2 * 2, 0])

    room.click(study, (45, 25, 0), heart["id"])
    after = _cards(room, study, "measurement")["heart: cardiothoracic ratio"]
    assert after["id"] == ratio["id"]
    assert after["value"] == pytest.approx((48 - 19 + 1) / 40)

    shown = room.get(f"/api/studies/{study['id']}/evidence/{ratio['id']}/calipers")
    assert shown["series"] == study["series"][0]["id"]
    width = {line["words"]: line["end"][0] - line["start"][0] + 1 for line in shown["lines"]}
    assert width["heart"] / width["thorax"] == pytest.approx(after["value"]), "the lengths are those of the number"
    area = cards["right lung: area"]["id"]
    assert room.get(f"/api/studies/{study['id']}/evidence/{area}/calipers") == {"series": "", "lines": []}
    assert room.client.get(f"/api/studies/{study['id']}/evidence/E99/calipers").status_code == 404

    room.client.delete(f"/api/segments/{heart['id']}")
    assert "heart: cardiothoracic ratio" not in _cards(room, study, "measurement")


def test_a_statement_of_the_ratio_goes_stale_with_the_mask(room: Room, study: dict[str, Any]) -> None:
    from dataclasses import replace

    from core_models.drafting.verify import check

    _draw(room, study)
    room.read(study)
    board = {c.statement: c for c in room.services.store.evidence(study["id"])}
    card = board["heart: cardiothoracic ratio"]
    said = statement(1, f"The heart has a cardiothoracic ratio of {card.value_text}.", card.id)
    said = replace(said, template=f"The heart has a cardiothoracic ratio of {{{card.id}}}.")
    assert check(said, tuple(board.values())).support == "supported"
    room.writer.queue.append([said])
    room.services.drafting.start(study["id"], search=False).finished.wait(20)
    path = f"/api/studies/{study['id']}/report"
    assert [s["stale"] for s in room.get(path)["statements"]] == [False]
    room.click(study, (45, 25, 0), card.segment_id)
    assert [s["stale"] for s in room.get(path)["statements"]] == [True]


def test_hand_drawn_structures_count_as_well_and_unknown_spacing_gives_ratios_only(room: Room) -> None:
    study = room.radiograph(PixelSpacing=None)
    for label, index in (("right lung", (8, 20, 0)), ("left lung", (42, 20, 0)), (" Heart", (25, 22, 0))):
        room.name(room.click(study, index), label)
    cards = _cards(room, study, "measurement")
    assert cards["heart: cardiothoracic ratio"]["value"] == pytest.approx(7 / 41)
    assert cards["lungs: right to left ratio"]["value_text"] == "1.00"
    assert not [c for c in cards.values() if c["unit"]], "no length without a spacing"


def test_lungs_of_a_ct_are_no_radiograph(room: Room) -> None:
    study = room.study(n=12)
    for label, index in (("right lung", (10, 8, 6)), ("left lung", (20, 8, 6)), ("heart", (15, 14, 6))):
        room.name(room.click(study, index), label)
    assert not [s for s in _cards(room, study, "measurement") if "ratio" in s]


# ---- the evaluation page and the command line ----------------------------------------------------------------------


def test_the_evaluation_is_given_or_said_to_be_missing(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "evaluation.json"
    monkeypatch.setattr(routes, "EVALUATION", path)
    assert "evaluate" in room.get("/api/evaluation")["missing"]
    path.write_text("{broken")
    assert "cannot be read" in room.get("/api/evaluation")["missing"]
    path.write_text(json.dumps({"findings": {"macro_auroc": 0.84}}))
    assert room.get("/api/evaluation")["findings"]["macro_auroc"] == 0.84


def test_read_proposes_draws_measures_and_prints_the_notes(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp import reading

    scan = tmp_path / "scan"
    scan.write_bytes(radiograph_file())
    monkeypatch.setattr(reading, "loader", lambda settings: lambda: room.writer)
    room.writer.queue.append([statement(1, "There is a pleural effusion.", "E1")])
    lines: list[str] = []
    reading.read(room.settings, scan, tmp_path / "out", load_eyes=lambda modality: room.eyes, say=lines.append)
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    effusion = next(e for e in data["evidence"] if e["kind"] == "finding")
    assert (effusion["statement"], effusion["source"]) == ("Pleural Effusion", EYES)
    assert effusion["probability"] == pytest.approx(0.91)
    assert {s["label"] for s in data["segments"]} == set(PLACES)
    assert "0.55" in next(e["text"] for e in data["evidence"] if e["statement"] == "heart: cardiothoracic ratio")
    assert "The model did not see earlier images." in data["unseen"]
    said = "\n".join(lines)
    for words in (f"read by {EYES}", "inputs: image, view, age, sex", "Proposed: Pleural Effusion, p 0.91", "0.55"):
        assert words in said


def test_read_of_a_lateral_view_says_what_is_wrong_and_proposes_nothing(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp import reading

    scan = tmp_path / "scan"
    scan.write_bytes(radiograph_file(view="LL"))
    room.eyes.quality = LATERAL
    monkeypatch.setattr(reading, "loader", lambda settings: lambda: room.writer)
    room.writer.queue.append([statement(1, "Clear.")])
    lines: list[str] = []
    reading.read(room.settings, scan, tmp_path / "out", load_eyes=lambda modality: room.eyes, say=lines.append)
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (data["segments"], data["evidence"]) == ([], [])
    assert any(LATERAL.notes[0] in text for text in data["unseen"])
    assert any(LATERAL.notes[0] in line for line in lines)


def test_starting_the_page_imports_no_torch(run_python: Callable[[str], None]) -> None:
    run_python("import webapp.service, webapp.server, webapp.routes.eyes")


@pytest.fixture
def run_python() -> Callable[[str], None]:
    import subprocess
    import sys

    def run(imports: str) -> None:
        subprocess.run([sys.executable, "-c", f"import sys\n{imports}\nassert 'torch' not in sys.modules"], check=True)

    return run
