"""Headings as phrases and sentences: whatever the heading, the check finds what was made of it supported."""

from __future__ import annotations

import random

import pytest

from core_models.drafting import findings as f
from core_models.drafting import phrases, verify
from tests.drafting.cards import finding, statement


@pytest.mark.parametrize(
    ("term", "phrase"),
    [
        ("Cardiomegaly", "cardiomegaly"),
        ("Pleural Effusion/left/small", "small left pleural effusion"),
        ("Opacity/lung/upper lobe/right", "right upper lobe opacity"),
        ("Blister/lung/upper lobe/right", "right lung upper lobe blister"),
        ("Opacity/lung/base/left", "left lung base opacity"),
        ("Hernia, Hiatal", "hiatal hernia"),
        ("Lung/hypoinflation", "lung hypoinflation"),
        ("Opacity/Opacity//left/left", "left opacity"),
    ],
)
def test_a_heading_reads_as_a_person_would_say_it(term: str, phrase: str) -> None:
    assert phrases.phrase(term) == phrase


def test_sentences_begin_with_a_capital_and_end() -> None:
    assert phrases.plain("Pleural Effusion/left") == "Left pleural effusion."
    assert phrases.plain("a reader's own words") == "A reader's own words.", "what is no heading is left as it is"
    assert phrases.hedged("Cardiomegaly") == phrases.hedged("Cardiomegaly") == "Possible cardiomegaly."
    drawn = {phrases.hedged("Cardiomegaly", random.Random(n)) for n in range(40)}
    assert len(drawn) > 3


def test_a_row_of_parts_is_joined() -> None:
    assert [phrases.joined(list("abc"[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def _checked(text: str, term: str, **values: float) -> str:
    card = finding("E1", term, **values)
    return verify.check(statement(text, "E1"), [card]).support


def test_the_corpus_headings_are_stated_by_their_sentences() -> None:
    """All headings of the vocabulary that name a finding; the rest are asked for by their own words."""
    failed = []
    for term in f.vocabulary():
        if term in f.NORMAL_TERMS or not f.concepts_of_term(term):
            continue
        plain, hedged = phrases.plain(term), phrases.hedged(term)
        if _checked(plain, term) != "supported":
            failed.append((term, plain))
        if not f.is_normal(hedged) and _checked(hedged, term, probability=0.5) != "supported":
            failed.append((term, hedged))
    assert len(failed) <= len(f.vocabulary()) // 80, failed
    assert not [x for x in failed if "/" not in x[0]], "a heading without qualifiers can always be said"


@pytest.mark.parametrize("seed", range(12))
def test_a_hedged_sentence_leaves_its_finding_open(seed: int) -> None:
    text = phrases.hedged("Pleural Effusion/left", random.Random(seed))
    assert {m.polarity for m in f.mentions(text)} == {"possible"}, text
    assert _checked(text, "Pleural Effusion/left", probability=0.5) == "supported"
