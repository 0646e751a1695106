"""The quality gate on test-side pictures of every source, as they are, inverted and turned → how often it is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core_models.foundation import weights
from core_models.foundation.calibrate import gate_answers, gate_pictures
from core_models.foundation.data import SOURCES, load
from core_models.foundation.labels import GATE
from core_models.foundation.metrics import auroc

Progress = Callable[[int, int, str], None]
PER_POOL = 120


def run(root: Path, folder: Path, say: Progress, limit: int = 0) -> dict[str, Any]:
    """Ask the gate's four questions of up to 120 test pictures of each source, each in three states."""
    model, calibration = weights.load(folder), weights.load_calibration(folder)
    pools = load(tuple(SOURCES), root, calibration.anatomy_size, say)
    images, truth = gate_pictures(pools, calibration.size, "test", limit or PER_POOL)
    p = gate_answers(model, images)
    questions = {}
    for i, name in enumerate(GATE):
        known = truth[:, i] >= 0
        yes, answer = truth[known, i] > 0.5, p[known, i] >= calibration.gate[name]
        questions[name] = {
            "yes": int(yes.sum()),
            "no": int((~yes).sum()),
            "auroc": auroc(truth[known, i], p[known, i]),
            "sensitivity": float(answer[yes].mean()),
            "specificity": float((~answer[~yes]).mean()),
            "threshold": calibration.gate[name],
        }
    plain = (truth[:, 0] == 1) & (truth[:, 1] == 1) & (truth[:, 2] == 0) & (truth[:, 3] == 0)
    let = p[:, 0] >= calibration.gate["chest"]
    let &= (p[:, 1] >= calibration.gate["frontal"]) & (p[:, 3] < calibration.gate["rotated"])
    return {
        "questions": questions,
        "plain_frontal_let_through": float(np.mean(let[plain])),
        "plain_frontal": int(plain.sum()),
        "pictures": len(truth),
        "data": "test sides of ROCOv2, NIH, JSRT, covid-chestxray (CT slices among them) and ACDC (MR)",
    }
