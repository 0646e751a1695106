"""A store in a temporary home, and one small study to put into it."""

from __future__ import annotations

import pytest

from tests.store.samples import settings_in
from webapp.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(settings_in(tmp_path))
    yield store
    store.close()
