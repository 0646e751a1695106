"""The likeness of finding terms: headings, bound qualifiers, rarity."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.terms import TermsLikeness, terms_text

REPORTS = [
    ("Cardiomegaly/mild",),
    ("Cardiomegaly",),
    ("Opacity/lung/left", "Pleural Effusion/right"),
    ("Opacity/lung/right", "Pleural Effusion/left"),
    ("normal",),
    ("normal",),
    (),
    ("No Indexing",),
]


@pytest.fixture
def likeness() -> TermsLikeness:
    return TermsLikeness(REPORTS)


def test_terms_in_words() -> None:
    assert terms_text(("Cardiomegaly/mild", "No Indexing", "normal")) == "cardiomegaly, mild. normal"


def test_the_same_terms_are_alike_and_others_are_not(likeness: TermsLikeness) -> None:
    scores = likeness.to(["cardiomegaly / MILD"])
    assert scores.shape == (8,)
    assert scores[0] == pytest.approx(1.0)
    assert 0 < scores[1] < scores[0]
    assert not scores[2:].any()
    assert np.flatnonzero(likeness.to(["normal"])).tolist() == [4, 5]


def test_a_side_belongs_to_its_own_finding(likeness: TermsLikeness) -> None:
    scores = likeness.to(["Opacity/lung/left"])
    assert scores[2] > scores[3] > 0


def test_a_rare_finding_weighs_more_than_a_common_one() -> None:
    likeness = TermsLikeness([("Nodule",), *([("Granuloma",)] * 9)])
    scores = likeness.to(["Nodule", "Granuloma"])
    assert scores[0] > scores[1] > 0


def test_what_no_report_has_lowers_the_likeness(likeness: TermsLikeness) -> None:
    assert likeness.to(["Cardiomegaly", "Dextrocardia"])[1] < likeness.to(["Cardiomegaly"])[1]


@pytest.mark.parametrize("terms", [(), ("",), ("/",), ("No Indexing",), ("Unheard of",)])
def test_terms_that_say_nothing_find_nothing(likeness: TermsLikeness, terms: tuple[str, ...]) -> None:
    assert not likeness.to(terms).any()


def test_reports_without_terms() -> None:
    assert not TermsLikeness([(), ()]).to(["normal"]).any()
