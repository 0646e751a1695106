"""Cards, priors and indication in → a stream of events that ends in a checked `Draft` out.

The model sees the cards under its own numbers (E1, E2, … in board order) and writes one line a statement
(`statements.py`); a line that does not have the form or repeats an earlier one is left out and counted, and what the
cards do not support says so (`verify.py`).  Numbers come from the cards, never from the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_models.drafting import findings as f
from core_models.drafting import language_model, prompt, statements, verify
from core_models.drafting.evidence import Draft, DraftModel, Evidence, Section, Statement, Step
from core_models.drafting.language_model import LanguageModel
from core_models.errors import Refused

MAX_NEW_TOKENS = 420
NO_CARD = "E0"  # the board counts from E1
READER = "reader"  # the source of a finding that no model proposed
_MODALITIES = {"CR": "radiograph", "DX": "radiograph", "CT": "CT", "MR": "MR"}


@dataclass(frozen=True)
class PriorText:
    """A prior report as the drafter may quote it: id ("P1"), its text and finding headings; untrusted."""

    id: str
    findings: str = ""
    impression: str = ""
    terms: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()


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
    """
    return Drafter(language_model.load(models, adapter, threads))


class Drafter:
    """One loaded model; `stream` may be called from any thread, one draft at a time."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._lock = threading.Lock()

    def stream(
        self,
        cards: Sequence[Evidence],
        priors: Sequence[PriorText],
        indication: str,
        *,
        modality: str,
        seed: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[DraftEvent]:
        """Write a draft.

        Raises:
            Refused: there is no card to write from (rejected cards do not count): no source, no assertion.
        """
        usable = [c for c in cards if c.status != "rejected" and c.kind in ("finding", "measurement", "comparison")]
        if not usable:
            raise Refused("There is nothing to write from: add a finding or segment an organ first.")
        read, left = usable[: prompt.MAX_CARDS], usable[prompt.MAX_CARDS :]
        quoted = [(p.id, text) for p in priors if (text := _quote(p, read))][: prompt.MAX_PRIORS]
        unseen = _unseen(modality, left, indication, usable)
        # Whoever searched for the priors knows the index, and fills in its digest.
        info = DraftModel(self.model.name, self.model.adapter, "", seed)
        names = {f"E{k}": card.id for k, card in enumerate(read, 1)}
        names |= {f"P{k}": ident for k, (ident, _) in enumerate(quoted, 1)}
        text = prompt.build(
            indication,
            [prompt.Line(c.region, c.statement, c.value is not None) for c in read],
            [t for _, t in quoted],
            _MODALITIES.get(modality, "radiograph"),
        )
        with self._lock:
            yield from self._write(text, names, cards, info, unseen, cancelled)

    def _write(
        self,
        text: str,
        names: dict[str, str],
        cards: Sequence[Evidence],
        info: DraftModel,
        unseen: tuple[str, ...],
        cancelled: Callable[[], bool],
    ) -> Iterator[DraftEvent]:
        began = time.monotonic()
        yield Started(info, unseen)
        out: list[Statement] = []
        seen: set[tuple[str, str]] = set()
        measured: set[tuple[str, str]] = set()  # (section, card) whose number was stated
        malformed = repeated = tokens = 0
        buffer = ""
        complete = False
        for piece, count, ended in self._tokens(text):
            tokens = count
            buffer += piece
            while "\n" in buffer or ended:
                line, _, buffer = buffer.partition("\n")
                statement = self._statement(line, len(out) + 1, names, cards)
                if statement is None:
                    malformed += bool(line.strip())
                elif (key := (statement.section, statement.text.lower())) in seen or _only(statement, measured):
                    repeated += 1
                else:
                    seen.add(key)
                    measured |= _numbers(statement)
                    out.append(statement)
                    yield Finished(statement)
                if ended and not buffer:
                    complete = True
                    break
            if cancelled() or complete:
                break
            partial = statements.parse(buffer)
            if partial is not None and partial.template:
                shown = self._statement(buffer, len(out) + 1, names, cards)
                if shown is not None:
                    text = shown.text.partition("{")[0]  # half a placeholder is not shown
                    yield Partial(shown.id, shown.section, shown.region, shown.evidence, shown.step, text)
        warnings = []
        if malformed:
            warnings.append(f"{malformed} line(s) of the model did not have the form and were left out.")
        if repeated:
            warnings.append(f"{repeated} repeated line(s) were left out.")
        if tokens >= MAX_NEW_TOKENS and not complete:
            warnings.append(f"The draft reached its limit of {MAX_NEW_TOKENS} tokens and ends there.")
        cited = {i for s in out for i in s.evidence}
        missing = [i for i in names.values() if i.startswith("E") and i not in cited]
        if missing:
            warnings.append(f"Not written about: {', '.join(missing)}.")
        seconds = round(time.monotonic() - began, 2)
        yield Done(Draft(tuple(out), info, unseen, complete, seconds, tokens, tuple(warnings)))

    def _statement(self, line: str, number: int, names: dict[str, str], cards: Sequence[Evidence]) -> Statement | None:
        parsed = statements.parse(line)
        if parsed is None or not parsed.template:
            return None
        ids = tuple(names[i] for i in parsed.evidence if i in names)
        # A placeholder that the model made up must not meet a card that bears that number on the board.
        unknown = {i: NO_CARD for i in statements.placeholders(parsed.template) if i not in names}
        template = statements.renumber(parsed.template, names | unknown)
        statement = Statement(
            id=f"s{number}",
            section=parsed.section,
            region=parsed.region,
            text=statements.render(template, cards),
            evidence=ids,
            origin="model",
            template=template,
            step=Step(ids, parsed.follows),
        )
        return verify.check(statement, cards)

    def _tokens(self, text: str) -> Iterator[tuple[str, int, bool]]:
        """Greedy decoding, one (piece of text, tokens so far, ended) at a time."""
        import torch

        model, tokenizer = self.model.model, self.model.tokenizer
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]])
        past: Any = None
        written: list[int] = []
        shown = ""
        for count in range(1, MAX_NEW_TOKENS + 1):
            with torch.inference_mode():
                answer = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = answer.past_key_values
            token = int(answer.logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                yield "", count, True
                return
            written.append(token)
            whole = tokenizer.decode(written, skip_special_tokens=True)
            if not whole.endswith("\ufffd"):  # a character still lacks bytes
                yield whole[len(shown) :], count, False
                shown = whole
            ids = torch.tensor([[token]])


def _numbers(statement: Statement) -> set[tuple[str, str]]:
    return {(statement.section, card) for card in statements.placeholders(statement.template)}


def _only(statement: Statement, measured: set[tuple[str, str]]) -> bool:
    """Whether the statement holds numbers, and none that its section does not have yet."""
    numbers = _numbers(statement)
    return bool(numbers) and numbers <= measured


def _quote(prior: PriorText, cards: Sequence[Evidence]) -> str:
    """The prior's sentence that states a finding of the board, as data; "" when none does."""
    wanted = set().union(*(f.concepts_of_term(c.statement) for c in cards if c.kind == "finding"), set())
    for sentence in prior.matched:
        if any(m.concept in wanted and m.polarity == "present" for m in f.mentions(sentence)):
            return sentence
    return ""


def _unseen(modality: str, left: Sequence[Evidence], indication: str, cards: Sequence[Evidence]) -> tuple[str, ...]:
    out = ["Images were not read by the language model: it writes from the cards on the board."]
    models = dict.fromkeys(c.source for c in cards if c.kind == "finding" and c.source not in ("", READER))
    if models:
        out.append(f"Findings on the image are proposed by {', '.join(models)}.")
    if modality not in ("CR", "DX"):
        out.append("The language model was trained on chest radiograph reports only.")
    if not indication.strip():
        out.append("No indication was given.")
    elif len(indication) > prompt.MAX_INDICATION:
        out.append(f"Only the first {prompt.MAX_INDICATION} characters of the indication were read.")
    if left:
        out.append(f"Cards beyond the first {prompt.MAX_CARDS} were not read: {', '.join(c.id for c in left)}.")
    return tuple(out)
