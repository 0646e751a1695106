"""Training pairs: no source, no assertion; nothing of a study in its own priors; nothing of the held-out side."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

import pytest

from core_models.drafting import findings as f
from core_models.drafting import language_model, statements
from core_models.drafting.dataset import Dataset, Example, SourceReport
from retrieval import corpora
from retrieval.split import split_of

REPORTS = (
    SourceReport(
        "A",
        "Cough.",
        ("The heart is mildly enlarged.", "Left basilar opacity.", "No pneumothorax.", "There is a rib fracture."),
        ("Mild cardiomegaly.", "Stable granuloma."),
        ("Cardiomegaly/mild", "Opacity/lung/base/left"),
    ),
    SourceReport(
        "B",
        "",
        ("Right upper lobe opacity.", "Left basilar opacity.", "Unchanged cardiomegaly.", "The {E1} is enlarged."),
        ("Opacity in the right lung.",),
        ("Opacity/lung/upper lobe/right",),
    ),
    SourceReport(
        "C", "Chest pain.", ("The lungs are clear.", "Heart size normal."), ("No acute disease.",), ("normal",)
    ),
    SourceReport(
        "D",
        "",
        ("The heart is enlarged.", "Calcified granuloma.", "The aorta is tortuous.", "No acute opacity."),
        ("Cardiomegaly.", "Cardiomegaly."),
        ("Cardiomegaly", "Calcified Granuloma/lung/upper lobe/right", "Aorta/tortuous"),
    ),
    SourceReport("E", "", ("Calcified granuloma in the left base.",), (), ("Granuloma/lung/base/left",)),
    SourceReport("F", "", ("Pacemaker.",), (), ("No Indexing",)),
    SourceReport("G", "", ("Pacemaker.",), (), ()),
    *(SourceReport(f"N{n}", "", ("The lungs are clear.",), (f"No acute disease {n}.",), ("normal",)) for n in range(9)),
)
EPOCHS = range(60)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset(REPORTS)


@pytest.fixture(scope="module")
def examples(dataset: Dataset) -> list[Example]:
    return [e for epoch in EPOCHS for e in dataset.examples(epoch)]


def _cards(example: Example) -> dict[str, str]:
    """The prompt's cards and priors: id → its line without the id."""
    return dict(re.findall(r"^([EP]\d+) (.*)$", example.prompt, re.MULTILINE))


def _lines(example: Example) -> list[statements.Line]:
    lines = [statements.parse(line) for line in example.target.split("\n")]
    assert None not in lines, example.target
    return lines


def _bag(text: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"\w+", text.lower())))


def _unlicensed(example: Example, terms: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
    """Sentences that affirm what the headings behind their cited cards do not license."""
    cards = _cards(example)
    heading = {_bag(term): term for term in terms}
    for line in _lines(example):
        if line.follows == "measured":
            continue
        affirmed = {m.concept for m in f.mentions(line.template) if m.polarity != "absent"}
        cited = [cards[i].split(" ", 1)[1] for i in line.evidence if i.startswith("E")]
        behind = [heading[_bag(card)] for card in cited if card not in f.NORMAL_TERMS]
        license_ = set().union(*(f.licensed(term) for term in behind))
        if not cited or not affirmed <= license_ or bool(affirmed) == (line.follows == "normal"):
            yield line.template, affirmed - license_


def test_no_source_no_assertion(examples: list[Example]) -> None:
    terms = {r.id: r.terms for r in REPORTS}
    assert [x for e in examples for x in _unlicensed(e, terms.get(e.id, ()))] == []


def test_sentences_without_a_source_and_comparisons_are_not_learnt(examples: list[Example]) -> None:
    targets = "\n".join(e.target for e in examples)
    for left_out in ("rib fracture", "Stable granuloma", "Unchanged cardiomegaly", "Pacemaker", "The {E1} is"):
        assert left_out not in targets
    # "Left basilar opacity" has a source in study A, and none in B, whose opacity is on the right.
    assert {e.id for e in examples if "Left basilar opacity." in e.target} == {"A"}
    assert not any(f.has_comparison(line.template) for e in examples for line in _lines(e))


def test_every_card_is_cited_and_nothing_else(examples: list[Example]) -> None:
    for e in examples:
        cited = {i for line in _lines(e) for i in line.evidence}
        cards = _cards(e)
        assert cited <= set(cards)
        assert {i for i in cards if i.startswith("E")} <= cited, e


def test_a_study_says_a_sentence_once(examples: list[Example]) -> None:
    for e in examples:
        said = [(line.section, line.template) for line in _lines(e)]
        assert len(set(said)) == len(said)


def test_normal_sentences_rest_on_a_card_that_says_so(examples: list[Example]) -> None:
    for e in examples:
        cards = _cards(e)
        for line in _lines(e):
            if line.follows == "normal":
                assert [cards[i] for i in line.evidence] == [f"other {'normal' if e.normal else 'otherwise normal'}"]
    normals = [any(line.follows == "normal" for line in _lines(e)) for e in examples if e.id == "A"]
    assert True in normals
    assert False in normals, "negatives are not a habit: half of the time nothing licenses them"


def _own_priors(examples: list[Example], cited: bool) -> list[tuple[str, str]]:
    """Priors that only the study itself can have given; those that a line cites, or those that none does."""
    own = {r.id: {*r.findings, *r.impression} for r in REPORTS}
    out = []
    for e in examples:
        used = {i for line in _lines(e) for i in line.evidence}
        priors = {text: i in used for i, text in _cards(e).items() if i.startswith("P")}
        for text, is_used in priors.items():
            owners = {name for name, texts in own.items() if text in texts}
            assert owners, text
            if owners == {e.id} and is_used == cited:
                out.append((e.id, text))
    return out


def test_cited_priors_are_of_other_studies(examples: list[Example]) -> None:
    assert any(i.startswith("P") for e in examples for line in _lines(e) for i in line.evidence)
    assert _own_priors(examples, cited=True) == []


def test_foreign_priors_are_of_other_studies(examples: list[Example]) -> None:
    assert _own_priors(examples, cited=False) == []


def test_a_prior_that_says_something_else_is_not_cited(examples: list[Example]) -> None:
    seen = 0
    for e in examples:
        cards = _cards(e)
        for line in _lines(e):
            mine = {m.concept for m in f.mentions(line.template) if m.polarity != "absent"}
            for i in line.evidence:
                if i.startswith("P"):
                    seen += 1
                    assert mine & {m.concept for m in f.mentions(cards[i])}
    assert seen
    foreign = [
        e for e in examples if any("granuloma" in t for i, t in _cards(e).items() if i[0] == "P") and e.id == "A"
    ]
    assert foreign
    assert not any("granuloma" in e.target for e in foreign)


def test_an_epoch_is_drawn_alike_each_time_and_differs_from_the_next(dataset: Dataset) -> None:
    assert dataset.examples(3) == Dataset(REPORTS).examples(3)
    assert dataset.examples(3) != dataset.examples(4)
    assert dataset.examples(3) != Dataset(REPORTS, seed=1).examples(3)


def test_numbers_are_placeholders_of_the_cards_they_are_measured_on(examples: list[Example]) -> None:
    measured = 0
    for e in examples:
        cards = _cards(e)
        for line in _lines(e):
            numbers = statements.placeholders(line.template)
            assert (line.follows == "measured") == bool(numbers)
            if not numbers:
                assert not re.search(r"[{}]", line.template)
                continue
            measured += 1
            assert not re.search(r"\d\s*(?:ml|mm|cm|hu)\b", line.template, re.IGNORECASE)
            assert set(numbers) == set(line.evidence)
            assert all(cards[i].endswith("{" + i + "}") for i in numbers)
    assert measured
    assert any(e.id.startswith("measurements-") for e in examples)


def test_the_plain_pair_holds_all_cards_and_no_priors(dataset: Dataset) -> None:
    e = dataset.example(0, None)
    assert e is not None
    assert e.prompt == (
        "Modality: radiograph\nIndication: Cough.\nE1 heart Cardiomegaly/mild\nE2 lungs Opacity/lung/base/left\n"
        "E3 other otherwise normal\nReport:\n"
    )
    assert e.target == (
        "F heart E1 present: The heart is mildly enlarged.\nF lungs E2 present: Left basilar opacity.\n"
        "F pleura E3 normal: No pneumothorax.\nI heart E1 present: Mild cardiomegaly."
    )


def test_reports_without_headings_teach_nothing(dataset: Dataset) -> None:
    assert len(dataset) == len(REPORTS) - 2


# The corpus itself.


def test_no_held_out_study_is_trained_on(open_i: tuple[list[SourceReport], list[SourceReport]]) -> None:
    train, test = open_i
    side = {r.id: split_of(r.study_id) for r in corpora.read("open-i")}
    assert {side[r.id] for r in train} == {"train"}
    assert {side[r.id] for r in test} == {"test"}
    pairs = Dataset(train).examples(0)
    assert len(pairs) > 3000
    assert all(e.id.startswith("measurements-") or side[e.id] == "train" for e in pairs)


def test_no_source_no_assertion_in_the_corpus(open_i: tuple[list[SourceReport], list[SourceReport]]) -> None:
    train = open_i[0]
    terms = {r.id: r.terms for r in train}
    pairs = random.Random(0).sample(Dataset(train).examples(0), 600)
    assert [x for e in pairs for x in _unlicensed(e, terms.get(e.id, ()))] == []


@pytest.mark.xfail(
    strict=True, reason="sentences with a measured size (70 of 15,000) are learnt though no card gives it"
)
def test_no_number_without_a_card_in_the_corpus(open_i: tuple[list[SourceReport], list[SourceReport]]) -> None:
    dataset = Dataset(open_i[0])
    plain = [e for k in range(len(dataset)) if (e := dataset.example(k, None))]
    number = re.compile(r"\d\s*(?:mm|cm|ml|cc)\b", re.IGNORECASE)
    assert [line.template for e in plain for line in _lines(e) if number.search(line.template)] == []


def test_held_out_findings_are_not_told_word_for_word_in_training(
    open_i: tuple[list[SourceReport], list[SourceReport]],
) -> None:
    """The split keeps word-for-word twins apart from nothing (`retrieval/split.py`): nearly all of them are normal
    studies, and evaluations report those apart.  Of what states a finding, few may be twins."""
    train, test = (Dataset(side) for side in open_i)
    told = {e.target for k in range(len(train)) if (e := train.example(k, None))}
    held = [e for k in range(len(test)) if (e := test.example(k, None)) and not e.normal]
    stating = [e for e in held if any(line.follows == "present" for line in _lines(e))]
    assert len(stating) > 150
    assert sum(e.target in told for e in stating) <= len(stating) // 20


def test_the_terms_and_pieces_are_those_of_the_training_reports(
    open_i: tuple[list[SourceReport], list[SourceReport]],
) -> None:
    train, test = open_i
    terms = set(json.loads(f.VOCABULARY.read_text(encoding="utf-8")))
    known = {t for r in train for t in r.terms}
    assert terms <= known
    assert {t for r in test for t in r.terms} - known, "the held-out side has terms of its own, so this can fail"

    # A piece that begins a word and that no training report holds would have come from a held-out one.
    texts = {"train": "", "test": ""}
    for r in corpora.read("open-i"):
        texts[split_of(r.study_id)] += " ".join((r.indication, r.text, *r.terms, ""))
    pieces = json.loads(language_model.VOCABULARY.read_text(encoding="utf-8"))
    begins = {p[1:] for p in pieces if re.fullmatch("▁[A-Za-z]{6,}", p)}
    only_held = {w for w in re.findall(r"[A-Za-z]{6,}", texts["test"]) if w not in texts["train"]}
    assert len(begins) > 500
    assert len(only_held) > 50
    assert not only_held & begins
