"""The report: edits, drafts, conflicts, stale numbers, the signature, addenda and exports."""

from __future__ import annotations

from typing import Any

import pytest

from core_models.drafting.evidence import Statement
from tests.webapp.conftest import Room
from tests.webapp.draft_events import draft, events
from tests.webapp.fakes import MODEL, UNSEEN, statement
from webapp.eyes import untrained
from webapp.report import merge


def _put(room: Room, study: dict[str, Any], report: dict[str, Any], statements: list[dict], free: str = "") -> Any:
    body = {"revision": report["revision"], "statements": statements, "free_text": free}
    return room.client.put(f"/api/studies/{study['id']}/report", json=body)


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: s[k] for k in ("id", "section", "text", "restored")} for s in report["statements"]]


@pytest.fixture
def study(room: Room) -> dict[str, Any]:
    return room.study(n=12)


@pytest.fixture
def report_path(study: dict[str, Any]) -> str:
    return f"/api/studies/{study['id']}/report"


def test_a_reader_writes_without_any_draft(room: Room, study: dict[str, Any], report_path: str) -> None:
    empty = room.get(report_path)
    assert (empty["revision"], empty["statements"], empty["state"]) == (0, [], "new")
    row = {"id": "h1", "section": "findings", "text": "Clear lungs."}
    saved = _put(room, study, empty, [row], "Comparison: none.").json()
    assert saved["revision"] == 1
    assert saved["state"] == "drafted"
    assert saved["statements"][0]["origin"] == "human"
    assert saved["free_text"] == "Comparison: none."
    assert room.get(report_path) == saved


def test_a_stale_revision_gets_409_with_the_newer_one_and_changes_nothing(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    base = room.get(report_path)
    first = _put(room, study, base, [{"id": "h1", "section": "findings", "text": "Mine."}])
    second = _put(room, study, base, [{"id": "h2", "section": "findings", "text": "Theirs."}])
    assert first.status_code == 200
    assert second.status_code == 409
    assert second.json()["error"]
    assert second.json()["report"]["revision"] == 1
    assert second.json()["report"]["statements"][0]["text"] == "Mine."
    assert room.get(report_path)["statements"][0]["text"] == "Mine."


@pytest.mark.parametrize(
    "row",
    [
        {"id": "../x", "section": "findings", "text": "a"},
        {"id": "h1", "section": "title", "text": "a"},
        {"id": "h1", "section": "findings"},
    ],
)
def test_malformed_rows_are_422(room: Room, study: dict[str, Any], row: dict[str, Any]) -> None:
    answer = _put(room, study, {"revision": 0}, [row])
    assert answer.status_code == 422
    assert answer.json()["error"].endswith(".")


def test_the_editor_cannot_claim_evidence_or_origin(room: Room, study: dict[str, Any], report_path: str) -> None:
    row = {"id": "h1", "section": "findings", "text": "A.", "evidence": ["E1"], "origin": "model", "support": "x"}
    saved = _put(room, study, room.get(report_path), [row]).json()["statements"][0]
    assert saved["evidence"] == []
    assert saved["origin"] == "human"


def test_a_draft_keeps_what_the_reader_wrote_or_edited(room: Room, study: dict[str, Any], report_path: str) -> None:
    room.writer.queue.append([statement(1, "The heart is enlarged.", "E1"), statement(2, "Clear lungs.")])
    drafted = draft(room, study)
    rows = _rows(drafted)
    rows[1]["text"] = "The lungs are clear."
    rows.append({"id": "h1", "section": "impression", "text": "Cardiomegaly.", "restored": False})
    assert _put(room, study, drafted, rows).status_code == 200
    room.writer.queue.append([statement(1, "Normal heart.", "E1")])
    again = draft(room, study)
    assert [(s["text"], s["origin"]) for s in again["statements"]] == [
        ("The lungs are clear.", "edited"),
        ("Normal heart.", "model"),
        ("Cardiomegaly.", "human"),
    ]
    ids = [s["id"] for s in again["statements"]]
    assert len(set(ids)) == len(ids)


def test_a_models_statement_removed_elsewhere_comes_back_as_the_models(room: Room, study: dict[str, Any]) -> None:
    room.writer.queue.append([statement(1, "No effusion.", support="unsupported")])
    drafted = draft(room, study)
    removed = _put(room, study, drafted, []).json()
    back = _put(room, study, removed, _rows(drafted)).json()["statements"][0]
    assert (back["origin"], back["support"]) == ("model", "unsupported")
    gone = _put(room, study, {"revision": removed["revision"] + 1}, [])
    assert gone.status_code == 200
    room.writer.queue.append([statement(1, "Clear lungs.")])
    assert draft(room, study)["statements"][0]["id"] != back["id"], "an id is never given again"


def test_merge_says_nothing_twice() -> None:
    kept = Statement("s1", "findings", "heart", "Big heart.", ("E1",), origin="edited")
    new = [statement(1, "The heart is enlarged.", "E1"), statement(2, "BIG HEART.", "E2"), statement(3, "Clear.", "E3")]
    assert [s.text for s in merge([kept], new)] == ["Big heart.", "Clear."]


def test_of_two_sentences_on_one_card_the_one_that_was_reworded_gives_way() -> None:
    size = statement(1, "The heart is enlarged.", "E1")
    shape = statement(2, "The cardiac contour is globular.", "E1")
    summary = statement(3, "Cardiomegaly.", "E1", section="impression")
    mine = Statement("s1", "findings", "heart", "The heart is moderately enlarged.", ("E1",), origin="edited")
    said = [s.text for s in merge([mine], [shape, size, summary])]
    assert said == ["The heart is moderately enlarged.", "The cardiac contour is globular.", "Cardiomegaly."]
    # Each reworded sentence stands for one.
    other = Statement("s2", "findings", "heart", "A globular cardiac contour.", ("E1",), origin="edited")
    assert [s.text for s in merge([mine, other], [shape, size])] == [mine.text, other.text]
    # One of other cards, or that the reader wrote themselves, stands for none.
    own = Statement("h1", "findings", "heart", "The heart is big.", origin="human")
    elsewhere = Statement("s3", "findings", "lungs", "Large heart.", ("E2",), origin="edited")
    assert len(merge([own, elsewhere], [shape, size])) == 4


def test_a_restored_statement_survives_the_next_draft_and_the_signature(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    room.writer.queue.append(
        [
            statement(1, "No effusion.", support="unsupported"),
            statement(2, "No mass.", support="unsupported"),
            statement(3, "Clear lungs."),
        ]
    )
    drafted = draft(room, study)
    rows = _rows(drafted)
    rows[0]["restored"] = True
    saved = _put(room, study, drafted, rows).json()
    sign = {"author": "Dr. A", "revision": saved["revision"]}
    signed = room.client.post(f"/api/studies/{study['id']}/sign", json=sign).json()
    assert [s["text"] for s in signed["statements"]] == ["No effusion.", "Clear lungs."], "struck out is not signed"


def test_a_changed_mask_makes_statements_stale_until_the_reader_agrees(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    segment = room.click(study, (16, 12, 6))
    room.name(segment, "liver")
    cards = room.get(f"/api/studies/{study['id']}/evidence")
    card = next(c for c in cards if c["statement"] == "liver: volume")
    template = "The liver has a volume of {" + card["id"] + "}."
    text = f"The liver has a volume of {card['value_text']}."
    room.writer.queue.append([statement(1, text, card["id"], template=template)])
    assert not draft(room, study)["statements"][0]["stale"]
    room.click(study, (24, 12, 6), segment["id"])
    stale = room.get(report_path)
    assert stale["statements"][0]["stale"]
    assert stale["statements"][0]["text"] == text, "the words stay until the reader agrees"
    now = room.get(f"/api/studies/{study['id']}/evidence")
    value = next(c for c in now if c["id"] == card["id"])["value_text"]
    agreed = _put(room, study, stale, [{**_rows(stale)[0], "agree": True}]).json()["statements"][0]
    assert agreed["text"] == f"The liver has a volume of {value}."
    assert not agreed["stale"]
    assert agreed["origin"] == "model"


def _liver(room: Room, study: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A liver segment, its volume card, and a draft that states the volume."""
    segment = room.click(study, (16, 12, 6))
    room.name(segment, "liver")
    cards = room.get(f"/api/studies/{study['id']}/evidence")
    card = next(c for c in cards if c["statement"] == "liver: volume")
    said = statement(
        1,
        f"The liver has a volume of {card['value_text']}.",
        card["id"],
        template="The liver has a volume of {" + card["id"] + "}.",
    )
    room.writer.queue.append([said])
    return segment, card, draft(room, study)


def test_a_renamed_segment_makes_its_statement_stale_and_agreeing_strikes_it_out(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    segment, card, drafted = _liver(room, study)
    assert not drafted["statements"][0]["stale"]
    room.name(segment, "spleen")
    stale = room.get(report_path)
    assert stale["statements"][0]["stale"], "it is no volume of the liver any more"
    agreed = _put(room, study, stale, [{**_rows(stale)[0], "agree": True}]).json()["statements"][0]
    assert (agreed["stale"], agreed["support"]) == (False, "unsupported")
    assert agreed["note"] == f"{card['id']} is another number: spleen: volume."


def test_a_new_finding_that_says_otherwise_makes_a_statement_stale(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    room.services.board.add_finding(study["id"], "normal")
    room.writer.queue.append([statement(1, "No pneumothorax.", "E1")])
    assert not draft(room, study)["statements"][0]["stale"]
    room.services.board.add_finding(study["id"], "Pneumothorax/left")
    assert room.get(report_path)["statements"][0]["stale"]


def test_a_reworded_statement_keeps_its_live_number_and_is_checked_anew(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    _, card, drafted = _liver(room, study)
    row = _rows(drafted)[0]
    kept = _put(room, study, drafted, [{**row, "text": f"Liver volume {card['value_text']}."}]).json()
    assert (kept["statements"][0]["origin"], kept["statements"][0]["support"]) == ("edited", "supported")
    other = _put(room, study, kept, [{**row, "text": "The spleen has a volume of 5 ml."}]).json()
    assert other["statements"][0]["support"] == "unsupported", "the check of the old words says nothing of these"
    back = _put(room, study, other, [{**row, "text": f"Liver volume {card['value_text']}."}]).json()["statements"][0]
    assert (back["support"], back["stale"]) == ("supported", False)


def test_a_number_in_the_readers_words_is_stale_when_the_mask_changes(
    room: Room, study: dict[str, Any], report_path: str
) -> None:
    segment, card, drafted = _liver(room, study)
    row = {**_rows(drafted)[0], "text": f"Liver volume {card['value_text']}."}
    assert not _put(room, study, drafted, [row]).json()["statements"][0]["stale"]
    room.click(study, (24, 12, 6), segment["id"])
    assert room.get(report_path)["statements"][0]["stale"]


@pytest.mark.parametrize("author", ["Dr. A", "  "])
def test_a_refused_signature_leaves_the_report_as_it_is(
    room: Room, study: dict[str, Any], report_path: str, author: str
) -> None:
    struck = statement(1, "No effusion.", support="unsupported")
    room.writer.queue.append([struck, statement(2, "Clear lungs.")] if author.strip() == "" else [struck])
    drafted = draft(room, study)
    sign = {"author": author, "revision": drafted["revision"]}
    assert room.client.post(f"/api/studies/{study['id']}/sign", json=sign).status_code == 422
    assert room.get(report_path) == drafted


def test_signing_freezes_everything_but_addenda(room: Room, study: dict[str, Any], report_path: str) -> None:
    segment = room.click(study, (16, 12, 6))
    row = {"id": "h1", "section": "findings", "text": "Clear lungs."}
    saved = _put(room, study, room.get(report_path), [row]).json()
    base = f"/api/studies/{study['id']}"
    early = room.client.post(f"{base}/addendum", json={"author": "Dr. A", "text": "More."})
    assert early.status_code == 409
    wrong = room.client.post(f"{base}/sign", json={"author": "Dr. A", "revision": 0})
    assert wrong.status_code == 409
    assert room.client.post(f"{base}/sign", json={"author": " ", "revision": saved["revision"]}).status_code == 422
    signed = room.client.post(f"{base}/sign", json={"author": "Dr. A", "revision": saved["revision"]}).json()
    assert signed["state"] == "signed"
    series = study["series"][0]["id"]
    click = {"index": [4, 4, 4], "positive": True, "segment": None}
    attempts = [
        _put(room, study, signed, [{**row, "text": "Changed."}]),
        room.client.post(f"{base}/sign", json={"author": "Dr. B", "revision": signed["revision"]}),
        room.client.put(f"{base}/indication", json={"text": "Changed"}),
        room.client.post(f"{base}/evidence", json={"term": "Cardiomegaly"}),
        room.client.post(f"{base}/draft", json={}),
        room.client.post(f"/api/series/{series}/click", json=click),
        room.client.delete(f"/api/segments/{segment['id']}"),
    ]
    assert [a.status_code for a in attempts] == [409] * len(attempts)
    assert room.get(report_path) == signed
    more = room.client.post(f"{base}/addendum", json={"author": "Dr. B", "text": "A rib fracture."}).json()
    assert more["addenda"][0]["text"] == "A rib fracture."
    assert [v["kind"] for v in room.get(f"{base}/versions")][-2:] == ["signed", "addendum"]
    assert room.get(f"/api/studies/{study['id']}")["state"] == "signed"


def test_versions_and_their_difference(room: Room, study: dict[str, Any], report_path: str) -> None:
    room.writer.queue.append([statement(1, "The heart is large.", "E1")])
    drafted = draft(room, study)
    rows = _rows(drafted)
    rows[0]["text"] = "The heart is normal."
    _put(room, study, drafted, rows)
    base = f"/api/studies/{study['id']}"
    assert [v["number"] for v in room.get(f"{base}/versions")] == [1, 2]
    steps = room.get(f"{base}/diff?a=1&b=2")
    assert {"op": "delete", "text": "large"} in steps
    assert {"op": "insert", "text": "normal"} in steps
    assert room.get(f"{base}/diff?a=1")[0]["op"] == "same"
    whole = room.get(f"{base}/versions/1")
    assert whole["statements"][0]["text"] == "The heart is large."
    assert room.client.get(f"{base}/versions/9").status_code == 404


def test_exports_are_downloads_with_fixed_names_or_one_sentence(room: Room, study: dict[str, Any]) -> None:
    base = f"/api/studies/{study['id']}/export"
    refused = room.client.get(f"{base}/seg")
    assert refused.status_code == 422
    assert refused.json()["error"].endswith(".")
    room.click(study, (16, 12, 6))
    _put(room, study, {"revision": 0}, [{"id": "h1", "section": "findings", "text": "Clear lungs."}])
    for kind, start in {"pdf": b"%PDF", "json": b"{", "fhir": b"{"}.items():
        answer = room.client.get(f"{base}/{kind}")
        assert answer.status_code == 200, answer.text
        assert answer.content.startswith(start)
        assert answer.headers["content-disposition"].startswith("attachment; filename=")
    for kind in ("seg", "sr", "rtstruct"):
        answer = room.client.get(f"{base}/{kind}")
        assert answer.status_code == 200, answer.text
        assert answer.content[128:132] == b"DICM"
    for kind, name in {"nifti": "segments-nifti.zip", "stl": "segment.stl"}.items():
        answer = room.client.get(f"{base}/{kind}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert room.client.get(f"{base}/docx").status_code == 404


def test_a_draft_arrives_as_events_and_is_stored(room: Room, study: dict[str, Any], report_path: str) -> None:
    room.client.put(f"/api/studies/{study['id']}/indication", json={"text": "Cough"})
    room.writer.queue.append([statement(1, "The heart is enlarged.", "E1")])
    heard = events(room, study)
    names = [name for name, _ in heard]
    assert names.index("start") < names.index("step") < names.index("finished") < names.index("done")
    by_name = dict(heard)
    assert by_name["start"]["unseen"] == [*UNSEEN, untrained("CT")]
    assert by_name["start"]["model"]["name"] == MODEL.name
    assert by_name["step"] == {"id": "s1", "considered": ["E1"], "follows": "present"}
    assert "The heart is enlarged.".startswith(by_name["statement"]["text"])
    assert by_name["done"]["complete"]
    stored = room.get(report_path)
    assert by_name["done"]["report"] == stored
    assert stored["unseen"] == [*UNSEEN, untrained("CT")]
    asked = room.writer.asked[0]
    assert (asked.indication, asked.modality) == ("Cough", "CT")
