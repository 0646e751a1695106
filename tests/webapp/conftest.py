"""A running application on an empty home, with an engine, a search and a language model that need no weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from core_models.segmentation.engine import Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume
from tests.browser import chromium
from tests.builders import ct_files, dataset, encoded
from tests.webapp.fakes import NODULE, FakeEyes, FakeSearch, FakeWriter, finding
from webapp.server import create_app
from webapp.service import Services
from webapp.settings import Settings, load

ADDRESS = "http://127.0.0.1:7860"
SHOWN_MS = 30_000


class BallEngine:
    """A ball of 3 voxels around every positive click."""

    name, version, licence = "ball", "1", "none"

    def prepare(self, volume: Volume) -> Volume:
        return volume

    def segment(
        self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        full = np.zeros(prepared.shape, bool)
        z, y, x = np.indices(prepared.shape)
        for click in as_clicks(prepared, clicks):
            i, j, k = click.index
            ball = (x - i) ** 2 + (y - j) ** 2 + (z - k) ** 2 <= 9
            full = full | ball if click.positive else full & ~ball
        return Segmentation(Mask.from_full(full), 0.9, len(clicks))


@dataclass
class Room:
    """The application under test with the steps that many tests share."""

    client: TestClient
    services: Services
    settings: Settings
    writer: FakeWriter
    search: FakeSearch
    eyes: FakeEyes

    def upload(self, *files: bytes) -> dict[str, Any]:
        """Send files, wait for the job, answer its last state."""
        parts = [("files", ("scan", data)) for data in files]
        answer = self.client.post("/api/upload", files=parts)
        assert answer.status_code == 200, answer.text
        return self.wait(answer.json()["job"])

    def wait(self, job: str) -> dict[str, Any]:
        self.services.jobs.get(job).finished.wait(30)
        return self.client.get(f"/api/jobs/{job}").json()

    def study(self, **options: Any) -> dict[str, Any]:
        """Upload a small CT and answer the study."""
        job = self.upload(*ct_files(**options))
        assert job["state"] == "done", job
        return self.get(f"/api/studies/{job['result']['studies'][0]}")

    def radiograph(self, **options: Any) -> dict[str, Any]:
        """Upload a small radiograph and answer the study."""
        job = self.upload(radiograph_file(**options))
        assert job["state"] == "done", job
        return self.get(f"/api/studies/{job['result']['studies'][0]}")

    def read(self, study: dict[str, Any]) -> dict[str, Any]:
        """Wait until the study's images are read, as the page does."""
        path = f"/api/studies/{study['id']}/reading"
        self.until(lambda: self.get(path)["state"] == "done")
        return self.get(path)

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def click(self, study: dict[str, Any], index: tuple[int, int, int], segment: str | None = None) -> dict[str, Any]:
        """Click in the first series and answer the segment."""
        body = {"index": list(index), "positive": True, "segment": segment}
        answer = self.client.post(f"/api/series/{study['series'][0]['id']}/click", json=body)
        assert answer.status_code == 200, answer.text
        return next(s for s in answer.json()["segments"] if s["id"] == answer.json()["segment"])

    def name(self, segment: dict[str, Any], label: str) -> None:
        assert self.client.patch(f"/api/segments/{segment['id']}", json={"label": label}).status_code == 200

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what another thread does; fails after half a minute."""
        for _ in range(3000):
            if condition():
                return
            time.sleep(0.01)
        pytest.fail("the condition never came true")


def radiograph_file(rows: int = 40, columns: int = 50, view: str | None = "PA", **attributes: Any) -> bytes:
    """A computed radiograph with a pixel of 2 mm."""
    pixels = np.tile(np.arange(columns, dtype=np.uint16) * 40, (rows, 1))
    values = {
        "sop_class": "1.2.840.10008.5.1.4.1.1.1",
        "modality": "CR",
        "ViewPosition": view,
        "PixelSpacing": [2.0, 2.0],
        "PatientAge": "061Y",
        "StudyInstanceUID": "2.25.5001",
        "SeriesInstanceUID": "2.25.5002",
        **attributes,
    }
    return encoded(dataset(pixels, **values))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"READING_ROOM_HOME": str(tmp_path / "home"), "READING_ROOM_MAX_UPLOAD_MB": "4"})


@pytest.fixture
def room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "restored after the test")
    writer, search, eyes = FakeWriter(), FakeSearch(), FakeEyes(finding(), NODULE)
    engine = BallEngine()
    app = create_app(
        settings,
        load_writer=lambda: writer,
        open_search=lambda: search,
        load_eyes=lambda modality: eyes,
        segment_options={"engine_for": lambda volume: engine},
    )
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
        services = app.state.services
        yield Room(client, services, settings, writer, search, eyes)
        services.eyes.close()
        services.segments.close()
        services.store.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
            patch.setenv(name, "restored after the tests")
        from tests.webapp.served import Served

        server = Served(tmp_path_factory.mktemp("home"))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(served: Any, browser: Any) -> Iterator[Any]:
    """A page on the worklist; it fails the test when a script throws or another host is asked."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    tab = context.new_page()
    tab.set_default_timeout(SHOWN_MS)
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda m: "Content Security Policy" in m.text and problems.append(m.text))
    tab.on("request", lambda r: r.url.startswith((served.address, "blob:", "data:")) or problems.append(r.url))
    tab.goto(served.address)
    tab.wait_for_selector(".rp-demo")
    yield tab
    context.close()
    assert problems == []
