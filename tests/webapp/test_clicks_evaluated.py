"""The figures of click segmentation on the evaluation page: as recorded, or that there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.webapp.conftest import Room
from tests.webapp.served import Served
from webapp.routes import eyes as routes

HOSTILE = "<img src=x onerror=document.title='pwned'>"


def _summary(first: float, **more: Any) -> dict[str, Any]:
    dice = {"1": first, "3": 0.823, "5": 0.881, "10": 0.9}
    return {
        "n": 14,
        "dice": dice,
        "dice_ci": {"1": [0.5, 0.8], "3": [0.75, 0.88], "5": None, "10": None},
        "hausdorff95": {"1": 20.0, "3": 11.0, "5": 7.4, "10": None},
        "clicks_to": {
            "0.80": {"median": None, "reached": 3, "of": 14},
            "0.90": {"median": 4.0, "reached": 9, "of": 14},
        },
        "click_s": {"median": 0.213, "p95": 0.6, "first_median": 0.3, "clicks": 140},
        "targets": {"spleen": dice | {"n": 1, "hausdorff95": dice, "clicks_to": {"0.80": 2.0, "0.90": None}}},
        "cohorts": {},
    } | more


RECORDED = {
    "default": "click",
    "defaults": {"demo-ct": "click", "totalseg-example": "click"},
    "clicks": 10,
    "threads": 2,
    "data": {
        "demo-ct": {"cases": 1, "patients": 1, "trains": False},
        "totalseg-example": {"cases": 1, "patients": 1, "trains": True},
    },
    "engines": {
        HOSTILE: _summary(0.31, cohorts={"totalseg-example": _summary(0.2)}),
        "click": _summary(0.654, cohorts={"totalseg-example": _summary(0.99)}),
    },
}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "clicks.json"
    monkeypatch.setattr(routes, "CLICKS", path)
    return path


def test_the_figures_of_clicks_come_with_the_evaluation(room: Room, recorded: Path) -> None:
    assert room.get("/api/evaluation")["clicks"] is None
    for damaged in ("{broken", "[]", '{"engines": {"click": 3}}', '{"data": {"unknown": {}}, "engines": {}}'):
        recorded.write_text(damaged)
        assert room.get("/api/evaluation")["clicks"] is None
    recorded.write_text(json.dumps(RECORDED))
    found = room.get("/api/evaluation")["clicks"]
    assert [(r["engine"], r["trains"]) for r in found["rows"]] == [
        ("click", False), (HOSTILE, False), ("click", True), (HOSTILE, True),
    ]  # fmt: skip
    assert found["targets"]["spleen"]["1"] == 0.654


@pytest.mark.browser
def test_the_page_shows_every_engine_and_the_targets_of_its_own(served: Served, page: Any, recorded: Path) -> None:
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.clicks")
    assert "Not evaluated yet" in page.inner_text(".rp-mark.clicks")
    page.keyboard.press("Escape")

    recorded.write_text(json.dumps(RECORDED))
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.clicks table")
    text = page.inner_text(".rp-mark.clicks")
    for words in ("demo CT below 132 mm", HOSTILE, "0.65", "0.82", "7.4", "> 10", "0.21", "spleen", "trained on this"):
        assert words in text, words
    assert page.locator(".rp-mark.clicks svg .interval").count() == 4
    assert page.locator("img[src='x']").count() == 0
    over = "(tables) => tables.map((t) => t.scrollWidth - t.parentElement.clientWidth)"
    wide = page.eval_on_selector_all(".rp-mark.clicks table", over)
    assert max(wide) <= 0, "no table is wider than its column"
