"""Drafts from a language model server: a fake one on this machine that streams what the test scripts."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core_models.drafting import drafter, remote, writers
from core_models.drafting.drafter import OWN_WORDS, Done, Finished, Job, Partial, PriorText, Started
from core_models.drafting.evidence import Draft, Evidence
from core_models.errors import Busy, ModelMissing, Refused
from tests.drafting.cards import finding, measurement

HEART = finding("E2", "Cardiomegaly/mild", region="heart")
EFFUSION = finding("E4", "Pleural Effusion/left", region="pleura", probability=0.7)
NORMAL = finding("E5", "otherwise normal", region="other")
VOLUME = measurement("E7", "liver: volume", 1512.0)
CARDS = (HEART, EFFUSION, NORMAL, VOLUME)  # the model knows them as E1, E2, E3 and E4
PRIOR = PriorText("P4", matched=("The heart is enlarged.",))
PICTURE = np.linspace(0, 4000, 1200 * 1000).reshape(1200, 1000)
BOARD = Job(CARDS, (PRIOR,), "Cough.", picture=PICTURE, seed=3)

ENLARGED = "F E1 heart present: The heart is mildly enlarged.\n"
FLUID = "F E2 pleura possible: Possible left pleural effusion.\n"
CLEAR = "F E3 lungs normal: The lungs are clear.\n"
LIVER = "F E4 abdomen measured: The liver has a volume of {E4}.\n"
SUMMARY = "I E1 heart present: Mild cardiomegaly.\n"
WHOLE = ENLARGED + FLUID + CLEAR + LIVER + SUMMARY


@dataclass
class Fake:
    """An OpenAI-compatible server.

    Attributes:
        answers: text of each answer, in the order of requests; after the last one it answers nothing.
        asked: (path, headers, body) of every request.
    """

    answers: list[Any] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    address: str = ""
    port: int = 0

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.asked]


def event(piece: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    delta = {} if piece is None else {"content": piece}
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]} | more).encode() + b"\n\n"


def streamed(text: str, reason: str = "stop") -> Iterator[bytes]:
    """What vLLM sends: a first event without text, seven characters an event, the reason, the usage, the end."""
    yield event("")
    yield b": keep alive\n\n"
    for start in range(0, len(text), 7):
        yield event(text[start : start + 7])
    yield event(None, reason)
    yield b'data: {"choices": [], "usage": {"completion_tokens": 40}}\n\ndata: [DONE]\n\n'


@pytest.fixture
def fake() -> Iterator[Fake]:
    held = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            held.asked.append((self.path, dict(self.headers), body))
            answer = held.answers.pop(0) if held.answers else ""
            status, headers, chunks = (200, {}, answer)
            if isinstance(answer, tuple):
                status, headers, chunks = answer
            if callable(chunks):
                chunks = chunks()
            self.send_response(status)
            for name, value in {"Content-Type": "text/event-stream", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for chunk in streamed(chunks) if isinstance(chunks, str) else chunks:
                    self.wfile.write(chunk)
                    self.wfile.flush()
            except OSError:
                pass  # whoever asked has left

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    held.port = server.server_address[1]
    held.address = f"http://127.0.0.1:{held.port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield held
    server.shutdown()
    server.server_close()


def writer(fake: Fake, key: str = "") -> remote.Remote:
    return remote.Remote(remote.server(f"{fake.address}#tiny/model", key))


def draft(fake: Fake, *answers: Any, job: Job = BOARD) -> Draft:
    fake.answers[:] = answers
    done = list(writer(fake).stream(job))[-1]
    assert isinstance(done, Done)
    return done.draft


def test_a_draft_comes_in_order_with_the_cards_numbers_and_the_boards_ids(fake: Fake) -> None:
    fake.answers[:] = [WHOLE]
    events = list(writer(fake).stream(BOARD))
    assert isinstance(events[0], Started)
    done = events[-1].draft
    assert [(s.id, s.section, s.evidence, s.support) for s in done.statements] == [
        ("s1", "findings", ("E2",), "supported"),
        ("s2", "findings", ("E4",), "supported"),
        ("s3", "findings", ("E5",), "supported"),
        ("s4", "findings", ("E7",), "supported"),
        ("s5", "impression", ("E2",), "supported"),
    ]
    assert done.statements[3].text == "The liver has a volume of 1512 ml."
    assert done.statements[3].template == "The liver has a volume of {E7}."
    assert done.statements[0].step.follows == "present"
    assert [e.statement for e in events if isinstance(e, Finished)] == list(done.statements)
    texts = [e.text for e in events if isinstance(e, Partial) and e.statement_id == "s1"]
    assert len(texts) > 3
    assert all("The heart is mildly enlarged.".startswith(t) for t in texts)
    assert (done.complete, done.warnings, done.tokens) == (True, (), 40)
    assert done.model.name == f"tiny/model@127.0.0.1:{fake.port}"
    assert (done.model.adapter, done.model.seed) == ("", 3)
    assert len(fake.asked) == 1


def test_the_server_is_sent_bytes_and_no_address_and_nothing_of_the_patient(fake: Fake) -> None:
    draft(fake, WHOLE)
    path, headers, body = fake.asked[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["stream"], body["seed"], body["temperature"]) == ("tiny/model", True, 3, 0.0)
    picture, text = body["messages"][0]["content"]
    url = picture["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as png:
        assert (png.format, png.mode, max(png.size)) == ("PNG", "RGB", 896)
        assert png.info == {}, "no text, time or profile in the file"
    assert not re.search(r"https?:|file:|www\.", json.dumps(body).replace(url, ""))
    words = text["text"].rpartition("and nothing else:\n")[2]
    assert words == (
        "Modality: radiograph\nIndication: Cough.\nE1 heart Cardiomegaly/mild\n"
        "E2 pleura possible Pleural Effusion/left\nE3 other otherwise normal\n"
        "E4 abdomen liver: volume {E4}\nP1 The heart is enlarged.\nReport:\n"
    )
    assert set(body) == {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "structured_outputs",
    }


def test_the_form_goes_along_as_a_regular_expression(fake: Fake) -> None:
    draft(fake, WHOLE)
    pattern = fake.bodies()[0]["structured_outputs"]["regex"]
    assert "(?" not in pattern, "plain groups: what every engine of vLLM reads"
    assert re.fullmatch(pattern, WHOLE)
    assert re.fullmatch(pattern, "F E1 P1 heart present: The heart is enlarged.\n")
    for wrong in (
        "F E9 heart present: The heart is enlarged.\n",
        "F E1 lungs present: The heart is enlarged.\n",
        "F E1 heart possible: The heart is enlarged.\n",
        "F E1 E2 heart present: The heart is enlarged.\n",  # a finding and a proposal
        "F E1 P2 heart present: The heart is enlarged.\n",
        "F E1 heart present: The heart measures 15 cm.\n",
        "F E1 heart present: The heart is {E4}.\n",
        "I E4 abdomen measured: {E4}.\n",
        SUMMARY + ENLARGED,
        "Here is the report:\n" + ENLARGED,
    ):
        assert not re.fullmatch(pattern, wrong), wrong


def test_a_key_is_sent_and_never_shown(fake: Fake) -> None:
    fake.answers[:] = [WHOLE]
    mine = writer(fake, "secret-1")
    list(mine.stream(BOARD))
    assert fake.asked[0][1]["Authorization"] == "Bearer secret-1"
    assert "secret-1" not in repr(mine.server)


def test_what_was_sent_and_what_was_not_seen_is_said(fake: Fake) -> None:
    unseen = draft(fake, WHOLE, job=replace(BOARD, modality="CT", indication="")).unseen
    assert unseen[0] == "The language model was sent the image at 896 pixels or less."
    assert f"The language model server 127.0.0.1:{fake.port} was sent the cards, the indication" in unseen[-1]
    assert unseen[-1].endswith("and the image.")
    assert any("not trained by Reading Room" in s for s in unseen)
    assert not any("chest radiograph reports only" in s or "64 coarse" in s for s in unseen)
    blind = draft(fake, WHOLE, job=replace(BOARD, picture=None)).unseen
    assert blind[0] == drafter.NO_PICTURE
    assert "image" not in blind[-1]
    assert [part["type"] for part in fake.bodies()[1]["messages"][0]["content"]] == ["text"]


def test_lines_without_the_form_are_left_out_and_counted_even_where_the_server_ignores_the_form(fake: Fake) -> None:
    noise = (
        "Sure! Here is the report:\n\n```\n- F E1 heart present: Big.\nF E9 heart present: The heart is enlarged.\n"
        "F E1 lungs present: The heart is enlarged.\nF E4 abdomen measured: The liver measures {E1}.\n"
        "F E1 heart present: \nF E1 heart present: The heart measures 15 cm.\n"
    )
    done = draft(fake, noise + WHOLE + "```\n")
    assert [s.text for s in done.statements] == [s.text for s in draft(fake, WHOLE).statements]
    assert done.warnings == ("9 line(s) of the model did not have the form and were left out.",)


def test_repeated_lines_are_left_out_and_counted(fake: Fake) -> None:
    again = "F E1 heart present: THE HEART IS MILDLY ENLARGED.\n"
    third = "F E1 heart present: There is mild cardiomegaly.\nF E1 heart present: Mild cardiac enlargement.\n"
    done = draft(fake, ENLARGED + again + third + FLUID + CLEAR + LIVER)
    assert done.warnings == ("2 repeated line(s) were left out.",)  # the same words; a third time about one finding
    assert len(done.statements) == 5


def test_a_line_that_the_cards_do_not_support_is_asked_for_once_more(fake: Fake) -> None:
    wrong = "F E1 heart present: The heart is normal in size.\n"
    done = draft(fake, wrong + FLUID + CLEAR + LIVER, ENLARGED)
    first = done.statements[0]
    assert (first.text, first.support) == ("The heart is mildly enlarged.", "supported")
    assert first.rewritten == "The heart is normal in size."
    assert len(fake.asked) == 2
    body = fake.bodies()[1]
    assert body["temperature"] == drafter.TRY_AT
    assert body["messages"][-1]["content"].endswith("It begins with: F E1 heart present:")
    assert re.fullmatch(body["structured_outputs"]["regex"], ENLARGED)
    assert not re.fullmatch(body["structured_outputs"]["regex"], FLUID)


@pytest.mark.parametrize("second", ["F E1 heart present: No cardiomegaly.\n", "nonsense\n", ""])
def test_a_line_that_fails_twice_stands_marked_and_its_card_in_its_own_words(fake: Fake, second: str) -> None:
    wrong = "F E1 heart present: The heart is normal in size.\n"
    done = draft(fake, wrong + FLUID + CLEAR + LIVER, second)
    first, *_, last = done.statements
    assert first.support == "contradicted"
    assert first.text == ("No cardiomegaly." if "No" in second else "The heart is normal in size.")
    assert first.rewritten == ("The heart is normal in size." if "No" in second else "")
    assert (last.text, last.evidence, last.step.follows) == ("Mild cardiomegaly.", ("E2",), OWN_WORDS)
    assert len(fake.asked) == 3, "the report, the line again, the card again"
    assert done.complete


def test_what_is_called_normal_where_a_card_says_otherwise_is_left_out_and_named(fake: Fake) -> None:
    wrong = "F E3 heart normal: The heart is normal in size.\n"
    done = draft(fake, ENLARGED + FLUID + wrong + CLEAR + LIVER, wrong)
    assert [s.text for s in done.left_out] == ["The heart is normal in size."]
    assert "The heart is normal in size." not in [s.text for s in done.statements]
    assert {s.support for s in done.statements} == {"supported"}
    assert done.warnings == ("Left out, since a card says otherwise: “The heart is normal in size.” (E2).",)
    assert len(fake.asked) == 2


def test_a_card_that_was_left_out_is_asked_for_once(fake: Fake) -> None:
    done = draft(fake, ENLARGED + FLUID + CLEAR + SUMMARY, LIVER)
    assert [s.section for s in done.statements] == ["findings"] * 4 + ["impression"]
    assert done.statements[3].text == "The liver has a volume of 1512 ml."
    messages = fake.bodies()[1]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == (ENLARGED + FLUID + CLEAR + SUMMARY).strip()
    assert messages[2]["content"].endswith("It begins with: F E4 abdomen measured:")


def test_cards_that_the_model_never_writes_about_are_stated_in_their_own_words(fake: Fake) -> None:
    done = draft(fake, CLEAR)
    assert [s.step.follows for s in done.statements] == ["normal", OWN_WORDS, OWN_WORDS, OWN_WORDS]
    assert {s.support for s in done.statements} == {"supported"}
    assert done.warnings == ()
    assert len(fake.asked) == 4


def test_unnamed_measurements_are_not_sent_and_alone_they_need_no_server(fake: Fake) -> None:
    length = Evidence("E9", "measurement", "other", "axial slice 57: length", 117.2, "mm", annotation_id="a")
    job = replace(BOARD, picture=None, cards=(length,))
    *_, done = writer(fake).stream(job)
    assert [s.text for s in done.draft.statements] == ["On axial slice 57, length 117 mm."]
    assert fake.asked == []
    done = draft(fake, CLEAR, job=replace(job, cards=(*BOARD.cards, length)))
    assert "On axial slice 57, length 117 mm." in [s.text for s in done.statements]
    assert "slice" not in str(fake.bodies())


def test_a_report_at_its_limit_is_not_complete_and_says_so(fake: Fake) -> None:
    done = draft(fake, (200, {}, lambda: streamed(ENLARGED + "F E2 pleura possible: Poss", "length")))
    assert not done.complete
    assert done.warnings[-2] == "The draft reached its limit of 600 tokens and ends there."
    assert done.warnings[-1].startswith("Not written about: ")


def test_several_drafts_are_each_their_own(fake: Fake) -> None:
    jobs = [replace(BOARD, picture=None, cards=(card,)) for card in (HEART, EFFUSION, VOLUME)]
    counted: list[tuple[int, int]] = []
    drafts = writer(fake).many(jobs, lambda done, of: counted.append((done, of)))
    assert [[s.evidence for s in d.statements] for d in drafts] == [[("E2",)], [("E4",)], [("E7",)]]
    assert counted == [(1, 3), (2, 3), (3, 3)]


def test_without_steps_lines_are_sentences(fake: Fake) -> None:
    lines = "F: The heart is mildly enlarged.\nF: Possible left pleural effusion.\nI: Mild cardiomegaly.\n"
    done = draft(fake, lines, job=replace(BOARD, steps=False))
    assert [s.text for s in done.statements][::2] == ["The heart is mildly enlarged.", "Mild cardiomegaly."]
    assert re.fullmatch(fake.bodies()[0]["structured_outputs"]["regex"], lines)
    assert all(s.step is None for s in done.statements)


def test_nothing_to_write_from_is_refused_and_nothing_is_sent(fake: Fake) -> None:
    with pytest.raises(Refused, match="nothing to write from"):
        list(writer(fake).stream(Job(())))
    assert fake.asked == []


# ---- a server that fails ---------------------------------------------------------------------------------------------


def _broken_off() -> Iterator[bytes]:
    yield event(ENLARGED)
    yield event(FLUID[:20])


def _failing() -> Iterator[bytes]:
    yield event(ENLARGED)
    yield b'data: {"error": {"message": "CUDA out of memory in /srv/secret", "code": 500}}\n\n'


def _cut_event() -> Iterator[bytes]:
    yield event(ENLARGED)
    yield b'data: {"choices": [{"del\n\n'


def _no_text() -> Iterator[bytes]:
    yield event(ENLARGED)
    yield b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'


def _endless() -> Iterator[bytes]:
    yield event(ENLARGED)
    while True:
        yield event("x" * 100_000)


@pytest.mark.parametrize(
    ("chunks", "kind", "word"),
    [
        (_broken_off, Busy, "ended in the middle"),
        (_failing, Busy, "failed while it wrote"),
        (_cut_event, Refused, "another form than OpenAI's"),
        (_no_text, Refused, "another form than OpenAI's"),
        (_endless, Refused, "more than a report can hold"),
    ],
)
def test_a_server_that_dies_while_it_writes_leaves_what_was_finished(
    fake: Fake, chunks: Callable[[], Iterator[bytes]], kind: type[Exception], word: str
) -> None:
    fake.answers[:] = [(200, {}, chunks), WHOLE]
    heard: list[Any] = []
    mine = writer(fake)
    with pytest.raises(kind, match=word) as failure:
        heard.extend(mine.stream(BOARD))
    assert [e.statement.text for e in heard if isinstance(e, Finished)] == ["The heart is mildly enlarged."]
    assert "secret" not in str(failure.value)
    assert list(mine.stream(BOARD))[-1].draft.complete, "the next draft works"


@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        ((401, {}, [b"{}"]), Refused, "READING_ROOM_WRITER_KEY"),
        ((404, {}, [b"{}"]), ModelMissing, "no model 'tiny/model'"),
        ((429, {}, [b"{}"]), Busy, "try again"),
        ((503, {}, [b"{}"]), Busy, "try again"),
        ((500, {}, [b"Patient DOE^JANE"]), Busy, r"failed \(500\)"),
        ((200, {}, [b'{"id": "x", "choices": []}\n']), Refused, "another form"),
        ((200, {}, [b"<html>hello</html>\n"]), Refused, "another form"),
        ((200, {}, [b"data: [1, 2]\n\n"]), Refused, "another form"),
        ((200, {}, [b"data: \xff\xfe\n\n"]), Refused, "another form"),
        ((200, {}, [b""]), Busy, "ended in the middle"),
    ],
)
def test_a_server_that_refuses_or_answers_nonsense_is_told_in_a_sentence(
    fake: Fake, answer: Any, kind: type[Exception], word: str
) -> None:
    fake.answers[:] = [answer]
    with pytest.raises(kind, match=word) as failure:
        list(writer(fake).stream(BOARD))
    assert str(failure.value).endswith(".")
    assert "DOE" not in str(failure.value)
    assert len(fake.asked) == 1


def test_a_redirect_is_not_followed(fake: Fake) -> None:
    fake.answers[:] = [(307, {"Location": f"{fake.address}/elsewhere"}, [b""])]
    with pytest.raises(Refused, match="sends elsewhere"):
        list(writer(fake).stream(BOARD))
    assert [path for path, _, _ in fake.asked] == ["/v1/chat/completions"]


def test_no_proxy_of_the_environment_is_used(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert draft(fake, WHOLE).complete


def test_no_server_is_told_in_a_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = remote.Remote(remote.server(f"http://127.0.0.1:{port}/v1#m"))
    with pytest.raises(ModelMissing, match="does not answer: start it"):
        list(mine.stream(BOARD))


def test_a_silent_server_is_left_after_a_while(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def silent() -> Iterator[bytes]:
        yield event(ENLARGED)
        gone.wait(30)

    monkeypatch.setattr(remote, "SILENT_S", 0.2)
    fake.answers[:] = [(200, {}, silent)]
    with pytest.raises(Busy, match="too long"):
        list(writer(fake).stream(BOARD))
    gone.set()


def test_a_server_that_never_ends_is_left(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def dripping() -> Iterator[bytes]:
        while not gone.wait(0.02):
            yield b": keep alive\n\n"

    monkeypatch.setattr(remote, "ANSWER_S", 0.3)
    fake.answers[:] = [(200, {}, dripping)]
    with pytest.raises(Busy, match="does not end"):
        list(writer(fake).stream(BOARD))
    gone.set()


def test_a_stop_is_noticed_while_the_server_is_silent(fake: Fake) -> None:
    gone = threading.Event()

    def silent() -> Iterator[bytes]:
        yield event(ENLARGED)
        gone.wait(30)

    fake.answers[:] = [(200, {}, silent), WHOLE]
    stop = threading.Event()
    mine = writer(fake)
    events = []
    for thing in mine.stream(BOARD, stop.is_set):
        events.append(thing)
        if isinstance(thing, Finished):
            stop.set()
    assert [s.text for s in events[-1].draft.statements] == ["The heart is mildly enlarged."]
    assert not events[-1].draft.complete
    assert not gone.is_set(), "it did not wait for the server"
    gone.set()
    assert list(mine.stream(BOARD))[-1].draft.complete


def test_a_server_without_eyes_writes_from_the_cards_and_the_draft_says_so(fake: Fake) -> None:
    done = draft(fake, (400, {}, [b'{"error": {"message": "not a multimodal model"}}']), WHOLE)
    assert done.complete
    assert done.unseen[0] == "No picture was given to the language model: its server did not take one."
    assert not any("was sent the image" in s or "and the image" in s for s in done.unseen)
    assert [len(b["messages"][0]["content"]) for b in fake.bodies()] == [2, 1]


def test_a_request_that_is_refused_without_a_picture_too_is_told(fake: Fake) -> None:
    with pytest.raises(Refused, match=r"does not take the request \(400\)"):
        draft(fake, (400, {}, [b"{}"]), (422, {}, [b"{}"]), job=replace(BOARD, picture=None))
    assert len(fake.asked) == 1


def test_no_thread_is_left_behind(fake: Fake) -> None:
    draft(fake, WHOLE)
    until = time.monotonic() + 5
    while any(t.name == "language-model-server" for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(t.name == "language-model-server" for t in threading.enumerate())


# ---- where the server may be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8000/v1#m", "http://localhost/v1/#m", "https://[::1]:8000/v1#a/b", "http://127.8.8.8#m"],
)
def test_a_server_on_this_machine_is_taken(address: str) -> None:
    where = remote.server(address)
    assert where.model in ("m", "a/b")
    assert not where.base.endswith("/")


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.7:8000/v1#m",
        "https://api.example.com/v1#m",
        "http://localhost.example.com/v1#m",
        "http://127.0.0.1.example.com/v1#m",
        "http://0x7f000001/v1#m",
        "http://[fe80::1]/v1#m",
    ],
)
def test_another_machine_needs_a_word_of_its_own(address: str) -> None:
    with pytest.raises(Refused, match="READING_ROOM_WRITER_ALLOW_REMOTE=1"):
        remote.server(address)
    assert remote.server(address, allow_remote=True).model == "m"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:8000#m",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8000/v1#",
        "file:///etc#m",
        "http://user:word@127.0.0.1/v1#m",
        "http://127.0.0.1/v1?key=1#m",
        "http://127.0.0.1:port/v1#m",
        "http://[::1/v1#m",
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="is set as"):
        remote.server(address, allow_remote=True)


# ---- which writer ----------------------------------------------------------------------------------------------------


def test_a_setting_opens_its_writer(fake: Fake, tmp_path: Path) -> None:
    fake.answers[:] = [WHOLE]
    opened = writers.open_writer(f"server:{fake.address}#tiny/model", tmp_path, key="k")
    assert list(opened.stream(BOARD))[-1].draft.complete
    with pytest.raises(ModelMissing, match=r"app\.py prepare"):
        writers.open_writer("", tmp_path)
    with pytest.raises(ModelMissing, match=r"app\.py prepare"):
        writers.open_writer("embedded", tmp_path)
    with pytest.raises(ModelMissing, match="no language model in the folder 'x'"):
        writers.open_writer(f"folder:{tmp_path / 'x'}", tmp_path)


def test_an_adapter_is_not_sent_to_a_server(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="adapter cannot be sent"):
        writers.open_writer(f"server:{fake.address}#m", tmp_path, tmp_path)


def test_another_machine_is_refused_by_the_setting_too(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="another machine"):
        writers.open_writer("server:http://10.0.0.7/v1#m", tmp_path)


@pytest.mark.parametrize("setting", ["folder", "server", "cloud:x", "/models/x"])
def test_another_form_of_setting_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="READING_ROOM_WRITER"):
        writers.open_writer(setting, tmp_path)


def test_every_writer_tells_its_licence_needs_cost_and_where_the_study_goes() -> None:
    assert [w.name for w in writers.WRITERS] == ["embedded", "folder", "server"]
    for known in writers.WRITERS:
        assert all((known.licence, known.needs, known.cost, known.sends))
    assert writers.row("folder:/x").name == "folder"
    assert writers.row("").name == "embedded"
