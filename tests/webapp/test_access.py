"""The guard: which Host, which Origin, how much; and the headers of every answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.webapp.conftest import Room
from webapp.access import BODY_LIMIT, Guard
from webapp.settings import Settings, load


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:80", "[::1]:7860"])
def test_names_of_this_machine_are_served(room: Room, host: str) -> None:
    assert room.client.get("/api/studies", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "", "a@127.0.0.1", "192.168.0.9"]
)
def test_other_names_are_refused(room: Room, host: str) -> None:
    answer = room.client.get("/api/studies", headers={"host": host})
    assert answer.status_code == 421
    assert "address" in answer.json()["error"]
    assert room.client.get("/", headers={"host": host}).status_code == 421, "Gradio's routes are behind the guard too"


def test_a_server_on_every_address_takes_literal_addresses_but_no_foreign_name(settings: Settings) -> None:
    guard = Guard(None, load({"READING_ROOM_HOST": "0.0.0.0", "READING_ROOM_HOME": str(settings.home)}))
    assert guard.host_allowed("192.168.0.9:7860")
    assert not guard.host_allowed("evil.example")
    named = Guard(None, load({"READING_ROOM_HOST": "reading.local", "READING_ROOM_HOME": str(settings.home)}))
    assert named.host_allowed("reading.local:7860")
    assert not named.host_allowed("192.168.0.9")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"origin": "http://127.0.0.1:7860"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 404),
    ],
)
def test_only_this_page_may_change_something(room: Room, headers: dict[str, str], status: int) -> None:
    assert room.client.delete("/api/studies/none", headers=headers).status_code == status


def test_gradio_events_of_another_site_are_refused(room: Room) -> None:
    answer = room.client.post("/gradio_api/queue/join", json={}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


def test_a_declared_length_over_the_limit_is_413(room: Room) -> None:
    headers = {"content-length": str(4 * 1024**3), "content-type": "multipart/form-data; boundary=x"}
    answer = room.client.post("/api/upload", content=b"", headers=headers)
    assert answer.status_code == 413
    assert "MB" in answer.json()["error"]


def test_a_body_that_outgrows_the_limit_is_stopped_mid_stream(room: Room) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        while sent < 64:
            sent += 1
            yield b"\0" * 1024 * 1024

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = room.client.post("/api/upload", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert list((room.settings.home / "incoming").iterdir()) == []


def test_a_large_json_body_is_413_not_a_parse_error(room: Room) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(BODY_LIMIT // 65536 + 1):
            yield b"a" * 65536
        yield b'"}'

    headers = {"content-type": "application/json"}
    answer = room.client.put("/api/studies/none/indication", content=body(), headers=headers)
    assert answer.status_code == 413


def test_compressed_bodies_are_415(room: Room) -> None:
    assert room.client.post("/api/upload", content=b"x", headers={"content-encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize("path", ["/", "/api/studies", "/api/none", "/static/js/bus.js", "/static/css/page.css"])
def test_every_answer_carries_the_security_headers(room: Room, path: str) -> None:
    headers = room.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


def test_patient_data_is_not_cached_by_others(room: Room) -> None:
    assert "private" in room.client.get("/api/studies").headers["cache-control"]


def test_an_unexpected_error_is_a_plain_sentence_with_headers_and_no_detail(room: Room, monkeypatch, caplog) -> None:
    def broken(**_):
        raise RuntimeError("Doe^Jane at /secret/path")

    monkeypatch.setattr(room.services.store, "studies", broken)
    answer = room.client.get("/api/studies")
    assert answer.status_code == 500
    assert "Jane" not in answer.text
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "RuntimeError" in caplog.text
    assert "Jane" not in caplog.text, "the log must not quote what may come from a header"
