"""Calibration undoes what was done to true probabilities, and thresholds part what can be parted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core_models.errors import ModelMissing, Refused
from core_models.foundation.calibrate import fit, youden
from core_models.foundation.labels import GATE, NAMES
from core_models.foundation.metrics import calibration_error
from core_models.foundation.weights import Calibration, LabelCalibration, load_calibration, save_calibration


def made(temperature: float = 1.0, shift: float = 0.0) -> Calibration:
    labels = {name: LabelCalibration(temperature, shift, 0.5, name == "Effusion") for name in NAMES}
    return Calibration(64, 96, labels, dict.fromkeys(GATE, 0.5), "nothing")


def test_overconfident_logits_are_brought_back() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(3000, generator=generator) - 0.5
    truth = (torch.rand(3000, generator=generator) < true.sigmoid()).float()
    temperature, shift = fit(true * 3 + 1.5, truth)  # as a model that is three times too sure, and shifted
    assert temperature == pytest.approx(3.0, rel=0.15)
    calibrated = torch.sigmoid((true * 3 + 1.5) / temperature + shift).numpy()
    before = calibration_error(truth.numpy(), torch.sigmoid(true * 3 + 1.5).numpy())
    assert calibration_error(truth.numpy(), calibrated) < 0.04 < before


def test_few_images_move_little() -> None:
    temperature, shift = fit(torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert 0.5 < temperature < 1.5
    assert abs(shift) < 0.3


def test_the_threshold_lies_between_the_classes() -> None:
    assert 0.4 < youden(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.6, 0.9])) < 0.6
    assert youden(np.array([1.0, 1.0]), np.array([0.1, 0.4])) == 0.5


def test_a_threshold_keeps_the_specificity_that_is_asked_for() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random(500) < 0.1).astype(float)
    p = np.clip(0.2 * truth + generator.random(500) * 0.5, 0, 1)
    for asked in (0.0, 0.8, 0.95):
        cut = youden(truth, p, asked)
        assert (p[truth < 0.5] < cut).mean() >= asked
    assert youden(np.array([1.0, 0.0]), np.array([0.2, 0.8]), 0.9) > 0.8, "no cut has it: nothing is proposed"


def test_a_calibration_survives_writing(tmp_path: Path) -> None:
    save_calibration(made(2.0, 0.1), tmp_path)
    assert load_calibration(tmp_path) == made(2.0, 0.1)
    p = made(2.0, 0.5).probabilities(torch.zeros(1, len(NAMES)))
    assert p[0, 0].item() == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_a_damaged_or_foreign_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing):
        load_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(Refused, match="damaged"):
        load_calibration(tmp_path)
    save_calibration(made(), tmp_path)
    raw = json.loads((tmp_path / "calibration.json").read_text())
    del raw["labels"]["Effusion"]
    (tmp_path / "calibration.json").write_text(json.dumps(raw))
    with pytest.raises(Refused, match="other labels"):
        load_calibration(tmp_path)
