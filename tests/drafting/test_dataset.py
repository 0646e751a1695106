"""Training pairs: no source, no assertion; nothing of a study in its own priors; nothing of the held-out side."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_models.drafting import findings as f
from core_models.drafting import language_model, prompt, statements, verify
from core_models.drafting.dataset import Dataset, Example, Pictured, SourceReport, mirrored, signed_example
from core_models.drafting.evidence import Evidence, Statement
from retrieval import corpora
from retrieval.split import split_of
from tests.drafting.cards import finding, measurement, statement

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


def _board(example: Example) -> tuple[Evidence, ...]:
    """The prompt's cards as the check knows them."""
    out = []
    for ident, line in _cards(example).items():
        region, _, text = line.partition(" ")
        measured = text.removesuffix(" {" + ident + "}")
        if ident[0] == "P":
            continue
        if measured != text:
            out.append(replace(measurement(ident, measured, 1.0), region=region))
        elif text.startswith("possible "):
            out.append(finding(ident, text.removeprefix("possible "), region=region, probability=0.5))
        else:
            out.append(finding(ident, text, region=region, status="accepted"))
    return tuple(out)


def _lines(example: Example) -> list[statements.Line]:
    lines = [statements.parse(line) for line in example.target.split("\n")]
    assert None not in lines, example.target
    return lines


def _reasoned(examples: Sequence[Example]) -> list[Example]:
    """Those that teach the reasoning."""
    return [e for e in examples if not e.prompt.endswith("Sentences:\n")]


def _without_source(examples: Sequence[Example]) -> Iterator[tuple[str, str]]:
    """Sentences that the cards cited for them do not say, by the check and by the words alone."""
    for example in _reasoned(examples):
        board = _board(example)
        known = {c.id: c for c in board}
        for line in _lines(example):
            said = Statement("s1", "findings", line.region, line.template, line.evidence, template=line.template)
            checked = verify.check(said, board)
            if checked.support != "supported":
                yield line.format(), checked.note
            cited = [known[i] for i in line.evidence if i[0] == "E"]
            affirmed = {m.concept for m in f.mentions(line.template) if m.polarity != "absent"}
            if {prompt.follows(c) for c in cited} != {line.follows}:
                yield line.format(), "follows from another kind of card"
            if line.follows in ("present", "possible") and not affirmed <= set().union(
                *(f.licensed(c.statement) for c in cited)
            ):
                yield line.format(), "affirms more than the cards"


def test_no_source_no_assertion(examples: list[Example]) -> None:
    assert list(_without_source(examples)) == []


def test_no_sentence_denies_a_measured_finding(examples: list[Example]) -> None:
    for e in _reasoned(examples):
        for line in _lines(e):
            said = Statement("s1", "findings", line.region, line.template, line.evidence, template=line.template)
            assert verify.check(said, _board(e)).support == "supported", (line.format(), e.prompt)


def test_sentences_without_a_source_and_comparisons_are_not_learnt(examples: list[Example]) -> None:
    targets = "\n".join(e.target for e in examples)
    for left_out in ("rib fracture", "Stable granuloma", "Unchanged cardiomegaly", "Pacemaker", "The {E1} is"):
        assert left_out not in targets
    # "Left basilar opacity" has a source in study A; in B, whose opacity is on the right, it has none.
    assert any("Left basilar opacity." in e.target for e in examples if e.id == "A")
    assert not any("Left basilar opacity." in e.target for e in examples if e.id == "B")
    assert not any(f.has_comparison(line.template) for e in examples for line in _lines(e))


def test_every_card_is_cited_and_nothing_else(examples: list[Example]) -> None:
    for e in _reasoned(examples):
        cited = {i for line in _lines(e) for i in line.evidence}
        cards = _cards(e)
        assert cited <= set(cards)
        assert {i for i in cards if i.startswith("E")} <= cited, e


def test_a_study_says_a_sentence_once(examples: list[Example]) -> None:
    for e in examples:
        said = [(line.section, line.template) for line in _lines(e)]
        assert len(set(said)) == len(said)


def test_normal_sentences_rest_on_a_card_that_says_so(examples: list[Example]) -> None:
    for e in _reasoned(examples):
        cards = _cards(e)
        for line in _lines(e):
            if line.follows == "normal":
                (card,) = (cards[i] for i in line.evidence)
                assert card in ("other normal", "other otherwise normal")
                assert card != "other normal" or not any(c.statement not in f.NORMAL_TERMS for c in _findings(e)), e
    normals = [any(line.follows == "normal" for line in _lines(e)) for e in examples if e.id == "A"]
    assert True in normals
    assert False in normals, "negatives are not a habit: half of the time nothing licenses them"


def _findings(example: Example) -> list[Evidence]:
    return [c for c in _board(example) if c.kind == "finding"]


# ---- evidence that is changed ----


def test_from_a_proposal_follows_a_hedged_sentence_only(examples: list[Example]) -> None:
    seen = 0
    for e in _reasoned(examples):
        for line in _lines(e):
            affirmed = {m.polarity for m in f.mentions(line.template) if m.polarity != "absent"}
            if line.follows == "possible":
                seen += 1
                assert affirmed == {"possible"}, line
                assert all(_cards(e)[i].split(" ")[1] == "possible" for i in line.evidence if i[0] == "E")
    assert seen > 20


def test_left_and_right_change_places_in_cards_and_sentences(examples: list[Example]) -> None:
    mirrored_b = [e for e in examples if e.id == "B" and "Left upper lobe opacity." in e.target]
    plain_b = [e for e in examples if e.id == "B" and "Right upper lobe opacity." in e.target]
    assert mirrored_b
    assert len(plain_b) > len(mirrored_b)
    for e, side, other in [(e, "left", "right") for e in mirrored_b] + [(e, "right", "left") for e in plain_b]:
        mine = [c for c in _findings(e) if "opacity" in c.statement.lower()]
        assert mine
        assert not any(other in c.statement.lower() for c in mine), (side, e)
    # What lies on one side only stays where it is.
    assert not any("Right basilar opacity." in e.target for e in examples)


@given(st.text())
def test_mirrored_twice_is_as_it_was(text: str) -> None:
    assert mirrored(mirrored(text)) == text


def test_mirroring_keeps_letter_case_and_other_words() -> None:
    assert mirrored("Left upper, RIGHT lower; bright leftover left") == "Right upper, LEFT lower; bright leftover right"


def test_a_finding_of_another_study_comes_with_its_sentence(examples: list[Example]) -> None:
    mixed = [e for e in _reasoned(examples) if e.id.startswith("N") and _findings(e) and not e.normal]
    assert mixed
    assert all(any(line.follows in ("present", "possible") for line in _lines(e)) for e in mixed)


def test_a_card_may_be_left_out_with_all_that_rests_on_it(examples: list[Example]) -> None:
    a = [e for e in examples if e.id == "A"]
    without = [e for e in a if not any("cardiomegaly" in c.statement.lower() for c in _findings(e))]
    assert 0 < len(without) < len(a)
    assert not any(re.search("enlarged|cardiomegaly", e.target, re.IGNORECASE) for e in without)


def test_some_pairs_ask_for_the_sentences_alone(examples: list[Example]) -> None:
    bare = [e for e in examples if e.prompt.endswith("\nSentences:\n")]
    assert 0.03 < len(bare) / len(examples) < 0.15
    for e in bare:
        assert all((line.follows, line.evidence) == ("", ()) for line in _lines(e))
        assert re.fullmatch(r"(?:[FI]: [^\n]+\n?)+", e.target)
    assert all(e.prompt.endswith("\nReport:\n") for e in _reasoned(examples))
    assert all(line.follows and line.evidence for e in _reasoned(examples) for line in _lines(e))


def test_no_digit_stands_in_a_target_unless_a_card_has_one(examples: list[Example]) -> None:
    for e in examples:
        given_digits = {d for c in _board(e) for d in re.findall(r"\d", c.statement)}
        for line in _lines(e):
            bare = statements.PLACEHOLDER.sub("", line.template)
            assert set(re.findall(r"\d", bare)) <= given_digits, line
    assert not any("No acute disease 3." in e.target for e in examples)


def _own_priors(examples: list[Example], cited: bool) -> list[tuple[str, str]]:
    """Priors that only the study itself can have given; those that a line cites, or those that none does."""
    own = {r.id: {*r.findings, *r.impression} for r in REPORTS}
    out = []
    for e in examples:
        used = {i for line in _lines(e) for i in line.evidence}
        if not used:  # without reasoning nothing is cited
            continue
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
    for e in _reasoned(examples):
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
        "F E1 heart present: The heart is mildly enlarged.\nF E2 lungs present: Left basilar opacity.\n"
        "F E3 pleura normal: No pneumothorax.\nI E1 heart present: Mild cardiomegaly."
    )


def test_reports_without_headings_teach_nothing(dataset: Dataset) -> None:
    assert len(dataset) == len(REPORTS) - 2


# ---- signed reports ----

SIGNED = (
    finding("E4", "Cardiomegaly/mild", region="heart"),
    finding("E7", "otherwise normal", region="other"),
    measurement("E9", "liver: volume", 1512.0),
    finding("E12", "Pneumonia", probability=0.6),
)


def _signed(*said: Statement) -> Example | None:
    return signed_example("S1", "Cough.", "CT", SIGNED, said)


def test_a_signed_report_is_a_pair_by_the_models_own_numbers() -> None:
    made = _signed(
        replace(statement("Mild cardiomegaly.", "E4"), section="impression"),
        statement("The heart is mildly enlarged.", "E4", "P3"),
        replace(statement("No pneumothorax.", "E7"), region="pleura"),
        statement("The liver has a volume of {E9}.", "E9", cards=SIGNED),
        statement("Possible pneumonia.", "E12"),
    )
    assert made.prompt == (
        "Modality: CT\nIndication: Cough.\nE1 heart Cardiomegaly/mild\nE2 other otherwise normal\n"
        "E3 abdomen liver: volume {E3}\nE4 lungs possible Pneumonia\nReport:\n"
    )
    assert made.target == (
        "F E1 heart present: The heart is mildly enlarged.\nF E2 pleura normal: No pneumothorax.\n"
        "F E3 abdomen measured: The liver has a volume of {E3}.\nF E4 lungs possible: Possible pneumonia.\n"
        "I E1 heart present: Mild cardiomegaly."
    )
    assert list(_without_source([made])) == []


@pytest.mark.parametrize(
    "said",
    [
        statement("The liver has a volume of 1512 ml.", "E9"),
        statement("There is a rib fracture.", "E4"),
        statement("Pneumonia.", "E12"),
        statement("The heart is mildly enlarged."),
        statement("The heart is mildly enlarged.", "E99"),
        statement("The heart is mildly enlarged, liver {E9}.", "E4", "E9", cards=SIGNED),
        statement("The liver has a volume of {E77}.", "E9", cards=SIGNED),
        statement("Mild cardiomegaly, seen at 12.", "E4"),
    ],
)
def test_what_no_card_gives_is_not_learnt_from_a_signature(said: Statement) -> None:
    assert _signed(said) is None
    kept = _signed(said, statement("Mild cardiomegaly.", "E4"))
    assert kept.target == "F E1 heart present: Mild cardiomegaly."


# ---- pictures ----


def test_a_picture_comes_with_its_cards_and_its_captions_sentence(dataset: Dataset) -> None:
    shown = Pictured("rocov2-cxr:a.png", ("Pneumothorax/left",), ("Left pneumothorax.", "The heart is enlarged."))
    for seed in range(30):
        made = dataset.pictured(shown, random.Random(seed))
        if made is None:
            continue
        assert (made.picture, made.id) == (shown.id, shown.id)
        assert "heart is enlarged" not in made.target, "no card says it"
        assert "neumothorax" in made.target
        assert list(_without_source([made])) == []


def test_a_labelled_picture_gets_a_sentence_of_the_corpus_and_a_normal_one_a_normal_report() -> None:
    made = Dataset(REPORTS)
    texts = {
        e.target
        for seed in range(20)
        if (e := made.pictured(Pictured("nih:1", ("Calcified Granuloma",)), random.Random(seed)))
    }
    assert any("ranuloma" in t for t in texts)
    for seed in range(20):
        normal = made.pictured(Pictured("nih:2", ("normal",)), random.Random(seed))
        assert normal.normal
        assert [c.statement for c in _board(normal)] == ["normal"]


def test_each_picture_is_drawn_once_in_its_round_of_epochs() -> None:
    shown = [Pictured(f"nih:{n}", ("normal",)) for n in range(10)]
    made = Dataset(REPORTS, pictures=shown)
    rounds = [[e.picture for e in made.examples(epoch) if e.picture] for epoch in range(Dataset.PICTURE_EPOCHS)]
    assert sorted(p for drawn in rounds for p in drawn) == [p.id for p in shown]
    assert not any(e.picture for e in Dataset(REPORTS).examples(0))


# ---- the corpus itself ----


@pytest.fixture(scope="module")
def corpus(open_i: tuple[list[SourceReport], list[SourceReport]]) -> Dataset:
    return Dataset(open_i[0])


def test_no_held_out_study_is_trained_on(open_i: tuple[list[SourceReport], list[SourceReport]]) -> None:
    train, test = open_i
    side = {r.id: split_of(r.study_id) for r in corpora.read("open-i")}
    assert {side[r.id] for r in train} == {"train"}
    assert {side[r.id] for r in test} == {"test"}
    pairs = Dataset(train).examples(0)
    assert len(pairs) > 3000
    assert all(e.id.startswith("measurements-") or side[e.id] == "train" for e in pairs)


def test_no_source_no_assertion_in_the_corpus(corpus: Dataset) -> None:
    pairs = random.Random(0).sample(corpus.examples(0), 600)
    assert list(_without_source(pairs)) == []


def test_no_number_without_a_card_in_the_corpus(corpus: Dataset) -> None:
    plain = [e for k in range(len(corpus)) if (e := corpus.example(k, None))]
    for e in [*plain, *random.Random(1).sample(corpus.examples(1), 600)]:
        texts = " ".join(_cards(e).values())
        for line in _lines(e):
            bare = statements.PLACEHOLDER.sub("", line.template)
            assert not re.search(r"\d", bare) or re.search(r"\d", statements.PLACEHOLDER.sub("", texts)), line


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
