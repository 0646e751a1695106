"""Held-out reports in → how well drafts state what the cards assert, beside two lazy ways of writing a report.

The cards are the study's own finding headings, so this measures the writing and not the reading of images.  Findings
are counted as concepts of `findings`, the same table that the rule check uses: a system that exploits the table's gaps
would not be found out here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core_models.drafting import findings as f
from core_models.drafting import verify
from core_models.drafting.dataset import SourceReport
from core_models.drafting.drafter import Done, Drafter, PriorText
from core_models.drafting.evidence import Evidence, Statement

RESAMPLES = 1000
_NOT_INDEXED = "no indexing"

System = Callable[[SourceReport, tuple[Evidence, ...]], tuple[Statement, ...]]


@dataclass(frozen=True)
class Score:
    """Counts of one study under one system."""

    normal: bool
    stated: int  # concepts that the report affirms
    drafted: int  # concepts that the draft affirms
    both: int
    statements: int
    unsupported: int
    contradicted: int
    reference: str
    text: str


def board(report: SourceReport) -> tuple[Evidence, ...]:
    """The study's headings as a reader would have put them on the board; the rest is asserted to be normal."""
    terms = [t for t in report.terms if t.strip().lower() not in (f.NORMAL_TERM, _NOT_INDEXED)]
    rest = f.OTHERWISE_NORMAL if terms else f.NORMAL_TERM
    return tuple(
        Evidence(f"E{n}", "finding", f.region_of_term(term), term, source="reader", status="accepted")
        for n, term in enumerate([*terms, rest], 1)
    )


def usable(reports: Iterable[SourceReport]) -> list[SourceReport]:
    """Reports that say what they are about: with headings and with text."""
    return [
        r for r in reports if r.terms and (r.findings or r.impression) and _NOT_INDEXED not in map(str.lower, r.terms)
    ]


def without_twins(held: Iterable[SourceReport], training: Iterable[SourceReport]) -> list[SourceReport]:
    """The held-out reports whose text stands in no training report, letter case, punctuation and order aside.

    Many studies of a corpus hold word for word the same normal report; a model would be praised for its memory.
    """

    def key(report: SourceReport) -> frozenset[str]:
        said = (*report.findings, *report.impression)
        return frozenset(" ".join("".join(c if c.isalnum() else " " for c in s.lower()).split()) for s in said)

    known = {key(r) for r in training}
    return [r for r in held if key(r) not in known]


def model(drafter: Drafter, priors: Callable[[SourceReport], Sequence[PriorText]] = lambda _: ()) -> System:
    """The drafter as the page uses it."""

    def write(report: SourceReport, cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
        for event in drafter.stream(cards, priors(report), report.indication, modality="CR"):
            if isinstance(event, Done):
                return event.draft.statements
        return ()

    return write


def nearest_label(training: Sequence[SourceReport]) -> System:
    """The text of the training report whose headings overlap most with the board (Jaccard), word for word."""
    known = [(frozenset(map(str.lower, r.terms)), r) for r in usable(training)]

    def write(report: SourceReport, cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
        mine = frozenset(map(str.lower, report.terms))
        best = max(known, key=lambda row: len(mine & row[0]) / len(mine | row[0]))[1]
        return _copied(best.findings, best.impression, cards)

    return write


def constant_normal(training: Sequence[SourceReport]) -> System:
    """The same text for everybody: the commonest sentences of normal training reports."""
    normal = [r for r in usable(training) if [t.lower() for t in r.terms] == [f.NORMAL_TERM]]
    findings = [s for s, _ in Counter(s for r in normal for s in r.findings).most_common(4)]
    impression = [s for s, _ in Counter(s for r in normal for s in r.impression).most_common(1)]

    def write(report: SourceReport, cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
        return _copied(findings, impression, cards)

    return write


def _copied(findings: Sequence[str], impression: Sequence[str], cards: tuple[Evidence, ...]) -> tuple[Statement, ...]:
    """Checked like a draft, with every card cited: the kindest reading of a text that cites nothing."""
    ids = tuple(c.id for c in cards)
    texts = [("findings", t) for t in findings] + [("impression", t) for t in impression]
    drafted = (
        Statement(f"s{n}", section, f.region_of(text), text, ids, origin="model", template=text)  # type: ignore[arg-type]
        for n, (section, text) in enumerate(texts, 1)
    )
    return tuple(verify.check(s, cards) for s in drafted)


def score(report: SourceReport, cards: Sequence[Evidence], drafted: Sequence[Statement]) -> Score:
    """One study's counts; what the check struck out counts as written, since that is the model's doing."""
    reference = (*report.findings, *report.impression)
    stated, said = _affirmed(reference), _affirmed(s.text for s in drafted)
    return Score(
        normal=len(cards) == 1,
        stated=len(stated),
        drafted=len(said),
        both=len(stated & said),
        statements=len(drafted),
        unsupported=sum(s.support == "unsupported" for s in drafted),
        contradicted=sum(s.support == "contradicted" for s in drafted),
        reference=" ".join(reference),
        text=" ".join(s.text for s in drafted),
    )


def _affirmed(sentences: Iterable[str]) -> set[str]:
    return {m.concept for s in sentences for m in f.mentions(s) if m.polarity != "absent"}


def evaluate(
    reports: Sequence[SourceReport],
    systems: dict[str, System],
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any]:
    """Score every system on the same reports.

    Returns:
        {"studies": n, "systems": {name: {"all" | "normal" | "non_normal": {"studies", "finding_recall",
        "finding_precision", "unsupported_rate", "contradicted_rate", "bleu4", "rouge_l", "ci95": {...}}}}}; rates 0
        to 1, None where nothing was to be counted; intervals by bootstrap over studies (`RESAMPLES`, seed 0).
    """
    held = usable(reports)
    scores: dict[str, list[Score]] = {name: [] for name in systems}
    for n, report in enumerate(held):
        progress(n, len(held), "drafting")
        cards = board(report)
        for name, write in systems.items():
            scores[name].append(score(report, cards, write(report, cards)))
    progress(len(held), len(held), "scored")
    return {"studies": len(held), "systems": {name: _groups(rows) for name, rows in scores.items()}}


def _groups(rows: list[Score]) -> dict[str, Any]:
    return {
        "all": summary(rows),
        "normal": summary([r for r in rows if r.normal]),
        "non_normal": summary([r for r in rows if not r.normal]),
    }


def summary(rows: Sequence[Score]) -> dict[str, Any]:
    """Pooled rates with 95 % intervals, BLEU-4 (corpus, 0 to 1) and ROUGE-L (mean F1)."""
    out: dict[str, Any] = {"studies": len(rows)}
    for name, rate in _RATES.items():
        out[name] = _rounded(rate(rows))
    out |= _overlap(rows)
    rng = random.Random(0)
    drawn = [rng.choices(rows, k=len(rows)) for _ in range(RESAMPLES)] if rows else []
    out["ci95"] = {name: _interval([v for d in drawn if (v := rate(d)) is not None]) for name, rate in _RATES.items()}
    return out


def _ratio(above: str, below: str) -> Callable[[Sequence[Score]], float | None]:
    def rate(rows: Sequence[Score]) -> float | None:
        total = sum(getattr(r, below) for r in rows)
        return sum(getattr(r, above) for r in rows) / total if total else None

    return rate


_RATES = {
    "finding_recall": _ratio("both", "stated"),
    "finding_precision": _ratio("both", "drafted"),
    "unsupported_rate": _ratio("unsupported", "statements"),
    "contradicted_rate": _ratio("contradicted", "statements"),
}


def _interval(values: list[float]) -> list[float] | None:
    if not values:
        return None
    values.sort()
    return [round(values[int(q * (len(values) - 1))], 4) for q in (0.025, 0.975)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _overlap(rows: Sequence[Score]) -> dict[str, float | None]:
    """BLEU-4 by sacrebleu and ROUGE-L by rouge-score, both on lower-cased text."""
    if not rows:
        return {"bleu4": None, "rouge_l": None}
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    bleu = sacrebleu.corpus_bleu([r.text for r in rows], [[r.reference for r in rows]], lowercase=True).score / 100
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(r.reference, r.text)["rougeL"].fmeasure for r in rows]
    return {"bleu4": round(bleu, 4), "rouge_l": round(sum(rouge) / len(rouge), 4)}
