"""Settings from the environment."""

from __future__ import annotations

import pytest

from core_models.errors import Refused
from webapp.settings import load


@pytest.mark.parametrize("text", ["abc", "0", "-1", "8.5", "1e3"])
def test_a_number_that_is_none_is_refused_with_a_sentence_that_names_it(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_PORT"):
        load({"READING_ROOM_PORT": text})


@pytest.mark.parametrize("text", ["", "embedded", "rad-dino", "rad-dino:/models/rad dino", "xrv:../weights", " xrv "])
def test_eyes_are_a_name_or_a_name_with_a_folder(text: str) -> None:
    assert load({"READING_ROOM_EYES": text}).eyes == text.strip()


def test_without_eyes_the_embedded_model_is_meant() -> None:
    assert load({}).eyes == ""


@pytest.mark.parametrize(
    "text", [":/models/x", "xrv:", "xrv: ", "/models/x", "Rad DINO", "-xrv", "xrv\n:x", "xrv:a\nb"]
)
def test_eyes_of_another_form_are_refused_with_a_sentence_that_names_them(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_EYES"):
        load({"READING_ROOM_EYES": text})
