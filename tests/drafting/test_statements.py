"""Lines of the model ↔ statements; numbers that stay bound to their cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_models.drafting.evidence import REGIONS
from core_models.drafting.findings import region_of
from core_models.drafting.statements import (
    FOLLOWS,
    MAX_TEXT,
    Line,
    parse,
    placeholders,
    rebind,
    refresh,
    render,
    renumber,
)
from tests.drafting.cards import finding, measurement, statement

VOLUME = measurement("E3", "liver: volume", 1512.4)
LENGTH = measurement("E4", "liver: longest axial diameter", 182.0, "mm")
BOTH = "The liver has a volume of {E3} and a longest axial diameter of {E4}."

idents = st.builds("{}{}".format, st.sampled_from("EP"), st.integers(0, 9999))
sentences = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=MAX_TEXT)
lines = st.builds(
    Line,
    st.sampled_from(["findings", "impression"]),
    st.sampled_from(REGIONS),
    st.lists(idents, max_size=5, unique=True).map(tuple),
    st.sampled_from(FOLLOWS),
    sentences.map(str.strip),
)


bare = st.builds(lambda section, text: f"{section}: {text}", st.sampled_from("FI"), sentences.map(str.strip))


@given(lines)
def test_a_line_reads_back_as_it_was_written(line: Line) -> None:
    assert parse(line.format()) == line


@given(bare)
def test_a_line_without_reasoning_reads_back_with_the_region_of_its_words(text: str) -> None:
    line = parse(text)
    assert line is not None
    assert (line.format().strip(), line.evidence, line.follows) == (text.strip(), (), "")
    assert line.region == region_of(line.template)


@given(st.text())
def test_any_text_gives_a_line_of_the_form_or_none(text: str) -> None:
    line = parse(text)
    assert line is None or (
        line.region in REGIONS and line.follows in ("", *FOLLOWS) and len(line.template) <= MAX_TEXT
    )


def test_the_form_as_the_model_is_taught_it() -> None:
    line = parse("F E1 P1 heart present: The heart is mildly enlarged.")
    assert line == Line("findings", "heart", ("E1", "P1"), "present", "The heart is mildly enlarged.")
    assert parse("I E1 E1 heart present: Big heart.") == Line("impression", "heart", ("E1",), "present", "Big heart.")
    assert parse("F E2 lungs possible: Possible pneumonia.").follows == "possible"
    assert parse("F: The heart is enlarged.") == Line("findings", "heart", (), "", "The heart is enlarged.")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "The heart is enlarged.",
        "X E1 heart present: Enlarged.",
        "F E1 kidney present: Enlarged.",
        "F E1 heart perhaps: Enlarged.",
        "F E1 heart present Enlarged.",
        "F E12345 heart present: Enlarged.",
        "F S1 heart present: Enlarged.",
        "f E1 heart present: Enlarged.",
        "F heart E1 present: Enlarged.",  # the order that the form once had
        "F E1 heart present: Enlarged.\nF E1 lungs present: Clear.",
        "F: Enlarged.\nF: Clear.",
        "F Enlarged.",
    ],
)
def test_what_does_not_have_the_form_is_no_line(line: str) -> None:
    assert parse(line) is None


def test_a_long_sentence_is_cut() -> None:
    line = parse("F E1 heart present: " + "x" * 10_000)
    assert line is not None
    assert len(line.template) == MAX_TEXT


def test_placeholders_stand_in_order_and_once() -> None:
    assert placeholders("{E4} {E3} {E4} {P1} {x} {E} E5 {E12345}") == ("E4", "E3", "P1")


def test_numbers_come_from_the_cards() -> None:
    assert render(BOTH, [VOLUME, LENGTH]) == "The liver has a volume of 1512 ml and a longest axial diameter of 182 mm."
    assert render("{E3} {E9}", [VOLUME]) == "1512 ml [?]"
    assert render("{E1}", [finding("E1", "Cardiomegaly")]) == "[?]"


def test_renumber_renames_all_at_once() -> None:
    assert renumber("{E1} {E2} {E9} E1", {"E1": "E2", "E2": "E7"}) == "{E2} {E7} {E9} E1"


def test_a_statement_is_stale_while_a_number_or_card_of_it_is_not_what_it_was() -> None:
    cards = (VOLUME, LENGTH)
    said = statement(BOTH, "E3", "E4", cards=cards)
    assert rebind(said, cards) is said
    for changed in (
        (replace(VOLUME, value=1600.0), LENGTH),
        (VOLUME,),
        (VOLUME, replace(LENGTH, status="rejected")),
    ):
        stale = rebind(said, changed)
        assert stale == replace(said, stale=True), "the words stay"
        assert rebind(stale, cards) == said, "and it is current again when the board is"
    # A change that does not show in the text is none.
    assert rebind(said, (replace(VOLUME, value=1512.1, status="accepted"), LENGTH)) is said


def test_a_readers_words_are_not_bound_to_numbers() -> None:
    said = statement(BOTH, "E3", "E4", cards=(VOLUME, LENGTH)).edited("A liver of 1512 ml.")
    assert rebind(said, (replace(VOLUME, value=1.0), LENGTH)) is said


def test_refresh_fills_the_numbers_anew() -> None:
    said = replace(statement(BOTH, "E3", "E4", cards=(VOLUME, LENGTH), support="supported"), stale=True)
    new = refresh(said, (replace(VOLUME, value=1600.0), LENGTH))
    assert new.text == "The liver has a volume of 1600 ml and a longest axial diameter of 182 mm."
    assert (new.evidence, new.support, new.stale) == (("E3", "E4"), "supported", False)


@pytest.mark.parametrize("cards", [(VOLUME,), (VOLUME, replace(LENGTH, status="rejected"))])
def test_refresh_does_not_keep_the_number_of_a_card_that_is_gone(cards: tuple) -> None:
    said = statement(BOTH, "E3", "E4", cards=(VOLUME, LENGTH), support="supported")
    new = refresh(rebind(said, cards), cards)
    assert new.text == "The liver has a volume of 1512 ml and a longest axial diameter of [?]."
    assert (new.evidence, new.support, new.stale) == (("E3",), "unsupported", False)
    assert rebind(new, cards) is new, "agreeing once is enough"


def test_refresh_lets_cards_go_and_says_when_none_is_left() -> None:
    heart, other = finding("E1", "Cardiomegaly"), finding("E2", "Cardiac Shadow/enlarged")
    said = statement("Cardiomegaly.", "E1", "E2", support="supported")
    kept = refresh(said, [heart])
    assert (kept.text, kept.evidence, kept.support) == ("Cardiomegaly.", ("E1",), "supported")
    alone = refresh(said, [replace(heart, status="rejected"), replace(other, status="rejected")])
    assert (alone.text, alone.evidence, alone.support) == ("Cardiomegaly.", (), "unsupported")
    assert alone.note == "The evidence that it rested on is gone."


def test_refresh_of_a_readers_own_statement_takes_nothing_from_it() -> None:
    own = statement("Seen with a colleague.", origin="human", support="supported", stale=True)
    assert refresh(own, []) == replace(own, stale=False)
