"""Drafts that wait, stop, fail or meet a signature: the slot is freed and the reader's text is never touched."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from core_models.errors import Busy, Cancelled, Conflict, ModelMissing, NotFound, Refused
from tests.webapp.conftest import Room
from tests.webapp.draft_events import draft, events
from tests.webapp.fakes import MODEL, FakeWriter, prior, statement
from webapp import drafting


@pytest.fixture
def study(room: Room) -> dict[str, Any]:
    return room.study()


def _drain(run: drafting.Run) -> list[tuple[str, dict[str, Any]]]:
    out = []
    while (item := run.events.get(timeout=20)) is not None:
        out.append(item)
    return out


def test_rejected_cards_and_priors_and_those_that_contradict_are_not_shown_to_the_model(
    room: Room, study: dict[str, Any]
) -> None:
    against = prior(3, "The heart is normal in size. No pneumothorax.")
    room.search.hits = (prior(1, "The heart is enlarged."), prior(2, "Left pneumothorax."), against)
    base = f"/api/studies/{study['id']}"
    room.client.post(f"{base}/evidence", json={"term": "Cardiomegaly"})
    room.client.post(f"{base}/evidence", json={"term": "Pneumothorax"})
    room.client.post(f"{base}/priors")
    stances = [row.prior.stance for row in room.services.store.priors(study["id"])]
    assert stances == ["supports", "supports", "contradicts"]
    room.client.patch(f"{base}/evidence/E2", json={"status": "rejected"})
    room.client.patch(f"{base}/evidence/P1", json={"status": "rejected"})
    room.writer.queue.append([statement(1, "Big heart.", "E1")])
    run = room.services.drafting.start(study["id"], search=False)
    assert _drain(run)[-1][0] == "done"
    asked = room.writer.asked[0]
    assert {c.id for c in asked.cards if c.kind != "prior"} == {"E1"}
    assert [p.id for p in asked.priors] == ["P2"]


def test_without_an_index_the_draft_is_written_and_says_so(room: Room, study: dict[str, Any]) -> None:
    def missing():
        raise ModelMissing("There is no index of prior reports yet.")

    room.services.priors._open = missing
    room.writer.queue.append([statement(1, "Clear lungs.")])
    heard = events(room, study)
    assert ("warning", {"text": "There is no index of prior reports yet."}) in heard
    done = heard[-1][1]
    assert done["report"]["statements"][0]["text"] == "Clear lungs."
    assert done["warnings"] == ["Similar reports were not searched: There is no index of prior reports yet."]


def test_stop_keeps_what_is_finished(room: Room, study: dict[str, Any]) -> None:
    room.writer.gate = threading.Semaphore(1)
    room.writer.queue.append([statement(1, "First."), statement(2, "Second.")])
    run = room.services.drafting.start(study["id"])
    heard = []
    while not heard or heard[-1][0] != "finished":
        heard.append(run.events.get(timeout=20))
    assert room.client.delete(f"/api/studies/{study['id']}/draft").json() == {"stopped": True}
    name, data = _drain(run)[-1]
    assert (name, data["complete"]) == ("done", False)
    assert [s["text"] for s in room.get(f"/api/studies/{study['id']}/report")["statements"]] == ["First."]
    assert room.client.delete(f"/api/studies/{study['id']}/draft").json() == {"stopped": False}


def test_a_failing_model_gives_a_reason_keeps_the_readers_text_and_frees_the_slot(
    room: Room, study: dict[str, Any]
) -> None:
    path = f"/api/studies/{study['id']}/report"
    row = {"id": "h1", "section": "findings", "text": "Mine."}
    room.client.put(path, json={"revision": 0, "statements": [row]})
    room.writer.queue.append([RuntimeError("Doe^Jane")])
    name, data = events(room, study)[-1]
    assert name == "error"
    assert "Jane" not in data["error"]
    room.writer.queue.append([MemoryError()])
    assert "memory" in events(room, study)[-1][1]["error"]
    assert [s["text"] for s in room.get(path)["statements"]] == ["Mine."]
    room.writer.queue.append([statement(1, "Clear lungs.")])
    assert [s["text"] for s in draft(room, study)["statements"]] == ["Mine.", "Clear lungs."]


def test_a_model_that_answers_with_nonsense_is_said_and_keeps_what_was_finished(
    room: Room, study: dict[str, Any]
) -> None:
    path = f"/api/studies/{study['id']}/report"
    row = {"id": "h1", "section": "findings", "text": "Mine."}
    room.client.put(path, json={"revision": 0, "statements": [row]})
    sentence = "The language model answered with nonsense, so the draft was ended there."
    room.writer.queue.append([statement(1, "Clear lungs."), Refused(sentence)])
    name, data = events(room, study)[-1]
    assert (name, data) == ("error", {"error": sentence, "status": 422})
    assert [s["text"] for s in room.get(path)["statements"]] == ["Mine.", "Clear lungs."]


# ---- the job, and the model for others -------------------------------------------------------------------------------


def test_a_job_holds_all_that_a_draft_is_made_from(room: Room) -> None:
    study = room.radiograph()
    room.read(study)
    base = f"/api/studies/{study['id']}"
    room.client.put(f"{base}/indication", json={"text": "Cough."})
    job = room.services.drafting.job(study["id"], seed=3)
    assert [c.statement for c in job.cards if c.kind == "finding"] == ["Pleural Effusion"]
    assert (job.indication, job.modality, job.seed, job.temperature, job.steps) == ("Cough.", "CR", 3, 0.0, True)
    assert job.picture.shape == (40, 50)
    with pytest.raises(NotFound):
        room.services.drafting.job("none")
    room.writer.queue.append([statement(1, "Possible effusion.", "E1")])
    draft(room, study)
    (asked,) = room.writer.asked
    assert asked == room.services.drafting.job(study["id"])
    assert asked.picture is not None


def test_the_model_is_lent_while_no_draft_is_written(
    room: Room, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = room.services.drafting
    room.writer.queue.extend([[statement(1, "First.")], [statement(1, "Second.")]])
    job = drafts.job(study["id"])
    lent = drafts.with_writer(lambda writer: writer.many([job, job]))
    assert [d.statements[0].text for d in lent] == ["First.", "Second."]

    monkeypatch.setattr(drafting, "WAIT_S", 0.2)
    room.writer.gate = threading.Semaphore(0)
    room.writer.queue.append([statement(1, "Third.")])
    run = drafts.start(study["id"], search=False)
    room.until(lambda: len(room.writer.asked) == 3)
    with pytest.raises(Busy):
        drafts.with_writer(lambda writer: pytest.fail("a draft is being written"))
    with pytest.raises(Cancelled):
        drafts.with_writer(lambda writer: pytest.fail("a draft is being written"), lambda: True)
    run.cancel.set()
    assert run.finished.wait(20)
    with pytest.raises(MemoryError):
        drafts.with_writer(_out_of_memory)
    assert drafts.with_writer(lambda writer: writer) is room.writer, "what failed gives the turn back"


def _out_of_memory(writer: Any) -> None:
    raise MemoryError


def test_a_model_that_is_let_go_is_loaded_anew(room: Room, study: dict[str, Any]) -> None:
    drafts = room.services.drafting
    loaded: list[FakeWriter] = []

    def load() -> FakeWriter:
        loaded.append(FakeWriter([statement(1, f"Of model {len(loaded) + 1}.")]))
        return loaded[-1]

    drafts._load = load
    assert [s["text"] for s in draft(room, study)["statements"]] == ["Of model 1."]
    drafts.forget()
    drafts.forget()
    assert [s["text"] for s in draft(room, study)["statements"]] == ["Of model 2."]
    assert len(loaded) == 2


def test_a_missing_model_is_said_in_its_own_sentence_and_asked_for_again(room: Room, study: dict[str, Any]) -> None:
    calls = []

    def load():
        calls.append(1)
        raise ModelMissing("The language model is not prepared: run `make run` once.")

    room.services.drafting._load = load
    for _ in range(2):
        name, data = events(room, study)[-1]
        assert (name, data["status"]) == ("error", 503)
        assert data["error"].startswith("The language model is not prepared")
    assert len(calls) == 2


def test_one_draft_per_study_and_a_bounded_line(room: Room, study: dict[str, Any], monkeypatch) -> None:
    monkeypatch.setattr(drafting, "WAIT_S", 0.2)
    other = room.study(patient="RR-0002", StudyInstanceUID="2.25.77", SeriesInstanceUID="2.25.78")
    room.writer.gate = threading.Semaphore(0)
    room.writer.queue.append([statement(1, "First.")])
    first = room.services.drafting.start(study["id"])
    room.until(lambda: bool(room.writer.asked))
    with pytest.raises(Conflict):
        room.services.drafting.start(study["id"])
    name, data = _drain(room.services.drafting.start(other["id"]))[-1]
    assert (name, data["status"]) == ("error", 503)
    monkeypatch.setattr(drafting, "WAITING", 1)
    with pytest.raises(Busy):
        room.services.drafting.start(other["id"])
    first.cancel.set()
    assert first.finished.wait(20)


def test_a_signature_during_a_draft_stands(room: Room, study: dict[str, Any]) -> None:
    path = f"/api/studies/{study['id']}/report"
    row = {"id": "h1", "section": "findings", "text": "Mine."}
    saved = room.client.put(path, json={"revision": 0, "statements": [row]}).json()
    room.writer.gate = threading.Semaphore(0)
    room.writer.queue.append([statement(1, "Late.")])
    run = room.services.drafting.start(study["id"])
    room.until(lambda: bool(room.writer.asked))
    sign = {"author": "Dr. A", "revision": saved["revision"]}
    assert room.client.post(f"/api/studies/{study['id']}/sign", json=sign).status_code == 200
    assert run.finished.wait(20)
    assert [s["text"] for s in room.get(path)["statements"]] == ["Mine."]


def test_a_draft_that_ends_after_the_signature_is_refused(room: Room, study: dict[str, Any]) -> None:
    store = room.services.store
    path = f"/api/studies/{study['id']}/report"
    saved = room.client.put(path, json={"revision": 0, "statements": [], "free_text": "Mine."}).json()
    store.sign(study["id"], author="Dr. A", base_revision=saved["revision"])
    with pytest.raises(Conflict):
        room.services.reports.merge_draft(study["id"], [statement(1, "Late.")], MODEL, ())
