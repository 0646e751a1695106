"""Cards and statements in a line each."""

from __future__ import annotations

from typing import Any

from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.statements import render


def finding(ident: str, term: str, **values: Any) -> Evidence:
    return Evidence(ident, "finding", values.pop("region", "lungs"), term, source="reader", **values)


def measurement(ident: str, statement: str, value: float, unit: str = "ml", **values: Any) -> Evidence:
    return Evidence(ident, "measurement", "abdomen", statement, value, unit, source="engine 1", **values)


def statement(template: str, *evidence: str, cards: tuple[Evidence, ...] = (), **values: Any) -> Statement:
    """A model's statement; its text is the template filled from the cards."""
    values = {"section": "findings", "region": "other", "origin": "model", **values}
    return Statement("s1", text=render(template, cards), evidence=evidence, template=template, **values)
