"""A writer that follows a rule instead of a model: job → statements, many at once, and what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from core_models.drafting import why
from core_models.drafting.drafter import Job
from core_models.drafting.evidence import Draft, DraftModel, Statement, Step
from core_models.errors import Refused

MODEL = DraftModel("rules", "rules@1", "", 0)


def said(text: str, *evidence: str, **values: Any) -> Statement:
    """A supported sentence of the model; its id is given by the writer."""
    step = Step(tuple(evidence), "present")
    values = {
        "section": "findings",
        "region": "lungs",
        "support": "supported",
        "origin": "model",
        "step": step,
        **values,
    }
    return Statement(values.pop("id", ""), text=text, evidence=evidence, template=text, **values)


def one_each(job: Job) -> list[Statement]:
    """A sentence a card, in its words."""
    return [said(f"There is {c.statement}.", c.id, region=c.region) for c in why.read(job)]


class RuleWriter:
    """Attributes: batches, the jobs of each call."""

    def __init__(self, rule: Callable[[Job], list[Statement]] = one_each, sees: bool = False) -> None:
        self.rule = rule
        self.model = SimpleNamespace(name=MODEL.name, adapter=MODEL.adapter, sees=sees)
        self.batches: list[list[Job]] = []

    def many(self, jobs: Sequence[Job]) -> list[Draft]:
        self.batches.append(list(jobs))
        if not all(map(why.read, jobs)):
            raise Refused("There is nothing to write from: add a finding or segment an organ first.")
        return [self.draft(job) for job in jobs]

    def draft(self, job: Job) -> Draft:
        return Draft(tuple(replace(s, id=f"s{n}") for n, s in enumerate(self.rule(job), 1)), MODEL)
