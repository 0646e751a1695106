"""What readers signed of what was drafted: training cases, acceptance by finding, and the way back from an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from core_models.drafting import promotion
from core_models.drafting.evidence import Statement
from tests.store.samples import settings_in
from tests.store.samples import study as stored_study
from tests.webapp.conftest import Room
from tests.webapp.draft_events import draft
from tests.webapp.fakes import MODEL, statement
from tests.webapp.served import Served
from webapp import learning
from webapp.board import Board
from webapp.learning import SignedCase, acceptance, apart, training_studies, wilson
from webapp.report import Edit, Reports
from webapp.store import Store

EVIL = {"origin": "http://elsewhere.example"}


class Desk:
    """A store with a board and the reports on it, as the page's routes use them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(settings_in(folder))
        self.board = Board(self.store)
        self.reports = Reports(self.store, self.board)

    def study(self, *findings: str, uid: str = "1.2.3", patient: str = "P1", indication: str = "Cough.") -> str:
        """A study with these findings as E1, E2, …"""
        study = self.store.add_study(stored_study(uid=uid, patient=patient))
        for term in findings:
            self.board.add_finding(study, term)
        self.store.set_indication(study, indication)
        return study

    def signed(self, study: str, drafted: list[Statement], edits: dict[str, str | None], adapter: str = "a@1") -> None:
        """Draft, edit (None removes, an id that was not drafted adds), and sign."""
        state, _ = self.reports.merge_draft(study, drafted, replace(MODEL, adapter=adapter), ())
        words = {s.id: s.text for s in state.statements} | edits
        kept = [Edit(ident, "findings", text) for ident, text in words.items() if text is not None]
        state, _ = self.reports.save(study, kept, "", state.revision)
        self.reports.sign(study, "Dr. A", state.revision)


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    desk = Desk(tmp_path)
    yield desk
    desk.store.close()


def candidate(home: Path, name: str, seed: int = 0) -> None:
    folder = home / "adapters" / name
    folder.mkdir(parents=True)
    save_file({"lora": np.random.default_rng(seed).random((2, 3))}, folder / promotion.WEIGHTS)


YES = promotion.Verdict(True, ("Better on 25 signed cases.",))


# ---- cases to train on -----------------------------------------------------------------------------------------------


def test_signed_statements_become_a_training_case_that_rests_on_its_cards(desk: Desk) -> None:
    study = desk.study("Cardiomegaly", "Pleural Effusion/left", "otherwise normal", "Pneumothorax")
    desk.board.set_status(study, "E4", "rejected")
    drafted = [
        statement(1, "The heart is enlarged.", "E1", "P7"),
        statement(2, "The heart is normal.", "E1"),
        statement(3, "There is a nodule.", "E1", support="unsupported"),
        statement(4, "The lungs are clear.", "E3"),
    ]
    edits = {
        "s2": "There is a small left pleural effusion.",
        "h1": "No pneumothorax.",
        "h2": "There is a pneumothorax.",
        "h3": "Left pleural effusion is seen.",
        "h4": "The heart measures 12 cm.",
    }
    desk.signed(study, drafted, edits)
    (case,) = training_studies(desk.store)
    assert (case.study_id, case.indication, case.modality) == (study, "Cough.", "CT")
    assert [c.statement for c in case.cards] == ["Cardiomegaly", "Pleural Effusion/left", "otherwise normal"]
    assert [(s.text, s.evidence, s.region) for s in case.statements] == [
        ("The heart is enlarged.", ("E1",), "heart"),
        ("There is a small left pleural effusion.", ("E2",), "pleura"),
        ("The lungs are clear.", ("E3",), "heart"),
        ("No pneumothorax.", ("E3",), "pleura"),
        ("Left pleural effusion is seen.", ("E2",), "pleura"),
    ], "a rejected finding, a number of no card and a struck sentence are no example"
    assert {s.support for s in case.statements} == {"supported"}


def test_a_study_without_a_supported_sentence_is_no_case(desk: Desk) -> None:
    desk.signed(desk.study("Cardiomegaly"), [statement(1, "Something odd.", "E1")], {})
    assert len(desk.store.signed_cases()) == 1
    assert training_studies(desk.store) == []


def _cases(patients: list[int]) -> list[SignedCase]:
    return [SignedCase(f"s{n}", f"2026-01-{n:03d}", "", "CR", (), (), p) for n, p in enumerate(patients)]


def test_the_latest_are_judged_on_and_no_patient_is_on_both_sides() -> None:
    cases = _cases([*range(70), 0, 69, *range(72, 90)])
    train, latest = apart(cases[::-1])
    assert [c.study_id for c in latest] == [f"s{n}" for n in range(60, 90)]
    assert len(train) == 59, "of the first sixty, one is of a patient who came again"
    assert not {c.patient for c in train} & {c.patient for c in latest}
    assert apart(cases[:15]) == ([], cases[:15])
    train, latest = apart(cases[:30])
    assert (len(train), len(latest)) == (10, promotion.MIN_CASES)


# ---- acceptance ------------------------------------------------------------------------------------------------------


def test_acceptance_is_counted_by_finding_and_by_adapter(desk: Desk) -> None:
    first = desk.study("Cardiomegaly", "Pleural Effusion/left", uid="1.1")
    both = statement(2, "Enlarged heart with left effusion.", "E1", "E2")
    desk.signed(
        first,
        [statement(1, "The heart is enlarged.", "E1"), both, statement(3, "Left effusion.", "E2")],
        {"s2": "Large heart, left effusion.", "s3": None, "h1": "Mine."},
    )
    second = desk.study("Cardiomegaly", uid="1.2")
    struck = statement(2, "Odd heart.", "E1", support="unsupported")
    desk.signed(second, [statement(1, "The heart is enlarged.", "E1"), struck], {}, adapter="b@2")
    by_finding = {row["finding"]: row for row in acceptance(desk.store)}
    assert list(by_finding) == ["cardiomegaly", "effusion"], "the commonest first"
    low, high = wilson(2, 4)
    assert by_finding["cardiomegaly"] == {
        "finding": "cardiomegaly",
        "drafted": 4,
        "kept": 2,
        "edited": 1,
        "removed": 0,
        "struck": 1,
        "rate": 0.5,
        "ci95": [round(low, 4), round(high, 4)],
    }
    assert [by_finding["effusion"][k] for k in ("drafted", "kept", "edited", "removed")] == [2, 0, 1, 1]
    assert [(row["finding"], row["drafted"]) for row in acceptance(desk.store, "b@2")] == [("cardiomegaly", 2)]
    assert acceptance(desk.store, "c@3") == []
    total = {row["adapter"]: (row["studies"], row["drafted"], row["kept"]) for row in learning.writers(desk.store)}
    assert total == {"a@1": (1, 3, 1), "b@2": (1, 2, 1)}, "the reader's own sentence was not drafted"


def test_a_restored_sentence_counts_as_kept(desk: Desk) -> None:
    study = desk.study("Cardiomegaly")
    state, _ = desk.reports.merge_draft(study, [statement(1, "Odd heart.", "E1", support="unsupported")], MODEL, ())
    desk.reports.save(study, [Edit("s1", "findings", "Odd heart.", restored=True)], "", state.revision)
    desk.reports.sign(study, "Dr. A", desk.store.report(study).revision)
    (row,) = acceptance(desk.store)
    assert (row["drafted"], row["kept"], row["struck"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("successes", "trials", "ends"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_wilsons_interval(successes: int, trials: int, ends: tuple[float, float]) -> None:
    assert wilson(successes, trials) == pytest.approx(ends, abs=1e-4)


# ---- the routes ------------------------------------------------------------------------------------------------------


def _sign(room: Room, study: dict[str, Any], *drafted: Statement) -> None:
    room.writer.queue.append(list(drafted))
    report = draft(room, study)
    body = {"author": "Dr. A", "revision": report["revision"]}
    answer = room.client.post(f"/api/studies/{study['id']}/sign", json=body)
    assert answer.status_code == 200, answer.text


def test_the_page_is_told_what_was_signed_and_by_which_adapter(room: Room) -> None:
    found = room.get("/api/learning")
    assert (found["signed_cases"], found["acceptance"], found["writers"]) == (0, [], [])
    assert [(a["name"], a["current"]) for a in found["adapters"]] == [("shipped", True)]
    assert (found["before"], found["sentence"]) == (None, "")
    study = room.study(n=12)
    room.services.board.add_finding(study["id"], "Cardiomegaly")
    _sign(room, study, statement(1, "The heart is enlarged.", "E1"))
    found = room.get("/api/learning")
    assert found["signed_cases"] == 1
    assert [(r["finding"], r["drafted"], r["rate"]) for r in found["acceptance"]] == [("cardiomegaly", 1, 1.0)]
    assert [(w["adapter"], w["model"]) for w in found["writers"]] == [(MODEL.adapter, MODEL.name)]
    assert room.get("/api/learning?adapter=other@1")["acceptance"] == []
    assert room.get(f"/api/learning?adapter={MODEL.adapter}")["acceptance"] == found["acceptance"]


def test_one_request_returns_to_the_adapter_before(room: Room) -> None:
    home = room.settings.home
    assert room.client.post("/api/learning/return").status_code == 409
    candidate(home, "signed-1")
    promotion.promote(home, "signed-1", YES)
    found = room.get("/api/learning")
    assert found["before"] == "shipped"
    assert [(a["name"], a["current"]) for a in found["adapters"]] == [("shipped", False), ("signed-1", True)]
    assert found["adapters"][1]["promotions"][0]["reasons"] == list(YES.reasons)
    assert room.client.post("/api/learning/return", headers=EVIL).status_code == 403
    assert promotion.before(home) == "shipped", "a page elsewhere cannot do it"
    answer = room.client.post("/api/learning/return")
    assert (answer.status_code, answer.json()["current"]) == (200, "shipped")
    assert promotion.resolve(home, "") == promotion.SHIPPED_FOLDER
    assert room.get("/api/learning")["adapters"][1]["promotions"][0]["left_at"]


def test_a_set_adapter_is_said_to_stand_above_the_promoted_one(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(room.settings.home, "signed-1")
    promotion.promote(room.settings.home, "signed-1", YES)
    other = replace(room.services, settings=replace(room.settings, adapter="/some/where"))
    monkeypatch.setattr(room.client.app.state, "services", other)
    found = room.get("/api/learning")
    assert "READING_ROOM_ADAPTER" in found["sentence"]
    assert not any(a["current"] for a in found["adapters"])
    assert found["before"] is None
    assert room.client.post("/api/learning/return").status_code == 409
    assert promotion.before(room.settings.home) == "shipped"


def test_a_damaged_list_of_adapters_is_told_and_the_rest_stays(room: Room) -> None:
    folder = room.settings.home / "adapters"
    folder.mkdir()
    (folder / "current.json").write_text("{")
    found = room.get("/api/learning")
    assert "damaged" in found["sentence"]
    assert (found["adapters"], found["acceptance"]) == ([], [])
    assert room.client.post("/api/learning/return").status_code == 422


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_the_evaluation_page_shows_acceptance_and_returns(served: Served, page: Any) -> None:
    services = served.services
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.learning .rp-none")
    assert "No report drafted here has been signed yet." in page.inner_text(".rp-mark.learning")
    assert page.locator(".rp-mark.learning button").count() == 0, "nothing to return to"
    page.keyboard.press("Escape")

    candidate(services.settings.home, "signed-1")
    promotion.promote(services.settings.home, "signed-1", YES)
    study = served.add(StudyInstanceUID="2.25.8801", SeriesInstanceUID="2.25.8802")
    services.board.add_finding(study, "Cardiomegaly")
    state, _ = services.reports.merge_draft(study, [statement(1, "The heart is enlarged.", "E1")], MODEL, ())
    services.reports.sign(study, "Dr. A", state.revision)
    page.click("text=Evaluation")
    page.wait_for_selector("table[aria-label='Acceptance by finding']")
    words = page.inner_text(".rp-mark.learning")
    for part in ("cardiomegaly", "100 %", "21 – 100", "signed-1", "in use", YES.reasons[0]):
        assert part in words, part
    page.focus("text=Return to shipped")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The shipped adapter writes the drafts")
    page.wait_for_function("document.querySelector('.rp-mark.learning').innerText.includes('returned from')")
    assert promotion.resolve(services.settings.home, "") == promotion.SHIPPED_FOLDER
