"""Sentences as chest reports hold them → concepts, polarity, side, region, and what a heading licenses."""

from __future__ import annotations

import pytest

from core_models.drafting import findings as f


def polarity(sentence: str, *concepts: str) -> dict[str, str]:
    """What the sentence says of these concepts (of all when none is named)."""
    return {m.concept: m.polarity for m in f.mentions(sentence) if not concepts or m.concept in concepts}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Mild cardiomegaly.", {"cardiomegaly": "present"}),
        ("The cardiac silhouette is mildly enlarged.", {"cardiomegaly": "present"}),
        ("The heart size is at the upper limits of normal.", {"cardiomegaly": "present"}),
        ("Heart size normal.", {}),
        ("The heart is not enlarged.", {}),
        ("No pneumothorax.", {"pneumothorax": "absent"}),
        ("Pneumothorax has resolved.", {"pneumothorax": "absent"}),
        ("Opacity is no longer seen.", {"opacity": "absent"}),
        ("The lungs are clear.", {}),
        ("Degenerative changes of the thoracic spine.", {"degenerative spine": "present"}),
        ("The thoracic aorta is tortuous.", {"tortuous aorta": "present"}),
        ("Low lung volumes.", {"hypoinflation": "present"}),
        ("Emphysema.", {"hyperinflation": "present"}),
        ("Subcutaneous emphysema.", {"subcutaneous emphysema": "present"}),
        ("Right IJ central line with tip in the SVC.", {"device": "present"}),
        ("May represent pneumonia.", {"pneumonia": "possible"}),
        # The opacity is stated; what it may be is not.
        ("Opacity may represent pneumonia.", {"opacity": "present", "pneumonia": "possible"}),
        ("No evidence of pneumonia; heart failure is possible.", {"pneumonia": "absent", "congestion": "possible"}),
        ("There is cardiomegaly; the aorta is normal.", {"cardiomegaly": "present"}),
        # The strongest mention of a concept in a sentence counts.
        ("No opacity on the right; opacity on the left.", {"opacity": "present"}),
    ],
)
def test_mentions(sentence: str, expected: dict[str, str]) -> None:
    assert polarity(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No pneumothorax or effusion.", {"pneumothorax": "absent", "effusion": "absent"}),
        ("Without focal consolidation; small left effusion.", {"opacity": "absent", "effusion": "present"}),
        ("Small effusion without pneumothorax.", {"effusion": "present", "pneumothorax": "absent"}),
        ("No pneumothorax, but there is an effusion.", {"pneumothorax": "absent", "effusion": "present"}),
        ("Left basilar atelectasis, no effusion.", {"atelectasis": "present", "effusion": "absent"}),
        ("No pneumothorax and there is a small effusion.", {"pneumothorax": "absent", "effusion": "present"}),
        ("Effusion is present, pneumothorax is not seen.", {"effusion": "present", "pneumothorax": "absent"}),
        ("No change in the left effusion.", {"effusion": "present"}),
        ("Cannot exclude a small effusion.", {"effusion": "possible"}),
        ("Pericardial effusion.", {"pericardial effusion": "present"}),
    ],
)
def test_a_negation_ends_with_its_clause(sentence: str, expected: dict[str, str]) -> None:
    assert polarity(sentence, *expected, "effusion") == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "Possible effusion.",
        "Probable effusion.",
        "Questionable effusion.",
        "Potential effusion.",
        "Suspected effusion.",
        "Equivocal effusion.",
        "May represent an effusion.",
        "Suspicious for effusion.",
        "Concerning for effusion.",
        "Suggestive of effusion.",
        "Cannot rule out effusion.",
        "There may be an effusion.",
        "An effusion cannot be excluded.",
        "Effusion cannot be entirely excluded.",
        "Effusion is not excluded.",
        "Effusion is not ruled out.",
        "Effusion is suspected.",
        "An effusion is possible.",
        "Effusion is unlikely.",
        "An effusion may be present.",
        "Atelectasis versus effusion.",
        "No pneumothorax and possible effusion.",
    ],
)
def test_a_hedge_leaves_the_finding_open(sentence: str) -> None:
    assert polarity(sentence, "effusion") == {"effusion": "possible"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The effusion has not resolved.", "present"),
        ("No resolution of the effusion.", "present"),
        ("The effusion is not absent.", "present"),
        ("No doubt there is an effusion.", "present"),
        ("Not only an effusion is seen.", "present"),
        ("Resolution of the effusion.", "absent"),
        ("The effusion has resolved.", "absent"),
        ("Effusion has been ruled out.", "absent"),
        ("No definite effusion.", "absent"),
        ("No abnormality other than an effusion.", "present"),
        ("No pneumothorax, mild effusion.", "present"),
        ("No pneumothorax, mild congestion or effusion.", "absent"),
        ("The heart is enlarged and the effusion is not seen.", "absent"),
        ("No pneumothorax and effusion.", "absent"),
        ("Possible atelectasis without effusion.", "absent"),
        ("The effusion is not well-seen.", "absent"),
        ("Stable appearance of the effusion.", "present"),
        ("Small effusion with atelectasis versus scarring.", "present"),
    ],
)
def test_negations_that_deny_nothing_and_those_that_do(sentence: str, expected: str) -> None:
    assert polarity(sentence, "effusion") == {"effusion": expected}


def read(sentence: str, concept: str) -> list[f.Reading]:
    return [r for r in f.readings(sentence) if r.concept == concept]


@pytest.mark.parametrize(
    ("sentence", "concept"),
    [
        ("The heart is normal in size.", "cardiomegaly"),
        ("Heart size within normal limits.", "cardiomegaly"),
        ("The heart does not appear enlarged.", "cardiomegaly"),
        ("Normal cardiac silhouette.", "cardiomegaly"),
        ("The cardiomediastinal silhouette is unremarkable.", "mediastinal widening"),
        ("Clear lungs.", "opacity"),
        ("The lungs are grossly clear.", "pneumonia"),
        ("Costophrenic angles are sharp.", "effusion"),
        ("The trachea is midline.", "shift"),
    ],
)
def test_a_normal_structure_denies_what_it_rules_out(sentence: str, concept: str) -> None:
    assert [r.polarity for r in read(sentence, concept)] == ["absent"]


@pytest.mark.parametrize(
    ("sentence", "concept"),
    [
        ("The heart is at the upper limits of normal.", "cardiomegaly"),
        ("The heart is near normal in size.", "cardiomegaly"),
        ("Otherwise the lungs are clear.", "opacity"),
        ("Clear lungs except for an opacity.", "opacity"),
        ("Lung volumes are normal.", "opacity"),
        ("Normal heart size with low lung volumes.", "opacity"),
        ("No other opacity.", "opacity"),
    ],
)
def test_what_is_not_quite_normal_denies_nothing(sentence: str, concept: str) -> None:
    assert "absent" not in [r.polarity for r in read(sentence, concept)]


def test_sides_degrees_and_places_belong_to_the_finding_beside_them() -> None:
    said = "Small left apical pneumothorax and a large right effusion with atelectasis."
    (pneumothorax,), (effusion,), (atelectasis,) = (read(said, c) for c in ("pneumothorax", "effusion", "atelectasis"))
    assert (pneumothorax.sides, pneumothorax.degrees, pneumothorax.places) == ({"left"}, {"low"}, {"upper"})
    assert (effusion.sides, effusion.degrees, effusion.places) == ({"right"}, {"high"}, set())
    assert (atelectasis.own_sides, atelectasis.degrees) == (set(), set())
    assert atelectasis.sides == {"left", "right"}, "it has the sides of its clause where it has none of its own"
    assert [r.sides for r in read("Left and right effusions.", "effusion")] == [{"left", "right"}]
    assert [r.sides for r in read("Leads in the right ventricle.", "device")] == [frozenset()]


def test_words_inside_other_words_are_not_meant() -> None:
    assert set(polarity("Small left pleural effusion.")) == {"effusion"}, "no spinal fusion"
    assert set(polarity("Spinal fusion.")) == {"device"}
    assert set(polarity("Noncalcified nodule.")) == {"nodule"}
    assert set(polarity("Bronchiectasis.")) == {"markings"}, "no ectasia of the aorta"


def test_a_cue_after_and_does_not_reach_back() -> None:
    assert polarity("Cardiomegaly is present and the mediastinum is normal.") == {"cardiomegaly": "present"}


def test_a_heading_licenses_its_concepts_and_what_rides_along() -> None:
    assert f.concepts_of_term("Cardiomegaly/mild") == {"cardiomegaly"}
    assert f.concepts_of_term("Opacity/lung/base/left") == {"opacity"}
    assert f.concepts_of_term("Lung/hypoinflation") == {"hypoinflation"}
    assert f.concepts_of_term("Diaphragm/flattened") == {"flattened diaphragm"}
    assert f.concepts_of_term("Diaphragm/right/elevated") == {"elevated diaphragm"}
    assert f.concepts_of_term("Lung/hilum/enlarged") == {"adenopathy"}
    assert f.licensed("Calcified Granuloma/lung/upper lobe/right") == {"granuloma", "calcification", "nodule"}
    assert "pneumothorax" not in f.licensed("Pleural Effusion/left")
    assert "markings" in f.licensed("Opacity/lung/base/interstitial"), "the heading says interstitial itself"


def test_a_readers_own_words_license_what_they_state() -> None:
    assert f.concepts_of_term("mild cardiomegaly") == {"cardiomegaly"}
    assert f.concepts_of_term("no pneumothorax") == frozenset()
    assert f.concepts_of_term("gout") == frozenset()


@pytest.mark.parametrize("term", f.NORMAL_TERMS)
def test_a_normal_card_licenses_no_finding(term: str) -> None:
    assert f.licensed(term) == frozenset()


@pytest.mark.parametrize(
    "sentence",
    [
        "Heart size normal.",
        "The lungs are clear.",
        "No pneumothorax or effusion.",
        "Without focal consolidation.",
        "No acute cardiopulmonary abnormality.",
        "The trachea is midline.",
    ],
)
def test_normal_sentences(sentence: str) -> None:
    assert f.is_normal(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Mild cardiomegaly.",
        "The lungs are clear; small left effusion.",
        "Possible pneumonia.",
        "Chest.",
        "Recommend a chest CT.",
    ],
)
def test_sentences_that_are_not_normal(sentence: str) -> None:
    assert not f.is_normal(sentence)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Compared to the prior examination, the effusion is smaller.", True),
        ("Unchanged cardiomegaly.", True),
        ("New left effusion.", True),
        ("The heart remains enlarged.", True),
        ("No significant interval change.", True),
        ("The heart is enlarged.", False),
        ("Increased interstitial markings.", False),
        ("No pneumothorax.", False),
    ],
)
def test_has_comparison(sentence: str, expected: bool) -> None:
    assert f.has_comparison(sentence) is expected


@pytest.mark.parametrize(
    ("sentence", "region"),
    [
        ("Mild cardiomegaly.", "heart"),
        ("Heart size normal.", "heart"),
        ("The lungs are clear.", "lungs"),
        ("Left basilar atelectasis, no effusion.", "lungs"),
        ("No pleural effusion.", "pleura"),
        ("The trachea is midline.", "mediastinum"),
        ("Old rib fracture.", "bones"),
        ("No free air under the diaphragm.", "abdomen"),
        ("Right IJ central line.", "devices"),
        ("No acute cardiopulmonary abnormality.", "other"),
        ("Follow-up.", "other"),
    ],
)
def test_region_of(sentence: str, region: str) -> None:
    assert f.region_of(sentence) == region


def test_region_of_term() -> None:
    assert f.region_of_term("Pleural Effusion/left") == "pleura"
    assert f.region_of_term("Thoracic Vertebrae/degenerative/mild") == "bones"
    assert f.region_of_term("gout") == "other"


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("Opacity/lung/base/left", {"left"}),
        ("Right upper lobe granuloma.", {"right"}),
        ("Left and right effusions.", {"left", "right"}),
        ("Bibasilar atelectasis.", {"left", "right"}),
        ("Bilateral effusions.", {"left", "right"}),
        ("Copyright", set()),
        ("Cardiomegaly", set()),
    ],
)
def test_side_of(text: str, sides: set[str]) -> None:
    assert f.side_of(text) == sides


def test_every_covered_concept_exists() -> None:
    assert {name for c in f.CONCEPTS for name in c.covers} <= set(f.BY_NAME)


def test_the_vocabulary_starts_with_the_readers_two_normals() -> None:
    terms = f.vocabulary()
    assert terms[:2] == ("otherwise normal", "normal")
    assert len(set(terms)) == len(terms)
