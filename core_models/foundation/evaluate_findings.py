"""The shipped model on NIH's test patients → AUROC, calibration, subgroups, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core_models.foundation.data import Pool, load
from core_models.foundation.judge import VALIDATED
from core_models.foundation.labels import NAMES
from core_models.foundation.metrics import auroc, bootstrap, calibration_error
from core_models.foundation.reading import Context, Eyes
from core_models.study.intake import read_scan

Progress = Callable[[int, int, str], None]
SOURCE = "nih-cxr14-1000"
AGES = (("<40", 0, 40), ("40-60", 40, 60), (">60", 60, 200))
BINS = 5
ALL = frozenset(VALIDATED)
REPEATS = 500
"""Draws of each bootstrap."""


def run(root: Path, eyes: Eyes, say: Progress, limit: int = 0, shown: frozenset[str] = ALL) -> dict[str, Any]:
    """Read every test image as the page would, file by file, without its view, age and sex, and score it.

    Args:
        eyes: a model that answers every label; `shown`: those that it proposes to readers.
    """
    pool = load([SOURCE], root, 64)[SOURCE]
    rows = pool.rows("test")[: limit or None]
    p, with_context = np.zeros((len(rows), len(VALIDATED))), np.zeros((len(rows), len(VALIDATED)))
    refused = 0
    threshold: dict[str, float] = {}
    for at, row in enumerate(rows):
        volume = read_scan([root / SOURCE / "images" / f"{pool.files[row]}.jpg"])[0].series[0].volume
        reading = eyes.read(volume)
        refused += not reading.quality.usable
        known = eyes.read(volume, _context(pool, row))
        for one, out in ((reading, p), (known, with_context)):
            for finding in one.findings:
                if finding.name in VALIDATED:
                    out[at, VALIDATED.index(finding.name)] = finding.probability
        threshold |= {f.name: f.threshold for f in reading.findings}
        say(at + 1, len(rows), "radiographs")
    truth = pool.findings[rows][:, [NAMES.index(name) for name in VALIDATED]]
    return score(pool, rows, truth, p, threshold, shown) | {
        "with_view_age_sex": {"macro_auroc": _macro(truth, with_context), "ece": _ece(truth, with_context)},
        "refused_by_quality_gate": int(refused),
        "model": f"{eyes.name}/{eyes.version}",
    }


def score(
    pool: Pool,
    rows: np.ndarray,
    truth: np.ndarray,
    p: np.ndarray,
    threshold: dict[str, float],
    shown: frozenset[str] = ALL,
) -> dict[str, Any]:
    """All figures of (n, labels) probabilities against (n, labels) truth."""
    patients = [pool.keys[r] for r in rows]
    view = np.array([pool.columns["view"][r] for r in rows])
    sex = np.array([pool.columns["sex"][r] for r in rows])
    age = np.array([float(pool.columns["age"][r] or -1) for r in rows])
    groups = {
        "view": {name: view == name for name in ("AP", "PA")},
        "sex": {name: sex == name for name in ("F", "M")},
        "age": {name: (age >= low) & (age < high) for name, low, high in AGES},
    }
    per = {}
    for i, name in enumerate(VALIDATED):
        y, q = truth[:, i], p[:, i]
        present = q >= threshold.get(name, 0.5)
        positive = y > 0.5
        per[name] = {
            "auroc": auroc(y, q),
            "auroc_ci": bootstrap(patients, lambda r, y=y, q=q: auroc(y[r], q[r]), REPEATS),
            "auroc_within": {v: auroc(y[view == v], q[view == v]) for v in ("AP", "PA")},
            "positives": int(y.sum()),
            "ece": calibration_error(y, q),
            "threshold": threshold.get(name, 0.5),
            "shown": name in shown,
            "sensitivity": float(present[positive].mean()) if positive.any() else float("nan"),
            "specificity": float((~present[~positive]).mean()) if (~positive).any() else float("nan"),
        }
    learnt = pool.rows("train")
    view_score = _by_view([pool.columns["view"][r] for r in learnt], pool.findings[learnt], view)
    return {
        "macro_auroc": _macro(truth, p),
        "macro_auroc_ci": bootstrap(patients, lambda r: _macro(truth[r], p[r]), REPEATS),
        "macro_auroc_within": {v: _macro(truth[view == v], p[view == v]) for v in ("AP", "PA")},
        "baselines": {"constant": 0.5, "view_alone": _macro(truth, view_score)},
        "ece": _ece(truth, p),
        "ece_of_a_perfect_model": _perfect_ece(p),
        "per_finding": per,
        "reliability": {name: _reliability(truth[:, i], p[:, i]) for i, name in enumerate(VALIDATED)},
        "subgroups": {kind: {name: _group(truth, p, patients, chosen) for name, chosen in options.items()}
                      for kind, options in groups.items()},
        "test_patients": len(set(patients)),
        "test_images": len(rows),
        "data": "NIH ChestX-ray14, 1,000 images (500 with pneumonia, 500 without a finding), split by patient",
    }  # fmt: skip


def _context(pool: Pool, row: int) -> Context:
    age = pool.columns["age"][row]
    return Context(pool.columns["view"][row], float(age) if age else None, pool.columns["sex"][row])


def _by_view(learnt: Sequence[str], findings: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(n, validated labels): how often the training side has each label in the view of each asked image."""
    views = np.array(learnt)
    columns = [NAMES.index(name) for name in VALIDATED]
    rates = {v: findings[views == v][:, columns].mean(0) for v in np.unique(views)}
    return np.stack([rates.get(v, findings[:, columns].mean(0)) for v in asked])


def _macro(truth: np.ndarray, p: np.ndarray) -> float:
    """Mean AUROC of the labels that have both classes."""
    each = [auroc(truth[:, i], p[:, i]) for i in range(truth.shape[1])]
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def _ece(truth: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean([calibration_error(truth[:, i], p[:, i]) for i in range(truth.shape[1])]))


def _perfect_ece(p: np.ndarray, repeats: int = 200) -> float:
    """What the same measure gives, on this few images, a model whose probabilities are exactly right: its noise."""
    generator = np.random.default_rng(0)
    return float(np.mean([_ece((generator.random(p.shape) < p).astype(float), p) for _ in range(repeats)]))


def _reliability(y: np.ndarray, q: np.ndarray) -> list[dict[str, float]]:
    chunks = np.array_split(np.argsort(q, kind="stable"), BINS)
    return [{"p": float(q[c].mean()), "observed": float(y[c].mean()), "n": len(c)} for c in chunks if len(c)]


def _group(truth: np.ndarray, p: np.ndarray, patients: list[str], chosen: np.ndarray) -> dict[str, Any]:
    rows = np.flatnonzero(chosen)
    own = [patients[r] for r in rows]
    t, q = truth[rows], p[rows]
    return {
        "n": len(rows),
        "patients": len(set(own)),
        "macro_auroc": _macro(t, q),
        "ci": bootstrap(own, lambda r: _macro(t[r], q[r]), REPEATS) if len(rows) else (float("nan"),) * 2,
        "ece": _ece(t, q) if len(rows) else float("nan"),
    }
