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
        ("Pleural Effusion/bilateral/small", "small bilateral pleural effusions"),
        ("Pulmonary Atelectasis/base/bilateral/mild", "mild bibasilar atelectasis"),
        ("Opacity/lung/upper lobe/right", "right upper lobe opacity"),
        ("Opacity/lung/base/left", "left basilar opacity"),
        ("Opacity/lung/bilateral/interstitial/diffuse", "diffuse bilateral interstitial opacities"),
        ("Opacity/Opacity//left/left", "left opacity"),
        ("Nodule/lung/right/small", "small right lung nodule"),
        ("Blister/lung/upper lobe/right", "right upper lobe bulla"),
        ("Calcified Granuloma/scattered/multiple", "multiple scattered calcified granulomas"),
        ("Calcinosis/lung/hilum/lymph nodes/right", "calcified right hilar lymph nodes"),
        ("Calcinosis/blood vessels", "vascular calcification"),
        ("Cicatrix/lung/apex/bilateral", "biapical scarring"),
        ("Hernia, Hiatal", "hiatal hernia"),
        ("Lung/hypoinflation/mild", "mildly low lung volumes"),
        ("Lung/hypoinflation/left", "hypoinflation of the left lung"),
        ("Lung/hyperdistention", "hyperinflation of the lungs"),
        ("Lung/hilum/left/prominent", "prominent left hilum"),
        ("Thoracic Vertebrae/degenerative/multiple", "multilevel degenerative changes of the thoracic spine"),
        ("Shoulder/bilateral/degenerative", "degenerative changes of both shoulders"),
        ("Scoliosis/thoracic vertebrae/right/mild", "mild dextroscoliosis of the thoracic spine"),
        ("Scoliosis/lumbar vertebrae/left", "levoscoliosis of the lumbar spine"),
        ("Aorta, Thoracic/tortuous/mild", "mildly tortuous thoracic aorta"),
        ("Diaphragm/right/elevated", "elevation of the right hemidiaphragm"),
        ("Diaphragm/bilateral/flattened", "flattening of both hemidiaphragms"),
        ("Costophrenic Angle/left/blunted", "blunting of the left costophrenic angle"),
        ("Surgical Instruments/abdomen/right", "surgical material in the right abdomen"),
        ("Implanted Medical Device/aortic valve", "implanted medical device at the aortic valve"),
        ("Catheters, Indwelling/left", "indwelling catheter on the left"),
        ("Pneumonectomy/upper lobe/left", "left upper lobectomy"),
        ("Shift/mediastinum/right", "mediastinal shift to the right"),
    ],
)
def test_a_heading_reads_as_a_radiologist_would_say_it(term: str, phrase: str) -> None:
    assert phrases.phrase(term) == phrase


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ("Lung/hyperdistention/mild", "The lungs are mildly hyperinflated."),
        ("Cardiac Shadow/enlarged/moderate", "The cardiac silhouette is moderately enlarged."),
        ("Aorta/tortuous", "The aorta is tortuous."),
        ("Pulmonary Artery/bilateral/enlarged", "The pulmonary arteries are enlarged."),
        ("Costophrenic Angle/right/obscured", "The right costophrenic angle is obscured."),
        ("Technical Quality of Image Unsatisfactory", "The technical quality of the image is limited."),
        ("Opacity/retrocardiac", "Retrocardiac opacity."),
    ],
)
def test_a_structure_and_what_it_is_like_make_a_sentence(term: str, sentence: str) -> None:
    assert phrases.plain(term) == sentence


def test_words_in_which_the_check_would_not_find_the_heading_are_not_used() -> None:
    assert phrases.phrase("Adipose Tissue/pleura/left") == "left pleura adipose tissue", "the table knows no fat there"
    assert phrases.literal("Opacity/lung/base/left") == "left lung base opacity"


def test_nearly_all_headings_of_the_corpus_have_natural_words() -> None:
    known = [t for t in f.vocabulary() if t not in f.NORMAL_TERMS and f.concepts_of_term(t)]
    without = [t for t in known if phrases.natural(t) is None]
    assert len(without) < len(known) / 20, without


def test_sentences_begin_with_a_capital_and_end() -> None:
    assert phrases.plain("Pleural Effusion/left") == "Left pleural effusion."
    assert phrases.plain("a reader's own words") == "A reader's own words.", "what is no heading is left as it is"
    assert phrases.plain("small left effusion at the base") == "Small left effusion at the base."
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
