"""Cards, priors, indication and picture in → a stream of events that ends in a checked `Draft` out.

The model sees the cards under its own numbers (E1, E2, … in board order) and writes one line a statement
(`statements.py`), held to its form (`form.py`).  Each line is checked at once (`verify.py`): one that the cards do not
support is written again, up to three times, and if all fail it stands there marked.  Only a sentence that calls a
region normal where a card says otherwise is left out, and named: it rests on "all else is normal" and adds nothing to
what that card says.  A report does not end before every card is written about, nor the findings of a radiograph before
heart, lungs and pleura are called normal where a card says that the rest is; a card that the model does not state
even when it is made to is stated in its own words.  Numbers come from the cards, never from the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core_models.drafting import decoding, phrases, prompt, statements, verify, vision_language
from core_models.drafting import findings as f
from core_models.drafting.adapter import opening
from core_models.drafting.evidence import IMAGE, Draft, DraftModel, Evidence, Section, Statement, Step
from core_models.drafting.form import CORE, Form
from core_models.drafting.vision_language import VisionLanguage
from core_models.errors import Refused

if TYPE_CHECKING:
    import numpy as np

NO_CARD = "E0"  # the board counts from E1
READER = "reader"  # the source of a finding that no model proposed
TRIES, TRY_AT = 3, 0.7  # how often a refused sentence is written again, and at what temperature
BATCH = 12  # reports written in step
UNNAMED = "measured by the reader and not named: stated as it is"
OWN_WORDS = "stated in the card's own words: the model did not write about it"
COARSE = "The language model saw the radiograph as 64 coarse tokens only; what it may state comes from the cards."
NO_PICTURE = "Images were not read by the language model: it writes from the cards on the board."
MODALITIES = {"CR": "radiograph", "DX": "radiograph", "CT": "CT", "MR": "MR"}


@dataclass(frozen=True)
class Job:
    """All that one draft is made from.

    Attributes:
        cards: the board; rejected ones do not count.
        picture: (h, w) grey levels of the radiograph, bright = dense; None: none is given.
        temperature: 0 writes the likeliest word each time, and the same draft for the same board.
        seed: of what is drawn: with a temperature all, else only sentences that are written again.
        steps: whether the reasoning is written before each sentence (without: an experiment of `evaluation`).
    """

    cards: tuple[Evidence, ...]
    priors: tuple[PriorText, ...] = ()
    indication: str = ""
    modality: str = "CR"
    picture: np.ndarray | None = field(default=None, compare=False)
    seed: int = 0
    temperature: float = 0.0
    steps: bool = True


@dataclass(frozen=True)
class Omission:
    """What a redraft does without: the image, the priors, or one card (`id`)."""

    kind: Literal["image", "priors", "card"]
    id: str = ""

    def of(self, job: Job) -> Job:
        """The job without it."""
        if self.kind == "image":
            return replace(job, picture=None)
        if self.kind == "priors":
            return replace(job, priors=())
        return replace(job, cards=tuple(c for c in job.cards if c.id != self.id))


@dataclass(frozen=True)
class PriorText:
    """A prior report as the drafter may quote it: id ("P1"), its text and finding headings; untrusted.

    Attributes:
        matched: its sentences nearest to what was asked for.
        said: (card's id, the sentence that states what the card does).
    """

    id: str
    findings: str = ""
    impression: str = ""
    terms: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()
    said: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Started:
    """The model is about to write."""

    model: DraftModel
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Partial:
    """A statement so far."""

    statement_id: str
    section: Section
    region: str
    evidence: tuple[str, ...]
    step: Step | None
    text: str


@dataclass(frozen=True)
class Finished:
    """A whole statement, checked."""

    statement: Statement


@dataclass(frozen=True)
class Done:
    """The whole draft."""

    draft: Draft


DraftEvent = Started | Partial | Finished | Done


def load(models: Path, adapter: Path | None, threads: int | None = None) -> Drafter:
    """Open the prepared model with its adapter.

    Raises:
        ModelMissing: the language model or the adapter is not there; the message names the command that makes it.
        Refused: the adapter is pickled, damaged or made for another base.
    """
    return Drafter(vision_language.load(models, adapter, threads))


@dataclass
class _Plan:
    """A job as the model reads it, and the way back to the board's own ids."""

    job: Job
    read: list[Evidence]
    form: Form
    names: dict[str, str]  # the model's ids → the board's
    text: str
    unseen: tuple[str, ...]
    info: DraftModel
    unnamed: tuple[Evidence, ...] = ()  # no model puts a number into words of which nobody said what it measures


class Drafter:
    """One loaded model; `stream` and `many` may be called from any thread, one at a time is written.

    Args:
        core: regions that the findings of a radiograph speak of where a card says that the rest is normal (`Form`).
    """

    def __init__(self, model: VisionLanguage, core: Sequence[str] = CORE) -> None:
        self.model = model
        self.core = core
        self._lock = threading.Lock()

    @cached_property
    def words(self) -> decoding.Words:
        return decoding.Words(self.model.tokenizer, self.model.model.get_output_embeddings().weight.shape[0])

    def stream(self, job: Job, cancelled: Callable[[], bool] = lambda: False) -> Iterator[DraftEvent]:
        """Write a draft.

        Raises:
            Refused: there is no card to write from (rejected cards do not count): no source, no assertion.
        """
        plan = self._plan(job)
        with self._lock:
            yield Started(plan.info, plan.unseen)
            writing = decoding.run(self.model.model, [self._row(plan)], [self._report(plan)])
            number = 1
            finished: list[Statement] = []
            for _, thing in writing:
                if isinstance(thing, decoding.Said):
                    shown = self._statement(plan, thing.line, number)
                    if shown is not None:
                        text = shown.text.partition("{")[0]  # half a placeholder is not shown
                        yield Partial(shown.id, shown.section, shown.region, shown.evidence, shown.step, text)
                else:
                    if isinstance(thing, Finished):
                        number += 1
                        finished.append(thing.statement)
                    yield thing
                if cancelled():
                    writing.close()
                    yield Done(Draft(tuple(finished), plan.info, plan.unseen, complete=False))
                    return

    def many(self, jobs: Sequence[Job], progress: Callable[[int, int], None] = lambda *_: None) -> list[Draft]:
        """Write several drafts in step: a third of the time that they take one by one.

        The words may differ from `stream`'s where two were almost equally likely: sums are taken in another order.
        """
        plans = [self._plan(job) for job in jobs]
        order = sorted(range(len(plans)), key=lambda i: len(plans[i].text))
        drafts: dict[int, Draft] = {}
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            with self._lock:
                rows = [self._row(plans[i]) for i in some]
                for r, thing in decoding.run(self.model.model, rows, [self._report(plans[i]) for i in some]):
                    if isinstance(thing, Done):
                        drafts[some[r]] = thing.draft
            progress(len(drafts), len(plans))
        return [drafts[i] for i in range(len(plans))]

    def _plan(self, job: Job) -> _Plan:
        usable = [c for c in job.cards if c.status != "rejected" and c.kind in ("finding", "measurement", "comparison")]
        if not usable:
            raise Refused("There is nothing to write from: add a finding or segment an organ first.")
        unnamed = tuple(c for c in usable if c.unnamed)
        usable = [c for c in usable if not c.unnamed]
        read, left = usable[: prompt.MAX_CARDS], usable[prompt.MAX_CARDS :]
        quoted = [(p.id, text) for p in job.priors for text in quotes(p, read)][: prompt.MAX_PRIORS]
        names = {f"E{k}": card.id for k, card in enumerate(read, 1)}
        names |= {f"P{k}": ident for k, (ident, _) in enumerate(quoted, 1)}
        lines = [prompt.Line(c.region, c.statement, prompt.follows(c)) for c in read]
        modality = MODALITIES.get(job.modality, "radiograph")
        text = prompt.build(job.indication, lines, [t for _, t in quoted], modality, job.steps)
        core = self.core if modality == MODALITIES["DX"] else ()
        seen = "" if job.picture is None else COARSE if self.model.sees else self.model.blind
        unseen = (seen or NO_PICTURE, *_unseen(job, left, usable))
        # Whoever searched for the priors knows the index, and fills in its digest.
        info = DraftModel(self.model.name, self.model.adapter, "", job.seed)
        return _Plan(job, read, Form(lines, len(quoted), job.steps, core), names, text, unseen, info, unnamed)

    def _row(self, plan: _Plan) -> decoding.Row:
        shown = plan.job.picture is not None and self.model.sees
        inputs = {}
        if shown:
            inputs["pixel_values"] = vision_language.pixels(plan.job.picture, self.model.image_size)
        return decoding.Row(opening(self.model, plan.text, shown), inputs)

    def _report(self, plan: _Plan) -> Generator[Any, Any, None]:
        """One report: what `decoding.Pen` needs of the model, and `Finished` and `Done` events."""
        began = time.monotonic()
        form = plan.form
        pen = decoding.Pen(self.words, form, plan.job.seed, plan.job.temperature)
        out: list[Statement] = []
        left_out: list[Statement] = []
        malformed = repeated = 0
        about, owed = 0, False
        complete = not plan.read
        for own in self._unnamed(plan):
            out.append(own)
            yield Finished(own)
        while plan.read and pen.tokens < decoding.MAX_TOKENS:
            written = yield from pen.line(about, owed)
            owed = False
            if written is None:
                if about and (missing := form.uncovered()):  # no line may be about that card any more
                    about = missing[0]
                    continue
                complete = True
                break
            statement = first = self._statement(plan, written.line, len(out) + 1)
            tries = 0
            whole = form.rests_on_the_whole(written.ids)  # another region can be called normal: one more try
            while statement is not None and statement.support != "supported" and tries < (1 if whole else TRIES):
                tries += 1
                written = yield from pen.again(TRY_AT)
                another = self._statement(plan, written.line, len(out) + 1)
                statement = statement if another is None else replace(another, rewritten=first.text)
            if statement is not None and whole and _falsely_normal(statement):
                left_out.append(statement)
                yield from pen.take_back()
                continue
            if statement is None:
                malformed += 1
            elif any(_same(statement, other) or _normal_twice(statement, other) for other in out):
                repeated += 1
            else:
                out.append(statement)
                yield Finished(statement)
                if statement.support == "supported":
                    form.covered |= {k for k in written.ids if verify.states(_words(statement), plan.read[k - 1])}
            if whole and statement is not None:  # if only in vain
                form.called |= {statement.region} | {f.BY_NAME[r.concept].region for r in f.readings(_words(statement))}
            about = 0
            if written.ends and form.owed()[1]:
                owed = True
                pen.go_on()
            elif written.ends or not form.sections():
                if not (missing := form.uncovered()):
                    complete = True
                    break
                about = missing[0]
                if written.ends:
                    pen.go_on()
        if complete and plan.job.steps:
            for k in form.unstated():
                own = self._own_words(plan, plan.read[k - 1], len(out) + 1)
                if own is not None:
                    out.append(own)
                    form.covered.add(k)
                    yield Finished(own)
        warnings = []
        if malformed:
            warnings.append(f"{malformed} line(s) of the model did not have the form and were left out.")
        if repeated:
            warnings.append(f"{repeated} repeated line(s) were left out.")
        if not complete:
            warnings.append(f"The draft reached its limit of {decoding.MAX_TOKENS} tokens and ends there.")
        if left_out:
            warnings.append(_named(left_out))
        missing = [plan.read[k - 1].id for k in form.unstated()] if plan.job.steps else []
        if missing:
            warnings.append(f"Not written about: {', '.join(missing)}.")
        ordered = sorted(out, key=lambda s: s.section == "impression")
        seconds = round(time.monotonic() - began, 2)
        draft = Draft(tuple(ordered), plan.info, plan.unseen, complete, seconds, pen.tokens, tuple(warnings))
        yield Done(replace(draft, left_out=tuple(left_out)))

    def _statement(self, plan: _Plan, line: str, number: int) -> Statement | None:
        parsed = statements.parse(line)
        if parsed is None or not parsed.template:
            return None
        ids = tuple(dict.fromkeys(plan.names[i] for i in parsed.evidence if i in plan.names))
        if not parsed.follows:  # without reasoning nothing is cited: the kindest reading is that all cards are
            ids = tuple(card.id for card in plan.read)
        # A placeholder that the model made up must not meet a card that bears that number on the board.
        unknown = {i: NO_CARD for i in statements.placeholders(parsed.template) if i not in plan.names}
        template = statements.renumber(parsed.template, plan.names | unknown)
        statement = Statement(
            id=f"s{number}",
            section=parsed.section,
            region=parsed.region,
            text=statements.render(template, plan.job.cards),
            evidence=ids,
            origin="model",
            template=template,
            step=Step(ids, parsed.follows) if parsed.follows else None,
        )
        return verify.check(statement, plan.job.cards)

    def _unnamed(self, plan: _Plan) -> Iterator[Statement]:
        """One sentence for each of the reader's unnamed measurements: where it was drawn and what it measures."""
        drawn: dict[str | None, list[Evidence]] = {}
        for card in plan.unnamed:
            drawn.setdefault(card.annotation_id, []).append(card)
        for number, cards in enumerate(drawn.values(), 1):
            place = cards[0].statement.rpartition(": ")[0]
            said = " and ".join(f"{c.statement.rpartition(': ')[2]} {{{c.id}}}" for c in cards)
            template = f"{'On the image' if place == IMAGE else f'On {place}'}, {said}."
            ids = tuple(c.id for c in cards)
            statement = Statement(
                id=f"s{number}",
                section="findings",
                region=cards[0].region,
                text=statements.render(template, plan.job.cards),
                evidence=ids,
                origin="model",
                template=template,
                step=Step(ids, UNNAMED),
            )
            yield verify.check(statement, plan.job.cards)

    def _own_words(self, plan: _Plan, card: Evidence, number: int) -> Statement | None:
        """The card as a sentence of its own words, where the check finds it supported."""
        if prompt.follows(card) == "measured":
            structure, _, quantity = card.statement.rpartition(": ")
            template = f"{structure[:1].upper()}{structure[1:]}: {quantity} of {{{card.id}}}."
        elif prompt.follows(card) == "possible":
            template = phrases.hedged(card.statement)
        else:
            template = phrases.plain(card.statement)
        statement = Statement(
            id=f"s{number}",
            section="findings",
            region=card.region,
            text=statements.render(template, plan.job.cards),
            evidence=(card.id,),
            origin="model",
            template=template,
            step=Step((card.id,), OWN_WORDS),
        )
        checked = verify.check(statement, plan.job.cards)
        return checked if checked.support == "supported" else None


def _words(statement: Statement) -> str:
    return statement.template or statement.text


def _falsely_normal(statement: Statement) -> bool:
    """Whether it calls normal what a card says is not."""
    return statement.support == "contradicted" and f.is_normal(_words(statement))


def _named(left_out: Sequence[Statement]) -> str:
    """The warning that says which sentences were left out, and which card says otherwise."""
    said = " ".join(dict.fromkeys(f"“{s.text}” ({s.note.partition(' ')[0]})" for s in left_out))
    return f"Left out, since a card says otherwise: {said}."


def _same(statement: Statement, other: Statement) -> bool:
    """Whether the same words stand there already, and stand as well: what failed of one card may be true of another."""
    better = statement.support == "supported" != other.support
    return not better and (statement.section, statement.text.casefold()) == (other.section, other.text.casefold())


def _normal_twice(statement: Statement, other: Statement) -> bool:
    """Whether both call the same things normal, in other words ("no acute osseous abnormality")."""
    both = (statement, other)
    alike = statement.section == other.section and all(s.support == "supported" for s in both)
    return alike and all(f.is_normal(_words(s)) for s in both) and _denials(statement) == _denials(other)


def _denials(statement: Statement) -> set[Any]:
    """What a normal sentence denies; its region where it names no finding."""
    words = _words(statement)
    return {(r.concept, r.sides, r.degrees) for r in f.readings(words)} or {f.region_of(words)}


def quotes(prior: PriorText, cards: Sequence[Evidence]) -> tuple[str, ...]:
    """The prior's sentences that state findings of the board, as data, one for each finding at most."""
    wanted = set().union(*(f.concepts_of_term(c.statement) for c in cards if c.kind == "finding"), set())
    mine = {c.id for c in cards}
    out = []
    for sentence in (*(text for card, text in prior.said if card in mine), *prior.matched):
        found = {m.concept for m in f.mentions(sentence) if m.polarity == "present"} & wanted
        if found:
            out.append(sentence)
            wanted -= found
    return tuple(out)


def _unseen(job: Job, left: Sequence[Evidence], cards: Sequence[Evidence]) -> tuple[str, ...]:
    out = []
    models = dict.fromkeys(c.source for c in cards if c.kind == "finding" and c.source not in ("", READER))
    if models:
        out.append(f"Findings on the image are proposed by {', '.join(models)}.")
    if job.modality not in ("CR", "DX"):
        out.append("The language model was trained on chest radiograph reports only.")
    if not job.indication.strip():
        out.append("No indication was given.")
    elif len(job.indication) > prompt.MAX_INDICATION:
        out.append(f"Only the first {prompt.MAX_INDICATION} characters of the indication were read.")
    if left:
        out.append(f"Cards beyond the first {prompt.MAX_CARDS} were not read: {', '.join(c.id for c in left)}.")
    return tuple(out)
