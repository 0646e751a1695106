"""The index: test studies stay out, bytes are verified, builds go on, signed reports come and go."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from core_models.errors import Busy, Cancelled, ModelMissing, Refused
from retrieval import generation, index, steps
from retrieval.report import CorpusReport
from retrieval.split import split_of
from tests.retrieval.conftest import WordEncoder, ids_of, report


def some(count: int = 6) -> list[CorpusReport]:
    return [report(i, f"Finding number {n} of the lungs. Normal heart.") for n, i in enumerate(ids_of("train", count))]


def test_test_studies_are_never_indexed(words: WordEncoder, tmp_path: Path) -> None:
    hidden = [report(i, f"Hidden text {i}.") for i in ids_of("test", 5)]
    built = index.build([*hidden, *some()], words, tmp_path)
    assert [r.id for r in built.reports] == ids_of("train", 6)
    assert built.manifest.left_out == {"test split": 5, "no text": 0}
    assert not any("Hidden" in text for text in words.seen)
    assert not any(b"Hidden" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(Refused):
        index.build(hidden, words, tmp_path / "other")


def test_real_build_holds_every_training_report_and_no_test_report(
    open_i: tuple[CorpusReport, ...], real_index: index.Index
) -> None:
    expected = [r for r in open_i[:300] if split_of(r.study_id) == "train" and r.text]
    assert list(real_index.reports) == expected
    assert any(split_of(r.study_id) == "test" for r in open_i[:300])
    assert real_index.vectors.ntotal == real_index.manifest.reports == len(expected)
    assert 0.2 < real_index.manifest.minimum < 0.9


def test_split_holds_for_the_whole_corpus(open_i: tuple[CorpusReport, ...], words: WordEncoder, tmp_path: Path) -> None:
    built = index.build(open_i, words, tmp_path)
    assert built.manifest.reports > 3000
    assert not {r.study_id for r in built.reports} & {r.study_id for r in open_i if split_of(r.study_id) == "test"}


def test_opened_equals_built(words: WordEncoder, tmp_path: Path) -> None:
    reports = [replace(r, terms=("a/b",), flags=("f",), findings="Line\u2028sep é. Normal heart.") for r in some(3)]
    built = index.build(reports, words, tmp_path)
    opened = index.open_index(tmp_path)
    assert (opened.reports, opened.digest, opened.sentences) == (tuple(reports), built.digest, built.sentences)
    assert [[opened.sentences[i] for i in rows] for rows in opened.sentence_rows] == [
        ["Line sep é.", "Normal heart."]
    ] * 3


@pytest.mark.parametrize(
    "name", ["index.faiss", "reports.jsonl", "sentences.jsonl", "sentences.f2", "manifest.json", "CURRENT"]
)
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_one_flipped_byte_and_it_is_not_opened(words: WordEncoder, tmp_path: Path, name: str, where: float) -> None:
    built = index.build(some(), words, tmp_path)
    file = tmp_path / name if name == "CURRENT" else tmp_path / built.digest / name
    content = bytearray(file.read_bytes())
    place = min(int(where * len(content)), 63 if name == "CURRENT" else len(content) - 1)
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelMissing, match=r"python app.py index"):
        index.open_index(tmp_path)
    assert index.build(some(), words, tmp_path).digest == index.open_index(tmp_path).digest


@pytest.mark.parametrize("name", ["index.faiss", "manifest.json"])
def test_missing_file_and_missing_index(words: WordEncoder, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelMissing, match="no index"):
        index.open_index(tmp_path)
    built = index.build(some(), words, tmp_path)
    (tmp_path / built.digest / name).unlink()
    with pytest.raises(ModelMissing, match="damaged"):
        index.open_index(tmp_path)


def test_interrupted_build_goes_on_and_the_old_index_stays(
    words: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHUNK", 2)
    old = index.build(some(2), words, tmp_path)
    asked = iter([False, False, True])
    words.seen.clear()
    with pytest.raises(Cancelled):
        index.build(some(), words, tmp_path, cancelled=lambda: next(asked))
    assert index.open_index(tmp_path).digest == old.digest
    first = list(words.seen)
    words.seen.clear()
    done: list[tuple[int, int]] = []
    built = index.build(some(), words, tmp_path, progress=lambda n, total, text: done.append((n, total)))
    assert not set(first) & set(words.seen)
    assert len(first) + len(words.seen) == done[-1][0] == done[-1][1]
    fresh = index.build(some(), WordEncoder(), tmp_path / "fresh")
    assert (built.vectors.reconstruct_n(0, 6) == fresh.vectors.reconstruct_n(0, 6)).all()
    assert not list(tmp_path.glob("building-*"))
    assert not (tmp_path / old.digest).exists()


def test_a_crash_before_the_switch_leaves_the_old_index(
    words: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = index.build(some(2), words, tmp_path)
    replace_file = generation.os.replace

    def dies(source: object, target: object) -> None:
        if str(target).endswith("CURRENT"):
            raise OSError("no space left")
        replace_file(source, target)

    monkeypatch.setattr(generation.os, "replace", dies)
    with pytest.raises(OSError, match="no space"):
        index.build(some(), words, tmp_path)
    assert index.open_index(tmp_path).digest == old.digest


def test_signed_reports_come_stay_and_go(words: WordEncoder, tmp_path: Path) -> None:
    first = index.build(some(), words, tmp_path)
    signed = report(ids_of("test", 1)[0], "Signed words here.", source="signed", patient_key="p")
    added = index.add(tmp_path, [signed], words)
    assert added.digest != first.digest
    assert added.reports[-1] == signed
    assert added.manifest.corpora == {"open-i": 6, "signed": 1}
    assert (added.vectors.reconstruct_n(0, 6) == first.vectors.reconstruct_n(0, 6)).all()
    again = index.add(tmp_path, [replace(signed, findings="Addendum words.")], words)
    assert len(again.reports) == 7
    assert again.reports[-1].findings == "Addendum words."
    rebuilt = index.build(some(4), words, tmp_path)
    assert {r.source for r in rebuilt.reports} == {"open-i", "signed"}
    assert len(index.remove(tmp_path, [signed.id], words).reports) == 4
    assert not any(b"Addendum" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_only_signed_reports_can_be_added(words: WordEncoder, tmp_path: Path) -> None:
    index.build(some(), words, tmp_path)
    with pytest.raises(Refused, match="signed"):
        index.add(tmp_path, [report("T", "Text.")], words)
    with pytest.raises(Refused, match="unique"):
        index.build([*some(2), *some(1)], words, tmp_path)


def test_one_writer_at_a_time(words: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.build(some(2), words, tmp_path)
    monkeypatch.setattr(generation, "LOCK_SECONDS", 0.01)
    with FileLock(tmp_path / "writing.lock"), pytest.raises(Busy):
        index.build(some(), words, tmp_path)
    shutil.rmtree(tmp_path)
    assert index.build(some(2), words, tmp_path).manifest.reports == 2


def test_how_many_reports_hold_a_sentence(words: WordEncoder, tmp_path: Path) -> None:
    texts = ["No effusion. Clear lungs.", "no  effusion", "No effusion! No effusion.", "No effusion today."]
    built = index.build([report(i, t) for i, t in zip(ids_of("train", 4), texts, strict=True)], words, tmp_path)
    assert built.times("No effusion.") == 3, "case, punctuation and spacing aside; each report once"
    assert built.times("NO EFFUSION TODAY") == 1
    assert built.times("No pneumothorax.") == built.times("") == 0


def test_readers_are_kept_and_an_index_of_format_2_opens(words: WordEncoder, tmp_path: Path) -> None:
    reports = [replace(r, readers=("ann", "bob")) for r in some(3)]
    built = index.build(reports, words, tmp_path)
    assert index.open_index(tmp_path).reports == tuple(reports)
    old = tmp_path / built.digest
    lines = [json.loads(line) for line in (old / "reports.jsonl").read_text().splitlines()]
    content = "".join(json.dumps({k: v for k, v in one.items() if k != "readers"}) + "\n" for one in lines).encode()
    (old / "reports.jsonl").write_bytes(content)
    fields = json.loads((old / "manifest.json").read_bytes()) | {"format": 2}
    fields["files"]["reports.jsonl"] = hashlib.sha256(content).hexdigest()
    fields = {k: v for k, v in fields.items() if k not in ("kind", "exact_below", "recall_at_10")}
    manifest = json.dumps(fields, indent=1, sort_keys=True).encode()
    (old / "manifest.json").write_bytes(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    old.rename(tmp_path / digest)
    (tmp_path / "CURRENT").write_text(digest)
    opened = index.open_index(tmp_path)
    assert (opened.manifest.format, opened.manifest.kind, opened.manifest.recall_at_10) == (2, "exact", 1.0)
    assert {r.readers for r in opened.reports} == {()}
