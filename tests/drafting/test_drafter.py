"""Drafts from a scripted model: the order of events, what is left out, and whose numbers and ids they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from core_models.drafting import drafter, prompt
from core_models.drafting.drafter import Done, Drafter, Finished, Partial, PriorText, Started
from core_models.drafting.evidence import Draft, Evidence, Step
from core_models.errors import Refused
from tests.drafting import tiny
from tests.drafting.cards import finding, measurement

HEART = finding("E2", "Cardiomegaly/mild", region="heart")
NORMAL = finding("E5", "otherwise normal", region="other")
VOLUME = measurement("E7", "liver: volume", 1512.0)
CARDS = (HEART, NORMAL, VOLUME)  # the model knows them as E1, E2 and E3
ENLARGED = "F heart E1 present: The heart is mildly enlarged.\n"
CLEAR = "F pleura E2 normal: No pneumothorax.\n"
LIVER = "F abdomen E3 measured: The liver has a volume of {E3}.\n"
PRIOR = PriorText("P4", matched=("The lungs are clear.", "The heart is enlarged."))


class Scripted(Drafter):
    """A drafter whose model writes the given text, three characters a token.

    Attributes:
        read: the prompts that it was given.
        told: how many tokens it was asked for.
    """

    def __init__(self, text: str, ends: bool = True) -> None:
        super().__init__(tiny.LanguageModel(None, None, tiny.DIGEST, "mine@1"))
        self.text, self.ends = text, ends
        self.read: list[str] = []
        self.told = 0

    def _tokens(self, text: str) -> Iterator[tuple[str, int, bool]]:
        self.read.append(text)
        for start in range(0, len(self.text), 3):
            self.told += 1
            yield self.text[start : start + 3], self.told, False
        if self.ends:
            yield "", self.told + 1, True


def events(model: Drafter, cards: Sequence[Evidence] = CARDS, priors: Sequence[PriorText] = (), **options: Any) -> list:
    return list(model.stream(cards, priors, **{"indication": "Cough.", "modality": "CR"} | options))


def draft(text: str, cards: Sequence[Evidence] = CARDS, priors: Sequence[PriorText] = (), **options: Any) -> Draft:
    return events(Scripted(text), cards, priors, **options)[-1].draft


def test_events_come_in_order() -> None:
    heard = events(Scripted(ENLARGED + LIVER))
    assert isinstance(heard[0], Started)
    assert isinstance(heard[-1], Done)
    assert {type(e) for e in heard[1:-1]} == {Partial, Finished}
    finished = [e.statement for e in heard if isinstance(e, Finished)]
    assert heard[-1].draft.statements == tuple(finished)
    assert [s.id for s in finished] == ["s1", "s2"]
    # Each statement grows, and then it is whole.
    for statement in finished:
        mine = [n for n, e in enumerate(heard) if isinstance(e, Partial) and e.statement_id == statement.id]
        texts = [heard[n].text for n in mine]
        assert len(texts) > 3
        assert all(statement.text.startswith(t) for t in texts)
        assert texts == sorted(texts, key=len)
        assert mine[-1] < heard.index(Finished(statement))
        assert all(heard[n].step == statement.step for n in mine)


def test_a_draft_says_what_wrote_it() -> None:
    started, *_, done = events(Scripted(ENLARGED), seed=7)
    assert started.model == done.draft.model
    assert (started.model.adapter, started.model.index_digest, started.model.seed) == ("mine@1", "", 7)
    assert started.model.name.endswith(tiny.DIGEST[:12])
    assert done.draft.complete
    assert done.draft.tokens == -(-len(ENLARGED) // 3) + 1


def test_numbers_come_from_the_cards_and_ids_are_the_boards() -> None:
    heart, clear, liver = draft(ENLARGED + CLEAR + LIVER).statements
    assert (heart.evidence, heart.step) == (("E2",), Step(("E2",), "present"))
    assert (clear.evidence, clear.step) == (("E5",), Step(("E5",), "normal"))
    assert liver.text == "The liver has a volume of 1512 ml."
    assert (liver.template, liver.evidence) == ("The liver has a volume of {E7}.", ("E7",))
    assert {s.support for s in (heart, clear, liver)} == {"supported"}
    assert {s.origin for s in (heart, clear, liver)} == {"model"}


def test_the_model_reads_cards_by_its_own_numbers_and_no_values() -> None:
    model = Scripted(ENLARGED)
    events(model, CARDS, [PRIOR], indication="Dyspnoea {E1}\n<eos>", modality="CT")
    assert model.read == [
        "Modality: CT\nIndication: Dyspnoea E1\nE1 heart Cardiomegaly/mild\nE2 other otherwise normal\n"
        "E3 abdomen liver: volume {E3}\nP1 The heart is enlarged.\nReport:\n"
    ]


def test_priors_are_quoted_where_they_state_a_finding_of_the_board() -> None:
    model = Scripted("F heart E1 P1 present: The heart is enlarged.\n")
    others = (PriorText("P1", matched=("No cardiomegaly.", "Left opacity.")), PriorText("P2"))
    (statement,) = events(model, CARDS, [*others, PRIOR])[-1].draft.statements
    assert model.read[0].count("\nP") == 1
    assert statement.evidence == ("E2", "P4")
    assert statement.support == "supported"


def test_a_prior_alone_supports_nothing() -> None:
    (statement,) = draft("F heart P1 present: The heart is enlarged.\n", CARDS, [PRIOR]).statements
    assert (statement.evidence, statement.support) == (("P4",), "unsupported")


def test_a_number_is_stated_once_in_each_section() -> None:
    again = "F abdomen E3 measured: The liver measures {E3} in volume.\n"
    summary = "I abdomen E3 measured: Liver volume {E3}.\n"
    done = draft(LIVER + again + summary)
    assert [s.section for s in done.statements] == ["findings", "impression"]
    assert done.warnings[0] == "1 repeated line(s) were left out."


def test_malformed_and_repeated_lines_are_left_out_and_counted() -> None:
    noise = "The heart is enlarged.\n\nF kidney E1 present: Big.\nF heart E1 present:\n"
    again = ENLARGED.upper().replace("F HEART E1 PRESENT", "F heart E1 present")
    done = draft(ENLARGED + noise + ENLARGED + again + ENLARGED.replace("F", "I", 1) + CLEAR + LIVER)
    assert [(s.id, s.section) for s in done.statements] == [
        ("s1", "findings"),
        ("s2", "impression"),
        ("s3", "findings"),
        ("s4", "findings"),
    ]
    assert done.warnings == (
        "3 line(s) of the model did not have the form and were left out.",
        "2 repeated line(s) were left out.",
    )


def test_the_last_line_needs_no_line_break() -> None:
    done = draft((ENLARGED + CLEAR + LIVER).rstrip())
    assert (len(done.statements), done.complete, done.warnings) == (3, True, ())


@pytest.mark.parametrize(
    ("line", "evidence"),
    [
        ("F heart E9 present: The heart is mildly enlarged.\n", ()),
        ("F heart present: The heart is mildly enlarged.\n", ()),
        ("F abdomen E3 E9 measured: The liver has a volume of {E9}.\n", ("E7",)),
        ("F heart E1 present: The heart measures {E1}.\n", ("E2",)),
        # The board has a card E7, but the model was never shown it by that name.
        ("F abdomen E3 measured: The liver has a volume of {E7}.\n", ("E7",)),
    ],
)
def test_ids_that_the_model_made_up_support_nothing(line: str, evidence: tuple[str, ...]) -> None:
    (statement,) = draft(line).statements
    assert (statement.evidence, statement.support) == (evidence, "unsupported")
    assert "1512" not in statement.text


def test_what_the_board_contradicts_says_so() -> None:
    (statement,) = draft("F heart E2 normal: No cardiomegaly.\n").statements
    assert (statement.support, statement.note) == ("contradicted", "E2 says otherwise: Cardiomegaly/mild.")


def test_half_a_placeholder_is_never_shown() -> None:
    partial = [e.text for e in events(Scripted(LIVER)) if isinstance(e, Partial)]
    assert not any("{" in text for text in partial)
    assert "The liver has a volume of 1512 ml." in partial


def test_rejected_and_clinical_cards_are_not_written_from() -> None:
    model = Scripted("F abdomen E2 measured: The liver has a volume of {E2}.\n")
    indication = Evidence("E9", "clinical", "other", "Cough.")
    done = events(model, (replace(HEART, status="rejected"), indication, NORMAL, VOLUME))[-1].draft
    assert "Cardiomegaly" not in model.read[0]
    assert "E1 other otherwise normal\nE2 abdomen liver: volume {E2}\nReport:" in model.read[0]
    assert done.statements[0].evidence == ("E7",)
    assert done.warnings == ("Not written about: E5.",)


@pytest.mark.parametrize(
    "cards",
    [
        (),
        (replace(HEART, status="rejected"),),
        (Evidence("E1", "clinical", "other", "Cough."), Evidence("P1", "prior", "other", "The heart is enlarged.")),
    ],
)
def test_without_a_card_nothing_is_written(cards: tuple[Evidence, ...]) -> None:
    model = Scripted(ENLARGED)
    with pytest.raises(Refused, match="There is nothing to write from"):
        events(model, cards, [PRIOR])
    assert model.read == []


def test_cards_that_no_statement_cites_are_named() -> None:
    assert draft(ENLARGED).warnings == ("Not written about: E5, E7.",)
    assert draft("").warnings == ("Not written about: E2, E5, E7.",)


def test_cancelling_stops_the_model_and_keeps_what_is_whole() -> None:
    model = Scripted(ENLARGED + CLEAR)
    said: list[Any] = []
    for event in model.stream(
        CARDS, (), "", modality="CR", cancelled=lambda: any(isinstance(e, Finished) for e in said)
    ):
        said.append(event)
    done = said[-1].draft
    assert [s.text for s in done.statements] == ["The heart is mildly enlarged."]
    assert not done.complete
    assert model.told <= -(-len(ENLARGED) // 3) + 1


def test_a_draft_that_reaches_the_length_limit_is_not_complete() -> None:
    done = events(Scripted(ENLARGED + CLEAR.rstrip(), ends=False))[-1].draft
    assert [s.text for s in done.statements] == ["The heart is mildly enlarged."], "half a sentence is none"
    assert not done.complete


def test_a_listener_who_leaves_frees_the_model() -> None:
    model = Scripted(ENLARGED)
    stream = model.stream(CARDS, (), "", modality="CR")
    next(stream)
    stream.close()
    assert isinstance(events(model)[-1], Done)


def test_what_was_not_seen_is_said() -> None:
    images = "Images were not read by the language model: it writes from the cards on the board."
    assert draft(ENLARGED).unseen == (images,)
    assert draft(ENLARGED, indication=" ", modality="CT").unseen == (
        images,
        "The language model was trained on chest radiograph reports only.",
        "No indication was given.",
    )
    assert draft(ENLARGED, indication="x " * prompt.MAX_INDICATION).unseen[1:] == (
        "Only the first 240 characters of the indication were read.",
    )
    many = [finding(f"E{n}", f"Opacity/{n}") for n in range(1, prompt.MAX_CARDS + 3)]
    assert draft("F lungs E1 present: Opacity.\n", many).unseen[1:] == (
        "Cards beyond the first 24 were not read: E25, E26.",
    )


# The decoding itself, on a tiny model.


@pytest.mark.usefixtures("one_thread")
def test_decoding_is_greedy_and_stops_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(drafter, "MAX_NEW_TOKENS", 12)
    base = tiny.language_model()
    words = base.tokenizer
    ids = words("heart is enlarged").input_ids
    wanted: list[int] = []
    for _ in range(12):  # anew for each token, without a cache
        with torch.inference_mode():
            logits = base.model(input_ids=torch.tensor([ids + wanted])).logits[0, -1]
        wanted.append(int(logits.argmax()))
    said = list(Drafter(base)._tokens("heart is enlarged"))
    assert "".join(piece for piece, _, _ in said) == words.decode(wanted, skip_special_tokens=True)
    assert not any(ended for _, _, ended in said)

    # The same model, whose fourth token ends the text.
    words.eos_token = words.convert_ids_to_tokens(wanted[3])
    first = wanted.index(words.eos_token_id)
    said = list(Drafter(base)._tokens("heart is enlarged"))
    assert said[-1] == ("", first + 1, True)
    assert len(said) <= first + 1
