"""The image models on the page: cards with their bars, a box on the image, anatomy by a key, the evaluation's plots."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.webapp.fakes import EYES, LATERAL, NODULE, PLACES, finding
from tests.webapp.served import Served
from webapp.routes import eyes as routes

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=document.title='pwned'>"
BOX = [10, 16, 16, 20]
AMBER = """() => {
  const canvas = document.querySelector(".rr-pane[data-plane='axial'] canvas");
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) n += data[i] - data[i + 2] > 60;
  return n;
}"""


@pytest.fixture(autouse=True)
def _as_before(served: Served) -> Any:
    findings, quality = served.eyes.findings, served.eyes.quality
    yield
    served.eyes.findings, served.eyes.quality, served.eyes.gate = findings, quality, None


def _open(page: Any, served: Served, study: str) -> None:
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_selector(".rr-reading-open .rp-series .rp-line")
    page.wait_for_function("window.__viewer && window.__viewer.state().ready")


def _read(page: Any) -> None:
    page.wait_for_function("document.querySelector('.rp-looked')?.textContent.includes('read by')")


def test_a_proposed_finding_has_its_bar_and_its_place_on_the_image(served: Served, page: Any) -> None:
    study = served.add_radiograph(StudyInstanceUID="2.25.7001", SeriesInstanceUID="2.25.7002")
    _open(page, served, study)
    card = page.wait_for_selector(".rp-card.finding:has(.rp-track)")
    assert f"read by {EYES}; inputs: image, view, age, sex" in page.inner_text(".rp-looked")
    assert "p 0.91" in card.inner_text()
    assert card.query_selector(".rp-fill").evaluate("e => e.style.width") == "91%"
    assert card.query_selector(".rp-tick").evaluate("e => e.style.left") == "50%"
    page.click(".rp-rest summary")
    assert "Nodule" in page.inner_text(".rp-rest")
    assert "Pleural Effusion" not in page.inner_text(".rp-rest")

    assert page.evaluate(AMBER) == 0
    page.focus(".rp-card.finding")
    page.keyboard.press("Enter")
    page.wait_for_function("window.__viewer.state().finding")
    state = page.evaluate("window.__viewer.state()")
    assert state["finding"] == {"term": "Pleural Effusion", "box": BOX, "lines": []}
    assert state["position"][:2] == pytest.approx([13, 18], abs=1)
    page.wait_for_function(f"({AMBER})() > 50")
    outlined = page.evaluate(AMBER)
    page.keyboard.press("f")
    page.wait_for_function(f"({AMBER})() > {2 * outlined}")
    page.keyboard.press("f")
    page.keyboard.press("h")
    page.wait_for_function(f"({AMBER})() === 0")


def test_anatomy_by_one_key_with_live_ratios_that_outlive_a_reload(served: Served, page: Any) -> None:
    study = served.add_radiograph(StudyInstanceUID="2.25.7011", SeriesInstanceUID="2.25.7012")
    _open(page, served, study)
    page.wait_for_selector(".rp-structures button[data-structure='heart']:not(:disabled)")
    page.click(".rp-structures button[data-structure='heart']")
    page.wait_for_selector(".rp-segment")
    assert page.evaluate("window.__viewer.state().active") is not None, "the next click corrects it"
    page.locator("body").press("a")
    page.wait_for_function(f"document.querySelectorAll('.rp-segment').length === {len(PLACES)}")
    assert page.evaluate("window.__viewer.state().active") is None, "the next click begins another one"
    names = [n.input_value() for n in page.locator(".rp-segment .rp-name").all()]
    assert sorted(names) == sorted(PLACES)
    assert page.locator(".rp-structures button[aria-pressed='true']").count() == len(PLACES)
    page.wait_for_selector(".rp-card:has-text('heart: cardiothoracic ratio'):has-text('0.55')")
    page.click(".rp-card:has-text('cardiothoracic ratio') .rp-text")
    page.wait_for_function("(window.__viewer.state().finding?.lines || []).length === 2")
    page.wait_for_function(f"({AMBER})() > 50")
    page.click(".rp-card:has-text('right to left ratio') .rp-text")
    page.wait_for_function("window.__viewer.state().finding === null")
    page.reload()
    page.wait_for_function(f"document.querySelectorAll('.rp-segment').length === {len(PLACES)}")
    heart = next(s for s in served.services.store.segments(study) if s.label == "heart")
    page.wait_for_function(f"window.__viewer.viewer.masks.has('{heart.id}', [25, 25, 0])")


def test_nothing_moves_when_the_reading_arrives(served: Served, page: Any) -> None:
    study = served.add_radiograph(StudyInstanceUID="2.25.7021", SeriesInstanceUID="2.25.7022")
    served.services.board.add_finding(study, "Cardiomegaly")
    served.eyes.gate = threading.Semaphore(0)
    _open(page, served, study)
    page.wait_for_selector("[data-card='E1']")
    assert "Reading the image" in page.inner_text(".rp-looked")
    assert page.locator(".rp-structures button:disabled").count() == len(PLACES) + 1
    places = "['E1'].map((id) => document.querySelector(`[data-card=${id}]`).getBoundingClientRect().y)"
    before = page.evaluate(places), page.locator(".rp-segments").bounding_box()
    served.eyes.gate.release()
    page.wait_for_selector("[data-card='E2']")
    assert (page.evaluate(places), page.locator(".rp-segments").bounding_box()) == before


def test_what_is_found_on_a_signed_study_is_said_though_its_board_stays(served: Served, page: Any) -> None:
    study = served.add_radiograph(StudyInstanceUID="2.25.7061", SeriesInstanceUID="2.25.7062")
    served.services.store.save_report(study, statements=(), free_text="Read.", base_revision=0)
    revision = served.services.store.report(study).revision
    served.services.store.sign(study, author="Dr. Able", base_revision=revision)
    _open(page, served, study)
    _read(page)
    assert "above its threshold, with no card of its own: Pleural Effusion p 0.91" in page.inner_text(".rp-looked")
    assert page.locator(".rp-card").count() == 0


def test_a_lateral_view_and_a_ct_say_why_there_is_nothing(served: Served, page: Any) -> None:
    served.eyes.quality = LATERAL
    study = served.add_radiograph(StudyInstanceUID="2.25.7031", SeriesInstanceUID="2.25.7032")
    _open(page, served, study)
    _read(page)
    text = page.inner_text(".rp-looked")
    assert text.index(LATERAL.notes[0]) < text.index("read by")
    assert page.locator(".rp-card").count() == 0
    assert page.locator(".rp-structures button:not(:disabled)").count() == 0
    ct = served.add(patient="RR-E", StudyInstanceUID="2.25.7041", SeriesInstanceUID="2.25.7042")
    _open(page, served, ct)
    page.wait_for_function("document.querySelector('.rp-looked').textContent.includes('was not trained on')")
    assert page.locator(".rp-anatomy").is_hidden()


def test_a_models_words_are_text(served: Served, page: Any) -> None:
    served.eyes.findings = (finding(term=HOSTILE), NODULE)
    study = served.add_radiograph(StudyInstanceUID="2.25.7051", SeriesInstanceUID="2.25.7052")
    _open(page, served, study)
    page.wait_for_selector(".rp-card.finding")
    assert HOSTILE in page.inner_text(".rp-card.finding")
    assert page.locator("img[src='x']").count() == 0


def test_the_evaluation_page_draws_what_was_measured_or_says_that_nothing_was(
    served: Served,
    page: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "evaluation.json"
    monkeypatch.setattr(routes, "EVALUATION", path)
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-evaluation .rp-none")
    assert "not evaluated" in page.inner_text(".rp-evaluation")
    page.keyboard.press("Escape")
    assert page.locator(".rp-evaluation").is_hidden()

    marks = {"auroc": 0.84, "auroc_ci": [0.78, 0.9], "positives": 22, "ece": 0.02, "threshold": 0.3}
    recall = {"recall@1": 0.1, "recall@5": 0.2, "recall@10": 0.3}
    path.write_text(
        json.dumps(
            {
                "findings": {
                    "macro_auroc": 0.812,
                    "macro_auroc_ci": [0.79, 0.83],
                    "macro_auroc_within": {"AP": 0.77, "PA": 0.8},
                    "ece": 0.03,
                    "test_patients": 170,
                    "test_images": 250,
                    "per_finding": {"Effusion": marks, HOSTILE: {}},
                    "reliability": {
                        "Effusion": [{"p": 0.1, "observed": 0.12, "n": 90}, {"p": 0.6, "observed": 0.5, "n": 9}]
                    },
                    "subgroups": {"sex": {"F": {"n": 80, "macro_auroc": 0.8, "ci": [0.75, 0.85]}}},
                },
                "anatomy": {"dice": {"heart": 0.93}, "dice_ci": {"heart": [0.92, 0.94]}, "cases": 123},
                "gate": {
                    "questions": {"chest": {"yes": 14, "no": 3, "auroc": 0.987, "sensitivity": 0.9}},
                    "plain_frontal": 40,
                    "plain_frontal_let_through": 0.975,
                },
                "retrieval": {"image_to_text": recall, "pool": 400, "baselines": {"chance": {"image_to_text": recall}}},
            }
        )
    )
    page.click("text=Evaluation")
    page.wait_for_selector(".rp-mark.findings table")
    text = page.inner_text(".rp-evaluation")
    for words in (
        "0.812",
        "0.78 – 0.90",
        "within PA",
        "170 patients",
        "sex F",
        "0.930",
        "among 400",
        "chance",
        "0.987",
        "97.5 %",
    ):
        assert words in text, words
    assert page.locator(".rp-mark.calibration svg circle").count() == 2
    assert page.locator(".rp-mark.findings tbody svg circle").count() == 1, "what was not measured has no dot"
    assert page.locator("img[src='x']").count() == 0
