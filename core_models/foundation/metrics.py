"""Scores of predictions, with intervals by a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney U; ties count half); nan without both classes.

    Args:
        truth: (n,) 0/1; score: (n,).
    """
    from scipy.stats import rankdata

    positive = np.asarray(truth) > 0.5
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if not n1 or not n0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def recall_at(similarity: np.ndarray, ranks: Sequence[int]) -> dict[int, float]:
    """Share of rows whose own column (the diagonal) is among the k most similar; ties count against it.

    Args:
        similarity: (n, n), row i's partner is column i.
    """
    own = np.diag(similarity)[:, None]
    better = (similarity >= own).sum(1) - 1
    return {k: float((better < k).mean()) for k in ranks}


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error with bins of equal count (Guo et al., ICML 2017; Nixon et al., 2019)."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for chunk in np.array_split(order, min(bins, len(order))):
        if len(chunk):
            total += len(chunk) * abs(float(np.mean(truth[chunk])) - float(np.mean(probability[chunk])))
    return total / max(1, len(order))


def bootstrap(
    patients: Sequence[str], score: Callable[[np.ndarray], float], repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a score by drawing patients with replacement.

    Args:
        patients: the patient of each row; score: row numbers → value, nan where it cannot be had.
    """
    keys = np.asarray(patients)
    rows_of = [np.flatnonzero(keys == key) for key in dict.fromkeys(keys.tolist())]
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        drawn = generator.integers(len(rows_of), size=len(rows_of))
        values.append(score(np.concatenate([rows_of[i] for i in drawn])))
    finite = np.array([v for v in values if np.isfinite(v)])
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)
