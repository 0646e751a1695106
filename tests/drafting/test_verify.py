"""Statements checked against the board by rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_models.drafting.evidence import Evidence
from core_models.drafting.verify import check
from tests.drafting.cards import finding, measurement, statement

HEART = finding("E1", "Cardiomegaly/mild", region="heart")
OPACITY = finding("E2", "Opacity/lung/base/left")
NORMAL = finding("E3", "otherwise normal", region="other")
VOLUME = measurement("E4", "liver: volume", 1512.0)
DENSITY = measurement("E5", "liver: mean attenuation", 54.0, "HU")
SPLEEN = measurement("E6", "spleen: volume", 210.0)
PRIOR = Evidence("P1", "prior", "other", "The heart is enlarged.", source="report CXR1")
CARDS = (HEART, OPACITY, NORMAL, VOLUME, DENSITY, SPLEEN, PRIOR)


def verdict(template: str, *evidence: str, cards: tuple[Evidence, ...] = CARDS) -> tuple[str, str]:
    checked = check(statement(template, *evidence, cards=cards), cards)
    return checked.support, checked.note


@pytest.mark.parametrize(
    ("template", "evidence"),
    [
        ("The heart is mildly enlarged.", ["E1"]),
        ("Mild cardiomegaly.", ["E1", "P1"]),
        ("Left basilar opacity.", ["E2"]),
        ("There is an opacity that may represent pneumonia.", ["E2"]),
        ("Mild cardiomegaly and a left basilar opacity.", ["E1", "E2"]),
        ("Cardiomegaly without pneumothorax.", ["E1"]),
        ("No pneumothorax.", ["E3"]),
        ("The trachea is midline.", ["E3"]),
        ("The liver has a volume of {E4}.", ["E4"]),
        ("The liver has a volume of {E4} and a mean attenuation of {E5}.", ["E4", "E5"]),
        ("The liver has a volume of {E4}, the spleen a volume of {E6}.", ["E4", "E6"]),
    ],
)
def test_supported(template: str, evidence: list[str]) -> None:
    assert verdict(template, *evidence) == ("supported", "")


@pytest.mark.parametrize(
    ("template", "evidence", "note"),
    [
        ("The heart is enlarged.", [], "No card on the board supports it."),
        ("The heart is enlarged.", ["E9"], "No card on the board supports it."),
        ("The heart is enlarged.", ["P1"], "No card on the board supports it."),
        ("Left basilar opacity.", ["E1"], "The cited cards do not say: opacity."),
        ("Cardiomegaly with pulmonary edema.", ["E1"], "The cited cards do not say: congestion."),
        ("Possible rib fracture.", ["E1"], "The cited cards do not say: fracture or deformity."),
        ("Mild cardiomegaly.", ["E3"], "The cited cards do not say: cardiomegaly."),
        ("Mild cardiomegaly.", ["E4"], "The cited cards do not say: cardiomegaly."),
        ("No pneumothorax.", ["E1"], "No card says that this is normal."),
        ("The trachea is midline.", ["E2"], "No card says that this is normal."),
        ("A left opacity of 12 mm.", ["E2"], "It holds a number that no card gives."),
        ("A left 12-mm opacity.", ["E2"], "It holds a number that no card gives."),
        ("A left opacity of 2 centimeters.", ["E2"], "It holds a number that no card gives."),
        ("The liver has a volume of 1512 ml.", ["E4"], "It holds a number that no card gives."),
        ("The liver has a volume of {E4} and measures 18.2cm.", ["E4"], "It holds a number that no card gives."),
        ("The liver has a volume of {E9}.", ["E4"], "It names a measurement that is not on the board."),
        ("The heart measures {E1}.", ["E1"], "It names a measurement that is not on the board."),
        ("The heart measures {P1}.", ["E1", "P1"], "It names a measurement that is not on the board."),
        ("The liver has a volume of {E4}.", ["E5"], "It holds the number of a card that it does not cite: E4."),
        ("The liver has a volume of {E6}.", ["E6"], "E6 is another number: spleen: volume."),
        ("The liver has a volume of {E5}.", ["E5"], "E5 is another number: liver: mean attenuation."),
        ("The liver has a volume of {E4}, the spleen of {E6}.", ["E4", "E6"], "E6 is another number: spleen: volume."),
        ("The patient has gout.", ["E1"], "Nothing in it can be checked against the cited cards."),
        ("Follow-up is advised.", ["E4"], "Nothing in it can be checked against the cited cards."),
    ],
)
def test_unsupported(template: str, evidence: list[str], note: str) -> None:
    assert verdict(template, *evidence) == ("unsupported", note)


@pytest.mark.parametrize(
    ("template", "evidence", "note"),
    [
        ("No cardiac enlargement.", ["E3"], "E1 says otherwise: Cardiomegaly/mild."),
        ("No focal consolidation.", ["E3"], "E2 says otherwise: Opacity/lung/base/left."),
        ("No opacity or cardiomegaly.", [], "E1 says otherwise: Cardiomegaly/mild."),
        ("Right basilar opacity.", ["E2"], "E2 names the other side."),
    ],
)
def test_contradicted(template: str, evidence: list[str], note: str) -> None:
    assert verdict(template, *evidence) == ("contradicted", note)


def test_both_sides_hold_the_cards_side() -> None:
    assert verdict("Bibasilar opacities.", "E2")[0] == "supported"


def test_a_finding_denied_in_one_place_and_affirmed_in_another_is_not_denied() -> None:
    assert verdict("Left basilar opacity; no opacity on the right.", "E2")[0] == "supported"


def test_rejected_cards_count_as_absent() -> None:
    without = tuple(replace(c, status="rejected") if c is HEART else c for c in CARDS)
    assert verdict("Mild cardiomegaly.", "E1", cards=without) == ("unsupported", "No card on the board supports it.")
    assert verdict("No cardiomegaly.", "E3", cards=without) == ("supported", "")
    gone = tuple(replace(c, status="rejected") if c is VOLUME else c for c in CARDS)
    assert verdict("The liver has a volume of {E4}.", "E4", cards=gone)[0] == "unsupported"


def test_words_unknown_to_the_findings_must_stand_on_a_cited_card() -> None:
    gout = finding("E1", "tophaceous gout", region="other")
    assert verdict("There is tophaceous gout.", "E1", cards=(gout,)) == ("supported", "")
    assert verdict("There is gout.", "E1", cards=(gout,))[0] == "unsupported"


def test_a_readers_name_of_a_segment_may_be_a_finding() -> None:
    card = measurement("E1", "lung nodule: longest axial diameter", 8.0, "mm")
    assert verdict("The lung nodule has a longest axial diameter of {E1}.", "E1", cards=(card,))[0] == "supported"
    assert (
        verdict("The lung nodule with a longest axial diameter of {E1} cavitates, pneumothorax.", "E1", cards=(card,))[
            0
        ]
        == "unsupported"
    )


def test_an_effusion_is_supported_by_its_card_and_no_device_denied_with_it() -> None:
    effusion, port = finding("E1", "Pleural Effusion/left"), finding("E2", "Medical Device")
    assert verdict("Small left pleural effusion.", "E1", cards=(effusion, port))[0] == "supported"
    assert verdict("No effusion.", "E3", cards=(port, NORMAL))[0] == "supported"


@pytest.mark.parametrize(
    ("card", "said", "support", "note"),
    [
        ("Pleural Effusion", "Small left pleural effusion.", "unsupported", "No cited card names the side."),
        ("Pleural Effusion/left", "Left pleural effusion.", "supported", ""),
        ("Pleural Effusion", "Pleural effusion.", "supported", ""),
        ("Medical Device", "Leads in the right atrium and right ventricle.", "supported", ""),
        ("Cardiomegaly/mild", "Severe cardiomegaly.", "contradicted", "E1 names another degree: Cardiomegaly/mild."),
        ("Cardiomegaly/mild", "Mild to moderate cardiomegaly.", "supported", ""),
        ("Cardiomegaly", "Mild cardiomegaly.", "supported", ""),
    ],
)
def test_a_side_or_a_degree_is_not_invented(card: str, said: str, support: str, note: str) -> None:
    assert verdict(said, "E1", cards=(finding("E1", card),)) == (support, note)


def test_the_readers_own_negative_is_an_assertion() -> None:
    own = finding("E1", "no pneumothorax")
    assert verdict("There is no pneumothorax.", "E1", cards=(own,)) == ("supported", "")
    assert verdict("No pleural effusion.", "E1", cards=(own,))[0] == "unsupported"
