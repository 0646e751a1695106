"""Held-out studies as queries → do the priors share their findings, is "no close precedent" said in time, how long.

What a study's findings are is read from its headings, and so are those of a prior: both as concepts of
`core_models.drafting.findings`.  A query made of all headings therefore asks the list of terms for what it holds; the
query with one heading missing, as a board before the reading is finished, is the one that weights are chosen on.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core_models.drafting import findings as f
from retrieval import choice, foreign
from retrieval.fusion import FINDINGS, TEXT, WEIGHTS
from retrieval.report import CorpusReport, Prior
from retrieval.search import MAX_HITS, Hits, Searcher
from retrieval.split import split_of
from retrieval.terms import terms_text

Progress = Callable[[int, int, str], None]

DEPTHS = (1, 3, 5)
GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
VALIDATION_RULE = "training side, sha256('reading-room/fusion/1:' + study_id) mod 10 = 0"
RESAMPLES = 1000
TIMED = 100
ALL, MISSING, INDICATION = "all terms", "one term missing", "indication only"
_NOT_INDEXED = "no indexing"


@dataclass(frozen=True)
class Query:
    """A study as a reader would search for its like.

    Attributes:
        wanted: the concepts of all its headings.
        lists: the searcher's ranked lists for indication and terms, its own study left out.
    """

    study: CorpusReport
    terms: tuple[str, ...]
    wanted: frozenset[str]
    lists: Mapping[str, Hits]


def run(searcher: Searcher, reports: Iterable[CorpusReport], progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Measure the index's search on the corpus's test studies, and choose the weights on its validation studies.

    Args:
        searcher: on an index of the same corpus, which by its own rule holds no test study.
        reports: the corpus.
    """
    usable = [r for r in reports if r.text and r.terms and _NOT_INDEXED not in map(str.lower, r.terms)]
    validation = [r for r in usable if split_of(r.study_id) == "train" and _validates(r.study_id)]
    test = [r for r in usable if split_of(r.study_id) == "test"]
    progress(0, 5, "Choosing the weights")
    chosen = _choose_weight(searcher, _queries(searcher, validation, MISSING))
    out: dict[str, Any] = {
        "data": f"{len(test)} test studies; the index's {len(searcher.index.reports)} reports are searched",
        "index": searcher.index.digest[:12],
        "weights": dict(WEIGHTS),
        "weights_chosen": chosen,
        "queries": {},
        "no_close_precedent": {},
    }
    for step, kind in enumerate((ALL, MISSING, INDICATION), start=1):
        progress(step, 5, f"Searching with {kind}")
        queries = _queries(searcher, test, kind)
        out["queries"][kind] = _shared_findings(searcher, queries)
        shown = [_shown(searcher, q.study.indication, q.terms) for q in queries]
        out["no_close_precedent"][kind] = _share([not any(p.close for p in priors) for priors in shown])
    progress(4, 5, "Searching for what is in no chest radiograph")
    for name, asked in (("foreign", foreign.SEEN), ("foreign, written after the rule", foreign.UNSEEN)):
        shown = [_shown(searcher, indication, terms) for indication, terms in asked]
        out["no_close_precedent"][name] = _share([not any(p.close for p in priors) for priors in shown])
        alone = [searcher.search(indication, terms=terms).close for indication, terms in asked]
        out["no_close_precedent"][f"{name}, by similarity alone"] = _share([not close for close in alone])
    out["no_close_precedent"]["threshold"] = searcher.index.manifest.minimum
    out["chosen"] = _chosen(searcher, test)
    times = [searcher.search(r.indication, terms=_board(r)).milliseconds for r in test[:TIMED]]
    out |= {f"search_ms_p{p}": round(float(np.percentile(times, p)), 1) for p in (50, 95)}
    progress(5, 5, "Done")
    return out


def _choose_weight(searcher: Searcher, queries: Sequence[Query]) -> dict[str, Any]:
    tried = {
        weight: float(np.mean([_jaccard(searcher, q, {TEXT: 1.0, FINDINGS: weight}, 5) for q in queries]))
        for weight in GRID
    }
    # The nearest to equal weights among equally good ones.
    best = max(tried, key=lambda w: (round(tried[w], 4), -abs(math.log(w))))
    return {
        "findings_to_text": best,
        "jaccard@5": {f"{w:g}": round(v, 4) for w, v in tried.items()},
        "studies": len(queries),
        "rule": VALIDATION_RULE,
        "query": MISSING,
    }


def _shared_findings(searcher: Searcher, queries: Sequence[Query]) -> dict[str, Any]:
    """For each way to rank: how the concepts of the first 1, 3 and 5 priors agree with the study's."""
    reports = searcher.index.reports
    texts = Counter(r.text.casefold() for r in reports)
    commonest = next(r for r in reports if r.text.casefold() == texts.most_common(1)[0][0])
    chance = random.Random(0)
    ways: dict[str, Callable[[Query], list[CorpusReport]]] = {
        "random report": lambda q: chance.sample(_others(reports, q.study), max(DEPTHS)),
        "commonest report": lambda q: [commonest] * max(DEPTHS),
        "text": lambda q: _ranked(searcher, q, {TEXT: 1.0}),
        "terms": lambda q: _ranked(searcher, q, {FINDINGS: 1.0}),
        "fused, equal weights": lambda q: _ranked(searcher, q, {TEXT: 1.0, FINDINGS: 1.0}),
        "fused, as shipped": lambda q: _ranked(searcher, q, WEIGHTS),
    }
    found = {name: [[_concepts(r) for r in way(q)] for q in queries] for name, way in ways.items()}
    wanted = [q.wanted for q in queries]
    other = [n for n, w in enumerate(wanted) if w != {f.NORMAL_TERM}]
    return {
        "studies": len(queries),
        "not_normal": len(other),
        "ways": {
            name: {"all": _figures(priors, wanted), "not_normal": _figures(_at(priors, other), _at(wanted, other))}
            for name, priors in found.items()
        },
        "shipped_minus_text": {
            f"jaccard@{k}": _mean(
                [
                    _agree(a[:k], w) - _agree(b[:k], w)
                    for a, b, w in zip(found["fused, as shipped"], found["text"], wanted, strict=True)
                ]
            )
            for k in DEPTHS
        },
    }


def _figures(found: Sequence[list[frozenset[str]]], wanted: Sequence[frozenset[str]]) -> dict[str, Any]:
    pairs = list(zip(found, wanted, strict=True))
    return {
        **{f"jaccard@{k}": _mean([_agree(priors[:k], w) for priors, w in pairs]) for k in DEPTHS},
        "precision@1": _mean([len(p[0] & w) / len(p[0]) if p and p[0] else 0.0 for p, w in pairs]),
        "recall@1": _mean([len(p[0] & w) / len(w) if p else 0.0 for p, w in pairs]),
    }


def _shown(searcher: Searcher, indication: str, terms: Sequence[str]) -> tuple[Prior, ...]:
    """The priors that a board with these terms would be given."""
    board = [choice.Finding(f"E{n}", term) for n, term in enumerate(terms, 1)]
    hits = searcher.search(indication, terms=terms, k=MAX_HITS).priors
    return choice.chosen(hits, board)


def _chosen(searcher: Searcher, test: Sequence[CorpusReport]) -> dict[str, Any]:
    """How many priors are put on the board, and what of the study's findings they hold, beside the first five."""
    counts: Counter[int] = Counter()
    contradicting: list[bool] = []
    figures: dict[str, list[float]] = {}
    for study in test:
        terms, wanted = _board(study), _concepts(study)
        shown = [p for p in _shown(searcher, study.indication, terms) if p.close]
        picked = [p for p in shown if p.stance != "contradicts"]
        counts[len(picked)] += 1
        contradicting.append(len(shown) > len(picked))
        five = searcher.search(study.indication, terms=terms, k=choice.MOST).priors
        for name, priors in (("", picked), (", first five", five)):
            own = [_concepts(p.report) for p in priors]
            right = [len(c & wanted) / max(1, len(c)) for c in own]
            figures.setdefault(f"recall{name}", []).append(len(frozenset().union(*own) & wanted) / len(wanted))
            if right:
                figures.setdefault(f"precision{name}", []).append(float(np.mean(right)))
    return {
        "priors": {str(n): counts[n] for n in sorted(counts)},
        "with_a_contradicting_one": _share(contradicting),
        **{name: _mean(values) for name, values in figures.items()},
    }


def _queries(searcher: Searcher, studies: Sequence[CorpusReport], kind: str) -> list[Query]:
    asked = [(s, terms) for s in studies if (terms := _asked(s, kind)) is not None and _concepts(s)]
    texts = [". ".join(t for t in (s.indication, terms_text(terms)) if t) for s, terms in asked]
    vectors = searcher.encoder.encode(texts)
    study_ids = np.array([r.study_id for r in searcher.index.reports])
    out = []
    for (study, terms), vector in zip(asked, vectors, strict=True):
        lists = searcher.lists(vector, terms, None, study_ids != study.study_id, MAX_HITS)
        out.append(Query(study, terms, _concepts(study), lists))
    return out


def _asked(study: CorpusReport, kind: str) -> tuple[str, ...] | None:
    """The terms of the query; None where the study has no query of this kind."""
    board = _board(study)
    if kind == ALL:
        return board
    if kind == INDICATION:
        return () if any(c.isalpha() for c in study.indication) else None
    found = [t for t in board if t not in f.NORMAL_TERMS]
    if len(found) < 2:
        return None
    dropped = found[_hash("dropped", study.study_id) % len(found)]
    return tuple(t for t in board if t != dropped)


def _board(study: CorpusReport) -> tuple[str, ...]:
    """The headings as a reader would put them on the board; the rest is said to be normal."""
    terms = tuple(t for t in study.terms if t.strip().lower() != f.NORMAL_TERM)
    return (*terms, f.OTHERWISE_NORMAL if terms else f.NORMAL_TERM)


def _ranked(searcher: Searcher, query: Query, weights: Mapping[str, float]) -> list[CorpusReport]:
    lists = {name: hits for name, hits in query.lists.items() if name in weights}
    return [searcher.index.reports[row] for _, row in searcher.fused(lists, weights)[: max(DEPTHS)]]


def _jaccard(searcher: Searcher, query: Query, weights: Mapping[str, float], k: int) -> float:
    return _agree([_concepts(r) for r in _ranked(searcher, query, weights)[:k]], query.wanted)


def _agree(found: Sequence[frozenset[str]], wanted: frozenset[str]) -> float:
    """Mean Jaccard index; 0 where nothing is found."""
    return float(np.mean([len(c & wanted) / len(c | wanted) for c in found])) if found else 0.0


def _concepts(report: CorpusReport) -> frozenset[str]:
    """The concepts of the report's headings; "normal" where they name none but that."""
    return frozenset().union(*map(f.concepts_of_term, report.terms)) or (
        frozenset({f.NORMAL_TERM}) if f.NORMAL_TERM in map(str.lower, report.terms) else frozenset()
    )


def _others(reports: Sequence[CorpusReport], study: CorpusReport) -> list[CorpusReport]:
    return [r for r in reports if r.study_id != study.study_id]


def _validates(study_id: str) -> bool:
    return _hash("fusion/1", study_id) % 10 == 0


def _hash(salt: str, study_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"reading-room/{salt}:{study_id}".encode()).digest()[:8], "big")


def _at(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[n] for n in places]


def _share(said: Sequence[bool]) -> dict[str, Any]:
    return {**_mean([float(s) for s in said]), "queries": len(said)}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """The mean with its 95 % interval (percentile bootstrap over studies)."""
    values = np.asarray(values, dtype=np.float64)
    again = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(again, (2.5, 97.5))
    return {"mean": round(float(values.mean()), 4), "interval": [round(float(low), 4), round(float(high), 4)]}
