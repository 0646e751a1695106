"""The shared image-text space in the index: vectors come, stay and go with their reports, of one model only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_models.errors import Cancelled, ModelMissing
from retrieval import calibration, index, steps
from retrieval.index import ImageVectors
from retrieval.opened import FORMAT
from retrieval.report import CorpusReport
from retrieval.shared import SharedVectors
from tests.retrieval.conftest import SharedWords, WordEncoder, ids_of, report

NEW_FIELDS = (
    "shared_model", "shared_dimensions", "shared_texts", "images", "shared_note", "image_minimum", "image_calibration",
    "image_floor", "kind", "exact_below", "recall_at_10",
)  # fmt: skip


def some(count: int = 6) -> list[CorpusReport]:
    return [report(i, f"Finding number {n} of the lungs. Normal heart.") for n, i in enumerate(ids_of("train", count))]


def signed(id: str = "A", findings: str = "Signed words here.", **fields: object) -> CorpusReport:
    return report(id, findings, source="signed", **fields)


def seen(shared: SharedWords, **texts: str) -> ImageVectors:
    return ImageVectors(shared.name, {study: shared.image(text) for study, text in texts.items()})


def images_in(opened: index.Index) -> dict[str, np.ndarray]:
    return opened.shared.images_of([r.id for r in opened.reports])


def as_format_1(folder: Path) -> None:
    """Make the index one that the application wrote before it knew images."""
    old = folder / (folder / "CURRENT").read_text().strip()
    fields = json.loads((old / "manifest.json").read_bytes())
    fields = {k: v for k, v in fields.items() if k not in NEW_FIELDS} | {"format": 1}
    fields["files"] = {n: d for n, d in fields["files"].items() if not n.startswith(("shared.", "images."))}
    content = json.dumps(fields, indent=1, sort_keys=True).encode()
    (old / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    old.rename(folder / digest)
    (folder / "CURRENT").write_text(f"{digest}\n")


def test_every_report_has_a_text_vector_with_its_terms_and_impression_first(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    reports = [replace(some(1)[0], terms=("Cardiomegaly/mild",), impression="Large heart."), *some(3)[1:]]
    built = index.build(reports, words, tmp_path, shared=shared)
    assert shared.seen[0] == "cardiomegaly, mild. Large heart. Finding number 0 of the lungs. Normal heart."
    opened = index.open_index(tmp_path)
    assert opened.shared.texts.shape == (3, 64)
    assert np.abs(opened.shared.texts - SharedWords().encode(shared.seen)).max() < 1e-3
    assert (opened.manifest.shared_model, opened.manifest.shared_texts) == (shared.name, 3)
    assert (opened.manifest.images, opened.manifest.shared_note) == (0, "")
    assert opened.digest == built.digest


def test_without_the_shared_tower_the_index_says_so(words: WordEncoder, tmp_path: Path) -> None:
    built = index.build(some(), words, tmp_path)
    assert built.shared.texts is None
    assert (built.manifest.shared_model, built.manifest.shared_texts) == ("", 0)
    assert "without the shared text encoder" in built.manifest.shared_note
    assert set(built.manifest.files) == {"index.faiss", "reports.jsonl", "sentences.jsonl", "sentences.f2"}


def test_progress_counts_both_encoders_and_an_interrupted_build_goes_on(
    words: WordEncoder, shared: SharedWords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHUNK", 2)
    asked = iter([False] * 8)  # 13 texts in 7 steps, one step of the 6 summaries

    def stop() -> bool:
        return next(asked, True)

    with pytest.raises(Cancelled):
        index.build(some(), words, tmp_path, shared=shared, cancelled=stop)
    first, embedded = list(shared.seen), len(words.seen)
    assert len(first) == 2
    done: list[tuple[int, int]] = []
    index.build(some(), words, tmp_path, lambda n, total, _: done.append((n, total)), shared=shared)
    assert len(words.seen) == embedded, "nothing was embedded twice"
    assert len(shared.seen) == len(set(shared.seen)) == 6
    assert done[-1] == (embedded + 6, embedded + 6)
    assert done == sorted(done)
    assert not list(tmp_path.glob("building-*"))


@pytest.mark.parametrize("towered", [True, False])
def test_images_come_stay_and_go(words: WordEncoder, shared: SharedWords, tmp_path: Path, towered: bool) -> None:
    tower = shared if towered else None
    index.build(some(), words, tmp_path, shared=tower)
    index.add(tmp_path, [signed()], words, shared=tower, images=seen(shared, A="big heart"))
    added = index.add(tmp_path, [signed("B", "More words.")], words, shared=tower)
    assert added.with_image == {"A"}
    assert (added.manifest.images, added.manifest.shared_model) == (1, shared.name)
    assert added.reports[added.shared.image_rows[0]].id == "A"
    vector = images_in(added)["A"]
    assert np.abs(vector - shared.image("big heart")).max() < 1e-3
    again = index.add(tmp_path, [signed("A", "Addendum words.")], words, shared=tower)
    assert again.reports[-1].findings == "Addendum words."
    assert (images_in(again)["A"] == vector).all(), "an addendum leaves the image as it was"
    other = index.add(tmp_path, [signed()], words, shared=tower, images=seen(shared, A="clear lungs", X="not here"))
    assert (images_in(other)["A"] != vector).any()
    vector = images_in(other)["A"]
    rebuilt = index.build(some(4), words, tmp_path, shared=tower)
    assert {r.id for r in rebuilt.reports} >= {"A", "B"}
    assert (images_in(rebuilt)["A"] == vector).all()
    assert index.remove(tmp_path, ["B"], words).with_image == {"A"}
    gone = index.remove(tmp_path, ["A"], words)
    assert (gone.with_image, gone.manifest.images) == (frozenset(), 0)
    assert not list(tmp_path.rglob("images.*"))
    assert (gone.shared.texts is not None) == towered
    assert len(gone.reports) == 4


def test_text_vectors_follow_their_reports(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> None:
    first = index.build(some(), words, tmp_path, shared=shared)
    shared.seen.clear()
    index.add(tmp_path, [signed("A", "One."), signed("B", "Two.")], words, shared=shared)
    assert shared.seen == ["One.", "Two."], "only new texts are embedded"
    index.add(tmp_path, [signed("A", "One again.")], words, shared=shared)
    removed = index.remove(tmp_path, ["B"], words)
    assert [r.id for r in removed.reports][-1] == "A"
    assert (removed.shared.texts[:6] == first.shared.texts).all()
    assert np.abs(removed.shared.texts[6] - shared.encode(["One again."])[0]).max() < 1e-3


@pytest.mark.parametrize("tower", [None, SharedWords("eyes/2")])
def test_a_report_added_without_the_same_tower_drops_the_texts_as_a_whole(
    words: WordEncoder, shared: SharedWords, tmp_path: Path, tower: SharedWords | None
) -> None:
    index.build(some(), words, tmp_path, shared=shared)
    index.add(tmp_path, [signed()], words, shared=shared, images=seen(shared, A="big heart"))
    assert index.remove(tmp_path, ["unknown"], words).shared.texts is not None
    added = index.add(tmp_path, [signed("B")], words, shared=tower)
    assert added.shared.texts is None
    assert added.with_image == {"A"}, "images of the same model stay"
    assert "added without the shared text encoder" in added.manifest.shared_note


def test_images_of_two_models_are_never_mixed(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> None:
    other = SharedWords("eyes/2")
    index.build(some(), words, tmp_path, shared=shared)
    opened = index.add(tmp_path, [signed()], words, shared=shared, images=seen(other, A="big heart"))
    assert (opened.with_image, opened.shared.model) == (frozenset(), shared.name)
    assert (opened.takes(shared.name), opened.takes(other.name)) == (True, False)
    opened = index.add(tmp_path, [signed()], words, shared=shared, images=seen(shared, A="big heart"))
    rebuilt = index.build(some(), words, tmp_path, shared=other)
    assert (rebuilt.with_image, rebuilt.shared.model) == (frozenset(), other.name)
    rebuilt = index.build(some(), words, tmp_path)
    assert rebuilt.takes(shared.name)
    index.add(tmp_path, [signed()], words, images=seen(shared, A="big heart"))
    newest = index.add(tmp_path, [signed("B")], words, images=seen(other, B="big heart"))
    assert (newest.with_image, newest.shared.model) == ({"B"}, other.name)


@pytest.mark.parametrize("bad", [np.full(64, np.nan), np.zeros(64), np.ones((1, 64)), np.ones(3)])
def test_a_vector_that_is_none_is_not_stored(
    words: WordEncoder, shared: SharedWords, tmp_path: Path, bad: np.ndarray
) -> None:
    built = index.build(some(), words, tmp_path, shared=shared)
    with pytest.raises(ValueError, match="vector"):
        index.add(tmp_path, [signed()], words, shared=shared, images=ImageVectors(shared.name, {"A": bad}))
    assert index.open_index(tmp_path).digest == built.digest


@pytest.mark.parametrize("name", ["shared.f2", "images.f2", "images.i4"])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_one_flipped_byte_and_it_is_not_opened(
    words: WordEncoder, shared: SharedWords, tmp_path: Path, name: str, where: float
) -> None:
    index.build(some(), words, tmp_path, shared=shared)
    added = index.add(tmp_path, [signed()], words, shared=shared, images=seen(shared, A="big heart"))
    file = tmp_path / added.digest / name
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelMissing, match=f"{name}.*python app.py index"):
        index.open_index(tmp_path)
    file.unlink()
    with pytest.raises(ModelMissing, match="damaged"):
        index.open_index(tmp_path)


def test_an_index_of_format_1_opens_and_takes_signed_reports(words: WordEncoder, tmp_path: Path) -> None:
    index.build(some(), words, tmp_path)
    index.add(tmp_path, [signed()], words)
    as_format_1(tmp_path)
    opened = index.open_index(tmp_path)
    assert opened.manifest.format == 1
    assert opened.shared.texts is None
    assert "before images could be searched" in opened.manifest.shared_note
    shared = SharedWords()
    added = index.add(tmp_path, [signed("B")], words, shared=shared, images=seen(shared, B="big heart"))
    assert (added.manifest.format, added.with_image, len(added.reports)) == (FORMAT, {"B"}, 8)
    assert "before images could be searched" in added.manifest.shared_note
    rebuilt = index.build(some(), words, tmp_path, shared=shared)
    assert (rebuilt.with_image, rebuilt.manifest.shared_texts, rebuilt.manifest.shared_note) == ({"B"}, 8, "")


def test_a_format_of_the_future_is_refused(words: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.opened.FORMAT", FORMAT + 1)
    with pytest.raises(ModelMissing, match=r"another version.*python app.py index"):
        index.build(some(), words, tmp_path)


@pytest.mark.parametrize("rows", [[-1, 0], [0, 3]])
def test_an_image_of_no_report_is_damage(rows: list[int]) -> None:
    content = {"images.f2": np.zeros((2, 4), "<f2").tobytes(), "images.i4": np.array(rows, "<i4").tobytes()}
    with pytest.raises(ValueError, match="no report"):
        SharedVectors.read("eyes/1", 4, 3, content)


def test_calibration_is_a_percentile_without_the_own_study(shared: SharedWords) -> None:
    reports = [report(f"S{n}", f"word{n} word{n + 1}") for n in range(60)]
    texts = shared.encode([r.findings for r in reports])
    few = ImageVectors(shared.name, {f"S{n}": texts[n] for n in range(49)})
    assert calibration.image_minimum(reports, texts, few)[0] is None
    assert calibration.image_floor(few) is None
    assert calibration.image_minimum(reports, None, few)[0] is None
    enough = ImageVectors(shared.name, {f"S{n}": 3 * texts[n] for n in range(60)})
    minimum, told = calibration.image_minimum(reports, texts, enough)
    pairs = texts @ texts.T
    np.fill_diagonal(pairs, -1.0)
    assert minimum == pytest.approx(np.percentile(pairs.max(1), 5), abs=1e-4)
    assert minimum < 0.99, "its own report would score 1"
    assert "60 radiographs" in told
    upper = pairs[np.triu_indices(60, 1)]
    assert calibration.image_floor(enough) == pytest.approx(np.percentile(upper, 95), abs=1e-4)


def test_the_house_s_own_images_calibrate_once_there_are_enough(
    words: WordEncoder, shared: SharedWords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ENOUGH", 2)
    built = index.build(some(), words, tmp_path, shared=shared)
    assert built.manifest.image_minimum is None
    assert "0 radiographs" in built.manifest.image_calibration
    index.add(tmp_path, [signed()], words, shared=shared, images=seen(shared, A="Finding number one"))
    added = index.add(tmp_path, [signed("B")], words, shared=shared, images=seen(shared, B="Normal heart"))
    assert 0 < added.manifest.image_minimum < 1
    assert added.manifest.image_floor < 1
    kept = index.add(tmp_path, [signed("C")], words, shared=shared, images=seen(shared, C="Lungs"))
    assert kept.manifest.image_minimum == added.manifest.image_minimum, "a threshold moves only with a build"
    dropped = index.add(tmp_path, [signed("D")], words)
    assert dropped.manifest.image_minimum is None
    assert dropped.manifest.image_floor == added.manifest.image_floor
    newer = index.add(tmp_path, [signed("E")], words, images=seen(SharedWords("eyes/2"), E="Lungs"))
    assert newer.manifest.image_floor is None, "a floor is of one model"


def test_given_images_calibrate_a_build_and_must_be_of_its_model(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    given = ImageVectors(shared.name, {f"T{n}": shared.image(f"finding number {n} lungs") for n in range(60)})
    built = index.build(some(), words, tmp_path, shared=shared, calibration_images=given)
    assert "60 radiographs" in built.manifest.image_calibration
    assert 0 < built.manifest.image_minimum < 1
    for tower in (None, SharedWords("eyes/2")):
        with pytest.raises(ValueError, match="another model"):
            index.build(some(), words, tmp_path, shared=tower, calibration_images=given)
