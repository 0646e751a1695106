"""A linear head beside an image encoder: pooled output → findings.

`findings_head.safetensors` holds `weight` (findings, d) and `bias` (findings,), trained on the encoder's pooled output
as it is (not the unit vector); `findings_head.json` holds `{"labels": [...], "thresholds": [...]}` in the same order,
the labels being names of `terms`.  The probabilities are sigmoids and stay uncalibrated here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core_models.errors import Refused
from core_models.foundation.bigger import common
from core_models.foundation.bigger.terms import BY_NAME
from core_models.foundation.reading import Finding

if TYPE_CHECKING:
    from core_models.registry import ModelRow

WEIGHTS, LABELS = "findings_head.safetensors", "findings_head.json"


@dataclass(frozen=True)
class Head:
    """A checked head.

    Attributes:
        weight: (findings, d) float32; `bias`: (findings,) float32.
        labels, thresholds: one for each row.
    """

    weight: np.ndarray
    bias: np.ndarray
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]

    def findings(self, pooled: np.ndarray) -> tuple[Finding, ...]:
        """float32 (d,) → the findings.  Raises Refused where d is not the head's."""
        if pooled.shape != self.weight.shape[1:]:
            raise Refused(
                f"The findings head takes {self.weight.shape[1]} numbers and the encoder gives {pooled.shape[0]}."
            )
        logits = np.clip((self.weight @ pooled + self.bias).astype(float), -60.0, 60.0)
        chances = 1.0 / (1.0 + np.exp(-logits))
        out = []
        for label, p, threshold in zip(self.labels, chances.tolist(), self.thresholds, strict=True):
            term = BY_NAME[label]
            out.append(Finding(label, term.term, term.region, p, threshold, calibrated=False))
        return tuple(out)


def read(folder: Path, row: ModelRow) -> Head | None:
    """The head in the folder, or None where there is none.

    Raises:
        Refused: damaged files, unknown labels, or numbers that do not fit together.
    """
    if not (folder / WEIGHTS).is_file():
        return None
    tensors = common.read_tensors(folder / WEIGHTS, row)
    try:
        card = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        labels = tuple(str(label) for label in card["labels"])
        thresholds = tuple(float(number) for number in card.get("thresholds", [0.5] * len(labels)))
        weight, bias = tensors["weight"].float().numpy(), tensors["bias"].float().numpy()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"The findings head of the model {row.name} needs {LABELS} with labels, weight and bias."
        ) from error
    unknown = [label for label in labels if label not in BY_NAME]
    if unknown:
        raise Refused(f"The findings head of the model {row.name} has the unknown label {unknown[0][:40]!r}.")
    if weight.ndim != 2 or weight.shape[0] != len(labels) or bias.shape != (len(labels),):
        raise Refused(f"The findings head of the model {row.name} has {len(labels)} labels and weights {weight.shape}.")
    if len(thresholds) != len(labels) or not all(0.0 < t < 1.0 for t in thresholds):
        raise Refused(f"The findings head of the model {row.name} needs one threshold between 0 and 1 for each label.")
    return Head(weight, bias, labels, thresholds)
