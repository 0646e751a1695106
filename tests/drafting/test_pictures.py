"""Pictures for training pairs: the training side alone, no near twins, and captions read as reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_models.drafting import findings as f
from core_models.drafting import pictures
from core_models.drafting.pictures import CAPTIONED, LABELLED, captioned, cleaned, labelled
from core_models.errors import Refused
from core_models.foundation import data
from core_models.foundation.labels import FINDINGS
from core_models.foundation.split import clusters, difference_hash
from tests.foundation.pools import pool
from webapp import settings

SIZE = 48


# ---- captions ----


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("Chest X-ray showing a large left pleural effusion (arrow).", "Large left pleural effusion."),
        ("PA chest radiograph demonstrating cardiomegaly.", "Cardiomegaly."),
        ("The heart is enlarged .", "Heart is enlarged."),
        ("Chest X-ray showing (a) effusion and [b] edema", "Effusion and edema."),
        ("Chest radiograph of a 45-year-old patient.", ""),
        ("Effusion after treatment.", ""),
        ("CT scan shows a nodule.", ""),
        ("Effusion of 3 cm.", ""),
        ("Effusion {E1} <eos>", ""),
        ("word " * 40, ""),
        ("", ""),
        ("***", ""),
    ],
)
def test_a_caption_reads_as_a_report_or_not_at_all(caption: str, sentence: str) -> None:
    assert cleaned(caption) == sentence


def test_a_caption_gives_the_headings_that_it_affirms() -> None:
    made = captioned("x", "Chest X-ray showing a left pleural effusion. No pneumothorax. Cardiomegaly.")
    assert made.terms == ("Pleural effusion/left", "Cardiomegaly")
    assert made.sentences == ("Left pleural effusion.", "No pneumothorax.", "Cardiomegaly.")
    assert captioned("x", "Chest X-ray showing bilateral infiltrates.").terms == ("Opacity/bilateral",)
    assert captioned("x", "Chest X-ray with no pneumothorax.") is None, "a denial is no finding"
    assert captioned("x", "Chest radiograph of a patient.") is None


def test_every_label_is_a_heading_and_none_is_normal() -> None:
    row = np.zeros(len(FINDINGS), np.float32)
    assert labelled(row) == (f.NORMAL_TERM,)
    row[[0, 3]] = 1
    assert labelled(row) == (FINDINGS[0].term, FINDINGS[3].term)


# ---- sides ----


def _sources(monkeypatch: pytest.MonkeyPatch, **pools: data.Pool) -> None:
    for name, made in {CAPTIONED: pools["captioned"], LABELLED: pools["labelled"]}.items():
        monkeypatch.setitem(data.SOURCES, name, lambda *_, made=made: made)


def _sided(name: str, seed: int) -> data.Pool:
    made = pool(name, n=12, seed=seed)
    images = np.random.default_rng(seed).integers(0, 255, made.images.shape).astype(np.uint8)
    return replace(made, images=images, sides=("train", "validation", "test") * 4)


def test_only_the_training_side_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, two = _sided(CAPTIONED, 1), _sided(LABELLED, 2)
    _sources(monkeypatch, captioned=one, labelled=two)
    made = pictures.load(tmp_path, 64)
    held = {
        f"{p.name}:{file}" for p in (one, two) for file, side in zip(p.files, p.sides, strict=True) if side != "train"
    }
    shown = {s.id for s in made.studies}
    assert shown == set(made.images)
    assert shown
    assert not shown & held
    assert {i for i, _ in made.used()} == shown
    labelled_ones = [s for s in made.studies if s.id.startswith(LABELLED)]
    assert len(labelled_ones) == 4
    assert all(s.sentences == () for s in labelled_ones)
    assert all(s.sentences for s in made.studies if s.id.startswith(CAPTIONED))


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_near_twin_of_a_held_out_picture_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, side: str
) -> None:
    one, two = _sided(CAPTIONED, 1), _sided(LABELLED, 2)
    row = one.sides.index("train")
    held = two.sides.index(side)
    two.images[held] = np.clip(one.images[row].astype(int) + 1, 0, 255)  # the same picture, a shade brighter
    _sources(monkeypatch, captioned=one, labelled=two)
    monkeypatch.setattr(pictures, "captioned", lambda ident, _: pictures.Pictured(ident, ("Cardiomegaly",)))
    shown = {s.id for s in pictures.load(tmp_path, 64).studies}
    assert f"{CAPTIONED}:{one.files[row]}" not in shown
    assert len(shown) == 7


def test_without_the_folder_the_sentence_names_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist"):
        pictures.load(tmp_path / "none", SIZE)
    with pytest.raises(Refused):
        pictures.load(tmp_path, SIZE)


@pytest.fixture(scope="module")
def root() -> Path:
    folder = settings.load().data
    if not all((folder / name).is_dir() for name in (CAPTIONED, LABELLED)):
        pytest.skip("the public radiographs (READING_ROOM_DATA) are not on this machine")
    return folder


def test_the_public_pictures_are_of_the_training_side_and_no_twins_of_another(root: Path) -> None:
    pools = data.load((CAPTIONED, LABELLED), root, SIZE, limit=150)
    shown = pictures.load(root, SIZE, limit=150)
    side = {f"{p.name}:{file}": s for p in pools.values() for file, s in zip(p.files, p.sides, strict=True)}
    assert len(shown.studies) > 50
    assert {side[s.id] for s in shown.studies} == {"train"}
    held = [p.images[row] for p in pools.values() for row in range(len(p)) if p.sides[row] != "train"]
    assert held
    hashes = np.stack([difference_hash(picture) for picture in [*shown.images.values(), *held]])
    group = np.asarray(clusters(hashes))
    assert not set(group[: len(shown.images)]) & set(group[len(shown.images) :])
    for s in shown.studies:
        assert s.terms
        assert shown.images[s.id].shape == (SIZE, SIZE)
        if s.id.startswith(CAPTIONED):
            assert all(f.concepts_of_term(t) for t in s.terms), s.terms
        assert not any(c.isdigit() for text in s.sentences for c in text)
