"""The page in headless Chromium, for benchmarks that measure what a reader sees."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from core_models.errors import ModelMissing

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
VIEW = {"width": 1920, "height": 1080}
WAIT_MS = 120_000


def chromium() -> str | None:
    """Where Chromium is; None without it, or without what drives it."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return None
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A running browser (playwright's `Browser`).

    Raises:
        ModelMissing: no Chromium, or nothing that drives it.
    """
    path = chromium()
    if path is None:
        raise ModelMissing("This benchmark drives the page in Chromium: install chromium and playwright.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(address: str) -> Iterator[Any]:
    """A page on this address.  Raises as `launched`."""
    with launched() as browser:
        page = browser.new_page(viewport=VIEW)
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        yield page
