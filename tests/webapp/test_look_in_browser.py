"""Every state of the page: text and controls stand out, every control has a name, and on a 4K screen none is tiny."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from core_models.study.received import Received
from tests.contrast import low, nameless, small
from tests.webapp.fakes import MODEL, UNSEEN, prior, statement
from tests.webapp.served import Served

pytestmark = pytest.mark.browser

TARGET = 24  # CSS pixels: WCAG 2.2, 2.5.8
SCREENS = {"1366 × 768": (1366, 768, 1), "4K": (3840, 2160, 1), "4K at 200 %": (1920, 1080, 2)}


@pytest.fixture(scope="module")
def study(served: Served) -> str:
    """A CT with a segment, a measurement, cards of all kinds, a prior, and a report of every colour."""
    study = served.add(patient="RR-LOOK", StudyInstanceUID="2.25.9951", SeriesInstanceUID="2.25.9952")
    services = served.services
    series = services.store.study(study).series[0]
    services.segments.click(series.id, (12, 10, 4), True)
    services.annotations.add(series.id, "length", "axial", [(4, 5, 6), (14, 5, 6)])
    services.store.set_indication(study, "Cough")
    services.board.add_finding(study, "Cardiomegaly")
    rejected = services.board.add_finding(study, "Emphysema")
    services.board.set_status(study, rejected.id, "rejected")
    served.search.hits = (prior(1, "The heart is enlarged."),)
    services.priors.find(study)
    report = Received("Dr A", True, ("Large heart.",), ("Cardiomegaly.",), "", ())
    services.store.add_received(study, uid="2.25.5", date="20240131", report=report)
    drafted = [
        statement(1, "The heart is enlarged.", "E5"),
        statement(2, "A nodule.", "E5", support="unsupported", note="The cited cards do not say: nodule."),
        statement(3, "The heart is normal.", "E5", support="contradicted", note="E5 says otherwise."),
    ]
    services.reports.merge_draft(study, drafted, MODEL, UNSEEN)
    return study


@pytest.fixture
def screen(served: Served, browser: Any, study: str, request: Any) -> Iterator[Any]:
    """A page on a screen of that size, on the worklist."""
    width, height, scale = SCREENS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(served.address)
    page.wait_for_selector(f"tr[data-study='{study}']")
    yield page
    context.close()


def _judge(page: Any, where: str, tiny: bool = False) -> list[str]:
    found = [f"{where}: faint {x}" for x in low(page)] + [f"{where}: nameless {x}" for x in nameless(page)]
    return found + ([f"{where}: small {x}" for x in small(page, TARGET)] if tiny else [])


def _states(page: Any, served: Served, study: str) -> Iterator[str]:
    """Bring the page into one state after the other; each is named."""
    yield "worklist"
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_selector(".rr-reading-open .rp-series .rp-line")
    page.wait_for_selector(".rp-cards > *")
    page.wait_for_function("window.__viewer.state().ready")
    page.wait_for_function("document.querySelectorAll('.rp-statements .rp-statement').length >= 3")
    # By script: a 4K screen drawn without a graphics card is not still for long enough for a real click.
    for target in (".rp-card summary", ".rp-received summary", ".rp-segment .rp-number"):
        page.wait_for_selector(target, state="attached")
        page.evaluate("(target) => document.querySelector(target).click()", target)
    page.wait_for_selector(".rp-segment[aria-current]")
    yield "reading"
    for menu in ("length", "view"):
        page.evaluate("(menu) => document.querySelector(`[data-menu=${menu}]`).click()", menu)
        yield f"menu {menu}"
        page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    yield "keyboard map"
    page.keyboard.press("?")
    page.evaluate("document.querySelector('.rp-badge').click()")
    yield "receipt"
    page.keyboard.press("Escape")
    page.evaluate(
        "[...document.querySelectorAll('.rp-report h2 button')].find((b) => b.textContent === 'Versions').click()"
    )
    page.wait_for_selector(".rp-drawer .rp-versions")
    yield "versions"
    page.keyboard.press("Escape")


@pytest.mark.parametrize("screen", SCREENS, indirect=True)
def test_everything_stands_out_has_a_name_and_is_large_enough(
    served: Served, screen: Any, study: str, request: Any
) -> None:
    size = request.node.callspec.params["screen"]
    found: list[str] = []
    for state in _states(screen, served, study):
        found += _judge(screen, state, tiny=size == "4K")
    assert found == []
    assert screen.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the page does not scroll"
