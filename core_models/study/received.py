"""A structured report that was written here → its text as plain values: author, findings, impression, numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from core_models.study.elements import first, number
from core_models.study.text import clean

# PS3.16: CID 7001 headings, CID 7002 texts, Comment; Person Observer Name; Measurement Group, Tracking Identifier.
FINDINGS, FINDING, IMPRESSIONS, IMPRESSION, COMMENT = "121070", "121071", "121072", "121073", "121106"
_OBSERVER, _GROUP, _TRACKING = "121008", "125007", "112039"
_UNITS = {
    "mL": "ml",
    "[hnsf'U]": "HU",
    "mm2": "mm²",
    "cm2": "cm²",
    "deg": "°",
    "{ratio}": "",
    "{pixels}": "px",
    "{pixels}2": "px²",
    "1": "",
}
MAX_SENTENCE = 4000
MAX_SENTENCES = 500  # of a section: as many as the page's own report may have
MAX_TEXT = 50_000
MAX_NAME = 64


@dataclass(frozen=True)
class Received:
    """The report as it was written; nothing in it is this reader's.

    Attributes:
        author: who signed it; "" where nobody had.
        final: whether it was signed and said to be complete.
        measured: a line of numbers for each structure.
    """

    author: str
    final: bool
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    text: str
    measured: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.findings or self.impression or self.text or self.measured)


def read(header: Dataset) -> Received:
    """Read the whole object; what is not text or number is left out."""
    items = list(header.get("ContentSequence") or ())
    flags = (clean(header.get("CompletionFlag"), 16), clean(header.get("PreliminaryFlag"), 16))
    author = next((clean(i.get("PersonName"), MAX_NAME) for i in items if _code(i) == _OBSERVER), "")
    return Received(
        author=" ".join(author.replace("^", " ").split()),
        final=flags == ("COMPLETE", "FINAL"),
        findings=_sentences(items, FINDINGS, FINDING),
        impression=_sentences(items, IMPRESSIONS, IMPRESSION),
        text="\n".join(_lines(i) for i in items if _code(i) == COMMENT)[:MAX_TEXT],
        measured=tuple(_measured(items))[:MAX_SENTENCES],
    )


def _lines(item: Dataset) -> str:
    text = str(item.get("TextValue") or "")[:MAX_TEXT]
    return "\n".join(clean(line, MAX_SENTENCE) for line in text.splitlines()).strip()


def _sentences(items: list[Dataset], heading: str, kind: str) -> tuple[str, ...]:
    found = (i for item in items if _code(item) == heading for i in item.get("ContentSequence") or ())
    said = (clean(i.get("TextValue"), MAX_SENTENCE) for i in found if _code(i) == kind)
    return tuple(text for text in said if text)[:MAX_SENTENCES]


def _code(item: Dataset) -> str:
    concept = first(item.get("ConceptNameCodeSequence"))
    return clean(concept.get("CodeValue"), 16) if concept is not None else ""


def _measured(items: list[Dataset]) -> Iterator[str]:
    for group in _groups(items):
        label, numbers = "", []
        for item in group.get("ContentSequence") or ():
            concept = first(item.get("ConceptNameCodeSequence"))
            if concept is None:
                continue
            if _code(item) == _TRACKING:
                label = clean(item.get("TextValue"), MAX_NAME)
            value = first(item.get("MeasuredValueSequence"))
            quantity = number(value.get("NumericValue")) if value is not None else None
            if quantity is not None:
                unit = first(value.get("MeasurementUnitsCodeSequence"))
                said = clean(unit.get("CodeValue"), 16) if unit is not None else ""
                numbers.append((clean(concept.get("CodeMeaning")), quantity, _UNITS.get(said, said)))
        if label and numbers:
            told = ", ".join(f"{what.lower()} {_short(value, unit)}" for what, value, unit in numbers)
            yield f"{label[:1].upper()}{label[1:]}: {told}."


def _short(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 2 if unit in ("", "cm²") else 1
    return f"{value:.{digits}f}{'' if unit == '°' else ' '}{unit}".strip()


def _groups(items: list[Dataset]) -> Iterator[Dataset]:
    for item in items:
        if _code(item) == _GROUP:
            yield item
        else:
            yield from _groups(list(item.get("ContentSequence") or ()))
