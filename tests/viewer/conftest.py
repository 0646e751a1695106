"""An application that holds the viewer alone, on an empty home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.viewer.harness import Harness


@pytest.fixture
def harness(home: Path) -> Iterator[Harness]:
    made = Harness(home)
    yield made
    made.close()


@pytest.fixture
def client(harness: Harness) -> Iterator[TestClient]:
    with TestClient(harness.app, raise_server_exceptions=False) as made:
        yield made
