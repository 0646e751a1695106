"""Cards, priors, indication and picture → a draft that a language model server (vLLM, or another with OpenAI's chat
interface) writes, held to the same form and checked by the same rules as the embedded model's.

The server is sent text and the pixels of the image as bytes, never an address to fetch from.  The form goes along as a
regular expression (`structured_outputs`, vLLM from 0.12; its former name `guided_regex` is gone), and every line is
checked against it here all the same.  A line that the cards do not support is asked for once more, then stands marked;
so is a card that was left out, then stated in its own words.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from core_models.drafting import decoding, drafter, prompt, statements, verify
from core_models.drafting.drafter import Done, Drafter, DraftEvent, Finished, Job, Partial, Started
from core_models.drafting.evidence import REGIONS, Draft, Statement
from core_models.drafting.form import MAX_TOGETHER, Form
from core_models.drafting.instructed import SIDE, asked, image, untrained
from core_models.errors import Busy, ModelMissing, ReadingRoomError, Refused

CONNECT_S = 5.0
SILENT_S = 120.0  # without a byte
ANSWER_S = 600.0  # for a whole answer
TICK_S = 0.1  # how soon a stop is noticed
MOST = MAX_TOGETHER + prompt.MAX_PRIORS  # cards and priors of one line
MAX_BYTES = 4_000_000  # of one answer; a report has some thousand
ONE_LINE = "Write one more line and nothing else. It begins with: {}"


@dataclass(frozen=True)
class Server:
    """Where the language model is, and what `Drafter` asks of a model.

    Attributes:
        base: address of the interface ("http://127.0.0.1:8000/v1"); `model`: its name there.
        key: sent as a bearer token; "" for none.
    """

    base: str
    model: str
    key: str = field(default="", repr=False)
    adapter: str = ""  # a server knows its adapters by names of models
    sees: bool = True
    blind: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.base).netloc

    @property
    def name(self) -> str:
        return f"{self.model}@{self.host}"


def server(address: str, key: str = "", allow_remote: bool = False) -> Server:
    """ "http://127.0.0.1:8000/v1#model-name" → where the server is.

    Raises:
        Refused: another form, or a host that is not this machine while `allow_remote` is not set.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    plain = not (parts.username or parts.password or parts.query)
    if parts.scheme not in ("http", "https") or not host or not parts.fragment.strip() or not plain:
        raise Refused(
            "A language model server is set as server:http://127.0.0.1:8000/v1#MODEL, without a user or a query."
        )
    if not allow_remote and not loopback(host):
        raise Refused(
            f"The language model server {host} is another machine, and a draft would send it the indication, the cards "
            "and the image: set READING_ROOM_WRITER_ALLOW_REMOTE=1 where that may be."
        )
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return Server(base, parts.fragment.strip(), key)


def loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---- the form as a regular expression --------------------------------------------------------------------------------


def line_pattern(form: Form, section: str, first: int) -> str:
    """The lines of a section ("F", "I") that begin with this card, without the break; plain groups alone."""
    card = form.cards[first - 1]
    whole = Form._whole(card)
    later = [] if whole else [k for k in range(first + 1, len(form.cards) + 1) if _together(card, form.cards[k - 1])]
    ids = f"{section} E{first}" + "".join(f"( E{k})?" for k in later)
    if card.follows in ("present", "possible"):
        ids += "".join(f"( P{k})?" for k in range(1, form.priors + 1))
    region = f"({'|'.join(REGIONS)})" if whole else card.region
    return f"{ids} {region} {card.follows}: {_sentence(form, [first, *later])}"


def _together(one: prompt.Line, other: prompt.Line) -> bool:
    return one.follows == other.follows and not Form._whole(other)


def _sentence(form: Form, ids: Sequence[int]) -> str:
    digits = any(c.isdigit() for k in ids for c in form.cards[k - 1].text)
    parts = ["[^\\n{}]" if digits else "[^\\n{}0-9]"]
    parts += [rf"\{{E{k}\}}" for k in ids if form.cards[k - 1].follows == "measured"]
    return f"({'|'.join(parts)})+"


def report_pattern(form: Form) -> str:
    """A whole report: its findings, then its impression, a break after each line."""
    everything = range(1, len(form.cards) + 1)
    if not form.steps:
        return f"(F: {_sentence(form, everything)}\\n)+(I: {_sentence(form, everything)}\\n)*"
    findings = "|".join(line_pattern(form, "F", k) for k in everything)
    summary = [line_pattern(form, "I", k) for k in everything if form.cards[k - 1].follows != "measured"]
    return f"(({findings})\\n)+" + (f"(({'|'.join(summary)})\\n)*" if summary else "")


# ---- the server's answers --------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """The reader stopped the draft."""


class _BadRequest(Refused):
    """The server does not take what it was sent."""


@dataclass
class _Answer:
    """One streamed answer, read in a thread of its own, so that a stop is noticed while the server is silent."""

    client: Any
    server: Server
    body: dict[str, Any]
    cancelled: Callable[[], bool]
    tokens: int = 0
    ended: str = ""  # the server's word for why it ended: "stop", "length"
    _things: queue.Queue[Any] = field(default_factory=queue.Queue)
    _left: threading.Event = field(default_factory=threading.Event)

    def open(self) -> _Answer:
        """Send the request and wait until the server begins to answer.  Raises as `_next`."""
        self._until = time.monotonic() + ANSWER_S
        threading.Thread(target=self._read, name="language-model-server", daemon=True).start()
        self._next()
        return self

    def lines(self) -> Iterator[tuple[str, bool]]:
        """(the line so far, whether it is whole); blank lines are no lines."""
        text = ""
        try:
            while (piece := self._next()) is not None:
                text += piece
                while "\n" in text:
                    line, _, text = text.partition("\n")
                    if line.strip():
                        yield line.strip(), True
                if text.strip():
                    yield text.strip(), False
            if text.strip():
                yield text.strip(), True
        finally:
            self._left.set()

    def _next(self) -> str | None:
        while True:
            if self.cancelled():
                self._left.set()
                raise _Stopped
            try:
                thing = self._things.get(timeout=TICK_S)
            except queue.Empty:
                if time.monotonic() > self._until:
                    self._left.set()
                    raise Busy(f"The language model server {self.server.host} does not end its answer.") from None
                continue
            if isinstance(thing, Exception):
                raise thing
            return thing

    def _read(self) -> None:
        import httpx

        host = self.server.host
        try:
            with self.client.stream("POST", f"{self.server.base}/chat/completions", json=self.body) as response:
                if error := _refusal(response.status_code, self.server):
                    raise error
                self._things.put("")
                self._events(response.iter_bytes())
            if not self.ended:
                raise Busy(f"The language model server {host} ended in the middle of its answer.")
            self._things.put(None)
        except ReadingRoomError as error:
            self._things.put(error)
        except httpx.ConnectError:
            self._things.put(ModelMissing(f"The language model server {host} does not answer: start it."))
        except httpx.TimeoutException:
            self._things.put(Busy(f"The language model server {host} took too long to answer."))
        except httpx.HTTPError:
            self._things.put(Busy(f"The language model server {host} broke off its answer."))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            self._things.put(Refused(f"The language model server {host} answered in another form than OpenAI's."))
        except (
            Exception
        ) as error:  # a bug, or the client was closed under it: told in the thread that waits, if one does
            self._things.put(error)

    def _events(self, chunks: Iterator[bytes]) -> None:
        """Server-sent events: "data: {…}" a line, "data: [DONE]" the last."""
        held, size = b"", 0
        for chunk in chunks:
            size += len(chunk)
            if self._left.is_set():
                return
            if size > MAX_BYTES:
                raise Refused(f"The language model server {self.server.host} sent more than a report can hold.")
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                if not line.startswith(b"data:"):
                    if line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                        raise ValueError("no event")
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if event.get("error"):
                    raise Busy(f"The language model server {self.server.host} failed while it wrote.")
                if usage := event.get("usage"):
                    self.tokens = int(usage["completion_tokens"])
                for choice in event["choices"][:1]:
                    self.ended = choice.get("finish_reason") or self.ended
                    if piece := choice["delta"].get("content"):
                        if not isinstance(piece, str):
                            raise ValueError("no text")
                        self._things.put(piece)


def _refusal(status: int, where: Server) -> ReadingRoomError | None:
    host = where.host
    if status == 200:
        return None
    if status in (401, 403):
        return Refused(f"The language model server {host} wants another key: set READING_ROOM_WRITER_KEY.")
    if status == 404:
        return ModelMissing(f"The language model server {host} has no model {where.model!r} at {where.base}.")
    if 300 <= status < 400:
        return Refused(f"The language model server {host} sends elsewhere ({status}), which is not followed.")
    if status in (429, 503):
        return Busy(f"The language model server {host} is busy: try again in a moment.")
    if status in (400, 413, 415, 422):
        return _BadRequest(f"The language model server {host} does not take the request ({status}).")
    return Busy(f"The language model server {host} failed ({status}).")


# ---- the drafter -----------------------------------------------------------------------------------------------------


@dataclass
class _Writing:
    """One report under way."""

    plan: Any
    client: Any
    cancelled: Callable[[], bool]
    out: list[Statement] = field(default_factory=list)
    left_out: list[Statement] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # that the server is shown when it is asked for one more
    malformed: int = 0
    repeated: int = 0
    tokens: int = 0


class Remote(Drafter):
    """A drafter whose model is on a server."""

    def __init__(self, where: Server) -> None:
        super().__init__(where)  # type: ignore[arg-type]  what the shared parts ask of a model is there
        self.server = where

    def stream(self, job: Job, cancelled: Callable[[], bool] = lambda: False) -> Iterator[DraftEvent]:
        """As `Drafter.stream`.

        Raises:
            ModelMissing, Busy, Refused: the server is not there, does not answer, refuses, or answers nonsense; the
                statements that were finished before were passed on.
        """
        plan = self._plan(job)
        with self._lock:
            yield from self._written(plan, cancelled)

    def many(self, jobs: Sequence[Job], progress: Callable[[int, int], None] = lambda *_: None) -> list[Draft]:
        """Write several drafts at once: the server does the batching."""
        plans = [self._plan(job) for job in jobs]
        drafts: list[Draft] = []

        def last(plan: Any) -> Draft:
            *_, done = self._written(plan, lambda: False)
            return done.draft

        with ThreadPoolExecutor(drafter.BATCH) as pool:
            for draft in pool.map(last, plans):
                drafts.append(draft)
                progress(len(drafts), len(plans))
        return drafts

    def _plan(self, job: Job) -> Any:
        plan = super()._plan(job)
        unseen = untrained(self.server.model, plan, f"The language model was sent the image at {SIDE} pixels or less.")
        what = "the cards, the indication, a sentence of each prior" + (
            " and the image" if job.picture is not None else ""
        )
        return replace(plan, unseen=(*unseen, f"The language model server {self.server.host} was sent {what}."))

    def _written(self, plan: Any, cancelled: Callable[[], bool]) -> Iterator[DraftEvent]:
        import httpx

        began = time.monotonic()
        key = {"Authorization": f"Bearer {self.server.key}"} if self.server.key else {}
        patience = httpx.Timeout(SILENT_S, connect=CONNECT_S)
        complete = False
        # Neither a proxy of the environment nor a redirect may send the study elsewhere.
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=patience, headers=key) as client:
            writing = _Writing(plan, client, cancelled)
            try:
                complete = yield from self._lines(writing)
            except _Stopped:
                done = Draft(tuple(writing.out), writing.plan.info, writing.plan.unseen, complete=False)
                yield Done(done)
                return
        plan, form = writing.plan, writing.plan.form
        warnings = []
        if writing.malformed:
            warnings.append(f"{writing.malformed} line(s) of the model did not have the form and were left out.")
        if writing.repeated:
            warnings.append(f"{writing.repeated} repeated line(s) were left out.")
        if not complete:
            warnings.append(f"The draft reached its limit of {decoding.MAX_TOKENS} tokens and ends there.")
        if writing.left_out:
            warnings.append(drafter._named(writing.left_out))
        if plan.job.steps and (missing := [plan.read[k - 1].id for k in form.unstated()]):
            warnings.append(f"Not written about: {', '.join(missing)}.")
        ordered = tuple(sorted(writing.out, key=lambda s: s.section == "impression"))
        seconds = round(time.monotonic() - began, 2)
        draft = Draft(ordered, plan.info, plan.unseen, complete, seconds, writing.tokens, tuple(warnings))
        yield Done(replace(draft, left_out=tuple(writing.left_out)))

    def _lines(self, writing: _Writing) -> Generator[DraftEvent, None, bool]:
        """All statements of a report; whether the model came to its end."""
        plan, form = writing.plan, writing.plan.form
        temperature = plan.job.temperature
        if not plan.read:
            yield Started(plan.info, plan.unseen)
            yield from self._measured(writing)
            return True
        try:
            answer = self._ask(writing, report_pattern(form), temperature)
        except _BadRequest:
            if plan.job.picture is None:
                raise
            # Most likely a model without eyes: what it writes rests on the cards, and the draft says so.
            blind = "No picture was given to the language model: its server did not take one."
            without = self._plan(replace(plan.job, picture=None))
            unseen = tuple(blind if s == drafter.NO_PICTURE else s for s in without.unseen)
            writing.plan = plan = replace(without, unseen=unseen)
            form = plan.form
            answer = self._ask(writing, report_pattern(form), temperature)
        yield Started(plan.info, plan.unseen)
        yield from self._measured(writing)
        for line, whole in answer.lines():
            if not whole:
                yield from self._partial(writing, line)
            elif form.sections():
                yield from self._taken(writing, line)
            else:
                break
        writing.tokens += answer.tokens
        if answer.ended == "length":
            return False
        if not plan.job.steps:
            return True
        form.section = "F"  # a card that was left out still belongs to the findings; the draft is put in order at last
        for k in form.uncovered():
            form.forced(k)
            card = form.cards[k - 1]
            if k in form.first("F"):
                again = yield from self._one_line(
                    writing, "F", (k,), f"F E{k} {card.region} {card.follows}:", temperature
                )
                if again:
                    yield from self._taken(writing, again)
        for k in form.unstated():
            own = self._own_words(plan, plan.read[k - 1], len(writing.out) + 1)
            if own is not None:
                form.covered.add(k)
                writing.out.append(own)
                yield Finished(own)
        return True

    def _measured(self, writing: _Writing) -> Iterator[DraftEvent]:
        for own in self._unnamed(writing.plan):
            writing.out.append(own)
            yield Finished(own)

    def _taken(self, writing: _Writing, line: str) -> Iterator[DraftEvent]:
        """A whole line: left out, or checked, asked for once more where the check refuses it, and passed on."""
        plan, form = writing.plan, writing.plan.form
        parsed = self._parsed(form, line)
        if parsed is None:
            writing.malformed += 1
            return
        section = "F" if parsed.section == "findings" else "I"
        ids = tuple(int(i[1:]) for i in parsed.evidence if i[0] == "E")
        number = len(writing.out) + 1
        statement = self._statement(plan, line, number)
        if statement is None:
            writing.malformed += 1
            return
        if (ids and ids[0] not in form.first(section)) or any(drafter._same(statement, s) for s in writing.out):
            writing.repeated += 1
            return
        form.began(section, ids)
        if statement.support != "supported":
            header = line.partition(":")[0] + ":"
            warmer = max(drafter.TRY_AT, plan.job.temperature)
            again = yield from self._one_line(writing, section, ids, header, warmer)
            second = self._statement(plan, again, number) if again and self._parsed(form, again) else None
            if second is not None:
                statement, line = replace(second, rewritten=statement.text), again
        if drafter._falsely_normal(statement) and form.rests_on_the_whole(ids):
            writing.left_out.append(statement)
            return
        if any(drafter._same(statement, s) for s in writing.out):
            writing.repeated += 1
            return
        writing.lines.append(line)
        writing.out.append(statement)
        if statement.support == "supported":
            form.covered |= {k for k in ids if verify.states(statement.template, plan.read[k - 1])}
        yield Finished(statement)

    def _one_line(
        self, writing: _Writing, section: str, ids: Sequence[int], header: str, temperature: float
    ) -> Generator[DraftEvent, None, str]:
        """Ask for one line that begins so; "" where none comes."""
        form = writing.plan.form
        sentence = _sentence(form, ids or range(1, len(form.cards) + 1))
        answer = self._ask(writing, f"{header} {sentence}\\n", temperature, ONE_LINE.format(header))
        for line, whole in answer.lines():
            if whole:
                writing.tokens += answer.tokens
                return line if line.startswith(header) else ""
            yield from self._partial(writing, line)
        return ""

    def _partial(self, writing: _Writing, line: str) -> Iterator[DraftEvent]:
        shown = self._statement(writing.plan, line, len(writing.out) + 1)
        if shown is not None:
            text = shown.text.partition("{")[0]  # half a placeholder is not shown
            yield Partial(shown.id, shown.section, shown.region, shown.evidence, shown.step, text)

    @staticmethod
    def _parsed(form: Form, line: str) -> statements.Line | None:
        """The line where it has the form, whether or not the server was able to hold the model to it."""
        parsed = statements.parse(line)
        if parsed is None or len(parsed.template) >= statements.MAX_TEXT or len(parsed.evidence) > MOST:
            return None
        if not form.steps:
            pattern = f"[FI]: {_sentence(form, range(1, len(form.cards) + 1))}"
            return parsed if re.fullmatch(pattern, line) else None
        section, first, *_ = [*line.split(), ""]
        if not re.fullmatch(r"E\d+", first) or not 0 < (k := int(first[1:])) <= len(form.cards):
            return None
        fits = re.fullmatch(line_pattern(form, section, k), line)
        return parsed if fits and set(statements.placeholders(parsed.template)) <= set(parsed.evidence) else None

    def _ask(self, writing: _Writing, pattern: str, temperature: float, more: str = "") -> _Answer:
        plan, job = writing.plan, writing.plan.job
        content: list[dict[str, Any]] = [{"type": "text", "text": asked(plan)}]
        if job.picture is not None:
            png = io.BytesIO()
            image(job.picture).save(png, "PNG")  # made from the pixels: no header of the study goes along
            data = base64.b64encode(png.getvalue()).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if more:
            before = [{"role": "assistant", "content": "\n".join(writing.lines)}] if writing.lines else []
            messages += [*before, {"role": "user", "content": more}]
        body = {
            "model": self.server.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": decoding.MAX_LINE if more else decoding.MAX_TOKENS,
            "temperature": temperature,
            "top_p": decoding.TOP,
            "seed": job.seed,
            "structured_outputs": {"regex": pattern},
        }
        return _Answer(writing.client, self.server, body, writing.cancelled).open()
