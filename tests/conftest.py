"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from core_models.errors import ReadingRoomError
from webapp import demo, settings
from webapp.settings import Settings

_REAL = settings.load()  # before any test changes the environment
INDEXED = 400  # reports of the index that is made here where none is


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty READING_ROOM_HOME of this test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("READING_ROOM_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Where this session prepares what the machine does not have yet: one place for all its processes."""
    mine = tmp_path_factory.getbasetemp()
    home = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "prepared"
    home.mkdir(exist_ok=True)
    return replace(_REAL, home=home)


def _one_at_a_time(spare: Settings, name: str) -> FileLock:
    return FileLock(spare.home / f"{name}.lock")


@pytest.fixture(scope="session")
def demo_ct(spare: Settings) -> Path:
    """The demo chest CT (cxr.nii.gz), fetched where it is not here yet; its label map mask.nii.gz lies beside it."""
    try:
        return demo.paths(_REAL, "chest-ct")[0]
    except ReadingRoomError:
        pass
    try:
        with _one_at_a_time(spare, "demo"):
            with contextlib.suppress(ReadingRoomError):
                return demo.paths(spare, "chest-ct")[0]  # another process has fetched it
            demo.fetch(spare)
        return demo.paths(spare, "chest-ct")[0]
    except ReadingRoomError as error:
        pytest.skip(f"the demo CT is not here: {error}")


@pytest.fixture(scope="session")
def prepared_models(spare: Settings) -> Path:
    """The folder of prepared models; converting the language model takes a minute where it was not done yet."""
    from core_models.drafting import vision_language

    if vision_language.prepared(_REAL.models):
        return _REAL.models
    try:
        with _one_at_a_time(spare, "models"):
            if not vision_language.prepared(spare.models):
                vision_language.prepare(spare.models)
    except ReadingRoomError as error:
        pytest.skip(f"the language model cannot be prepared: {error}")
    return spare.models


@pytest.fixture(scope="session")
def index_folder(spare: Settings) -> Path:
    """An index of real prior reports: this machine's, else a small one made here."""
    from retrieval import corpora, index
    from retrieval.embedding import TextEncoder

    try:
        return index.open_index(_REAL.index).folder
    except ReadingRoomError:
        pass
    try:
        with _one_at_a_time(spare, "index"):
            if not spare.index.exists():
                index.build(corpora.read("open-i")[:INDEXED], TextEncoder(_REAL.threads), spare.index)
    except ReadingRoomError as error:
        pytest.skip(f"the index cannot be built: {error}")
    return spare.index
