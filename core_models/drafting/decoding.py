"""Prompts in → lines that have the form (`form.Form`), token by token, one report or many at once.

A report is written by a generator that asks for the next token's logits where there is something to choose and pushes
the rest; `run` feeds the model for one or several such generators in step.  What is certain costs no pass of its own:
on two cores eight tokens take the time of one.  A line can be taken back and written again.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from core_models.drafting import prompt
from core_models.drafting.form import Form
from core_models.errors import Refused

MAX_LINE = 90  # tokens of one sentence
MAX_TOKENS = 600  # of a whole report
TOP = 0.9  # nucleus that is sampled from, where anything is


@dataclass(frozen=True)
class Feed:
    """Tokens for the model; answered with the (vocabulary,) logits after the last one."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Back:
    """The last `count` fed tokens are taken back."""

    count: int


@dataclass(frozen=True)
class Said:
    """The line so far, for whoever shows it."""

    line: str


Need = Feed | Back | Said
Answer = np.ndarray | None


class Words:
    """The pieces of a tokenizer, by what they may be used for."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer = tokenizer
        self.size = size
        self.end = tokenizer.eos_token_id
        self._paths: dict[str, tuple[int, ...]] = {}

    @cached_property
    def strings(self) -> list[str]:
        names = self.tokenizer.convert_ids_to_tokens(list(range(min(self.size, len(self.tokenizer)))))
        sentencepiece = any(name and name.startswith("▁") for name in names)
        plain = [
            (n or "").replace("▁", " ") if sentencepiece else self.tokenizer.decode([i]) for i, n in enumerate(names)
        ]
        return plain + [""] * (self.size - len(plain))

    @cached_property
    def text(self) -> np.ndarray:
        """(vocabulary,) bool: pieces of a sentence; no special, no byte, no digit, no brace, no line break within."""
        special = set(self.tokenizer.all_special_ids)
        odd = re.compile(r"[{}\d\n\r]|^<.*>$")
        return np.array([bool(s) and i not in special and not odd.search(s) for i, s in enumerate(self.strings)])

    @cached_property
    def digits(self) -> np.ndarray:
        return self._holding(r"^[ ]?[\d.,]*\d[\d.,]*$")

    @cached_property
    def breaks(self) -> np.ndarray:
        """Pieces that end a line: a break, perhaps after a full stop."""
        return self._holding(r"^[.!?]?\n$")

    @cached_property
    def opens(self) -> np.ndarray:
        return self._holding(r"^ ?\{$")

    @cached_property
    def closes(self) -> np.ndarray:
        return self._holding(r"^\}[.,;:)]?$")

    @cached_property
    def apart(self) -> np.ndarray:
        """Pieces that cannot go on with a number: what stands after "E1" when it is not "E12"."""
        return self._holding(r"^(?:[ :.,;)}]|\n)")

    def path(self, text: str) -> tuple[int, ...]:
        if text not in self._paths:
            self._paths[text] = tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
        return self._paths[text]

    def _holding(self, pattern: str) -> np.ndarray:
        found = re.compile(pattern)
        return np.array([bool(s) and bool(found.search(s)) for s in self.strings])


@dataclass(frozen=True)
class Written:
    """A line: its header and sentence as `statements` reads them, and whether the model wants to end the report."""

    line: str
    ids: tuple[int, ...]
    ends: bool


class Pen:
    """Writes the lines of one report: greedily, or drawn at a temperature from the nucleus of `TOP`.

    A sentence may hold digits only where a card that it rests on does, and numbers only as placeholders of such cards,
    each after its own structure and quantity.
    """

    def __init__(self, words: Words, form: Form, seed: int = 0, temperature: float = 0.0) -> None:
        self.words, self.form = words, form
        self.tokens = 0
        self._rng = np.random.default_rng(seed)
        self._temperature = temperature
        self._pending: list[int] = []
        self._logits: np.ndarray | None = None
        self._header: tuple[str, tuple[int, ...]] = ("", ())
        self._region = ""
        self._at_line: tuple[np.ndarray | None, list[int], int] = (None, [], 0)  # logits, tokens not fed, tokens fed
        self._at_text: tuple[np.ndarray, int] | None = None  # logits before the sentence, tokens fed up to there
        self._fed = 0

    # ---- a line ------------------------------------------------------------------------------------------------------

    def line(self, about: int = 0, owed: bool = False) -> Generator[Need, Answer, Written | None]:
        """The next line; None where the form leaves nothing to write.

        Args:
            about: the card that it must be about, 0: any.
            owed: it must call normal what the findings have not spoken of yet (`Form.owed`).
        """
        form = self.form
        self._at_line = self._logits, list(self._pending), self._fed
        sections = form.sections()
        if about:
            form.forced(about)
            sections = [s for s in ("F", "I") if s >= form.section and about in form.first(s)][:1]
        if not sections:
            return None
        whole, regions = form.owed()
        if not owed or not regions:
            section = yield from self._choose(sections)
            owed = section == "I" and bool(regions) and not about
            if owed:  # not yet
                yield from self._back_to(*self._at_line)
        if owed:
            return (yield from self._owed(whole, regions))
        if not form.steps:
            form.began(section[0], ())
            self._header = (section, ())
            return (yield from self._sentence())
        names = {f" E{k}": k for k in ([about] if about else form.first(section))}
        ids = [names[(yield from self._choose(list(names)))]]
        priors: list[int] = []
        header = f"{section} E{ids[0]}"
        while True:
            more = yield from self._choose(list(form.more(section, ids, priors)))
            header += more
            if more.endswith(":"):
                break
            (ids if more[1] == "E" else priors).append(int(more[2:]))
        form.began(section, ids)
        self._header, self._region = (header, tuple(ids)), more.split()[0]
        return (yield from self._sentence())

    def _owed(self, whole: int, regions: Sequence[str]) -> Generator[Need, Answer, Written]:
        """A line of the findings that calls one of the regions normal: that which the model would speak of first."""
        section = yield from self._choose(["F"])
        card = yield from self._choose([f" E{whole}"])
        said = yield from self._choose([f" {region} normal:" for region in regions])
        self.form.began(section, [whole])
        self._header, self._region = (f"{section}{card}{said}", (whole,)), said.split()[0]
        return (yield from self._sentence())

    def again(self, temperature: float) -> Generator[Need, Answer, Written | None]:
        """The last line's sentence taken back and written anew, drawn at this temperature."""
        assert self._at_text is not None
        logits, fed = self._at_text
        yield from self._back_to(logits, [], fed)
        before, self._temperature = self._temperature, max(temperature, self._temperature)
        try:
            return (yield from self._sentence())
        finally:
            self._temperature = before

    def take_back(self) -> Generator[Need, Answer, None]:
        """The last line as if it had not been written; the form holds that it was tried (`Form.took_back`)."""
        (header, ids) = self._header
        yield from self._back_to(*self._at_line)
        self.form.took_back(header[0], ids, self._region)

    def _back_to(self, logits: np.ndarray | None, pending: list[int], fed: int) -> Generator[Need, Answer, None]:
        if self._fed > fed:
            yield Back(self._fed - fed)
        self._fed, self._pending, self._logits = fed, list(pending), logits

    def _sentence(self) -> Generator[Need, Answer, Written]:
        ids = self._header[1]
        words = self.words
        cards = [self.form.cards[k - 1] for k in ids]
        allowed = words.text.copy()
        if any(c.isdigit() for card in cards for c in card.text):
            allowed |= words.digits
        open_numbers = [k for k in ids if self.form.cards[k - 1].follows == "measured"]
        written: list[int] = []
        self._at_text = ((yield from self._look()), self._fed)
        for _ in range(MAX_LINE):
            here = allowed.copy()
            fitting = self._fitting(open_numbers, written)
            if fitting:
                here |= words.opens
            if written:
                here |= words.breaks
                here[words.end] = True
            token = self._pick((yield from self._look()), here)
            if token == words.end:
                return Written(self._said(written), ids, True)
            self._push(token)
            if words.breaks[token]:
                written.append(token)
                return Written(self._said(written), ids, False)
            written.append(token)
            if words.opens[token]:
                names = {f"E{k}": k for k in fitting}
                name = yield from self._choose(list(names))
                written += words.path(name)
                open_numbers.remove(names[name])
                close = self._pick((yield from self._look()), words.closes)
                self._push(close)
                written.append(close)
            yield Said(self._said(written))
        self._push(words.path("\n")[0])
        return Written(self._said(written), ids, False)

    def _fitting(self, numbers: Sequence[int], written: list[int]) -> list[int]:
        """The cards whose number may stand here: their structure is named, and their quantity since the last number."""
        if not numbers:
            return []
        said = self._decoded(written).casefold()
        since = said.rpartition("}")[2]
        out = []
        for k in numbers:
            structure, _, quantity = (
                prompt.safe(self.form.cards[k - 1].text, prompt.MAX_CARD).casefold().rpartition(": ")
            )
            if structure in said and quantity in since:
                out.append(k)
        return out

    def go_on(self) -> None:
        """The model wanted to end the report, and may not yet: a line break in place of the end."""
        for token in self.words.path("\n"):
            self._push(token)

    def _said(self, tokens: list[int]) -> str:
        return f"{self._header[0]} {self._decoded(tokens).strip()}"

    def _decoded(self, tokens: list[int]) -> str:
        return self.words.tokenizer.decode(tokens, skip_special_tokens=True)

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def _choose(self, options: Sequence[str]) -> Generator[Need, Answer, str]:
        """One of the texts, whose tokens are pushed; what is certain is not asked for."""
        alive = {option: self.words.path(option) for option in options}
        at = 0
        while True:
            done = [option for option, path in alive.items() if len(path) == at]
            nexts = {path[at] for path in alive.values() if len(path) > at}
            if not nexts:
                return done[0]
            if len(nexts) == 1 and not done:
                token = next(iter(nexts))
            else:
                here = np.zeros(self.words.size, bool)
                here[list(nexts)] = True
                token = self._pick((yield from self._look()), here | self.words.apart if done else here)
                if token not in nexts:
                    return done[0]
            self._push(token)
            alive = {option: path for option, path in alive.items() if len(path) > at and path[at] == token}
            at += 1

    def _push(self, token: int) -> None:
        self._pending.append(token)
        self._logits = None
        self.tokens += 1

    def _look(self) -> Generator[Need, Answer, np.ndarray]:
        if self._logits is None:
            self._fed += len(self._pending)
            tokens, self._pending = tuple(self._pending), []
            self._logits = yield Feed(tokens)
        assert self._logits is not None
        if np.isnan(self._logits).any():
            raise Refused("The language model answered with nonsense, so the draft was ended there.")
        return self._logits

    def _pick(self, logits: np.ndarray, allowed: np.ndarray) -> int:
        scores = np.where(allowed, logits, -np.inf)
        if self._temperature <= 0:
            return int(scores.argmax())
        scores = (scores - scores.max()) / self._temperature
        chances = np.exp(scores)
        chances /= chances.sum()
        order = np.argsort(-chances)
        kept = order[: int(np.searchsorted(np.cumsum(chances[order]), TOP)) + 1]
        return int(self._rng.choice(kept, p=chances[kept] / chances[kept].sum()))


# ---- running the model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What one report is written after: token ids, and what goes with them in the first pass (`pixel_values`)."""

    ids: Sequence[int]
    inputs: Mapping[str, Any] = field(default_factory=dict)


def run(
    model: Any, rows: Sequence[Row], writers: Sequence[Generator[Any, Answer, Any]]
) -> Generator[tuple[int, Any], None, None]:
    """Feed the model for the writers, all in step, until every one has ended.

    Args:
        model: a causal model of `transformers` that keeps a cache.
        rows: what each writer's report is written after.
        writers: generators of `Feed`, `Back` and anything else, which is passed on as (row, thing).
    """
    batch = _One(model, rows[0]) if len(rows) == 1 else _Many(model, rows)
    answers: dict[int, Answer] = dict.fromkeys(range(len(rows)))
    while answers:
        asks: dict[int, tuple[int, ...]] = {}
        for r, answer in list(answers.items()):
            while True:
                try:
                    thing = writers[r].send(answer)
                except StopIteration:
                    break
                answer = None
                if isinstance(thing, Back):
                    batch.back(r, thing.count)
                elif not isinstance(thing, Feed):
                    yield r, thing
                elif thing.tokens:
                    asks[r] = thing.tokens
                    break
                else:
                    answer = batch.first[r]
        answers = batch.feed(asks) if asks else {}


class _One:
    """One report.  Nothing but what every model takes: no mask, no positions; what is taken back is cut off."""

    def __init__(self, model: Any, row: Row) -> None:
        from transformers import DynamicCache

        self._model = model
        self._cache = DynamicCache()  # without the model's windows, so that it can be cut
        self.first = [self._pass(tuple(row.ids), **row.inputs)]

    def feed(self, asks: dict[int, tuple[int, ...]]) -> dict[int, Answer]:
        return {0: self._pass(asks[0])}

    def back(self, _: int, count: int) -> None:
        self._cache.crop(-count)

    def _pass(self, tokens: tuple[int, ...], **inputs: Any) -> np.ndarray:
        import torch

        ids = torch.tensor([tokens], device=self._model.device)
        return _asked(self._model, self._cache, ids, 1, inputs)[0, -1].float().cpu().numpy()


class _Many:
    """Several reports in step, padded on the left.

    Places that hold nothing, or what was taken back, are masked, and dropped before the next pass: layers that look
    back over a window count places, and each report is to see in it what it would see alone.
    """

    def __init__(self, model: Any, rows: Sequence[Row]) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self._cache = DynamicCache()
        self._count = [len(row.ids) for row in rows]
        longest = max(self._count)
        # Places of the cache that hold each report's own tokens.
        self._places = [[*range(longest - count, longest)] for count in self._count]
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        self._mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for r, row in enumerate(rows):
            ids[r, longest - len(row.ids) :] = torch.tensor(row.ids)
            self._mask[r, longest - len(row.ids) :] = 1
        names = {name for row in rows for name in row.inputs}
        inputs = {name: torch.cat([row.inputs[name] for row in rows if name in row.inputs]) for name in names}
        logits = self._pass(ids, (self._mask.cumsum(1) - 1).clamp(min=0), 1, inputs)
        self.first = list(logits[:, -1].float().cpu().numpy())

    def feed(self, asks: dict[int, tuple[int, ...]]) -> dict[int, Answer]:
        import torch

        self._close_up()
        width = max(map(len, asks.values()))
        ids, fresh, position = (torch.zeros(len(self._count), width, dtype=torch.long) for _ in range(3))
        start = self._mask.shape[1]
        for r, tokens in asks.items():
            n = len(tokens)
            ids[r, :n], fresh[r, :n] = torch.tensor(tokens), 1
            position[r, :n] = torch.arange(self._count[r], self._count[r] + n)
            self._places[r] += range(start, start + n)
            self._count[r] += n
        self._mask = torch.cat((self._mask, fresh), 1)
        logits = self._pass(ids, position, width, {})
        return {r: logits[r, len(tokens) - 1].float().cpu().numpy() for r, tokens in asks.items()}

    def back(self, r: int, count: int) -> None:
        keep = len(self._places[r]) - count
        self._mask[r, self._places[r][keep:]] = 0
        self._places[r] = self._places[r][:keep]
        self._count[r] -= count

    def _close_up(self) -> None:
        """Each report's own places together, at the right end of the cache."""
        import torch

        longest = max(self._count)
        if all(own == [*range(self._mask.shape[1] - len(own), self._mask.shape[1])] for own in self._places):
            return
        places = torch.zeros(len(self._count), longest, dtype=torch.long)
        self._mask = torch.zeros(len(self._count), longest, dtype=torch.long)
        for r, own in enumerate(self._places):
            places[r, longest - len(own) :], self._mask[r, longest - len(own) :] = torch.tensor(own), 1
            self._places[r] = [*range(longest - len(own), longest)]
        for layer in self._cache.layers:
            index = places.to(layer.keys.device)[:, None, :, None]
            layer.keys = layer.keys.gather(2, index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3]))
            layer.values = layer.values.gather(2, index.expand(-1, layer.values.shape[1], -1, layer.values.shape[3]))

    def _pass(self, ids: Any, position: Any, keep: int, inputs: dict[str, Any]) -> Any:
        device = self._model.device
        places = {"attention_mask": self._mask.to(device), "position_ids": position.to(device)}
        return _asked(self._model, self._cache, ids.to(device), keep, places | inputs)


def _asked(model: Any, cache: Any, ids: Any, keep: int, inputs: Mapping[str, Any]) -> Any:
    """(rows, keep, vocabulary) logits.  Raises MemoryError, whatever the device calls it."""
    import torch

    try:
        with torch.inference_mode():
            return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep, **inputs).logits
    except RuntimeError as error:  # torch has no class of its own for the memory of a CPU
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise MemoryError from error
        raise
