"""A drafted report beside its cards and its reference text → counts; counts of many → measures with 95 % intervals.

Findings are counted as concepts of `findings`, the same table that the check (`verify`) and the form go by: what the
table cannot tell apart, none of these figures can.  Measures are ratios of sums over studies, so that a bootstrap over
studies only has to add up counts again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from core_models.drafting import findings as f
from core_models.drafting import verify
from core_models.drafting.dataset import SourceReport
from core_models.drafting.drafter import OWN_WORDS
from core_models.drafting.evidence import Evidence, Statement
from core_models.drafting.prompt import follows

RESAMPLES = 1000
ORDERS = (1, 2, 3, 4)
COUNTS = (
    *("studies", "given", "stated", "written", "drafted", "supported_drafted"),
    *("text", "text_stated", "against_text", "denied", "denied_both", "denied_stated"),
    *("statements", "unsupported", "contradicted", "rewritten", "own_words", "left_out", "copied", "copied_whole"),
    *("sided", "side_errors", "side_errors_passed", "measured", "measured_stated"),
    *("numbers", "number_errors", "number_errors_passed", "words", "rouge"),
    *("length", "reference_length", *(f"right{n}" for n in ORDERS), *(f"ngrams{n}" for n in ORDERS)),
)
_AT = {name: k for k, name in enumerate(COUNTS)}
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:\.\d+)? ?(?:ml|mm|cm²|cm|HU|%)(?!\w)|(?<![\w.])\d+\.\d+(?!\w|\.\d)|\[\?\]")

Measure = Callable[[np.ndarray], np.ndarray]
"""Sums (..., COUNTS) float64 → (...) float64, NaN where there is nothing to count."""


@dataclass(frozen=True)
class Study:
    """One held-out report as a task: write it from these cards.

    Attributes:
        twin: its text stands word for word in a training report.
    """

    report: SourceReport
    cards: tuple[Evidence, ...]
    twin: bool = False
    modality: str = "CR"

    @property
    def normal(self) -> bool:
        return not given(self.cards)


@dataclass(frozen=True)
class Score:
    """One study under one system: its counts, and the concepts behind them.

    Attributes:
        counts: (COUNTS,) float64.
        given: (concept of a given card, whether a supported sentence states the card).
        said, unsaid: concepts that the draft affirms, denies; `text`, `denied`: those of the reference.
        draft: the whole text.
    """

    study: str
    normal: bool
    twin: bool
    counts: np.ndarray
    given: tuple[tuple[str, bool], ...]
    said: frozenset[str]
    unsaid: frozenset[str]
    text: frozenset[str]
    denied: frozenset[str]
    draft: str


class Memory:
    """What training reports say, letter case, punctuation and the order of sentences aside."""

    def __init__(self, training: Iterable[SourceReport]) -> None:
        self.reports = {_key((*r.findings, *r.impression)) for r in training}
        self.sentences = frozenset().union(*self.reports)

    def holds(self, sentences: Sequence[str]) -> bool:
        """Whether one report says exactly this."""
        return bool(sentences) and _key(sentences) in self.reports

    def copied(self, sentence: str) -> bool:
        return _plain(sentence) in self.sentences


def given(cards: Iterable[Evidence]) -> list[Evidence]:
    """The cards that say that a finding is there, or may be; rejected, normal and measured ones are none."""
    return [
        c for c in cards if c.kind == "finding" and c.status != "rejected" and follows(c) in ("present", "possible")
    ]


def against_cards(cards: Sequence[Evidence], drafted: Sequence[Statement]) -> dict[str, int]:
    """What can be counted without a reference text.

    Returns:
        given: finding cards; stated: those that a supported sentence states (`verify.states`); written: those that
        any sentence states, struck or not; drafted: concepts that any sentence affirms; supported_drafted: those that
        a given card, or the name of a measured structure, licenses; statements; unsupported; contradicted; rewritten;
        own_words; measured and measured_stated: measurement cards and those that a supported sentence gives.
    """
    findings = given(cards)
    measured = [c for c in cards if c.kind == "measurement" and c.status != "rejected"]
    every = [s.template or s.text for s in drafted]
    passed = [s.template or s.text for s in drafted if s.support == "supported"]
    said = affirmed(every)
    licensed = frozenset().union(*(f.licensed(c.statement.split(":")[0]) for c in (*findings, *measured)))
    return {
        "given": len(findings),
        "stated": sum(any(verify.states(text, card) for text in passed) for card in findings),
        "written": sum(any(verify.states(text, card) for text in every) for card in findings),
        "drafted": len(said),
        "supported_drafted": len(said & licensed),
        "statements": len(drafted),
        "unsupported": sum(s.support == "unsupported" for s in drafted),
        "contradicted": sum(s.support == "contradicted" for s in drafted),
        "rewritten": sum(bool(s.rewritten) for s in drafted),
        "own_words": sum(s.step is not None and s.step.follows == OWN_WORDS for s in drafted),
        "measured": len(measured),
        "measured_stated": sum(any(verify.states(text, card) for text in passed) for card in measured),
    }


def score(study: Study, drafted: Sequence[Statement], memory: Memory, left_out: int = 0) -> Score:
    """One study's counts; what the check struck counts as written, since that is the writer's doing.

    Args:
        left_out: sentences that the writer took back (`Draft.left_out`); they count nowhere else.
    """
    reference = (*study.report.findings, *study.report.impression)
    texts = [s.text for s in drafted]
    whole = " ".join(texts)
    text, said = affirmed(reference), affirmed(texts)
    no, unsaid = denied(reference), denied(texts)
    counts: dict[str, float] = {"studies": 1, **against_cards(study.cards, drafted)}
    counts |= {
        "left_out": left_out,
        "text": len(text),
        "text_stated": len(text & said),
        "against_text": len(no & said),
        "denied": len(no),
        "denied_both": len(no & unsaid),
        "denied_stated": len(text & unsaid),
        "copied": sum(map(memory.copied, texts)),
        "copied_whole": memory.holds(texts),
        "words": len(whole.split()),
        **_errors(study.cards, drafted),
        **_overlap(whole, " ".join(reference)),
    }
    passed = [s.template or s.text for s in drafted if s.support == "supported"]
    return Score(
        study.report.id,
        study.normal,
        study.twin,
        np.array([float(counts[name]) for name in COUNTS]),
        tuple(
            (concept, any(verify.states(t, card) for t in passed))
            for card in given(study.cards)
            for concept in sorted(f.concepts_of_term(card.statement)) or ["none of the table"]
        ),
        said,
        unsaid,
        text,
        no,
        whole,
    )


def affirmed(sentences: Iterable[str]) -> frozenset[str]:
    """The concepts that the sentences say are there, or may be."""
    return frozenset(m.concept for s in sentences for m in f.mentions(s) if m.polarity != "absent")


def denied(sentences: Sequence[str]) -> frozenset[str]:
    """The concepts that they say are not there, by name or by a normal structure, with no word of side or degree."""
    plain = {r.concept for s in sentences for r in f.readings(s) if r.polarity == "absent" and not r.sides | r.degrees}
    return frozenset(plain - affirmed(sentences))


def side_errors(text: str, cards: Iterable[Evidence]) -> tuple[int, int]:
    """(findings with a side that a card names, those of them on a side of which no card that licenses them speaks)."""
    sided = wrong = 0
    findings = given(cards)
    for r in f.readings(text):
        named = [c for c in findings if r.concept in f.concepts_of_term(c.statement)]
        if r.polarity == "absent" or not r.own_sides or not named:
            continue
        sided += 1
        licensing = [c for c in findings if r.concept in f.licensed(c.statement)]
        wrong += not r.own_sides <= frozenset().union(*(f.side_of(c.statement) for c in licensing))
    return sided, wrong


def number_errors(text: str, cards: Iterable[Evidence]) -> tuple[int, int]:
    """(measured numbers in the sentence, those that no card gives for a structure that the sentence names)."""
    found = [m[0] for m in _NUMBER.finditer(text)]
    known = {c.value_text for c in cards if c.value is not None and c.statement.split(":")[0].lower() in text.lower()}
    return len(found), sum(number not in known for number in found)


def _errors(cards: Sequence[Evidence], drafted: Sequence[Statement]) -> dict[str, int]:
    out = dict.fromkeys(
        ("sided", "side_errors", "side_errors_passed", "numbers", "number_errors", "number_errors_passed"), 0
    )
    for s in drafted:
        for (count, wrong), all_, errors in (
            (side_errors(s.text, cards), "sided", "side_errors"),
            (number_errors(s.text, cards), "numbers", "number_errors"),
        ):
            out[all_] += count
            out[errors] += wrong
            out[f"{errors}_passed"] += wrong if s.support == "supported" else 0
    return out


@lru_cache(maxsize=1)
def _scorers() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    return RougeScorer(["rougeL"]), BLEU(lowercase=True, effective_order=True)


def _overlap(text: str, reference: str) -> dict[str, float]:
    """ROUGE-L (F1 by rouge-score) and the counts of BLEU-4 (by sacrebleu's tokens), both in lower case."""
    rouge, bleu = _scorers()
    counted = bleu.sentence_score(text, [reference])
    return {
        "rouge": rouge.score(reference, text)["rougeL"].fmeasure,
        "length": counted.sys_len,
        "reference_length": counted.ref_len,
        **{f"right{n}": counted.counts[n - 1] for n in ORDERS},
        **{f"ngrams{n}": counted.totals[n - 1] for n in ORDERS},
    }


def _plain(sentence: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in sentence.lower()).split())


def _key(sentences: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_plain, sentences))


# ---- measures --------------------------------------------------------------------------------------------------------


def _share(above: str, below: str) -> Measure:
    top, bottom = _AT[above], _AT[below]
    return lambda sums: _divided(sums[..., top], sums[..., bottom])


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)


def _f1(recall: Measure, precision: Measure) -> Measure:
    """0 where nothing was drafted; NaN where there was nothing to state."""

    def measure(sums: np.ndarray) -> np.ndarray:
        r, p = recall(sums), np.nan_to_num(precision(sums))
        total = r + p
        return np.divide(2 * r * p, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)

    return measure


def bleu4(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU-4, 0 to 1, of summed counts as sacrebleu reckons it (exponential smoothing of empty orders)."""
    right, ngrams = (np.stack([sums[..., _AT[f"{kind}{n}"]] for n in ORDERS], axis=-1) for kind in ("right", "ngrams"))
    empty = (right == 0) & (ngrams > 0)
    halved = 2.0 ** np.cumsum(empty, axis=-1)
    precision = np.where(empty, 1 / (halved * np.maximum(ngrams, 1)), right / np.maximum(ngrams, 1))
    with np.errstate(divide="ignore"):
        mean = np.exp(np.log(precision).mean(axis=-1))
    length, reference = sums[..., _AT["length"]], sums[..., _AT["reference_length"]]
    brevity = np.exp(np.minimum(0, 1 - reference / np.maximum(length, 1e-9)))
    none = sums[..., _AT["studies"]] == 0
    return np.where(none, np.nan, np.where(right.sum(axis=-1) > 0, brevity * mean, 0.0))


_RECALL, _PRECISION = _share("stated", "given"), _share("supported_drafted", "drafted")
_TEXT_RECALL, _TEXT_PRECISION = _share("text_stated", "text"), _share("text_stated", "drafted")
MEASURES: dict[str, Measure] = {
    "finding_recall": _RECALL,
    "finding_recall_written": _share("written", "given"),
    "finding_precision": _PRECISION,
    "finding_f1": _f1(_RECALL, _PRECISION),
    "text_recall": _TEXT_RECALL,
    "text_precision": _TEXT_PRECISION,
    "text_f1": _f1(_TEXT_RECALL, _TEXT_PRECISION),
    "text_contradicted": _share("against_text", "drafted"),
    "text_denied": _share("denied_stated", "text"),
    "negation_recall": _share("denied_both", "denied"),
    "unsupported_rate": _share("unsupported", "statements"),
    "contradicted_rate": _share("contradicted", "statements"),
    "side_error_rate": _share("side_errors", "sided"),
    "number_recall": _share("measured_stated", "measured"),
    "number_error_rate": _share("number_errors", "numbers"),
    "bleu4": bleu4,
    "rouge_l": _share("rouge", "studies"),
    "words": _share("words", "studies"),
    "copied_rate": _share("copied", "statements"),
    "copied_whole_rate": _share("copied_whole", "studies"),
    "rewritten_rate": _share("rewritten", "statements"),
    "own_words_rate": _share("own_words", "statements"),
    "left_out_rate": _share("left_out", "statements"),
}


def summary(rows: Sequence[Score]) -> dict[str, Any]:
    """Pooled measures of one system.

    Returns:
        {"studies", measure: value or None, "ci95": {measure: [low, high] or None}, "counts": {name: sum},
        "distinct_reports", "distinct_2"}: shares 0 to 1; intervals by a bootstrap over studies (percentiles of
        `RESAMPLES` draws, seed 0); the two of diversity (Li et al., NAACL 2016) have none.
    """
    table = _table(rows)
    sums, drawn = table.sum(0), _draws(len(rows)) @ table
    pairs = [pair for r in rows for pair in pairwise(r.draft.lower().split())]
    counts = ("given", "drafted", "statements", "unsupported", "contradicted", "sided", "side_errors")
    counts += ("side_errors_passed", "measured", "numbers", "number_errors", "number_errors_passed", "against_text")
    return {
        "studies": len(rows),
        **{name: rounded(float(measure(sums))) for name, measure in MEASURES.items()},
        "ci95": {name: _interval(measure(drawn)) for name, measure in MEASURES.items()},
        "counts": {name: int(sums[_AT[name]]) for name in counts},
        "distinct_reports": rounded(len({r.draft for r in rows}) / len(rows)) if rows else None,
        "distinct_2": rounded(len(set(pairs)) / len(pairs)) if pairs else None,
    }


def groups(rows: Sequence[Score]) -> dict[str, Any]:
    """Summaries: all, normal and non-normal studies whose text no training report holds; and with those whose is."""
    apart = [r for r in rows if not r.twin]
    return {
        "all": summary(apart),
        "normal": summary([r for r in apart if r.normal]),
        "non_normal": summary([r for r in apart if not r.normal]),
        "with_twins": summary(rows),
    }


def difference(one: Sequence[Score], other: Sequence[Score], measures: Sequence[str]) -> dict[str, Any]:
    """One system less another on the studies that both wrote: paired bootstrap (Efron and Tibshirani 1993).

    Returns:
        {"studies", measure: {"one", "other", "difference", "ci95", "apart"}}; `apart`: each system's own 95 % interval
        lies wholly on its side of the other's.
    """
    by_study = {r.study: r for r in other}
    pairs = [(r, by_study[r.study]) for r in one if r.study in by_study]
    a, b = (_table([pair[k] for pair in pairs]) for k in (0, 1))
    times = _draws(len(pairs))
    out: dict[str, Any] = {"studies": len(pairs)}
    for name in measures:
        measure = MEASURES[name]
        mine, its = measure(times @ a), measure(times @ b)
        first, second = float(measure(a.sum(0))), float(measure(b.sum(0)))
        own, others = _interval(mine), _interval(its)
        out[name] = {
            "one": rounded(first),
            "other": rounded(second),
            "difference": rounded(first - second),
            "ci95": _interval(mine - its),
            "apart": bool(own and others and (own[0] > others[1] or own[1] < others[0])),
        }
    return out


def per_finding(rows: Sequence[Score]) -> dict[str, dict[str, int]]:
    """Concept → counts over studies, commonest on cards first.

    Returns:
        given: cards of it; stated: of those, by a supported sentence; text: references that affirm it; text_stated: of
        those, drafts that do; drafted: drafts that affirm it; denied: references that deny it; against_text: of
        those, drafts that affirm it; denied_both: of those, drafts that deny it too.
    """
    names = ("given", "stated", "text", "text_stated", "drafted", "denied", "against_text", "denied_both")
    out: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    for r in rows:
        for concept, stated in r.given:
            out[concept]["given"] += 1
            out[concept]["stated"] += stated
        for name, concepts in (
            ("text", r.text),
            ("text_stated", r.text & r.said),
            ("drafted", r.said),
            ("denied", r.denied),
            ("against_text", r.denied & r.said),
            ("denied_both", r.denied & r.unsaid),
        ):
            for concept in concepts:
                out[concept][name] += 1
    return {name: out[name] for name in sorted(out, key=lambda n: (-out[n]["given"], n))}


def rounded(value: float) -> float | None:
    """To four digits, so that a record is readable; None for NaN."""
    return None if np.isnan(value) else round(value, 4)


def _table(rows: Sequence[Score]) -> np.ndarray:
    return np.array([r.counts for r in rows]).reshape(len(rows), len(COUNTS))


@lru_cache(maxsize=16)
def _draws(count: int) -> np.ndarray:
    """(RESAMPLES, studies): how often each study is in each draw."""
    if not count:
        return np.zeros((RESAMPLES, 0))
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(float)


def _interval(values: np.ndarray) -> list[float] | None:
    finite = values[np.isfinite(values)]
    return [round(float(v), 4) for v in np.percentile(finite, (2.5, 97.5))] if len(finite) else None


def mean_and_spread(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Of several runs: measure → mean and sample standard deviation."""
    out = {}
    for name in MEASURES:
        values = [s[name] for s in summaries if s[name] is not None]
        if len(values) > 1:
            out[name] = {"mean": rounded(float(np.mean(values))), "sd": rounded(float(np.std(values, ddof=1)))}
    return out
