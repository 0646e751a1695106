"""A language model and a search faked by queues of answers, so that every flow runs without weights and index."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from core_models.drafting.evidence import Draft, DraftModel, Statement, Step
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
        self.asked: list[SimpleNamespace] = []
        self.gate = gate

    def stream(
        self,
        cards: Sequence[Any],
        priors: Sequence[Any],
        indication: str,
        *,
        modality: str,
        seed: int = 0,
        cancelled: Callable[[], bool],
    ) -> Iterator[Any]:
        self.asked.append(
            SimpleNamespace(cards=tuple(cards), priors=tuple(priors), indication=indication, modality=modality)
        )
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
