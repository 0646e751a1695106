"""Radiographs of held-out patients → what the findings head proposes → drafts → their findings against the labels.

Nobody gives a finding here: the cards are those that the head proposes above its thresholds, as on the page, and all
of them are left open ("possible").  Where it proposes none the page writes no draft, and an empty report is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.drafting import verify
from core_models.drafting.drafter import Drafter, Job
from core_models.drafting.evidence import Draft, Evidence
from core_models.drafting.scores import rounded

if TYPE_CHECKING:
    from core_models.foundation.reading import Eyes, Reading

Progress = Callable[[int, int, str], None]
SOURCE = "nih-cxr14-1000"
REPEATS = 1000


def run(root: Path, eyes: Eyes, drafter: Drafter, say: Progress = lambda *_: None, limit: int = 0) -> dict[str, Any]:
    """Read every test image as the page would, draft with the picture and without it, and score both.

    Args:
        root: folder of the images; eyes: a model that answers the labels that readers are shown.
        limit: only the first N images; 0 for all.

    Raises:
        Refused: no data.
    """
    from core_models.foundation.data import load
    from core_models.foundation.labels import NAMES
    from core_models.study.intake import read_scan

    pool = load([SOURCE], root, 64)[SOURCE]
    rows = pool.rows("test")[: limit or None]
    boards, pictures, terms = [], [], {}
    refused = 0
    for at, row in enumerate(rows):
        volume = read_scan([root / SOURCE / "images" / f"{pool.files[row]}.jpg"])[0].series[0].volume
        reading = eyes.read(volume)
        refused += not reading.quality.usable
        terms |= {found.name: (found.term, found.region) for found in reading.findings}
        boards.append(proposed(reading))
        pictures.append(volume.array[0])
        say(at + 1, len(rows), "reading radiographs")
    labels = [name for name in NAMES if name in terms]
    cards = [Evidence(name, "finding", terms[name][1], terms[name][0]) for name in labels]
    jobs = {n: Job(board, picture=pictures[n]) for n, board in enumerate(boards) if board}
    answers = {"head": np.array([[any(c.statement == card.statement for c in b) for card in cards] for b in boards])}
    checked = {}
    for name, given in (
        ("draft", jobs),
        ("draft_without_picture", {n: replace(job, picture=None) for n, job in jobs.items()}),
    ):
        written = drafter.many([*given.values()], lambda done, total, name=name: say(done, total, name))
        drafts = dict(zip(given, written, strict=True))
        answers[name] = np.array([stated(drafts.get(n), cards) for n in range(len(boards))])
        checked[name] = _checked(written)
    answers["always_normal"] = np.zeros_like(answers["head"])
    answers["always_every_finding"] = np.ones_like(answers["head"])
    truth = pool.findings[rows][:, [NAMES.index(name) for name in labels]] > 0.5
    patients = [pool.keys[row] for row in rows]
    return {
        "images": len(rows),
        "patients": len(set(patients)),
        "labels": labels,
        "without_card": len(boards) - len(jobs),
        "refused_by_quality_gate": int(refused),
        "cards": sum(map(len, boards)),
        "sees": drafter.model.sees,
        "model": f"{eyes.name}/{eyes.version}",
        "data": "NIH ChestX-ray14, 1,000 images (500 with pneumonia, 500 without a finding), split by patient",
        "systems": {
            name: score(truth, said, patients, labels) | checked.get(name, {}) for name, said in answers.items()
        },
        "agrees_with_head": rounded(float((answers["draft"] == answers["head"]).mean())),
        "agrees_without_picture": rounded(float((answers["draft"] == answers["draft_without_picture"]).mean())),
    }


def proposed(reading: Reading) -> tuple[Evidence, ...]:
    """The cards of one radiograph: each finding at or above its threshold, none where the gate let nothing through."""
    present = [found for found in reading.findings if found.present] if reading.quality.usable else []
    return tuple(
        Evidence(f"E{n}", "finding", one.region, one.term, probability=one.probability, source=reading.model)
        for n, one in enumerate(present, 1)
    )


def stated(draft: Draft | None, cards: Sequence[Evidence]) -> list[bool]:
    """Which of the cards a supported sentence of the draft states, openly or not; of no draft, none."""
    texts = [s.text for s in draft.statements if s.support == "supported"] if draft is not None else []
    return [any(verify.states(text, card) for text in texts) for card in cards]


def score(truth: np.ndarray, said: np.ndarray, patients: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """(n, labels) bool of each → shares 0 to 1 with 95 % intervals over patients.

    Returns:
        {"precision", "recall", "f1": over all cells; "macro_f1": mean over labels that occur; "accuracy": share of
        cells; "exact": share of images with every label right; "ci95"; "per_label"}.
    """
    from core_models.foundation.metrics import bootstrap

    out: dict[str, Any] = {"ci95": {}}
    for name, measure in _MEASURES.items():
        out[name] = rounded(measure(truth, said))
        low, high = bootstrap(patients, lambda r, measure=measure: measure(truth[r], said[r]), REPEATS)
        out["ci95"][name] = None if out[name] is None else [rounded(low), rounded(high)]
    out["per_label"] = {
        label: {
            "positives": int(truth[:, k].sum()),
            "said": int(said[:, k].sum()),
            **{name: rounded(_MEASURES[name](truth[:, k], said[:, k])) for name in ("precision", "recall", "f1")},
        }
        for k, label in enumerate(labels)
    }
    return out


def _ratio(above: np.ndarray, below: np.ndarray) -> float:
    return float(above.sum() / below.sum()) if below.sum() else float("nan")


def _f1(truth: np.ndarray, said: np.ndarray) -> float:
    """0 where nothing right is said; NaN where there is nothing to say and nothing is said."""
    total = int(truth.sum() + said.sum())
    return 2 * int((truth & said).sum()) / total if total else float("nan")


def _macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    each = [_f1(truth[:, k], said[:, k]) for k in range(truth.shape[1]) if truth[:, k].any()]
    return float(np.mean(each)) if each else float("nan")


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "precision": lambda truth, said: _ratio(truth & said, said),
    "recall": lambda truth, said: _ratio(truth & said, truth),
    "f1": _f1,
    "macro_f1": _macro_f1,
    "accuracy": lambda truth, said: float((truth == said).mean()),
    "exact": lambda truth, said: float((truth == said).all(1).mean()),
}


def _checked(drafts: Sequence[Draft]) -> dict[str, Any]:
    """How many sentences there are, and the shares that the check struck."""
    every = [s.support for d in drafts for s in d.statements]
    share = {
        kind: rounded(every.count(kind) / len(every)) if every else None for kind in ("unsupported", "contradicted")
    }
    return {
        "drafts": len(drafts),
        "statements": len(every),
        "unsupported_rate": share["unsupported"],
        "contradicted_rate": share["contradicted"],
    }
