"""Training reports in → lazy ways of writing a report: copying the nearest, always the same, filling templates.

What is copied is checked like a draft with every card cited: the kindest reading of a text that cites nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from core_models.drafting import findings as f
from core_models.drafting import phrases, verify
from core_models.drafting.dataset import SourceReport
from core_models.drafting.evidence import Evidence, Section, Statement
from core_models.drafting.prompt import follows
from core_models.drafting.scores import Study, given

Write = Callable[[Study], tuple[Statement, ...]]
Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts → (n, d) unit vectors."""

# Said of a region that no card names, where a card says that the rest is normal.
STOCK = {
    "lungs": "The lungs are clear.",
    "pleura": "There is no pleural effusion or pneumothorax.",
    "heart": "The heart is normal in size.",
    "mediastinum": "The mediastinal contours are normal.",
    "bones": "No acute bony abnormality.",
}
NOTHING = "No acute cardiopulmonary abnormality."


def nearest_label(training: Sequence[SourceReport]) -> Write:
    """The text of the training report whose headings overlap most with the study's (Jaccard), word for word."""
    known = [(frozenset(map(str.lower, r.terms)), r) for r in training]

    def write(study: Study) -> tuple[Statement, ...]:
        mine = frozenset(map(str.lower, study.report.terms))
        best = max(known, key=lambda row: len(mine & row[0]) / len(mine | row[0]))[1]
        return copied(best.findings, best.impression, study.cards)

    return write


def nearest_text(training: Sequence[SourceReport], embed: Embed) -> Write:
    """The training report whose text is nearest to the study's indication and headings, word for word."""
    vectors = embed([" ".join((*r.findings, *r.impression)) for r in training])

    def write(study: Study) -> tuple[Statement, ...]:
        asked = " ".join((study.report.indication, *map(phrases.phrase, study.report.terms))).strip()
        best = training[int(np.argmax(vectors @ embed([asked])[0]))]
        return copied(best.findings, best.impression, study.cards)

    return write


def constant_normal(training: Sequence[SourceReport]) -> Write:
    """The same text for everybody: the commonest sentences of normal training reports."""
    normal = [r for r in training if [t.lower() for t in r.terms] == [f.NORMAL_TERM]]
    findings = [s for s, _ in Counter(s for r in normal for s in r.findings).most_common(4)]
    impression = [s for s, _ in Counter(s for r in normal for s in r.impression).most_common(1)]
    return lambda study: copied(findings, impression, study.cards)


def reference(study: Study) -> tuple[Statement, ...]:
    """What the radiologist wrote, read by the same check: how far the counting itself is off."""
    return copied(study.report.findings, study.report.impression, study.cards)


def templates(study: Study) -> tuple[Statement, ...]:
    """Each card in its own words, stock sentences for regions without one where the rest is normal, an impression."""
    findings = given(study.cards)
    normal = [c for c in study.cards if c.statement.lower() in f.NORMAL_TERMS]
    lines: list[tuple[Section, str, tuple[str, ...]]] = []
    for card in findings:
        words = phrases.hedged if follows(card) == "possible" else phrases.plain
        lines.append(("findings", words(card.statement), (card.id,)))
    named = {card.region for card in findings}
    rest = tuple(card.id for card in normal)
    lines += [("findings", text, rest) for region, text in STOCK.items() if normal and region not in named]
    if findings:
        text = phrases.joined([phrases.phrase(card.statement) for card in findings])
        lines.append(("impression", f"{text[:1].upper()}{text[1:]}.", tuple(card.id for card in findings)))
    elif normal:
        lines.append(("impression", NOTHING, rest))
    return _checked(lines, study.cards)


def copied(findings: Sequence[str], impression: Sequence[str], cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
    """A text as statements that cite every card."""
    ids = tuple(c.id for c in cards)
    lines: list[tuple[Section, str, tuple[str, ...]]] = [("findings", text, ids) for text in findings]
    return _checked([*lines, *(("impression", text, ids) for text in impression)], cards)


def _checked(lines: Sequence[tuple[Section, str, tuple[str, ...]]], cards: Sequence[Evidence]) -> tuple[Statement, ...]:
    drafted = (
        Statement(f"s{n}", section, f.region_of(text), text, ids, origin="model", template=text)
        for n, (section, text, ids) in enumerate(lines, 1)
    )
    return tuple(verify.check(s, cards) for s in drafted)
