"""The embedded model on weights of its own kind that were never trained: what it answers, refuses and says."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_models.errors import ModelMissing, Refused
from core_models.foundation import embedded, model, weights
from core_models.foundation.embedded import EmbeddedEyes
from core_models.foundation.labels import GATE, NAMES, STRUCTURES
from core_models.foundation.reading import Context
from core_models.foundation.shared_space import SharedText
from core_models.registry import EMBEDDED, MODELS
from core_models.study.volume import Volume
from tests.foundation.test_calibrate import made

ROW = next(row for row in MODELS if row.name == EMBEDDED)
YES = {"chest": 9.0, "frontal": 9.0, "inverted": -9.0, "rotated": -9.0}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as training writes it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    one = model.FoundationModel(model.new_encoder("scratch"), ("findings", "segmentation", "gate", "contrastive"), 32)
    model.save(one, folder)
    weights.save_calibration(made(), folder)
    return folder


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Path:
    """A copy whose gate says "a plain frontal chest radiograph"."""
    import shutil

    shutil.copytree(untrained, tmp_path / "w")
    answer(tmp_path / "w", YES)
    return tmp_path / "w"


def answer(folder: Path, logits: dict[str, float]) -> None:
    """Make the gate say the same of every picture."""
    heads = load_file(folder / model.HEADS)
    heads["gate.layers.2.weight"] = torch.zeros_like(heads["gate.layers.2.weight"])
    heads["gate.layers.2.bias"] = torch.tensor([logits[name] for name in GATE]).to(heads["gate.layers.2.bias"].dtype)
    save_file(heads, folder / model.HEADS)


def radiograph(height: int = 90, width: int = 120, **options) -> Volume:
    array = np.random.default_rng(3).integers(0, 4096, (1, height, width)).astype(np.int16)
    return Volume(array, np.diag([0.5, 0.5, 1.0, 1.0]), **({"modality": "DX"} | options))


def test_it_answers_what_it_was_validated_for_and_says_what_it_had(folder: Path) -> None:
    reading = EmbeddedEyes(ROW, folder).read(radiograph(), Context("PA", 50.0))
    assert [f.name for f in reading.findings] == ["Effusion"]  # the only one that this calibration shows
    (finding,) = reading.findings
    x0, y0, x1, y1 = finding.box
    assert 0 <= x0 < x1 <= 120
    assert 0 <= y0 < y1 <= 90
    assert reading.inputs == ("image", "view", "age")
    assert any("sex" in sentence for sentence in reading.missing)
    assert np.linalg.norm(reading.embedding) == pytest.approx(1.0, abs=1e-5)
    assert weights.digest(folder)[:12] in reading.model


def test_the_text_side_names_the_same_space_and_size(folder: Path) -> None:
    reading = EmbeddedEyes(ROW, folder).read(radiograph())
    text = SharedText(folder=folder)
    assert text.dimensions == len(reading.embedding) == 32
    assert text.name == EmbeddedEyes(ROW, folder).read(radiograph()).model.replace(
        "embedded/1", f"{ROW.name}/{ROW.version}"
    )
    vectors = text.encode(["no effusion", "large pleural effusion on the left", "no effusion"])
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_reading_is_deterministic_and_safe_in_threads(folder: Path) -> None:
    eyes = EmbeddedEyes(ROW, folder)
    alone = eyes.read(radiograph()).findings[0].probability
    found: list[float] = []
    threads = [
        threading.Thread(target=lambda: found.append(eyes.read(radiograph()).findings[0].probability)) for _ in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


@pytest.mark.parametrize(
    ("question", "logit", "sentence"),
    [("chest", -9.0, embedded.NOT_CHEST), ("frontal", -9.0, embedded.NOT_FRONTAL), ("rotated", 9.0, embedded.TURNED)],
)
def test_the_gate_stands_before_findings(folder: Path, question: str, logit: float, sentence: str) -> None:
    answer(folder, YES | {question: logit})
    reading = EmbeddedEyes(ROW, folder).read(radiograph())
    assert not reading.quality.usable
    assert reading.quality.notes == (sentence,)
    assert reading.findings == reading.structures == reading.measured == ()


def test_an_inverted_image_is_turned_back_and_said_so(folder: Path) -> None:
    volume = radiograph()
    turned = replace(volume, array=(4095 - volume.array).astype(np.int16))
    plain = EmbeddedEyes(ROW, folder).read(volume).findings[0].probability
    answer(folder, YES | {"inverted": 9.0})
    reading = EmbeddedEyes(ROW, folder).read(turned)
    assert reading.quality.notes == (embedded.INVERTED,)
    assert reading.findings[0].probability == pytest.approx(plain, abs=0.01)


def test_masks_that_could_be_no_chest_are_not_offered(folder: Path) -> None:
    reading = EmbeddedEyes(ROW, folder).read(radiograph())
    assert reading.structures == ()  # nothing was trained here
    assert reading.notes == (embedded.ODD_ANATOMY,)


def test_structures_come_at_the_sources_own_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(model, out, shape):
        masks = np.zeros((5, *shape), bool)
        h, w = shape
        masks[0, h // 5 : h - 10, 5 : w // 3] = True  # right lung: on the image's left
        masks[1, h // 5 : h - 10, w - w // 3 : w - 5] = True
        masks[2, h // 2 : h - 8, w // 3 : w - w // 3] = True
        masks[3, h // 6 : h // 6 + 4, 10 : w // 3] = True
        masks[4, h // 6 : h // 6 + 4, w - w // 3 : w - 10] = True
        return [(mask, 0.9) for mask in masks]

    monkeypatch.setattr(embedded, "full_masks", drawn)
    reading = EmbeddedEyes(ROW, folder).read(radiograph())
    assert [s.label for s in reading.structures] == list(STRUCTURES)
    assert all(s.mask.shape == (1, 90, 120) for s in reading.structures)
    numbers = {m.key: m for m in reading.measured}
    assert 0.3 < numbers["cardiothoracic_ratio"].value < 0.5
    assert numbers["lung_area_right"].unit == "cm²"
    unknown = EmbeddedEyes(ROW, folder).read(radiograph(spacing_known=False))
    assert "lung_area_right" not in {m.key for m in unknown.measured}


def test_a_heart_far_too_narrow_for_its_thorax_is_not_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(model, out, shape):
        masks = np.zeros((5, *shape), bool)
        h, w = shape
        masks[0, h // 5 : h - 10, 5 : w // 3] = masks[1, h // 5 : h - 10, w - w // 3 : w - 5] = True
        masks[2, h // 3 : h - 8, w // 2 - 8 : w // 2 + 8] = True
        masks[3, h // 6 : h // 6 + 4, 10 : w // 3] = masks[4, h // 6 : h // 6 + 4, w - w // 3 : w - 10] = True
        return [(mask, 0.9) for mask in masks]

    monkeypatch.setattr(embedded, "full_masks", drawn)
    assert embedded.plausible(np.stack([m for m, _ in drawn(None, None, (90, 120))]))  # each outline alone may pass
    reading = EmbeddedEyes(ROW, folder).read(radiograph())
    assert (reading.structures, reading.measured, reading.notes) == ((), (), (embedded.ODD_ANATOMY,))


@pytest.mark.parametrize(
    ("volume", "word"),
    [
        (Volume(np.zeros((3, 20, 20), np.int16), np.eye(4), modality="DX"), "3 images"),
        (Volume(np.zeros((1, 20, 20), np.int16), np.eye(4), modality="CT"), "not trained on CT"),
        (Volume(np.zeros((1, 4, 20), np.int16), np.eye(4), modality="DX"), "two axes"),
        (Volume(np.full((1, 20, 20), np.nan, np.float32), np.eye(4), modality="DX"), "no finite"),
    ],
)
def test_what_it_cannot_read_is_refused_in_a_sentence(folder: Path, volume: Volume, word: str) -> None:
    with pytest.raises(Refused, match=word):
        EmbeddedEyes(ROW, folder).read(volume)


def test_a_flat_image_is_read_without_harm(folder: Path) -> None:
    flat = Volume(np.zeros((1, 40, 40), np.int16), np.eye(4), modality="DX")
    assert np.isfinite(EmbeddedEyes(ROW, folder).read(flat).findings[0].probability)


def test_missing_damaged_and_foreign_weights_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="train encoder"):
        EmbeddedEyes(ROW, tmp_path / "nowhere").read(radiograph())
    heads = load_file(folder / model.HEADS)
    heads["findings.linear.bias"] = torch.full_like(heads["findings.linear.bias"], torch.nan)
    save_file(heads, folder / model.HEADS)
    with pytest.raises(Refused, match="not finite"):
        EmbeddedEyes(ROW, folder).read(radiograph())
    save_file({"findings.linear.weight": torch.zeros(len(NAMES), 7)}, folder / model.HEADS)
    with pytest.raises(Refused, match="another architecture"):
        EmbeddedEyes(ROW, folder).read(radiograph())
    (folder / model.ENCODER / "model.safetensors").write_bytes(b"\x80\x04 not a tensor")
    with pytest.raises(Refused, match="damaged"):
        EmbeddedEyes(ROW, folder).read(radiograph())


def test_the_box_surrounds_the_strongest_cells() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2:4, 7] = 1.0
    heat[8, 1] = 0.9  # another place, as strong but not connected
    assert embedded._box(heat, (100, 200)) == (140, 20, 160, 40)
