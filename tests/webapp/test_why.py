""" "Why?" of a draft: asked once and kept, on the report's own sentences, and never in the way of a draft."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from core_models.drafting import prompt, why
from core_models.drafting.drafter import Job
from core_models.drafting.evidence import Statement
from tests.drafting.rule_writer import MODEL, RuleWriter, said
from tests.webapp.conftest import Room
from tests.webapp.served import Served
from webapp import drafting
from webapp.report import Edit
from webapp.service import Services


def habit(job: Job) -> list[Statement]:
    """A sentence a card, and one that cites the first card and is always written."""
    cards = why.read(job)
    each = [said(f"There is {c.statement}.", c.id, region=c.region) for c in cards]
    return [*each, said("The lungs are clear.", cards[0].id)]


def write(services: Services, study: str, writer: RuleWriter) -> list[str]:
    """Let the writer write the study's draft; answers the ids of the report's statements."""
    services.drafting._load = lambda: writer
    services.drafting.forget()
    drafted = writer.draft(services.drafting.job(study)).statements
    return [s.id for s in services.reports.merge_draft(study, drafted, MODEL, ())[1]]


@pytest.fixture
def writer() -> RuleWriter:
    return RuleWriter(habit)


@pytest.fixture
def study(room: Room, writer: RuleWriter) -> str:
    """Drafted twice, so that the report's ids are not those of a draft."""
    study = room.study(n=12)["id"]
    room.services.board.add_finding(study, "Cardiomegaly")
    write(room.services, study, writer)
    room.services.board.add_finding(study, "Pleural Effusion/left")
    assert write(room.services, study, writer) == ["s3", "s4", "s5"]
    return study


def ask(room: Room, study: str, **question: Any) -> dict[str, Any]:
    """The job's last state."""
    answer = room.client.post(f"/api/studies/{study}/why", json=question)
    assert answer.status_code == 200, answer.text
    return room.wait(answer.json()["job"])


def test_each_sentence_of_the_report_is_told_what_it_rests_on(room: Room, study: str) -> None:
    assert room.client.get(f"/api/studies/{study}/why").json() == {"error": "Nobody has asked why of this draft yet."}
    job = ask(room, study)
    assert job["state"] == "done", job
    found = job["result"]
    assert {k: found[k] for k in ("faithfulness", "elsewhere", "image", "priors")} == {
        "faithfulness": {"changed": 2, "of": 3},
        "elsewhere": {"changed": 0, "of": 3},
        "image": {"changed": 0, "of": 0},
        "priors": {"changed": 0, "of": 0},
    }
    gone = {"outcome": "gone", "text": ""}
    e1, e2 = ({"without": {"kind": "card", "id": i}} for i in ("E1", "E2"))
    assert found["statements"] == {
        "s3": {"idle": [], "lines": [e1 | gone]},
        "s4": {"idle": [], "lines": [e2 | gone]},
        "s5": {"idle": ["E1"], "lines": [e1 | {"outcome": "same", "text": ""}]},
    }
    assert (found["missing"], found["appeared"], found["untried"]) == ([], [], [])
    assert room.get(f"/api/studies/{study}/why") == found


def test_the_score_is_kept_with_the_version_that_holds_the_draft(room: Room, study: str) -> None:
    ask(room, study)
    row = room.services.store.explanation(study, 2)
    assert row is not None
    assert (row.model, row.adapter, row.faithfulness) == (MODEL.name, MODEL.adapter, pytest.approx(2 / 3))
    assert room.services.store.explanation(study, 1) is None
    assert room.services.store.version(study, 2).statements == room.services.store.report(study).statements


def test_it_is_asked_anew_only_where_something_changed(room: Room, study: str, writer: RuleWriter) -> None:
    first = ask(room, study)["result"]
    assert ask(room, study)["result"] == first
    assert len(writer.batches) == 1
    room.services.board.set_status(study, "E2", "proposed")
    ask(room, study)
    assert len(writer.batches) == 2, "a card that is taken back is another card to the model"
    room.services.store.set_indication(study, "Cough.")
    ask(room, study)
    assert len(writer.batches) == 3
    room.services.board.set_status(study, "E2", "rejected")
    last = ask(room, study)["result"]
    assert len(writer.batches) == 4
    assert last["missing"] == ["s4"], "the model would not write of a rejected card again"
    assert set(last["statements"]) == {"s3", "s5"}


def test_words_of_the_reader_are_not_explained(room: Room, study: str) -> None:
    state = room.services.store.report(study)
    edits = [Edit(s.id, s.section, "Mine." if s.id == "s3" else s.text) for s in state.statements]
    room.services.reports.save(study, [*edits, Edit("h1", "findings", "Also mine.")], "", state.revision)
    found = ask(room, study)["result"]
    assert set(found["statements"]) == {"s4", "s5"}
    assert found["missing"] == []
    assert room.services.store.report(study).statements[0].text == "Mine.", "asking changes no word"


def test_what_reads_otherwise_and_what_comes_instead_is_quoted(room: Room, study: str) -> None:
    def rule(job: Job) -> list[Statement]:
        ids = {c.id for c in why.read(job)}
        large = said("The heart is large." if "E2" in ids else "The heart is normal.", "E1", region="heart")
        return [large] if "E1" in ids else [said("No finding.", "E2", section="impression")]

    write(room.services, study, RuleWriter(rule))
    found = ask(room, study)["result"]
    (told,) = found["statements"].values()
    assert told["lines"] == [
        {"without": {"kind": "card", "id": "E1"}, "outcome": "gone", "text": ""},
        {"without": {"kind": "card", "id": "E2"}, "outcome": "changed", "text": "The heart is normal."},
    ], "a card that is not cited is told of where it changes the sentence"
    assert found["appeared"] == [{"without": {"kind": "card", "id": "E1"}, "texts": ["No finding."]}]


def test_other_words_for_the_same_are_quoted_and_do_not_count(room: Room, study: str) -> None:
    def rule(job: Job) -> list[Statement]:
        ids = [c.id for c in why.read(job)]
        return [said("The heart is enlarged." if len(ids) > 1 else "Enlarged heart.", *ids)]

    write(room.services, study, RuleWriter(rule))
    found = ask(room, study)["result"]
    (told,) = found["statements"].values()
    assert [(line["outcome"], line["text"]) for line in told["lines"]] == [("reworded", "Enlarged heart.")] * 2
    assert told["idle"] == ["E1", "E2"]
    assert found["faithfulness"] == {"changed": 0, "of": 2}
    room.services.drafting._load = lambda: pytest.fail("it is answered from the store")
    room.services.drafting.forget()
    assert ask(room, study)["result"] == found


def test_a_large_board_begins_with_the_sentence_in_question_and_goes_on(room: Room, writer: RuleWriter) -> None:
    study = room.study(n=12, StudyInstanceUID="2.25.77", SeriesInstanceUID="2.25.78")["id"]
    for n in range(prompt.MAX_CARDS):
        room.services.board.add_finding(study, f"Nodule number {n}")
    ids = write(room.services, study, writer)
    found = ask(room, study, statement=ids[19])["result"]
    assert [line["outcome"] for line in found["statements"][ids[19]]["lines"]] == ["gone"]
    assert 0 < len(found["untried"]) < prompt.MAX_CARDS
    asked = len(writer.batches)
    assert ask(room, study, statement=ids[19])["result"] == found
    assert ask(room, study)["result"] == found
    assert len(writer.batches) == asked, "what was answered is not asked again"
    left = found["untried"][-1]["id"]
    found = ask(room, study, statement=ids[int(left[1:]) - 1])["result"]
    assert left not in {o["id"] for o in found["untried"]}
    while found["untried"]:
        found = ask(room, study, more=True)["result"]
    assert found["faithfulness"] == {"changed": 24, "of": 25}


def test_the_model_is_not_asked_without_a_draft(room: Room, writer: RuleWriter) -> None:
    study = room.study(n=12)["id"]
    room.services.drafting._load = lambda: writer
    room.services.board.add_finding(study, "Cardiomegaly")
    job = ask(room, study)
    assert (job["state"], job["status"]) == ("failed", 422)
    assert "no draft" in job["error"]
    assert writer.batches == []
    assert room.client.post("/api/studies/nowhere/why").status_code == 404
    assert room.client.get("/api/studies/nowhere/why").status_code == 404


def test_another_adapter_does_not_answer_for_this_draft(room: Room, study: str, writer: RuleWriter) -> None:
    writer.model.adapter = "rules@2"
    job = ask(room, study)
    assert (job["status"], writer.batches) == (409, [])
    assert "another adapter" in job["error"]


def test_a_signed_report_can_be_asked_about(room: Room, study: str) -> None:
    revision = room.services.store.report(study).revision
    room.services.reports.sign(study, "Dr. A", revision)
    before = room.services.store.versions(study)
    assert ask(room, study)["state"] == "done"
    assert room.services.store.versions(study) == before


def test_while_a_draft_is_written_one_is_told_to_come_back(
    room: Room, study: str, writer: RuleWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with room.services.drafting._turn:
        job = room.client.post(f"/api/studies/{study}/why").json()["job"]
        room.until(lambda: room.client.get(f"/api/jobs/{job}").json()["text"] == "Waiting for the language model")
        room.client.delete(f"/api/jobs/{job}")
        assert room.wait(job)["state"] == "cancelled"
        monkeypatch.setattr(drafting, "WAIT_S", 0.01)
        failed = ask(room, study)
        assert (failed["state"], failed["status"]) == ("failed", 503)
    assert writer.batches == []
    assert ask(room, study)["state"] == "done"


def test_two_who_ask_at_once_get_one_answer(room: Room, study: str, writer: RuleWriter) -> None:
    with room.services.drafting._turn:
        jobs = [room.client.post(f"/api/studies/{study}/why").json()["job"] for _ in range(2)]
        for job in jobs:
            room.until(lambda job=job: room.client.get(f"/api/jobs/{job}").json()["text"].startswith("Waiting for"))
    first, second = (room.wait(job)["result"] for job in jobs)
    assert first == second
    assert len(writer.batches) == 1


@pytest.mark.parametrize(("failure", "status"), [(MemoryError(), 503), (RuntimeError("Doe^Jane"), 500)])
def test_a_failing_model_leaves_the_report_and_the_next_question_works(
    room: Room, study: str, writer: RuleWriter, failure: Exception, status: int
) -> None:
    before = room.services.store.report(study)

    def fail(job: Job) -> list[Statement]:
        raise failure

    writer.rule, rule = fail, writer.rule
    job = ask(room, study)
    assert (job["state"], job["status"]) == ("failed", status)
    assert "Doe" not in job["error"]
    assert room.services.store.report(study) == before
    writer.rule = rule
    assert ask(room, study)["state"] == "done"


def test_a_page_elsewhere_cannot_ask(room: Room, study: str, writer: RuleWriter) -> None:
    evil = {"origin": "http://elsewhere.example"}
    assert room.client.post(f"/api/studies/{study}/why", headers=evil).status_code == 403
    assert writer.batches == []


# ---- the page --------------------------------------------------------------------------------------------------------


class Gated(RuleWriter):
    """Writes when it is let."""

    def __init__(self, rule: Callable[[Job], list[Statement]]) -> None:
        super().__init__(rule)
        self.gate = threading.Event()

    def many(self, jobs: Any) -> Any:
        assert self.gate.wait(20)
        return super().many(jobs)


@pytest.mark.browser
def test_why_on_the_page(served: Served, page: Any) -> None:
    study = served.add(patient="RR-W", StudyInstanceUID="2.25.961", SeriesInstanceUID="2.25.962")
    writer = Gated(habit)
    for term in ("Cardiomegaly", "Pleural Effusion/left"):
        served.services.board.add_finding(study, term)
    write(served.services, study, writer)
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_selector(".rp-statements .rp-statement >> nth=2")
    page.wait_for_selector("[data-card='E2']")
    places = "[...document.querySelectorAll('.rp-statement')].map((s) => s.getBoundingClientRect().top)"
    before = page.evaluate(places)
    page.keyboard.press("y")
    page.wait_for_function("document.querySelector('.rp-report [role=status]').textContent.includes('again')")
    assert page.inner_text(".rp-ask") == "Stop"
    assert page.evaluate(places) == before, "nothing moves while it is computed"
    writer.gate.set()
    page.wait_for_selector(".rp-faith:visible")
    assert "Faithfulness 2 of 3" in page.inner_text(".rp-faith")
    first, second, third = page.locator(".rp-effects").all()
    assert first.inner_text().split() == ["without", "E1", "it", "is", "gone"]
    assert "E2" in second.inner_text()
    assert "cited, but without it the sentence says the same" in third.inner_text()
    assert page.locator(".rp-statement >> nth=2").locator(".rp-about .rp-chip.idle").inner_text() == "E1"
    second.locator("[data-chip='E2']").hover()
    page.wait_for_selector("[data-card='E2'].lit")
    page.click("[data-card='E2'] [aria-label='Reject E2']")
    page.wait_for_function("document.querySelector('.rp-faith').textContent.includes('The board has changed')")
    page.keyboard.press("y")
    page.wait_for_selector(".rp-faith", state="hidden")
    assert page.locator(".rp-effects:visible").count() == 0
    page.click("text=Worklist")
    page.go_back()
    page.wait_for_selector(".rp-statements .rp-statement")
    assert page.locator(".rp-faith:visible").count() == 0
    # A letter that is typed is no question.
    page.fill(".rp-statements textarea >> nth=0", "")
    page.locator(".rp-statements textarea >> nth=0").type("y")
    assert page.inner_text(".rp-ask") == "Why?"


@pytest.mark.browser
def test_without_a_draft_the_page_says_so_and_stop_stops(served: Served, page: Any) -> None:
    study = served.add(patient="RR-V", StudyInstanceUID="2.25.971", SeriesInstanceUID="2.25.972")
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_selector(".rr-reading-open .rp-series .rp-line")
    page.click(".rp-ask")
    page.wait_for_selector(".rp-toast.error:has-text('draft the report first')")
    writer = Gated(habit)
    served.services.board.add_finding(study, "Cardiomegaly")
    write(served.services, study, writer)
    page.reload()
    page.wait_for_selector(".rp-statements .rp-statement >> nth=1")
    page.click(".rp-ask")
    page.wait_for_selector(".rp-ask:has-text('Stop')")
    page.click(".rp-ask")
    page.wait_for_selector(".rp-ask:has-text('Why?')")
    writer.gate.set()
    page.click(".rp-ask")
    page.wait_for_selector(".rp-faith:visible")
