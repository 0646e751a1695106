"""What a report says of the board: stated, denied, or neither, told apart by side, kind and doubt."""

from __future__ import annotations

import pytest

from retrieval import stance
from retrieval.stance import Finding
from tests.retrieval.conftest import report


def says(text: str, card: str, terms: tuple[str, ...] = ()) -> tuple[str, str]:
    """(the stance, the sentence)."""
    read = stance.read(report("R", text, terms=terms), [Finding("E1", card)])
    assert not (read.supports and read.contradicts)
    for word, said in (("supports", read.supports), ("contradicts", read.contradicts)):
        if said:
            assert said[0][0] == "E1"
            return word, said[0][1]
    return "", ""


SUPPORTS = [
    ("Pleural Effusion/left/small", "Clear lungs. There is a small left pleural effusion."),
    ("Pleural Effusion/left/small", "There are small bilateral pleural effusions."),
    ("Pleural Effusion", "Small right effusion."),
    ("Cardiomegaly/mild", "The heart is mildly enlarged."),
    ("No pneumothorax", "There is no pneumothorax."),
]
CONTRADICTS = [
    ("Pleural Effusion/left/small", "Large heart. No pleural effusion."),
    ("Pleural Effusion/left/small", "There is no left pleural effusion."),
    ("Pleural Effusion/bilateral", "No pleural effusion on either side. Clear lungs."),
    ("Cardiomegaly/mild", "The heart is normal in size."),
    ("Cardiomegaly/mild", "Normal cardiomediastinal silhouette."),
    ("Opacity/lung/base/left", "The lungs are clear."),
    ("Pneumonia", "No pneumonia."),
    ("No pneumothorax", "There is a small apical pneumothorax on the left."),
    ("normal", "There is a right upper lobe nodule."),
]
NEITHER = [
    ("Pleural Effusion/left/small", "There is a right pleural effusion."),  # the other side
    ("Pleural Effusion/left/small", "No right pleural effusion."),
    ("Pleural Effusion", "No right pleural effusion."),  # says nothing of the left
    ("Pleural Effusion/small", "No large pleural effusion."),  # a degree
    ("Opacity/lung/base/left", "No new opacity."),  # a comparison
    ("Fractures, Bone/ribs", "No acute displaced rib fracture."),
    ("Cardiomegaly/mild", "Heart size is top normal."),
    ("Opacity/lung/base/left", "The lungs are otherwise clear."),
    ("Opacity/lung/base/left", "The lungs are clear of effusion."),
    ("Pneumonia", "Opacity which may represent pneumonia. No pneumonia elsewhere."),  # possible
    ("Pleural Effusion", "The tube ends above the carina."),
    ("otherwise normal", "Large heart. Nodule on the left."),
    ("normal", "A pacemaker is in place."),
    ("Appendicitis", "No effusion."),
]


@pytest.mark.parametrize(("card", "text"), SUPPORTS)
def test_a_sentence_that_states_the_card(card: str, text: str) -> None:
    word, sentence = says(text, card)
    assert word == "supports"
    assert sentence in text


@pytest.mark.parametrize(("card", "text"), CONTRADICTS)
def test_a_sentence_that_denies_the_card(card: str, text: str) -> None:
    word, sentence = says(text, card)
    assert word == "contradicts"
    assert sentence in text


@pytest.mark.parametrize(("card", "text"), NEITHER)
def test_a_sentence_that_does_neither(card: str, text: str) -> None:
    assert says(text, card) == ("", "")


def test_one_affirmation_or_heading_outweighs_a_denial() -> None:
    card = "Pleural Effusion"
    assert says("No effusion in the lateral view. There is a small effusion.", card)[0] == "supports"
    assert says("No effusion is seen.", card, terms=("Pleural Effusion/left/small",)) == ("", "")
    assert says("No effusion is seen.", card, terms=("Cardiomegaly",))[0] == "contradicts"


def test_a_report_headed_normal_supports_a_normal_board_whatever_it_mentions() -> None:
    text = "Old healed rib fracture. The lungs are clear."
    assert says(text, "normal", terms=("normal",)) == ("supports", "The lungs are clear.")
    assert says(text, "normal", terms=("Fractures, Bone/ribs/healed",))[0] == "contradicts"


def test_cards_are_told_apart_and_headings_count_as_stated() -> None:
    board = [Finding("E2", "Cardiomegaly"), Finding("E5", "Pleural Effusion/left"), Finding("E7", "Scoliosis")]
    read = stance.read(report("R", "The heart is enlarged. No pleural effusion.", terms=("Scoliosis/mild",)), board)
    assert read.supports == (("E2", "The heart is enlarged."),)
    assert read.contradicts == (("E5", "No pleural effusion."),)
    assert read.states == {"E2", "E7"}


def test_a_heading_of_the_other_side_does_not_state_the_card() -> None:
    card = [Finding("E1", "Pneumothorax/left/large")]
    assert stance.read(report("R", "As above.", terms=("Pneumothorax/right/large",)), card).states == frozenset()
    assert stance.read(report("R", "As above.", terms=("Pneumothorax/left",)), card).states == {"E1"}


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("Cardiomegaly/mild", {"cardiomegaly"}),
        ("normal", {"normal"}),
        ("otherwise normal", set()),
        ("No pneumothorax", set()),
        ("Appendicitis/acute", {"appendicitis"}),
    ],
)
def test_what_a_card_asserts(card: str, expected: set[str]) -> None:
    assert stance.asserted(card) == expected
