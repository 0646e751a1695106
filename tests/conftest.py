"""Fixtures that every folder of tests may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from core_models.errors import ReadingRoomError
from webapp import demo, settings

_REAL = settings.load()  # before any test changes the environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty READING_ROOM_HOME of this test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("READING_ROOM_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_ct() -> Path:
    """The demo chest CT (cxr.nii.gz); `demo.companion(settings, "chest-ct", "mask.nii.gz")` is its label map."""
    try:
        return demo.paths(_REAL, "chest-ct")[0]
    except ReadingRoomError as error:
        pytest.skip(f"the demo CT is not here: {error}")
