"""The COVID radiographs' pool → cases of one diagnostic task: image vector, note vector, tabular values, truth, side.

The task is "COVID-19 or another pneumonia", as the source's case report names it.  Left out are CT slices, pictures
without a diagnosis, and "No Finding": most of those are of COVID-19 patients on a better day: neither class is
theirs.  Every picture is one case; its patient decides the side (`data.load`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from core_models.foundation.data import Pool
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.fusion_masking import masked, unmarked
from core_models.foundation.sampler import plain
from core_models.foundation.split import Side
from core_models.foundation.text import WIDTH, frozen_similarity_vectors

POOL = "covid-chestxray"
TASK = "COVID-19 against other pneumonia"
CLASSES = ("other pneumonia", "COVID-19")
INPUTS = ("image", "text", "tabular")
CHUNK = 40
"""Words of a note that go through the text encoder at once: it reads 64 tokens, notes are longer."""


@dataclass(frozen=True)
class Value:
    """One tabular value: its column in the source, and the limits outside of which it counts as unknown."""

    name: str
    column: str
    low: float
    high: float


VALUES: tuple[Value, ...] = (
    Value("age", "age", 0, 120),
    Value("female", "sex", 0, 1),
    Value("view_ap", "view", 0, 1),
    Value("temperature", "temperature", 30, 45),  # °C
    Value("saturation", "pO2_saturation", 10, 100),  # %; the source mixes in some partial pressures above 100 mmHg
    Value("leukocytes", "leukocyte_count", 0, 100),  # 10⁹/L
    Value("neutrophils", "neutrophil_count", 0, 100),  # 10⁹/L
    Value("lymphocytes", "lymphocyte_count", 0, 100),  # 10⁹/L
    Value("days_since_onset", "offset", -30, 365),
)
NAMES = tuple(v.name for v in VALUES)
_CODES: dict[str, dict[str, float]] = {
    "sex": {"F": 1.0, "M": 0.0},
    "view": {"AP": 1.0, "AP SUPINE": 1.0, "PA": 0.0},
}


@dataclass(frozen=True)
class Cases:
    """What is known of n pictures.

    Attributes:
        image: float32 (n, 1280) pooled vectors; text: float32 (n, 384) unit vectors of the masked notes.
        values, known: float32 (n, len(VALUES)) raw values (0 where unknown) and 1 where known.
        has: bool (n, 3), whether each of `INPUTS` is there at all.
        truth: float32 (n,), 1 for COVID-19.
        notes: the masked notes, "" for none.
    """

    image: np.ndarray
    text: np.ndarray
    values: np.ndarray
    known: np.ndarray
    has: np.ndarray
    truth: np.ndarray
    patients: tuple[str, ...]
    sides: tuple[Side, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: Sequence[int] | np.ndarray) -> Cases:
        """Some rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        return Cases(
            *(getattr(self, name)[rows] for name in ("image", "text", "values", "known", "has", "truth")),
            *(tuple(getattr(self, name)[r] for r in rows) for name in ("patients", "sides", "notes")),
        )

    def side(self, *wanted: Side) -> Cases:
        """The cases of one or more sides."""
        return self.take([i for i, s in enumerate(self.sides) if s in wanted])

    def only(self, inputs: Sequence[str]) -> Cases:
        """The same cases with every other input taken away."""
        return replace(self, has=self.has & np.array([name in inputs for name in INPUTS]))


def truth_of(finding: str) -> float | None:
    """1 for COVID-19, 0 for another named pneumonia, None for what belongs to neither class.

    ARDS alone is a syndrome that either may lead to.
    """
    if finding in ("", "todo", "No Finding", "ARDS"):
        return None
    return float("COVID-19" in finding)


def number(value: Value, cell: str) -> float | None:
    """One cell of the source's table → a number within limits, or None."""
    cell = cell.strip()
    if value.column in _CODES:
        return _CODES[value.column].get(cell.upper())
    try:
        out = float(cell)
    except ValueError:
        return None
    return out if value.low <= out <= value.high else None


def tabular(given: Mapping[str, float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Named values → (len(VALUES),) values and known flags; what is absent, None, or out of limits is unknown."""
    values, known = np.zeros(len(VALUES), np.float32), np.zeros(len(VALUES), np.float32)
    for i, value in enumerate(VALUES):
        x = given.get(value.name)
        if x is not None and value.low <= float(x) <= value.high:
            values[i], known[i] = float(x), 1.0
    return values, known


def chosen(pool: Pool) -> np.ndarray:
    """Rows of the pool that the task is about."""
    return np.array(
        [
            i
            for i in range(len(pool))
            if pool.usable[i]
            and pool.columns["modality"][i] == "X-ray"
            and truth_of(pool.columns["finding"][i]) is not None
        ],
        dtype=np.int64,
    )


@torch.inference_mode()
def image_vectors(encoder: RadiographEncoder, pool: Pool, rows: np.ndarray, size: int, batch: int = 16) -> np.ndarray:
    """(n, hidden) float32 pooled vectors, without context: view, age and sex are inputs of their own here."""
    was = encoder.training
    encoder.eval()
    parts = [encoder(plain(pool, rows[i : i + batch], size)).pooler_output.float() for i in range(0, len(rows), batch)]
    encoder.train(was)
    return torch.cat(parts).numpy() if parts else np.zeros((0, encoder.config.hidden_size), np.float32)


def note_vectors(notes: Sequence[str]) -> np.ndarray:
    """Masked notes → (n, 384) float32 unit vectors: the mean over their pieces; zeros for an empty note."""
    pieces, owner = [], []
    for i, note in enumerate(notes):
        words = unmarked(note).split()
        for start in range(0, len(words), CHUNK):
            pieces.append(" ".join(words[start : start + CHUNK]))
            owner.append(i)
    distinct = list(dict.fromkeys(pieces))
    where = {text: i for i, text in enumerate(distinct)}
    vectors = frozen_similarity_vectors(distinct)
    out = torch.zeros(len(notes), WIDTH)
    for text, i in zip(pieces, owner, strict=True):
        out[i] += vectors[where[text]]
    return F.normalize(out, dim=-1).numpy()


def has_words(note: str) -> bool:
    """Whether anything is left of a masked note that can be read."""
    return bool(re.search(r"[A-Za-z]{3}", unmarked(note)))


def cases(pool: Pool, images: np.ndarray, rows: np.ndarray) -> Cases:
    """The pool's rows as cases.

    Args:
        images: (len(rows), hidden) vectors of those rows.
    """
    notes = tuple(masked(pool.columns["clinical_notes"][r]) for r in rows)
    notes = tuple(n if has_words(n) else "" for n in notes)
    table = [tabular({v.name: number(v, pool.columns[v.column][r]) for v in VALUES}) for r in rows]
    values = np.stack([t[0] for t in table]) if table else np.zeros((0, len(VALUES)), np.float32)
    known = np.stack([t[1] for t in table]) if table else np.zeros((0, len(VALUES)), np.float32)
    return Cases(
        image=images.astype(np.float32),
        text=note_vectors(notes),
        values=values,
        known=known,
        has=np.stack([np.ones(len(rows), bool), np.array([bool(n) for n in notes], bool), known.any(1)], 1),
        truth=np.array([truth_of(pool.columns["finding"][r]) for r in rows], np.float32),
        patients=tuple(pool.keys[r] for r in rows),
        sides=tuple(pool.sides[r] for r in rows),
        notes=notes,
    )


def counts(all_cases: Cases) -> dict[str, dict[str, dict[str, int]]]:
    """side → class → {"images", "patients"}."""
    out: dict[str, dict[str, dict[str, int]]] = {}
    for side in ("train", "validation", "test"):
        part = all_cases.side(side)  # type: ignore[arg-type]
        out[side] = {}
        for label, name in enumerate(CLASSES):
            rows = np.flatnonzero(part.truth == label)
            out[side][name] = {"images": len(rows), "patients": len({part.patients[r] for r in rows})}
    return out
