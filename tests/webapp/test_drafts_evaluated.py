"""The figures of drafts on the evaluation page: as recorded, without the drafts; or that there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.webapp.conftest import Room
from tests.webapp.served import Served
from webapp.routes import eyes as routes

HOSTILE = "<img src=x onerror=document.title='pwned'>"
MARKS = {
    "studies": 133,
    "finding_recall": 0.981,
    "finding_precision": 0.95,
    "text_f1": 0.727,
    "rouge_l": 0.41,
    "bleu4": 0.209,
    "unsupported_rate": 0.0221,
    "contradicted_rate": None,
    "ci95": {"finding_recall": [0.97, 0.99], "text_f1": [0.6, 0.8], "rouge_l": None},
}
PICTURES = {
    "images": 225,
    "patients": 161,
    "labels": ["a", "b"],
    "without_card": 106,
    "systems": {"draft": {"f1": 0.512, "precision": 0.4, "recall": 0.6, "accuracy": 0.8, "ci95": {"f1": [0.4, 0.6]}}},
}
RECORDED = {
    "studies": 150,
    "adapter": HOSTILE,
    "systems": {
        "model": {"all": MARKS, "non_normal": MARKS, "normal": MARKS},
        "another": {"all": {}, "non_normal": {}},
    },
    "pictures": PICTURES,
    "examples": [{"study": "CXR1", "statements": [{"text": "Secret."}]}],
}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "drafts.json"
    monkeypatch.setattr(routes, "DRAFTS", path)
    return path


def test_the_figures_of_drafts_come_with_the_evaluation_and_without_the_drafts(room: Room, recorded: Path) -> None:
    assert room.get("/api/evaluation")["drafting"] is None
    for damaged in ("{broken", "[]", '{"systems": {"model": 3}}'):
        recorded.write_text(damaged)
        assert room.get("/api/evaluation")["drafting"] is None
    recorded.write_text(json.dumps(RECORDED))
    found = room.get("/api/evaluation")["drafting"]
    assert found["systems"]["model"]["all"]["finding_recall"] == 0.981
    assert found["pictures"]["images"] == 225
    assert "Secret" not in json.dumps(found)


@pytest.mark.browser
def test_the_evaluation_page_shows_how_drafts_are_written_or_that_nobody_measured(
    served: Served, page: Any, recorded: Path
) -> None:
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.drafts")
    assert "Not evaluated yet" in page.inner_text(".rp-mark.drafts")
    page.keyboard.press("Escape")

    recorded.write_text(json.dumps(RECORDED))
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.drafts table")
    text = page.inner_text(".rp-mark.drafts")
    for words in (
        "the model",
        "150 held-out",
        "0.98",
        "0.97 – 0.99",
        "2.2 %",
        "0.209",
        "225 radiographs",
        "0.51",
        HOSTILE,
    ):
        assert words in text, words
    assert "another" not in text
    assert page.locator(".rp-mark.drafts svg circle").count() == 4, "three measures and the F1 of pictures"
    assert page.locator(".rp-mark.learning").count() == 1
    assert page.locator("img[src='x']").count() == 0
