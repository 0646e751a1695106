"""A study → the server-sent events of its draft, read to the end."""

from __future__ import annotations

import json
from typing import Any

from tests.webapp.conftest import Room


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The (name, data) of every event of a stream's text; comments are left out."""
    out = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            out.append((fields["event"], json.loads(fields["data"])))
    return out


def events(room: Room, study: dict[str, Any], **wish: Any) -> list[tuple[str, dict[str, Any]]]:
    answer = room.client.post(f"/api/studies/{study['id']}/draft", json=wish)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parse(answer.text)


def draft(room: Room, study: dict[str, Any]) -> dict[str, Any]:
    """Draft and answer the stored report."""
    name, data = events(room, study)[-1]
    assert name == "done", data
    return data["report"]
