"""Writing token by token on a tiny model: alone and among others, taken back, and with tokenizers of two makes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_models.drafting import decoding, statements
from core_models.drafting.adapter import opening
from core_models.drafting.decoding import Back, Feed, Pen, Row, Words, run
from core_models.drafting.drafter import Drafter, Job
from core_models.drafting.form import Form
from core_models.drafting.prompt import Line
from core_models.drafting.vision_language import VisionLanguage, pixels
from core_models.errors import Refused
from tests.drafting import tiny
from tests.drafting.cards import finding, measurement

pytestmark = pytest.mark.usefixtures("one_thread")

CARDS = (
    Line("heart", "Cardiomegaly"),
    Line("lungs", "Opacity, left base", "possible"),
    Line("abdomen", "liver: volume", "measured"),
    Line("other", "otherwise normal", "normal"),
)
BOARD = (
    finding("E1", "Cardiomegaly", region="heart"),
    finding("E2", "Opacity/lung/base/left", probability=0.6),
    measurement("E3", "liver: volume", 900.0),
    finding("E4", "otherwise normal", region="other"),
)


@pytest.fixture(scope="module")
def base(one_thread: None) -> VisionLanguage:
    return tiny.vision_language(seed=1, sees=True, adapter="tiny@1")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a few tokens: a random model rarely ends one itself."""
    monkeypatch.setattr(decoding, "MAX_LINE", 5)
    monkeypatch.setattr(decoding, "MAX_TOKENS", 150)


def _row(base: VisionLanguage, text: str, seen: bool = False) -> Row:
    picture = np.random.default_rng(0).random((80, 60))
    return Row(opening(base, text, seen), {"pixel_values": pixels(picture, base.image_size)} if seen else {})


def _logits(base: VisionLanguage, row: Row, more: Sequence[int]) -> torch.Tensor:
    """After these tokens, anew: without a cache."""
    with torch.inference_mode():
        return base.model(input_ids=torch.tensor([[*row.ids, *more]]), **row.inputs).logits[0, -1]


# ---- feeding the model -----------------------------------------------------------------------------------------------

Kept = list[np.ndarray]


def feeds(things: Sequence[Feed | Back], kept: Kept) -> Generator[Any, Any, None]:
    """A writer that asks for the given things and keeps the answers."""
    for thing in things:
        answer = yield thing
        if isinstance(thing, Feed):
            kept.append(answer)


def _ids(base: VisionLanguage, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("seen", [False, True], ids=["text", "picture"])
@pytest.mark.parametrize("rows", [1, 3])
def test_logits_are_those_of_the_whole_text_anew(base: VisionLanguage, seen: bool, rows: int) -> None:
    row = _row(base, "heart is enlarged\n", seen)
    one, two, three = (_ids(base, text) for text in (" lungs", " are clear, normal", "present"))
    kept: list[Kept] = [[] for _ in range(rows)]
    others = [_row(base, "x" * 7 * n, seen=n == 2) for n in range(1, rows)]
    things = [Feed(()), Feed(one), Feed(two), Back(len(two)), Feed(three)]
    writers = [feeds(things, kept[0])]
    writers += [feeds([Feed(two), Back(3), Feed(one), Feed(three)][n - 1 :], kept[n]) for n in range(1, rows)]
    list(run(base.model, [row, *others], writers))
    wanted = [(), one, (*one, *two), (*one, *three)]
    assert len(kept[0]) == len(wanted)
    for got, more in zip(kept[0], wanted, strict=True):
        np.testing.assert_allclose(got, _logits(base, row, more).numpy(), rtol=1e-3, atol=1e-3)


def test_what_is_taken_back_leaves_no_trace(base: VisionLanguage) -> None:
    row, noise = _row(base, "heart\n"), _ids(base, "The lungs are clear. Nothing else.")
    after = Feed(_ids(base, " normal"))
    clean: Kept = []
    list(run(base.model, [row], [feeds([after], clean)]))
    once: Kept = []
    things = [Feed(noise), Back(len(noise)), Feed(noise[:3]), Back(2), Back(1), Back(0), after]
    list(run(base.model, [row], [feeds(things, once)]))
    np.testing.assert_allclose(once[-1], clean[0], rtol=1e-4, atol=1e-4)
    many: list[Kept] = [[], []]
    list(run(base.model, [row, row], [feeds(things, many[0]), feeds([Feed(noise), after], many[1])]))
    np.testing.assert_allclose(many[0][-1], clean[0], rtol=1e-3, atol=1e-3)


def test_a_writer_that_ends_early_does_not_hold_up_the_others(base: VisionLanguage) -> None:
    token = Feed(_ids(base, "heart")[:1])
    kept: list[Kept] = [[], [], []]
    writers = [feeds([token] * n, kept[i]) for i, n in enumerate((0, 5, 2))]
    list(run(base.model, [_row(base, "lungs\n")] * 3, writers))
    assert [len(k) for k in kept] == [0, 5, 2]


# ---- a line ----------------------------------------------------------------------------------------------------------


def _lines(
    base: VisionLanguage, cards: Sequence[Line] = CARDS, count: int = 6, again: bool = False, **options: Any
) -> tuple[list[str], Pen]:
    """What a pen writes, and the pen."""
    pen = Pen(Words(base.tokenizer, base.model.get_output_embeddings().weight.shape[0]), Form(cards), **options)
    out: list[str] = []

    def report() -> Generator[Any, Any, None]:
        for _ in range(count):
            written = yield from pen.line()
            if written is None:
                return
            if again:
                written = yield from pen.again(0.7)
            out.append(written.line)
            if written.ends:
                pen.go_on()

    list(run(base.model, [_row(base, "Report:\n")], [report()]))
    return out, pen


@pytest.mark.usefixtures("short")
def test_greedy_lines_are_the_likeliest_that_the_form_allows(base: VisionLanguage) -> None:
    (line, *_), _ = _lines(base, count=1)
    parsed = statements.parse(line)
    assert parsed is not None
    # By hand: of the pieces that a sentence may hold, the likeliest each time.
    words = Words(base.tokenizer, base.model.config.text_config.vocab_size)
    row = _row(base, "Report:\n")
    head = line.split(":")[0] + ":"
    fed = list(_ids(base, head))
    said: list[int] = []
    for _ in range(decoding.MAX_LINE):
        allowed = words.text | words.breaks if said else words.text
        logits = _logits(base, row, [*fed, *said]).numpy()
        said.append(int(np.where(allowed, logits, -np.inf).argmax()))
    assert base.tokenizer.decode(said).strip() == parsed.template


@pytest.mark.usefixtures("short")
def test_a_line_written_again_is_drawn_by_the_seed(base: VisionLanguage) -> None:
    once = _lines(base, again=True, seed=1)[0]
    assert once == _lines(base, again=True, seed=1)[0]
    assert once != _lines(base, again=True, seed=2)[0]
    plain = _lines(base, seed=1)[0]
    assert plain == _lines(base, seed=2)[0], "greedy but for what is written again"
    assert once[0].split(":")[0] == plain[0].split(":")[0], "the header stays"


def test_a_line_has_an_end(base: VisionLanguage) -> None:
    lines, pen = _lines(base, cards=CARDS[:1], count=1)
    assert len(lines) == 1
    assert pen.tokens <= decoding.MAX_LINE + 30


@pytest.mark.usefixtures("short")
def test_what_is_shown_grows_into_the_line(base: VisionLanguage) -> None:
    pen = Pen(Words(base.tokenizer, base.model.config.text_config.vocab_size), Form(CARDS))
    written: list[Any] = []

    def report() -> Generator[Any, Any, None]:
        written.append((yield from pen.line()))

    said = [thing.line for _, thing in run(base.model, [_row(base, "Report:\n")], [report()])]
    assert said
    assert all(isinstance(line, str) and statements.parse(line) for line in said)
    assert written[0].line.startswith(said[-1].rstrip())


# ---- alone and among others ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_a_report_is_the_same_alone_and_among_others(base: VisionLanguage) -> None:
    made = Drafter(base)
    picture = np.random.default_rng(1).random((70, 90))
    jobs = [
        Job(BOARD, indication="Cough. " * 20),
        Job(BOARD[:1]),
        Job(BOARD[1:], picture=picture),
        Job(BOARD[2:3], indication="Pain."),
        Job(BOARD, picture=picture[::-1].copy(), temperature=1.0, seed=5),
    ]
    together = made.many(jobs)
    for job, among in zip(jobs, together, strict=True):
        *_, done = made.stream(job)
        assert among.statements == done.draft.statements
        assert (among.warnings, among.complete, among.tokens) == (
            done.draft.warnings,
            done.draft.complete,
            done.draft.tokens,
        )
    assert len({d.statements for d in together}) == len(jobs)


@pytest.mark.usefixtures("short")
def test_what_the_picture_shows_changes_the_draft(base: VisionLanguage) -> None:
    made = Drafter(base)
    picture = np.random.default_rng(1).random((70, 90))
    one, other, none = made.many([Job(BOARD, picture=picture), Job(BOARD, picture=1 - picture), Job(BOARD)])
    assert len({one.statements, other.statements, none.statements}) == 3


# ---- pieces of a tokenizer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny.seeing_tokenizer, tiny.byte_tokenizer], ids=["sentencepiece", "byte-level"])
def test_pieces_are_told_apart_by_what_they_may_be_used_for(make: Any) -> None:
    tokenizer = make()
    size = len(tokenizer) + 3  # a model may have more rows than its tokenizer has pieces
    words = Words(tokenizer, size)
    assert len(words.strings) == size
    for flags in (words.text, words.digits, words.breaks, words.opens, words.closes, words.apart):
        assert flags.shape == (size,)
        assert not flags[-3:].any(), "what is no piece is never written"
        assert not flags[tokenizer.all_special_ids].any()
        assert flags.any()
    for n, piece in enumerate(words.strings):
        if words.text[n]:
            assert not any(c.isdigit() or c in "{}\n\r" for c in piece), piece
    assert not (words.text & (words.digits | words.breaks | words.opens | words.closes)).any()
    for text in ("F", " E12", " lungs present:", "\n", "E3"):
        assert "".join(words.strings[t] for t in words.path(text)) == text


@given(st.integers(0, 2**31), st.integers(1, 24), st.booleans())
@settings(max_examples=20)
def test_every_choice_among_ids_can_be_made_and_read(seed: int, count: int, byte_level: bool) -> None:
    """E1 begins E12: whichever is chosen, its tokens are those of its text."""
    tokenizer = tiny.byte_tokenizer() if byte_level else tiny.seeing_tokenizer()
    words = Words(tokenizer, len(tokenizer))
    pen = Pen(words, Form(()), seed, temperature=5.0)
    options = [f" E{n}" for n in range(1, count + 1)]
    rng = np.random.default_rng(seed)
    chosen, pushed = [], []
    for _ in range(8):
        writer = pen._choose(options)
        try:
            thing = next(writer)
            while True:
                assert isinstance(thing, Feed)
                pushed += thing.tokens
                thing = writer.send(rng.normal(0, 1, len(tokenizer)))
        except StopIteration as end:
            chosen.append(end.value)
        pen._logits = None
    pushed += pen._pending
    assert set(chosen) <= set(options)
    assert tokenizer.decode(pushed) == "".join(chosen)


def test_an_answer_that_is_no_number_is_refused(base: VisionLanguage) -> None:
    pen = Pen(Words(base.tokenizer, base.model.config.text_config.vocab_size), Form(CARDS))
    writer = pen.line()
    next(writer)
    with pytest.raises(Refused, match="nonsense"):
        writer.send(np.full(base.model.config.text_config.vocab_size, np.nan, np.float32))


def test_what_is_certain_is_not_asked_for(base: VisionLanguage) -> None:
    pen = Pen(Words(base.tokenizer, base.model.config.text_config.vocab_size), Form((CARDS[2],)))
    thing = next(pen.line())
    assert isinstance(thing, Feed)
    assert base.tokenizer.decode(list(thing.tokens)) == "F E1 abdomen measured:", "a number is of the findings alone"
