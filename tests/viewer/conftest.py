"""An application that holds the viewer alone, on an empty home; and a page with it in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.browser import chromium, serving
from tests.viewer.harness import Harness, ct
from tests.viewer.screen import SHOWN_MS, Screen


@pytest.fixture
def harness(home: Path) -> Iterator[Harness]:
    made = Harness(home)
    yield made
    made.close()


@pytest.fixture
def client(harness: Harness) -> Iterator[TestClient]:
    with TestClient(harness.app, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        patch.setenv("GRADIO_TEMP_DIR", str(home / "gradio"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        harness = Harness(home)
        with serving(harness.with_page()) as address:
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            page.set_default_timeout(SHOWN_MS)
            page.goto(address)
            page.wait_for_function("window.__viewer")
            yield Screen(page, harness)
            page.close()
        harness.close()


@pytest.fixture
def view(screen: Screen) -> Iterator[Screen]:
    """The screen with a new CT open; it fails the test when a script throws."""
    problems: list[str] = []

    def note(error: Any) -> None:
        problems.append(str(error))

    screen.page.on("pageerror", note)
    screen.page.mouse.move(0, 0)
    screen.study = screen.open(ct())
    screen.page.evaluate("window.__viewer.viewer.setLayout('mpr'), window.__viewer.viewer.setPositive(true)")
    screen.page.evaluate("window.__viewer.viewer.reset()")
    yield screen
    screen.page.remove_listener("pageerror", note)
    assert problems == []
