"""The registry of image models: plain data, one instance each, and one sentence for whatever is not there."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from core_models import registry
from core_models.drafting.evidence import REGIONS
from core_models.drafting.findings import concepts_of_term, vocabulary
from core_models.errors import ModelMissing, NotFound
from core_models.foundation.bigger.terms import TERMS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No instance of one test is seen by another."""
    kept = dict(registry._OPEN)
    registry._OPEN.clear()
    yield
    registry._OPEN.clear()
    registry._OPEN.update(kept)


class Counting:
    """A model that does nothing but count how often it is made."""

    made = 0

    def __init__(self, row: registry.ModelRow, folder: Path | None, threads: int) -> None:
        type(self).made += 1
        self.row, self.folder, self.threads = row, folder, threads


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    Counting.made = 0
    here = f"{__name__}:Counting"
    rows = tuple(replace(row, entry=here, needs=()) for row in registry.MODELS)
    monkeypatch.setattr(registry, "MODELS", rows)
    return Counting


def test_the_registry_is_imported_without_torch_or_numpy() -> None:
    code = "import sys, core_models.registry as r; r.row_of('merlin').missing; print([m in sys.modules for m in " + (
        "('torch', 'numpy', 'transformers', 'torchxrayvision')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, False, False]"


@pytest.mark.parametrize("row", registry.MODELS, ids=lambda row: row.name)
def test_every_row_says_its_licence_and_all_else_a_person_needs(row: registry.ModelRow) -> None:
    assert len(row.licence) > 10
    assert any(word in row.licence for word in ("research", "non-commercial"))
    assert row.task
    assert row.source
    assert row.cost
    assert row.modalities
    assert row.needs
    assert len(row.digest) in (0, 64)
    assert row.obtain or row.name == registry.EMBEDDED


@pytest.mark.parametrize("row", [r for r in registry.MODELS if r.name != registry.EMBEDDED], ids=lambda row: row.name)
def test_every_bigger_entry_exists(row: registry.ModelRow) -> None:
    module, _, name = row.entry.partition(":")
    assert callable(getattr(import_module(module), name).read)


def test_names_are_unique_and_fit_the_setting() -> None:
    from webapp import settings

    names = [row.name for row in registry.MODELS]
    assert len(set(names)) == len(names)
    for name in names:
        assert settings.load({"READING_ROOM_EYES": f"{name}:/x"}).eyes == f"{name}:/x"
    assert f"{settings.PREFIX}EYES" == registry.SETTING


def test_without_a_choice_the_embedded_model_answers(counting: type[Counting]) -> None:
    eyes = registry.eyes_for("DX", threads=3)
    assert eyes.row.name == registry.EMBEDDED
    assert eyes.folder is None
    assert eyes.threads == 3


def test_one_instance_for_each_model_and_folder(counting: type[Counting], tmp_path: Path) -> None:
    first = registry.eyes_for("CR", f"xrv:{tmp_path}")
    assert registry.eyes_for("OT", f" xrv:{tmp_path / 'a' / '..'} ") is first
    assert registry.eyes_for("CR", "xrv") is not first
    assert registry.eyes_for("CR", f"rad-dino:{tmp_path}") is not first
    assert counting.made == 3
    assert first.folder == tmp_path.resolve()


def test_threads_that_ask_at_once_get_the_same_instance(counting: type[Counting]) -> None:
    gate, got = threading.Barrier(8), []

    def ask() -> None:
        gate.wait()
        got.append(registry.eyes_for("DX"))

    workers = [threading.Thread(target=ask) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counting.made == 1
    assert len({id(eyes) for eyes in got}) == 1


def test_a_failed_load_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    choice = f"rad-dino:{tmp_path / 'weights'}"
    for _ in range(2):
        with pytest.raises(ModelMissing, match="not there"):
            registry.eyes_for("DX", choice)
    (tmp_path / "weights").mkdir()
    with pytest.raises(ModelMissing, match="no safetensors"):
        registry.eyes_for("DX", choice)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        registry.eyes_for("DX", "chexagent:/models/x")
    for row in registry.MODELS:
        assert row.name in str(caught.value)
    assert "/models/x" not in str(caught.value)


@pytest.mark.parametrize(("modality", "choice"), [("CT", ""), ("MR", ""), ("MR", "merlin"), ("CT", "xrv:x")])
def test_a_modality_that_the_model_was_not_trained_on(modality: str, choice: str) -> None:
    with pytest.raises(ModelMissing, match=f"was not trained on {modality}"):
        registry.eyes_for(modality, choice)


def test_for_ct_the_model_that_reads_it_is_named() -> None:
    with pytest.raises(ModelMissing, match=r"READING_ROOM_EYES.*merlin"):
        registry.eyes_for("CT")
    with pytest.raises(ModelMissing, match="no model here was"):
        registry.eyes_for("MR")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (replace(registry.row_of("xrv"), needs=("torch", "no_such_package_here")),)
    monkeypatch.setattr(registry, "MODELS", rows)
    with pytest.raises(ModelMissing, match="no_such_package_here"):
        registry.eyes_for("DX", "xrv:x")


@pytest.mark.parametrize("name", ["xrv", "rad-dino", "medsiglip", "biomedclip", "huggingface"])
def test_without_a_folder_the_sentence_says_how_to_get_the_weights_and_on_what_terms(name: str) -> None:
    with pytest.raises(ModelMissing) as caught:
        registry.eyes_for("DX", name)
    row = registry.row_of(name)
    assert row.licence in str(caught.value)
    assert row.obtain in str(caught.value)
    assert f"{name}:FOLDER" in str(caught.value)


def test_a_path_never_stands_in_a_message(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing) as caught:
        registry.eyes_for("DX", f"xrv:{tmp_path}/secret")
    assert "secret" not in str(caught.value)


def test_terms_are_the_corpus_s_own_headings_in_the_regions_of_a_report() -> None:
    heads = {heading.lower().split("/")[0] for heading in vocabulary()}
    for term in TERMS:
        assert term.region in REGIONS
        assert concepts_of_term(term.term), term
        assert term.term.lower().split("/")[0] in heads, term
    assert len({term.name for term in TERMS}) == len({term.phrase for term in TERMS}) == len(TERMS)
