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


def test_without_a_writer_the_embedded_model_is_meant_and_no_other_machine() -> None:
    settings = load({})
    assert (settings.writer, settings.writer_key, settings.writer_allow_remote) == ("", "", False)


@pytest.mark.parametrize(
    "text",
    [
        "embedded",
        "folder:/models/medgemma 4b",
        "folder:~/qwen",
        "server:http://127.0.0.1:8000/v1#google/medgemma-4b-it",
        "server:https://gpu.hospital.example/v1#mine ",
    ],
)
def test_a_writer_is_a_folder_or_a_server_with_a_model(text: str) -> None:
    assert load({"READING_ROOM_WRITER": text}).writer == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "/models/x",
        "folder:",
        "folder: ",
        "server:127.0.0.1:8000#m",
        "server:http://127.0.0.1:8000/v1",
        "server:http://127.0.0.1:8000/v1#",
        "server:ftp://127.0.0.1/v1#m",
        "server:http://127.0.0.1/v1#m\nfolder:x",
        "http://127.0.0.1:8000/v1#m",
    ],
)
def test_a_writer_of_another_form_is_refused_with_a_sentence_that_names_it(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_WRITER"):
        load({"READING_ROOM_WRITER": text})


def test_the_key_of_a_server_is_kept_and_never_shown() -> None:
    settings = load({"READING_ROOM_WRITER_KEY": " secret-1 ", "READING_ROOM_WRITER_ALLOW_REMOTE": "1"})
    assert settings.writer_key == "secret-1"
    assert settings.writer_allow_remote
    assert "secret-1" not in repr(settings)


@pytest.mark.parametrize("text", ["two words", "schlüssel", "a\nb"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_WRITER_KEY") as refusal:
        load({"READING_ROOM_WRITER_KEY": text})
    assert text not in str(refusal.value)


@pytest.mark.parametrize("text", ["yes", "2", "true"])
def test_another_machine_is_allowed_by_one_alone(text: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_WRITER_ALLOW_REMOTE"):
        load({"READING_ROOM_WRITER_ALLOW_REMOTE": text})


def test_a_segmenter_is_a_name_with_a_folder_or_an_address_and_by_itself_no_other_machine() -> None:
    settings = load({})
    assert (settings.segmenter, settings.segmenter_key, settings.segmenter_allow_remote) == ("", "", False)
    told = load(
        {
            "READING_ROOM_SEGMENTER": " nninteractive:http://127.0.0.1:1527 ",
            "READING_ROOM_SEGMENTER_KEY": "secret",
            "READING_ROOM_SEGMENTER_ALLOW_REMOTE": "1",
        }
    )
    assert told.segmenter == "nninteractive:http://127.0.0.1:1527"
    assert (told.segmenter_key, told.segmenter_allow_remote) == ("secret", True)
    assert "secret" not in repr(told)
    with pytest.raises(Refused, match="READING_ROOM_SEGMENTER"):
        load({"READING_ROOM_SEGMENTER": "sam"})
    with pytest.raises(Refused, match="READING_ROOM_SEGMENTER_KEY") as caught:
        load({"READING_ROOM_SEGMENTER_KEY": "se cret"})
    assert "cret" not in str(caught.value)
