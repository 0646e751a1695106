"""Statements checked against the board by rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_models.drafting.evidence import Evidence
from core_models.drafting.verify import check, states
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
    assert verdict("There is no tophaceous gout.", "E1", cards=(gout,))[0] == "unsupported"


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


@pytest.mark.parametrize(
    ("said", "support"),
    [
        ("The heart is normal in size.", "contradicted"),
        ("The heart is not enlarged.", "contradicted"),
        ("The lungs are clear.", "contradicted"),
        ("The right lung is clear.", "supported"),
        ("The lungs are otherwise clear.", "supported"),
        ("No right basilar opacity.", "supported"),
        ("The trachea is midline.", "supported"),
    ],
)
def test_a_normal_structure_contradicts_the_card_of_its_finding(said: str, support: str) -> None:
    assert verdict(said, "E3")[0] == support


def test_a_denial_with_a_side_or_degree_speaks_of_that_side_and_degree() -> None:
    cards = (finding("E1", "Pleural Effusion/left/small"), finding("E2", "otherwise normal"))
    assert verdict("No right pleural effusion.", "E2", cards=cards)[0] == "supported"
    assert verdict("No right pleural effusion.", "E1", cards=cards)[0] == "unsupported"
    assert verdict("No large pleural effusion.", "E2", cards=cards)[0] == "supported"
    assert verdict("No left pleural effusion.", "E2", cards=cards)[0] == "contradicted"
    healed = (finding("E1", "Fractures, Bone/ribs/healed"), finding("E2", "otherwise normal"))
    assert verdict("No acute fracture.", "E2", cards=healed)[0] == "supported"
    assert verdict("No fracture.", "E2", cards=healed)[0] == "contradicted"


def test_each_finding_has_its_own_side_degree_and_place() -> None:
    cards = (finding("E1", "Pleural Effusion/left/small"), finding("E2", "Opacity/lung/base/right"))
    assert verdict("Small left effusion and a right basilar opacity.", "E1", "E2", cards=cards)[0] == "supported"
    assert verdict("Right effusion and a right opacity.", "E1", "E2", cards=cards)[1] == "E1 names the other side."
    assert verdict("Large left effusion, right opacity.", "E1", "E2", cards=cards) == (
        "contradicted",
        "E1 names another degree: Pleural Effusion/left/small.",
    )
    assert verdict("Right upper lobe opacity.", "E2", cards=cards) == (
        "contradicted",
        "E2 names another place: Opacity/lung/base/right.",
    )
    both = (finding("E1", "Pleural Effusion/left"), finding("E2", "Pleural Effusion/right"))
    assert verdict("Left effusion.", "E1", "E2", cards=both)[0] == "supported", "one cited card agrees"


@pytest.mark.parametrize(
    ("said", "support"),
    [
        ("There are 3 nodules.", "unsupported"),
        ("Two small nodules.", "unsupported"),
        ("Nodules, four in all, are seen; seven nodules lie left.", "unsupported"),
        ("Nodule at the level of T8.", "supported"),
        ("Nodule at T8-T9.", "supported"),
        ("Nodule over the 7th rib.", "supported"),
        ("Nodule over ribs 7 and 8.", "supported"),
        ("Nodule between the seventh and eighth ribs.", "supported"),
        ("PA and lateral views show a nodule.", "supported"),
        ("Two-view chest with a nodule.", "supported"),
        ("2 views show a nodule.", "supported"),
    ],
)
def test_a_count_needs_a_card_and_a_level_is_none(said: str, support: str) -> None:
    assert verdict(said, "E1", cards=(finding("E1", "Nodule"),))[0] == support


def test_a_count_that_the_card_gives_is_no_bare_number() -> None:
    assert verdict("Two nodules.", "E1", cards=(finding("E1", "two nodules"),))[0] == "supported"
    lesion = measurement("E1", "target lesion 1: volume", 3.0)
    assert verdict("The target lesion 1 has a volume of {E1}.", "E1", cards=(lesion,))[0] == "supported"


def test_masks_have_sides_and_are_there() -> None:
    cards = (measurement("E1", "left pleural effusion: volume", 240.0), finding("E2", "otherwise normal"))
    assert verdict("The left pleural effusion has a volume of {E1}.", "E1", cards=cards)[0] == "supported"
    assert verdict("There is a right pleural effusion.", "E1", cards=cards)[0] == "contradicted"
    assert verdict("No pleural effusion.", "E2", cards=cards)[0] == "contradicted"
    node = (measurement("E1", "mediastinal lymph node: volume", 1.0), finding("E2", "otherwise normal"))
    assert verdict("No adenopathy.", "E2", cards=node)[0] == "supported", "a normal node is measured, too"


def test_a_sentence_on_measurements_says_nothing_else() -> None:
    assert verdict("The liver is cirrhotic with a volume of {E4}.", "E4") == (
        "unsupported",
        "The cited cards do not say: cirrhotic.",
    )


PROPOSED = replace(finding("E1", "Pleural Effusion"), probability=0.624)
UNSURE = "E1 is a proposal (p 0.62): the sentence states it as certain."


@pytest.mark.parametrize(
    "said", ["Possible pleural effusion.", "A pleural effusion cannot be excluded.", "Pleural effusion is suspected."]
)
def test_a_hedged_sentence_on_a_proposal_is_supported(said: str) -> None:
    assert verdict(said, "E1", cards=(PROPOSED,)) == ("supported", "")


def test_a_proposal_is_not_stated_as_certain() -> None:
    said = "There is a pleural effusion."
    assert verdict(said, "E1", cards=(PROPOSED,)) == ("unsupported", UNSURE)
    assert verdict(said, "E1", cards=(replace(PROPOSED, status="accepted"),)) == ("supported", "")
    assert verdict(said, "E1", cards=(replace(PROPOSED, probability=None),)) == ("supported", "")
    other = finding("E2", "Pleural Effusion/left")
    assert verdict(said, "E1", "E2", cards=(PROPOSED, other)) == ("supported", "")
    assert verdict(said, "E1", cards=(PROPOSED, other)) == ("unsupported", UNSURE), "the card must be cited"
    mixed = (PROPOSED, finding("E2", "Cardiomegaly"))
    assert verdict("Cardiomegaly with possible pleural effusion.", "E1", "E2", cards=mixed)[0] == "supported"
    assert verdict("Cardiomegaly with pleural effusion.", "E1", "E2", cards=mixed) == ("unsupported", UNSURE)


def test_a_readers_negative_contradicts_and_covers_its_own() -> None:
    own = (finding("E1", "no pneumothorax"), finding("E2", "no pleural effusion"), finding("E3", "Cardiomegaly"))
    assert verdict("Small pneumothorax.", "E3", cards=own) == ("contradicted", "E1 says otherwise: no pneumothorax.")
    assert verdict("No pneumothorax or pleural effusion.", "E1", "E2", cards=own) == ("supported", "")
    assert verdict("No pneumothorax or pleural effusion.", "E1", cards=own)[0] == "unsupported"
    assert verdict("No pneumothorax.", "E1", cards=(finding("E1", "no left pneumothorax"),))[0] == "unsupported"


@pytest.mark.parametrize(
    ("said", "card", "expected"),
    [
        ("Left basilar opacity.", OPACITY, True),
        ("Bibasilar opacities.", OPACITY, True),
        ("An opacity is seen.", OPACITY, True),
        ("Possible left opacity.", OPACITY, True),
        ("Right basilar opacity.", OPACITY, False),
        ("No opacity.", OPACITY, False),
        ("Mild cardiomegaly.", OPACITY, False),
        ("Right effusion and left opacity.", OPACITY, True),
        ("The lungs are clear.", NORMAL, True),
        ("Mild cardiomegaly.", NORMAL, False),
        ("No pneumothorax or effusion.", finding("E1", "no pneumothorax"), True),
        ("No effusion.", finding("E1", "no pneumothorax"), False),
        ("Small pneumothorax.", finding("E1", "no pneumothorax"), False),
        ("The liver has a volume of {E4}.", VOLUME, True),
        ("The liver has a volume of 1512 ml.", VOLUME, True),
        ("The spleen has a volume of {E6}.", VOLUME, False),
        ("The liver is seen.", VOLUME, False),
        ("There is tophaceous gout.", finding("E1", "tophaceous gout"), True),
        ("There is gout.", finding("E1", "tophaceous gout"), False),
        ("There is no tophaceous gout.", finding("E1", "tophaceous gout"), False),
        ("Mild funnel chest.", finding("E1", "Funnel Chest/mild"), True),
    ],
)
def test_states(said: str, card: Evidence, expected: bool) -> None:
    assert states(said, card) is expected
