"""Scores against answers worked out by hand or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.foundation.metrics import auroc, bootstrap, calibration_error, recall_at


def test_auroc_counts_pairs_in_order_and_ties_as_half() -> None:
    assert auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.75)
    assert auroc(np.array([0, 1]), np.array([0.5, 0.5])) == pytest.approx(0.5)
    assert np.isnan(auroc(np.array([1, 1]), np.array([0.1, 0.2])))


def test_auroc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    truth, score = generator.integers(0, 2, 200), generator.random(200).round(1)  # rounding makes ties
    assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score))


def test_recall_counts_ties_against_the_partner() -> None:
    similarity = np.array([[1.0, 1.0, 0.0], [0.0, 0.9, 0.1], [0.5, 0.6, 0.4]])
    assert recall_at(similarity, (1, 2, 3)) == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3), 3: 1.0}


def test_calibration_error_is_nought_for_exact_and_large_for_wrong_probabilities() -> None:
    truth = np.array([0.0] * 5 + [1.0] * 5)
    assert calibration_error(truth, np.where(truth > 0, 1.0, 0.0)) == 0.0
    assert calibration_error(truth, np.full(10, 0.9), bins=1) == pytest.approx(0.4)


def test_the_bootstrap_draws_patients_not_images() -> None:
    # One patient has nine images of value 1, ten others one of 0 each: drawn by image the mean could not reach 0.
    patients = ["a"] * 9 + [f"b{i}" for i in range(10)]
    values = np.array([1.0] * 9 + [0.0] * 10)
    low, high = bootstrap(patients, lambda rows: float(values[rows].mean()), 400)
    assert low == 0.0
    assert high > 0.6
