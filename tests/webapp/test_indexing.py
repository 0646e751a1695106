"""The outbox: signed reports reach the index without the patient's name, and leave it when deleted."""

from __future__ import annotations

import pytest

from core_models.errors import ModelMissing
from retrieval import index
from retrieval.search import Searcher
from tests.retrieval.conftest import WordEncoder, report
from tests.webapp.conftest import Room
from webapp.indexing import Indexer, patient_key, salt_of

SALT = b"s" * 32


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


def indexer(room: Room, words: WordEncoder, published: list[int] | None = None) -> Indexer:
    return Indexer(room.services.store, room.settings.index, SALT, lambda: (published or []).append(1), lambda: words)


def build(room: Room, words: WordEncoder) -> index.Index:
    return index.build([report("S1", "Large heart."), report("S2", "Clear lungs.")], words, room.settings.index)


def signed(room: Room, text: str, addendum: str = "", **options: object) -> str:
    """A signed study whose free text is `text`."""
    room.services.indexer.take = lambda: 0  # the application's own thread stays out of this
    study = room.study(**options)["id"]
    state = room.get(f"/api/studies/{study}/report")
    body = {"revision": state["revision"], "statements": [], "free_text": text}
    state = room.client.put(f"/api/studies/{study}/report", json=body).json()
    answer = room.client.post(f"/api/studies/{study}/sign", json={"author": "Dr. A", "revision": state["revision"]})
    assert answer.status_code == 200, answer.text
    if addendum:
        room.client.post(f"/api/studies/{study}/addendum", json={"author": "Dr. A", "text": addendum})
    return study


def ours(room: Room) -> list:
    return [r for r in index.open_index(room.settings.index).reports if r.source == "signed"]


def test_a_signed_report_is_found_by_the_next_search(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "A lung abscess with an air-fluid level.", addendum="The abscess was drained.")
    assert indexer(room, words).take() == 2
    (mine,) = ours(room)
    assert mine.id == study
    assert "abscess was drained" in mine.impression
    hits = Searcher(index.open_index(room.settings.index), words).search("abscess with air-fluid level", k=1).priors
    assert hits[0].report.id == study
    assert room.services.store.outbox() == ()
    assert indexer(room, words).take() == 0


def test_no_name_or_number_of_the_patient_enters_the_index(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "placeholder")
    row = room.services.store.study(study)
    assert row.patient_name
    assert row.patient_id
    family = row.patient_name.split("^")[0]
    room.client.post(
        f"/api/studies/{study}/addendum",
        json={"author": "Dr. A", "text": f"{family.upper()} ({row.patient_id}) has a nodule."},
    )
    indexer(room, words).take()
    (mine,) = ours(room)
    assert "nodule" in mine.impression
    everything = " ".join(str(v) for v in vars(mine).values()).casefold()
    assert family.casefold() not in everything
    assert row.patient_id.casefold() not in everything
    assert mine.patient_key == patient_key(row.patient_id, SALT)


def test_neither_a_finding_nor_a_birth_date_in_words_names_the_patient(room: Room, words: WordEncoder) -> None:
    build(room, words)
    room.services.indexer.take = lambda: 0
    study = room.study()["id"]
    row = room.services.store.study(study)
    day = row.birth_date
    family = row.patient_name.split("^")[0]
    room.services.board.add_finding(study, f"Nodule as {family} had")
    dates = [
        f"{day[6:]}.{day[4:6]}.{day[:4]}",
        f"{day[:4]}-{day[4:6]}-{day[6:]}",
        f"{int(day[4:6])}/{day[6:]}/{day[:4]}",
    ]
    body = {"revision": 0, "statements": [], "free_text": f"Mass; born {', '.join(dates)}."}
    room.client.put(f"/api/studies/{study}/report", json=body)
    room.client.post(f"/api/studies/{study}/sign", json={"author": "Dr. A", "revision": 1})
    indexer(room, words).take()
    (mine,) = ours(room)
    assert mine.terms == ("Nodule as had",)
    assert "Mass" in mine.findings
    assert day[:4] not in mine.findings


def test_a_signed_report_returns_to_an_index_that_was_damaged_and_built_anew(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "A lung abscess.")
    indexer(room, words).take()
    (room.settings.index / "CURRENT").write_text("0" * 64)
    build(room, words)
    assert ours(room) == [], "it could not be carried over"
    assert indexer(room, words).take() == 1
    assert [r.id for r in ours(room)] == [study]
    assert indexer(room, words).take() == 0


def test_a_deleted_study_leaves_the_index(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "A lung abscess.")
    indexer(room, words).take()
    assert len(ours(room)) == 1
    assert room.client.delete(f"/api/studies/{study}").status_code == 204
    indexer(room, words).take()
    assert ours(room) == []


def test_without_an_index_the_row_waits_for_one(room: Room, words: WordEncoder) -> None:
    signed(room, "A lung abscess.")
    with pytest.raises(ModelMissing):
        indexer(room, words).take()
    assert len(room.services.store.outbox()) == 1
    assert words.seen == []
    build(room, words)
    published: list[int] = [0]
    assert indexer(room, words, published).take() == 1
    assert published == [0, 1]
    assert len(ours(room)) == 1


def test_signing_wakes_the_indexer(room: Room, words: WordEncoder) -> None:
    build(room, words)
    room.services.indexer._make_encoder = lambda: words
    study = room.study()["id"]
    state = room.get(f"/api/studies/{study}/report")
    body = {"revision": state["revision"], "statements": [], "free_text": "A lung abscess."}
    state = room.client.put(f"/api/studies/{study}/report", json=body).json()
    room.client.post(f"/api/studies/{study}/sign", json={"author": "Dr. A", "revision": state["revision"]})
    room.until(lambda: room.services.store.outbox() == ())
    assert [r.id for r in ours(room)] == [study]


def test_the_salt_is_made_once_and_is_the_owners_alone(room: Room) -> None:
    home = room.settings.home
    assert salt_of(home) == salt_of(home)
    assert (home / "salt").stat().st_mode & 0o077 == 0
    assert patient_key("", SALT) == ""
    assert patient_key("4711", SALT) != patient_key("4711", b"t" * 32)
    (home / "salt").write_bytes(b"short")
    with pytest.raises(ModelMissing, match="salt"):
        salt_of(home)


def test_a_search_leaves_out_the_patients_own_reports(room: Room) -> None:
    study = room.study()
    room.client.post(f"/api/studies/{study['id']}/priors")
    row = room.services.store.study(study["id"])
    (_, options) = room.search.asked[-1]
    assert options["exclude_patient"] == patient_key(row.patient_id, salt_of(room.settings.home))
    assert options["exclude_study"] == study["id"]
