"""Settings from the environment."""

from __future__ import annotations

import pytest

from core_models.errors import Refused
from webapp.settings import load


@pytest.mark.parametrize("text", ["abc", "0", "-1", "8.5", "1e3"])
def test_a_number_that_is_none_is_refused_with_a_sentence_that_names_it(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_PORT"):
        load({"READING_ROOM_PORT": text})
