"""Held-out reports in → how well drafts state what the cards assert, beside lazy ways of writing a report.

The cards are the study's own finding headings, so this measures the writing and not the reading of images (for that see
`evaluate_pictures`).  What is counted, and by which table of findings, is in `scores`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core_models.drafting import baselines, dataset, scores
from core_models.drafting import findings as f
from core_models.drafting.dataset import SourceReport
from core_models.drafting.drafter import Drafter, Job, PriorText
from core_models.drafting.evidence import Draft, DraftModel, Evidence, Statement
from core_models.drafting.scores import Memory, Score, Study

ABLATED = 40  # studies for the ablations and the seeds: each costs as much as the model itself
SEEDS, TEMPERATURE = (1, 2, 3), 0.5
MEASURED = 20  # boards with measurements
OF_A_SEGMENT = ("volume", "mean attenuation", "longest axial diameter")
EXAMPLES = 10
FAILURES = 40  # shown; all are counted
COMPARED = ("finding_recall", "finding_recall_written", "finding_f1", "text_f1", "rouge_l", "bleu4")
_NOT_INDEXED = "no indexing"

Progress = Callable[[int, int, str], None]
Case = tuple[str, Sequence[Evidence], str, str]
"""(study, cards, indication, DICOM modality)."""
Priors = Callable[[SourceReport], Sequence[PriorText]]
System = Callable[[Sequence[Study], Callable[[int], None]], list[Draft]]
"""Studies, and who is told how many are done → their drafts."""


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
    memory = Memory(training)
    return [r for r in held if not memory.holds((*r.findings, *r.impression))]


def studies_of(held: Sequence[SourceReport], memory: Memory) -> list[Study]:
    """The usable held-out reports by id, those that training holds word for word after the others."""
    studies = [Study(r, board(r), memory.holds((*r.findings, *r.impression))) for r in usable(held)]
    return sorted(studies, key=lambda s: (s.twin, s.report.id))


def measured_boards(studies: Sequence[Study], count: int = MEASURED) -> list[Study]:
    """Boards that hold numbers, by turns: a held-out study's own cards with ratios and areas of its radiograph, and
    three segments of a CT, their cards in the page's order; structures and numbers are drawn (seed 0).
    """
    rng = random.Random(0)
    out = []
    for k, study in enumerate([s for s in studies if not s.normal][:count]):
        if k % 2:
            drawn = [(s, region, OF_A_SEGMENT) for s, region in rng.sample(dataset.STRUCTURES, 3)]
            report, cards, modality = SourceReport(f"measured-{k}", "", (), (), ()), [], "CT"
        else:
            drawn = rng.sample(dataset.ON_RADIOGRAPHS, 2)
            report, cards, modality = study.report, list(study.cards), study.modality
        for structure, region, quantities in drawn:
            for quantity in quantities:
                value, unit = _value(quantity, rng)
                statement = dataset.card_text(structure, quantity)
                cards.append(Evidence("", "measurement", region, statement, value, unit, source="drawn"))
        numbered = tuple(replace(card, id=f"E{n}") for n, card in enumerate(cards, 1))
        out.append(Study(report, numbered, modality=modality))
    return out


def _value(quantity: str, rng: random.Random) -> tuple[float, str]:
    low, high, unit = {
        "volume": (5, 1800, "ml"),
        "area": (20, 300, "cm²"),
        "mean attenuation": (-80, 180, "HU"),
        "longest axial diameter": (5, 250, "mm"),
        "cardiothoracic ratio": (0.35, 0.7, ""),
        "right to left ratio": (0.8, 1.4, ""),
    }[quantity]
    return rng.uniform(low, high), unit


# ---- who writes ------------------------------------------------------------------------------------------------------


def model(
    drafter: Drafter,
    priors: Priors = lambda _: (),
    *,
    steps: bool = True,
    seed: int = 0,
    temperature: float = 0.0,
) -> System:
    """The drafter as the page uses it; without `steps` it cites nothing, and every card counts as cited."""

    def write(studies: Sequence[Study], say: Callable[[int], None]) -> list[Draft]:
        jobs = [
            Job(
                s.cards,
                tuple(priors(s.report)),
                s.report.indication,
                s.modality,
                seed=seed,
                temperature=temperature,
                steps=steps,
            )
            for s in studies
        ]
        return drafter.many(jobs, lambda done, _: say(done))

    return write


def lazy(write: baselines.Write) -> System:
    """A baseline among the systems."""
    nobody = DraftModel("baseline", "", "", 0)

    def system(studies: Sequence[Study], say: Callable[[int], None]) -> list[Draft]:
        out = []
        for study in studies:
            out.append(Draft(write(study), nobody))
            say(len(out))
        return out

    return system


def score_rows(drafter: Drafter, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One adapter's counts for `promotion.decide`, a row per case in its order, from greedy drafts without priors.

    A board that the drafter would refuse, because it holds nothing to write from, counts as an empty report.
    """
    jobs = {n: Job(tuple(cards), (), text, modality) for n, (_, cards, text, modality) in enumerate(cases)}
    wanted = {n: job for n, job in jobs.items() if _writable(job.cards)}
    drafts = dict(zip(wanted, drafter.many([*wanted.values()]), strict=True))
    rows = []
    for n, (study, cards, _, _) in enumerate(cases):
        drafted: tuple[Statement, ...] = drafts[n].statements if n in drafts else ()
        rows.append({"study": study} | scores.against_cards(cards, drafted))
    return rows


def _writable(cards: Iterable[Evidence]) -> bool:
    return any(c.status != "rejected" and c.kind in ("finding", "measurement", "comparison") for c in cards)


# ---- the evaluation --------------------------------------------------------------------------------------------------


def run(
    drafter: Drafter,
    training: Sequence[SourceReport],
    held: Sequence[SourceReport],
    priors: Priors,
    embed: baselines.Embed,
    limit: int = 0,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Every system on the fixed held-out studies.

    Args:
        priors: what the search finds for a report, as the page would hand it to the drafter.
        embed: texts → unit vectors of the index.
        limit: only the first N studies; 0 for all, where ablations and seeds take the first `ABLATED`.

    Returns:
        {"studies": of "all", "systems": {name: {"all" | "normal" | "non_normal" | "with_twins": `scores.summary`,
        "per_finding", "seconds"}}, "seeds", "differences", "numbers", "examples", "failures", ...}.
    """
    known = usable(training)
    memory = Memory(training)
    studies = studies_of(held, memory)
    some = studies[:limit] if limit else studies
    few = studies[: min(limit or ABLATED, ABLATED)]
    found = {s.report.id: tuple(priors(s.report)) for s in some}
    remembered: Priors = lambda report: found[report.id]  # noqa: E731

    systems: dict[str, tuple[System, Sequence[Study]]] = {
        "model": (model(drafter, remembered), some),
        "without_priors": (model(drafter), few),
        "without_steps": (model(drafter, remembered, steps=False), few),
        "nearest_label": (lazy(baselines.nearest_label(known)), some),
        "nearest_text": (lazy(baselines.nearest_text(known, embed)), some),
        "constant_normal": (lazy(baselines.constant_normal(known)), some),
        "templates": (lazy(baselines.templates), some),
        "reference": (lazy(baselines.reference), some),
    }
    systems |= {f"seed {seed}": (model(drafter, remembered, seed=seed, temperature=TEMPERATURE), few) for seed in SEEDS}
    boards = measured_boards(studies, min(limit or MEASURED, MEASURED))
    systems["numbers"] = (model(drafter), boards)
    drafts, seconds = _written(systems, progress)
    rows = {
        name: [scores.score(s, d.statements, memory, len(d.left_out)) for s, d in zip(on, drafts[name], strict=True)]
        for name, (_, on) in systems.items()
    }
    return {
        "studies": sum(not s.twin for s in some),
        "twins": sum(s.twin for s in some),
        "limit": limit,
        "systems": {
            name: scores.groups(rows[name])
            | {
                "per_finding": scores.per_finding([r for r in rows[name] if not r.twin]),
                "seconds": round(seconds[name], 1),
                "incomplete": sum(not d.complete for d in drafts[name]),
            }
            for name in systems
            if name != "numbers" and not name.startswith("seed ")
        },
        "seeds": _seeds(rows, {s.report.id for s in few}),
        "differences": _differences(rows),
        "numbers": scores.summary(rows["numbers"]),
        "examples": [_shown(s, d) for s, d in _first(some, drafts["model"])],
        "failures": _failures(some, drafts["model"]),
        "model": drafter.model.name,
        "adapter": drafter.model.adapter,
        "seconds": round(sum(seconds.values()), 1),
    }


def _written(
    systems: Mapping[str, tuple[System, Sequence[Study]]], progress: Progress
) -> tuple[dict[str, list[Draft]], dict[str, float]]:
    total, before = sum(len(on) for _, on in systems.values()), 0
    drafts: dict[str, list[Draft]] = {}
    seconds: dict[str, float] = {}
    for name, (write, on) in systems.items():
        began = time.monotonic()
        drafts[name] = write(on, lambda done, name=name, before=before: progress(before + done, total, name))
        seconds[name] = time.monotonic() - began
        before += len(on)
    return drafts, seconds


def _seeds(rows: Mapping[str, list[Score]], few: set[str]) -> dict[str, Any]:
    """The sampled drafts one by one and together, beside the greedy ones of the same studies."""
    runs = {seed: scores.summary([r for r in rows[f"seed {seed}"] if not r.twin]) for seed in SEEDS}
    greedy = [r for r in rows["model"] if r.study in few and not r.twin]
    return {
        "temperature": TEMPERATURE,
        "studies": len(greedy),
        "greedy": _bare(scores.summary(greedy)),
        "runs": [{"seed": seed} | _bare(one) for seed, one in runs.items()],
        "over_seeds": scores.mean_and_spread([*runs.values()]),
    }


def _bare(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in scores.MEASURES}


def _differences(rows: Mapping[str, list[Score]]) -> dict[str, Any]:
    """The model beside each other system, on the studies that both wrote, twins of training reports left out."""
    out: dict[str, Any] = {}
    for name in ("nearest_label", "nearest_text", "templates", "without_priors", "without_steps"):
        mine, its = ([r for r in rows[system] if not r.twin] for system in ("model", name))
        out[name] = {
            "all": scores.difference(mine, its, COMPARED),
            "non_normal": scores.difference([r for r in mine if not r.normal], its, COMPARED),
        }
    return out


def _first(studies: Sequence[Study], drafts: Sequence[Draft]) -> list[tuple[Study, Draft]]:
    """The first studies by id, twins or not: nobody picked them."""
    return sorted(zip(studies, drafts, strict=True), key=lambda pair: pair[0].report.id)[:EXAMPLES]


def _shown(study: Study, draft: Draft) -> dict[str, Any]:
    """A draft as the page of figures shows it, without reference and indication: those are the corpus's text."""
    return {
        "study": study.report.id,
        "cards": [f"{c.id} {c.text}" for c in study.cards],
        "statements": [_statement(s) for s in draft.statements],
    }


def _statement(s: Statement) -> dict[str, Any]:
    return {
        "section": s.section,
        "text": s.text,
        "evidence": list(s.evidence),
        "support": s.support,
        "note": s.note,
        "rewritten": bool(s.rewritten),
    }


def _failures(studies: Sequence[Study], drafts: Sequence[Draft]) -> dict[str, Any]:
    """All sentences of the model that contradict a card; where there is none, all that no card supports."""
    every = [(s.report.id, one) for s, d in zip(studies, drafts, strict=True) for one in d.statements]
    kind = "contradicted" if any(one.support == "contradicted" for _, one in every) else "unsupported"
    failed = sorted(
        ((study, one) for study, one in every if one.support == kind), key=lambda pair: (pair[0], pair[1].id)
    )
    return {
        "kind": kind,
        "count": len(failed),
        "shown": [{"study": study} | _statement(one) for study, one in failed[:FAILURES]],
    }
