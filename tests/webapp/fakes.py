"""A language model, a search and image models faked by given answers, so that every flow runs without weights."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from core_models.drafting.drafter import Job
from core_models.drafting.evidence import Draft, DraftModel, Statement, Step
from core_models.foundation.reading import Context, Finding, Quality, Reading, Structure
from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume
from retrieval.report import CorpusReport, Prior

MODEL = DraftModel("fake", "none", "0" * 8, 0)
UNSEEN = ("Images were not read by the language model.",)


class FakeWriter:
    """Writes the drafts of its queue; an exception in the queue is raised after its statements.

    Attributes:
        asked: what each draft was written from.
        gate: when given, each statement waits for it, so that a test can stop a draft in the middle.
    """

    def __init__(self, *drafts: Sequence[Statement | Exception], gate: threading.Semaphore | None = None) -> None:
        self.queue = deque(drafts)
        self.asked: list[Job] = []
        self.gate = gate

    def stream(self, job: Job, cancelled: Callable[[], bool]) -> Iterator[Any]:
        self.asked.append(job)
        from core_models.drafting import drafter

        yield drafter.Started(MODEL, UNSEEN)
        written: list[Statement] = []
        for item in self.queue.popleft():
            if isinstance(item, Exception):
                raise item
            while self.gate is not None and not self.gate.acquire(timeout=0.02):
                if cancelled():
                    break
            if cancelled():
                break
            half = item.text[: len(item.text) // 2]
            yield drafter.Partial(item.id, item.section, item.region, item.evidence, item.step, half)
            yield drafter.Finished(item)
            written.append(item)
        yield drafter.Done(Draft(tuple(written), MODEL, UNSEEN, complete=not cancelled(), seconds=0.1, tokens=9))

    def many(self, jobs: Sequence[Job]) -> list[Draft]:
        """A draft of the queue for each job, in order."""
        return [event.draft for job in jobs for event in self.stream(job, lambda: False) if hasattr(event, "draft")]


class FakeSearch:
    """Answers every search with the same hits."""

    def __init__(self, *hits: Prior, sentence: str = "", flags: tuple[str, ...] = ()) -> None:
        self.hits, self.sentence, self.flags = hits, sentence, flags
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def search(self, query: str, **options: Any) -> SimpleNamespace:
        self.asked.append((query, options))
        return SimpleNamespace(priors=self.hits, sentence=self.sentence, flags=self.flags)


def statement(number: int, text: str, *evidence: str, template: str = "", **values: Any) -> Statement:
    """A supported statement of the model with its reasoning step."""
    values = {"section": "findings", "region": "heart", "support": "supported", **values}
    step = Step(tuple(evidence), "present")
    return Statement(f"s{number}", text=text, evidence=evidence, origin="model", template=template, step=step, **values)


def prior(number: int, findings: str, score: float = 0.8) -> Prior:
    report = CorpusReport(f"CXR{number}", f"CXR{number}", "Cough.", findings, "No acute disease.", ("normal",))
    return Prior(report, score, (findings,))


EYES = "fake-eyes/2 (0123abcd)"
FRONTAL = Quality(chest=0.99, frontal=0.98, inverted=0.01, rotated=0.02, usable=True)
LATERAL = Quality(0.98, 0.03, 0.01, 0.02, False, ("This is a lateral view: findings are read on frontal views only.",))
# Parts of the image's height and width: first row, last row, first column, last column.
PLACES = {
    "right lung": (0.15, 0.80, 0.10, 0.44),
    "left lung": (0.15, 0.80, 0.56, 0.90),
    "heart": (0.45, 0.80, 0.38, 0.82),
    "right clavicle": (0.08, 0.13, 0.14, 0.42),
    "left clavicle": (0.08, 0.13, 0.58, 0.86),
}


def finding(name: str = "Effusion", probability: float = 0.91, **values: Any) -> Finding:
    """A finding with a box and a heat map low on the image's right."""
    heat = np.zeros((8, 8), np.float32)
    heat[5:8, 5:8] = 1.0
    values = {"term": "Pleural Effusion", "region": "pleura", "threshold": 0.5, "heat": heat, **values}
    return Finding(name, probability=probability, box=values.pop("box", (10, 16, 16, 20)), **values)


NODULE = finding("Nodule", 0.12, term="Nodule", region="lungs", box=None, heat=None)


class FakeEyes:
    """Answers every radiograph with the same findings and with boxes for the structures.

    Attributes:
        seen: (volume's shape, context) of every reading.
        gate: when given, each reading waits for it.
        failure: raised instead of an answer.
    """

    name, version, licence, modalities = "fake-eyes", "2", "none", ()

    def __init__(self, *findings: Finding, quality: Quality = FRONTAL) -> None:
        self.findings, self.quality = findings, quality
        self.seen: list[tuple[tuple[int, ...], Context]] = []
        self.gate: threading.Semaphore | None = None
        self.failure: Exception | None = None
        self.model = EYES
        self.embedding: np.ndarray | None = None

    def read(self, volume: Volume, context: Context) -> Reading:
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        self.seen.append((volume.shape, context))
        if self.failure is not None:
            raise self.failure
        return Reading(
            self.model,
            "none",
            self.quality,
            self.findings,
            tuple(Structure(label, placed(label, volume.shape), 0.9) for label in PLACES),
            inputs=("image", *context.given),
            missing=("The model did not see earlier images.",),
            embedding=self.embedding,
            seconds=0.1,
        )


def placed(label: str, shape: tuple[int, int, int]) -> Mask:
    """The box of a structure on an image (1, y, x)."""
    full = np.zeros(shape, bool)
    top, bottom, left, right = PLACES[label]
    full[:, int(top * shape[1]) : int(bottom * shape[1]), int(left * shape[2]) : int(right * shape[2])] = True
    return Mask.from_full(full)
