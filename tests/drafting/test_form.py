"""The grammar of a report: which cards a line may rest on, how often, and what a report may not leave out."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_models.drafting.evidence import REGIONS
from core_models.drafting.form import MAX_LINES, MAX_TOGETHER, Form
from core_models.drafting.prompt import Line
from core_models.drafting.statements import FOLLOWS, parse

HEART, OPACITY = Line("heart", "Cardiomegaly"), Line("lungs", "Opacity")
DOUBT = Line("lungs", "Pneumonia", "possible")
VOLUME, DENSITY = Line("abdomen", "liver: volume", "measured"), Line("abdomen", "liver: mean attenuation", "measured")
CLEAR, REST = Line("pleura", "No pneumothorax", "normal"), Line("other", "Otherwise normal", "normal")
CARDS = (HEART, OPACITY, DOUBT, VOLUME, DENSITY, CLEAR, REST)


def _used(form: Form, section: str, *ids: int) -> None:
    form.began(section, ids)


def test_a_line_begins_with_any_card_and_goes_on_with_its_like() -> None:
    form = Form(CARDS, priors=2)
    assert form.sections() == ["F", "I"]
    assert form.first("F") == [1, 2, 3, 4, 5, 7], "a negative of the reader stands in its own words"
    assert [*form.more("F", [1], [])] == [" E2", " P1", " P2", " heart present:"]
    assert [*form.more("F", [1], [1])] == [" P2", " heart present:"], "after a prior no card"
    assert [*form.more("F", [1, 2], [1, 2])] == [" heart present:"], "the region of the first"
    assert [*form.more("F", [3], [])] == [" P1", " P2", " lungs possible:"]
    assert [*form.more("F", [4], [])] == [" E5", " abdomen measured:"], "a number has no prior"
    assert [*form.more("F", [7], [])] == [f" {region} normal:" for region in REGIONS], "normal may be anything"


@pytest.mark.parametrize(("card", "findings", "impression"), [(1, 2, 1), (3, 1, 1), (4, 1, 0), (6, 0, 0), (7, 8, 2)])
def test_a_card_is_written_about_a_few_times_and_no_more(card: int, findings: int, impression: int) -> None:
    form = Form(CARDS)
    for section, most in (("F", findings), ("I", impression)):
        for _ in range(most):
            assert card in form.first(section)
            _used(form, section, card)
        assert card not in form.first(section)


def test_after_the_impression_no_finding() -> None:
    form = Form(CARDS)
    _used(form, "I", 1)
    assert form.sections() == ["I"]


def test_numbers_of_another_structure_have_a_line_of_their_own() -> None:
    spleen = Line("abdomen", "spleen: volume", "measured")
    form = Form((VOLUME, spleen, DENSITY))
    assert [*form.more("F", [1], [])] == [" E3", " abdomen measured:"]
    assert [*form.more("F", [2], [])] == [" abdomen measured:"]


def test_a_line_taken_back_closes_its_region_for_what_is_normal() -> None:
    form = Form((HEART, REST))
    _used(form, "F", 1)
    _used(form, "I", 2)
    form.took_back("I", (2,), "lungs")
    assert form.section == "F", "as before it"
    assert " lungs normal:" in form.more("F", [2], [])
    assert [*form.more("I", [2], [])] == [f" {region} normal:" for region in REGIONS if region != "lungs"]
    for region in ("lungs", "pleura"):
        assert 2 in form.first("F")
        _used(form, "F", 2)
        form.took_back("F", (2,), region)
    assert (form.first("F"), form.first("I")) == ([1], [1]), "it was tried often enough"


def test_a_report_ends_where_nothing_is_left_to_write() -> None:
    form = Form((VOLUME,))
    assert form.sections() == ["F"], "no number in an impression"
    _used(form, "F", 1)
    assert form.sections() == []
    assert Form(()).sections() == []


def test_what_was_not_written_about_is_asked_for_once_and_named_until_it_is() -> None:
    form = Form(CARDS)
    assert form.unstated() == (1, 2, 3, 4, 5, 6), "all else that is normal need not be said"
    assert form.uncovered() == (1, 2, 3, 4, 5), "and a negative of the reader stands in its own words"
    form.covered |= {1, 2, 6}
    form.forced(3)
    assert (form.uncovered(), form.unstated()) == ((4, 5), (3, 4, 5))
    _used(form, "F", 3)
    assert 3 not in form.first("F")
    _used(form, "I", 3)
    assert 3 in form.first("I"), "its last chance"
    form.covered.add(3)
    assert 3 not in form.first("I")


def test_the_rest_is_owed_of_core_regions_that_no_card_and_no_sentence_speaks_of() -> None:
    cards = [
        Line("heart", "Cardiomegaly/mild"),
        Line("pleura", "no pneumothorax", "normal"),
        Line("other", "otherwise normal", "normal"),
    ]
    form = Form(cards, core=("heart", "lungs", "pleura"))
    assert form.owed() == (3, ["lungs", "pleura"]), "of the heart a card says otherwise"
    form.called.add("lungs")
    form.took_back("F", (), "pleura")
    assert form.owed() == (3, []), "one is called normal, of the other a sentence was taken back"
    form = Form(cards, core=("lungs",))
    form.began("I", [1])
    assert form.owed() == (0, []), "after the impression no finding"
    assert Form(cards[:2], core=("lungs",)).owed() == (0, []), "nobody said that the rest is normal"
    assert Form(cards, steps=False, core=("lungs",)).owed() == (0, [])
    assert Form(cards).owed() == (3, [])


def test_without_reasoning_only_the_section_is_chosen() -> None:
    form = Form(CARDS, steps=False)
    assert form.sections() == ["F:", "I:"]
    assert form.uncovered() == ()
    form.began("I", ())
    assert form.sections() == ["I:"]
    for _ in range(MAX_LINES - 1):
        form.began("I", ())
    assert form.sections() == []


boards = st.lists(
    st.builds(
        Line,
        st.sampled_from(REGIONS),
        st.sampled_from(["Cardiomegaly", "otherwise normal", "normal", "liver: volume", "12 mm"]),
        st.sampled_from(FOLLOWS),
    ),
    max_size=24,
)


@given(boards, st.integers(0, 3), st.integers(0, 2**31))
def test_any_walk_through_the_grammar_gives_lines_that_parse_and_an_end(
    cards: list[Line], priors: int, seed: int
) -> None:
    rng = random.Random(seed)
    form = Form(cards, priors)
    written: list[str] = []
    times: Counter[tuple[str, int]] = Counter()
    while sections := form.sections():
        section = rng.choice(sections)
        ids, mine, header = [rng.choice(form.first(section))], [], ""
        while not header.endswith(":"):
            more = rng.choice([*form.more(section, ids, mine)])
            header += more
            if not more.endswith(":"):
                (ids if more[1] == "E" else mine).append(int(more[2:]))
        form.began(section, ids)
        times.update((section, k) for k in ids)
        line = parse(f"{section} E{ids[0]}{header} x")
        assert line is not None
        assert line.evidence == (*(f"E{k}" for k in ids), *(f"P{k}" for k in mine))
        assert ids == sorted(set(ids)), "in order, each once"
        assert mine == sorted(set(mine))
        assert max(mine, default=0) <= priors
        assert {cards[k - 1].follows for k in ids} == {line.follows}
        assert len(ids) <= MAX_TOGETHER
        written.append(section)
    assert len(written) <= MAX_LINES
    assert written == sorted(written), "findings, then the impression"
    assert all(count <= (8 if section == "F" else 2) for (section, _), count in times.items())
