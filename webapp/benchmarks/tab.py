"""A page of the running application in Chromium → how long it takes to open and draw, and what memory its tab holds.

Memory is the resident memory of the tab's own process (Chromium's renderer), which holds the voxels, the canvases and
the page; the browser itself and its graphics process, which every tab shares, are not counted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psutil

from webapp.benchmarks.browser import VIEW, WAIT_MS

SAMPLE_S = 0.02
PLANES = ("axial", "coronal", "sagittal")

# From the click on the worklist's row to the first image and to the last voxel, in ms.
_OPEN = """async (id) => {
  const when = (test) => new Promise((done) => {
    const look = () => (test() ? done(performance.now()) : setTimeout(look, 2));
    look();
  });
  const { metrics } = window.__viewer;
  metrics.first_image_ms = null;
  const began = performance.now();
  document.querySelector(`[data-study="${id}"]`).click();
  const first = await when(() => metrics.first_image_ms !== null);
  const ready = await when(() => window.__viewer.state().ready);
  return [first - began, ready - began];
}"""
_TIME_PANES = """() => {
  window.__drawn = {};
  for (const pane of window.__viewer.viewer.panes) {
    const draw = pane.draw.bind(pane);
    window.__drawn[pane.plane] = [];
    pane.draw = () => {
      const began = performance.now();
      draw();
      window.__drawn[pane.plane].push(performance.now() - began);
    };
  }
}"""
_FORGET = "() => { window.__viewer.metrics.frames.length = 0; for (const p in window.__drawn) window.__drawn[p] = []; }"
_DRAWN = "() => ({ ...window.__drawn, all: [...window.__viewer.metrics.frames] })"


class Tab:
    """One page, and what is done and measured in it."""

    def __init__(self, browser: Any, address: str) -> None:
        self._browser, self._address = browser, address
        self.page = browser.new_page(viewport=VIEW)
        self.page.set_default_timeout(WAIT_MS)

    def open(self, study_id: str) -> tuple[float, float]:
        """Load the page and open a study from the worklist: seconds to its first image, and to its last voxel."""
        self.worklist()
        self.page.wait_for_selector(f"[data-study='{study_id}']")
        first, ready = self.page.evaluate(_OPEN, study_id)
        return first / 1000, ready / 1000

    def worklist(self) -> None:
        self.page.goto(self._address)
        self.page.wait_for_function("window.__viewer")

    def renderer(self) -> psutil.Process:
        """The tab's own process: of the browser's renderers the one with most memory."""
        session = self._browser.new_browser_cdp_session()
        found = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        every = [psutil.Process(p["id"]) for p in found if p["type"] == "renderer"]
        return max(every, key=lambda p: p.memory_info().rss)

    def time_panes(self) -> None:
        self.page.evaluate(_TIME_PANES)

    def scrolled(self, plane: str, steps: int) -> dict[str, list[float]]:
        """Milliseconds of drawing each plane, and of whole frames ("all"), while one plane is scrolled."""
        self._begin(plane)
        self.page.keyboard.press("Home")
        self.page.evaluate(_FORGET)
        for _ in range(steps):
            self.page.keyboard.press("ArrowDown")
            self.page.wait_for_timeout(10)
        return self._end()

    def windowed(self, steps: int) -> dict[str, list[float]]:
        """The same while the window is dragged."""
        x, y = self._begin("axial")
        self.page.evaluate(_FORGET)
        self.page.mouse.down(button="right")
        for n in range(steps):
            self.page.mouse.move(x + n % 50, y + n % 30)
            self.page.wait_for_timeout(10)
        self.page.mouse.up(button="right")
        return self._end()

    def _begin(self, plane: str) -> tuple[float, float]:
        box = self.page.locator(f"#rr-viewer .rr-pane[data-plane={plane}] canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        return x, y

    def _end(self) -> dict[str, list[float]]:
        self.page.wait_for_timeout(200)
        self.page.wait_for_function("window.__viewer.metrics.frames.length > 0")  # a busy machine draws later
        return self.page.evaluate(_DRAWN)


@contextlib.contextmanager
def peak_rss_mb(process: psutil.Process) -> Iterator[list[float]]:
    """A list whose one value is the most resident memory (10^6 bytes) that the process had in the block."""
    peak = [process.memory_info().rss / 1e6]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                peak[0] = max(peak[0], process.memory_info().rss / 1e6)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
