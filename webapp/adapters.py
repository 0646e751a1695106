"""Signed reports → a candidate adapter, its verdict, and, where that is good, the adapter that drafts from now on.

The candidate goes on from the adapter in use: the signed reports are shown to it several times among pairs of the
corpus, so that it does not forget them.  It is judged on studies that neither it nor the old one was trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from core_models.drafting import adapter, evaluation, promotion, vision_language
from core_models.drafting.dataset import Dataset, Example, signed_example
from core_models.drafting.drafter import MODALITIES, Drafter
from core_models.drafting.promotion import Verdict
from core_models.errors import NotFound, Refused
from retrieval.training import source_reports
from webapp import learning
from webapp.settings import Settings
from webapp.store import Store

RECIPE = adapter.Recipe(learning_rate=1e-4, warmup_steps=10, epochs=1)
SHOWN = 3  # times that a signed report is shown
BESIDE = 480  # pairs of the corpus beside them
HELD_OUT = 120  # studies of the fixed held-out set
VERDICT = "verdict.json"

Say = Callable[[str], None]
Case = tuple[str, tuple[Any, ...], str, str]
"""(study, cards, indication, DICOM modality)."""


def from_store(settings: Settings, store: Store, say: Say, compiled: bool = False) -> dict[str, Any]:
    """Train on the signed reports, judge the candidate, and promote it where it is better.

    Raises:
        Refused: too few signed reports.  ModelMissing: a part is not there.
    """
    cases, latest = learning.apart(learning.training_studies(store))
    examples = [e for c in cases if (e := _example(c)) is not None]
    if not examples:
        raise Refused(
            f"There are too few signed reports to learn from: {len(cases) + len(latest)} hold a sentence that a card "
            f"supports, and the latest {promotion.MIN_CASES} are kept to judge by."
        )
    name = f"signed-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    out, old = promotion.folder(settings.home, name), promotion.resolve(settings.home, settings.adapter)
    train, test = source_reports("open-i")
    corpus, held = Dataset(train), Dataset(test)
    say(f"{len(examples)} signed reports to learn from, {len(latest)} to judge by; the candidate is called {name}")

    def pairs(epoch: int) -> Sequence[Example]:
        beside = corpus.examples(epoch)
        return [*examples * SHOWN, *random.Random(epoch).sample(beside, min(BESIDE, len(beside)))]

    base = vision_language.load(settings.models, None, settings.threads)
    held_out = [e for k in range(len(held)) if (e := held.example(k, None))]
    summary = adapter.train(base, pairs, held_out, out, RECIPE, start=old, compiled=compiled, log=say)
    fixed = [
        (r.id, evaluation.board(r), r.indication, "CR")
        for r in evaluation.without_twins(evaluation.usable(test), train)[:HELD_OUT]
    ]
    recent = [(c.study_id, c.cards, c.indication, c.modality) for c in latest]
    rows = {}
    for which, place in (("old", old), ("new", out)):
        say(f"judging the {which} adapter on {len(fixed)} held-out and {len(recent)} signed studies")
        drafter = Drafter(vision_language.load(settings.models, place, settings.threads))
        rows[which] = (evaluation.score_rows(drafter, fixed), evaluation.score_rows(drafter, recent))
    verdict = promotion.decide(rows["old"][0], rows["new"][0], rows["old"][1], rows["new"][1])
    (out / VERDICT).write_text(json.dumps(asdict(verdict), indent=1) + "\n", encoding="utf-8")
    for reason in verdict.reasons:
        say(reason)
    if verdict.promote:
        promotion.promote(settings.home, name, verdict)
    say(f"The {name} adapter was {'promoted' if verdict.promote else 'not promoted'}.")
    return {"adapter": name, **asdict(verdict), "training": summary}


def promote(settings: Settings, name: str) -> None:
    """Put a candidate in use again, on the verdict that its training ended with.

    Raises:
        NotFound: there is no such candidate, or it was never judged.  Refused: it was judged to be no better.
    """
    path = promotion.folder(settings.home, name) / VERDICT
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        verdict = Verdict(bool(stored["promote"]), tuple(map(str, stored["reasons"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFound(f"There is no judged adapter {name!r} here.") from error
    promotion.promote(settings.home, name, verdict)


def _example(case: learning.SignedCase) -> Example | None:
    modality = MODALITIES.get(case.modality, "radiograph")
    return signed_example(case.study_id, case.indication, modality, case.cards, case.statements)
