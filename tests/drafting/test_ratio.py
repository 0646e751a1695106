"""A plain ratio and a model's finding on their way through prompt, draft and check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_models.drafting import verify
from core_models.drafting.evidence import Evidence
from tests.drafting.cards import finding, measurement, statement
from tests.drafting.test_drafter import draft, events
from tests.drafting.tiny import Scripted

RATIO = replace(measurement("E1", "heart: cardiothoracic ratio", 0.5612, ""), region="heart")
EFFUSION = Evidence("E2", "finding", "pleura", "Pleural Effusion", probability=0.91, source="eyes/1 (ab)")
CARDS = (RATIO, EFFUSION)
SAID = "The heart has a cardiothoracic ratio of {E1}."


@pytest.mark.parametrize(("value", "text"), [(0.5612, "0.56"), (1.0, "1.00"), (1.126, "1.13"), (12.4, "12.4")])
def test_a_ratio_is_told_to_hundredths_without_a_unit(value: float, text: str) -> None:
    assert replace(RATIO, value=value).value_text == text


def test_a_draft_states_the_ratio_and_its_number_comes_from_the_card() -> None:
    model = Scripted(f"F E1 heart measured: {SAID}", "F E2 pleura possible: Possible pleural effusion.")
    done = events(model, CARDS)[-1].draft
    assert "E1 heart heart: cardiothoracic ratio {E1}\nE2 pleura possible Pleural Effusion\n" in model.read[0]
    said, effusion = done.statements
    assert (effusion.text, effusion.support, effusion.step.follows) == (
        "Possible pleural effusion.",
        "supported",
        "possible",
    )
    assert (said.text, said.support) == ("The heart has a cardiothoracic ratio of 0.56.", "supported")


@pytest.mark.parametrize(
    ("template", "note"),
    [
        ("The cardiothoracic ratio is 0.61.", "holds a number that no card gives"),
        ("The heart has a cardiothoracic ratio of 61.", "holds a number that no card gives"),
        ("The heart is enlarged with a cardiothoracic ratio of {E1}.", "do not say: cardiomegaly"),
        ("The heart has a diameter of {E1}.", "is another number"),
    ],
)
def test_an_invented_ratio_and_an_enlargement_that_no_card_states_are_unsupported(template: str, note: str) -> None:
    checked = verify.check(statement(template, "E1", cards=CARDS), CARDS)
    assert checked.support == "unsupported"
    assert note in checked.note


def test_a_models_finding_supports_a_hedged_sentence_until_it_is_accepted_or_rejected() -> None:
    said = statement("There is a pleural effusion.", "E2", cards=CARDS)
    hedged = statement("There may be a pleural effusion.", "E2", cards=CARDS)
    alone = verify.check(said, CARDS)
    assert alone.support == "unsupported"
    assert alone.note == "E2 is a proposal (p 0.91): the sentence states it as certain."
    assert verify.check(hedged, CARDS).support == "supported"
    accepted = (RATIO, replace(EFFUSION, status="accepted"))
    assert {verify.check(s, accepted).support for s in (said, hedged)} == {"supported"}
    assert verify.check(said, (RATIO, replace(EFFUSION, status="rejected"))).support == "unsupported"


def test_the_draft_says_who_proposed_the_findings_on_the_image() -> None:
    unseen = draft([f"F E1 heart measured: {SAID}"], CARDS).unseen
    assert unseen[1] == "Findings on the image are proposed by eyes/1 (ab)."
    assert not any("proposed by" in text for text in draft([], (RATIO, finding("E3", "Nodule"))).unseen)
