"""The outbox: signed reports and their images reach the index without the patient's name, and leave it when deleted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from core_models.errors import ModelMissing
from retrieval import index
from retrieval.search import Searcher
from tests.retrieval.conftest import SharedWords, WordEncoder, report
from tests.webapp.conftest import Room
from webapp.indexing import Indexer, patient_key, salt_of
from webapp.priors import Priors, shared_text

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
    assert options["patient"] == patient_key(row.patient_id, salt_of(room.settings.home))
    assert options["exclude_study"] == study["id"]


def seen_by(shared: SharedWords, **texts: str) -> Callable[[str], tuple[np.ndarray, str] | None]:
    """An `embedding_of` that knows these studies."""
    return lambda study: (shared.image(texts[study]), shared.name) if study in texts else None


def test_the_image_of_a_signed_study_is_found_by_another_patients_image(room: Room, words: WordEncoder) -> None:
    shared, folder = SharedWords(), room.settings.index
    index.build([report("S1", "Large heart."), report("S2", "Clear lungs.")], words, folder, shared=shared)
    study = signed(room, "A lung abscess with an air-fluid level.")
    eyes = seen_by(shared, **{study: "abscess air fluid"})
    assert Indexer(
        room.services.store, folder, SALT, encoder=lambda: words, embedding_of=eyes, shared=lambda: shared
    ).take()
    opened = index.open_index(folder)
    assert opened.with_image == {study}
    assert len(opened.shared.texts) == 3
    options = {"image": shared.image("abscess air fluid"), "image_model": shared.name}
    first = Searcher(opened, words).search("", **options).priors[0]
    assert first.report.id == study
    assert {name for name, _, _ in first.found_by} == {"image to report", "image to image"}
    own = patient_key(room.services.store.study(study).patient_id, SALT)
    assert own
    left = Searcher(opened, words).search("", patient=own, **options)
    assert study not in {p.report.id for p in left.priors}


def test_the_tower_is_loaded_only_for_an_index_that_has_its_vectors(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "A lung abscess.")

    def never() -> None:
        raise AssertionError("the shared text tower was loaded for nothing")

    store, shared = room.services.store, SharedWords()
    eyes = seen_by(shared, **{study: "abscess"})
    assert Indexer(store, room.settings.index, SALT, encoder=lambda: words, embedding_of=eyes, shared=never).take() == 1
    assert index.open_index(room.settings.index).with_image == {study}


@pytest.mark.parametrize("failure", [ModelMissing("No eyes."), RuntimeError("a bug"), None])
def test_a_report_enters_the_index_whatever_the_eyes_do(
    room: Room, words: WordEncoder, failure: Exception | None
) -> None:
    build(room, words)
    study = signed(room, "A lung abscess.")

    def fails(study_id: str) -> tuple[np.ndarray, str]:
        if failure:
            raise failure
        return np.full(64, np.nan), "eyes/1"

    assert (
        Indexer(room.services.store, room.settings.index, SALT, encoder=lambda: words, embedding_of=fails).take() == 1
    )
    assert [r.id for r in ours(room)] == [study]
    assert index.open_index(room.settings.index).with_image == frozenset()
    assert room.services.store.outbox() == ()


def test_an_image_read_after_signing_or_by_a_new_model_joins_at_the_next_start(room: Room, words: WordEncoder) -> None:
    folder, store = room.settings.index, room.services.store
    first, second = SharedWords("eyes/1"), SharedWords("eyes/2")
    index.build([report("S1", "Large heart.")], words, folder, shared=first)
    study = signed(room, "A lung abscess.")

    def start(shared: SharedWords, *seen: str) -> int:
        eyes = seen_by(shared, **dict.fromkeys(seen, "abscess"))
        return Indexer(store, folder, SALT, encoder=lambda: words, embedding_of=eyes, shared=lambda: first).take()

    assert start(first) == 1
    assert index.open_index(folder).with_image == frozenset()
    assert start(first, study) == 1
    assert index.open_index(folder).with_image == {study}
    assert start(first, study) == 0, "nothing is lacking any more"
    index.build([report("S1", "Large heart.")], words, folder, shared=second)
    assert start(first, study) == 0, "the index takes no image of another model"
    assert index.open_index(folder).with_image == frozenset()


def test_an_image_read_after_signing_joins_while_the_process_runs(room: Room, words: WordEncoder) -> None:
    folder, shared = room.settings.index, SharedWords("eyes/1")
    index.build([report("S1", "Large heart.")], words, folder, shared=shared)
    study = signed(room, "A lung abscess.")
    read: dict[str, str] = {}
    keeper = Indexer(
        room.services.store,
        folder,
        SALT,
        encoder=lambda: words,
        embedding_of=lambda id: seen_by(shared, **read)(id),
        shared=lambda: shared,
    )
    assert keeper.take() == 1
    assert keeper.take() == 0
    assert index.open_index(folder).with_image == frozenset()
    read[study] = "abscess"
    keeper.wake = lambda: None  # the test takes itself
    keeper.seen(study)
    assert keeper.take() == 1
    assert index.open_index(folder).with_image == {study}


def test_a_deleted_study_takes_its_image_with_it(room: Room, words: WordEncoder) -> None:
    build(room, words)
    study = signed(room, "A lung abscess.")
    eyes = seen_by(SharedWords(), **{study: "abscess"})
    keeper = Indexer(room.services.store, room.settings.index, SALT, encoder=lambda: words, embedding_of=eyes)
    keeper.take()
    assert list(room.settings.index.rglob("images.f2"))
    room.client.delete(f"/api/studies/{study}")
    keeper.take()
    assert not list(room.settings.index.rglob("images.*"))


def test_a_study_is_searched_by_its_image_without_a_word(room: Room, words: WordEncoder) -> None:
    shared, folder = SharedWords(), room.settings.index
    index.build([report("S1", "Large heart."), report("S2", "Clear lungs.")], words, folder, shared=shared)
    study = room.study()["id"]

    def priors(eyes: Callable[[str], tuple[np.ndarray, str] | None]) -> Priors:
        return Priors(room.services.store, lambda: Searcher(index.open_index(folder), words), embedding_of=eyes)

    assert "not searched" in priors(lambda _: None).find(study).sentence
    found = priors(seen_by(shared, **{study: "lungs clear"})).find(study)
    assert found.rows[0].prior.report.id == "S2"
    assert found.rows[0].evidence.statement == "Clear lungs."
    assert found.rows[0].prior.found_words == "image to report, rank 1", "kept by the store"
    assert room.get(f"/api/studies/{study}/evidence")[0]["found"] == "image to report, rank 1"
    assert "not calibrated" in found.sentence
    other = priors(seen_by(SharedWords("eyes/2"), **{study: "lungs clear"})).find(study)
    assert other.rows == ()
    assert "another model" in other.sentence

    def missing(study_id: str) -> tuple[np.ndarray, str]:
        raise ModelMissing("No eyes.")

    room.services.store.set_indication(study, "Heart")
    assert priors(missing).find(study).rows[0].prior.report.id == "S1", "words are searched all the same"


def test_a_machine_without_the_shared_tower_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def __init__(self, threads: int) -> None:
            raise ModelMissing("The image models are not prepared.")

    space = ModuleType("core_models.foundation.shared_space")
    space.SharedText = Missing
    monkeypatch.setitem(sys.modules, space.__name__, space)
    assert shared_text(97) is None
    space.SharedText = lambda threads: SharedWords(f"eyes/{threads}")
    assert shared_text(97).name == "eyes/97", "what was prepared meanwhile is found"
    assert shared_text(97) is shared_text(97)
