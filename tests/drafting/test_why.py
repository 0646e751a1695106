"""What changes without each thing that a draft rests on: by writers whose rule is known, so that the answer is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_models.drafting import prompt, why
from core_models.drafting.drafter import BATCH, OWN_WORDS, Job, Omission, PriorText
from core_models.drafting.evidence import Evidence, Statement, Step
from core_models.drafting.why import Change, Effect, Explanation, Share, compared, explain, omissions
from core_models.errors import Refused
from tests.drafting.cards import finding, measurement
from tests.drafting.rule_writer import RuleWriter, one_each, said

HEART = finding("E2", "Cardiomegaly", region="heart")
EFFUSION = finding("E5", "Pleural Effusion/left", region="pleura")
LIVER = measurement("E7", "liver: volume", 1512.0)
JOB = Job((HEART, EFFUSION, LIVER))
QUOTED = PriorText("P4", matched=("The heart is enlarged.",))
OTHER = PriorText("P5", matched=("There is a pneumothorax.",))
PICTURE = np.zeros((4, 4))
CARD = Omission("card", "E2")


def board(number: int) -> Job:
    return Job(tuple(finding(f"E{n}", f"Nodule {n}") for n in range(1, number + 1)))


# ---- what can be left out --------------------------------------------------------------------------------------------


def test_the_image_is_left_out_where_it_was_seen_the_priors_where_one_was_quoted() -> None:
    assert omissions(JOB, sees=True) == [Omission("card", i) for i in ("E2", "E5", "E7")]
    pictured = Job(JOB.cards, (OTHER,), picture=PICTURE)
    assert omissions(pictured, sees=True)[0] == Omission("image")
    assert omissions(pictured, sees=False) == omissions(JOB, sees=True)
    assert omissions(Job(JOB.cards, (OTHER, QUOTED)), sees=True)[0] == Omission("priors")


def test_only_cards_that_are_read_are_left_out() -> None:
    cards = (
        Evidence("E1", "clinical", "other", "Cough.", source="indication", status="accepted"),
        finding("E3", "Nodule", status="rejected"),
        HEART,
        Evidence("P1", "prior", "other", "Clear lungs."),
    )
    assert omissions(Job(cards), sees=True) == [CARD]
    assert len(omissions(board(30), sees=True)) == prompt.MAX_CARDS


# ---- what changes ----------------------------------------------------------------------------------------------------


def test_of_a_writer_that_follows_its_cards_every_citation_counts() -> None:
    writer = RuleWriter()
    found = explain(writer, JOB)
    (batch,) = writer.batches
    assert batch[0] == JOB, "the whole job is in the same batch"
    assert [{c.id for c in j.cards} for j in batch[1:]] == [{"E5", "E7"}, {"E2", "E7"}, {"E2", "E5"}]
    assert [(e.omission.id, e.changed, e.gone, e.appeared) for e in found.effects] == [
        ("E2", (), ("s1",), ()),
        ("E5", (), ("s2",), ()),
        ("E7", (), ("s3",), ()),
    ]
    assert (found.faithfulness, found.elsewhere) == (Share(3, 3), Share(0, 6))
    assert found.faithfulness.rate == 1.0
    assert [found.idle(s) for s in found.statements] == [(), (), ()]
    assert (found.image, found.priors, found.untried) == (Share(0, 0), Share(0, 0), ())
    assert found.image.rate is None


def test_a_cited_card_without_which_the_sentence_says_the_same_is_idle() -> None:
    def habit(job: Job) -> list[Statement]:
        return [said("The lungs are clear.", *(c.id for c in why.read(job))), *one_each(job)[:1]]

    found = explain(RuleWriter(habit), JOB)
    assert found.idle(found.statements[0]) == ("E2", "E5", "E7")
    assert found.idle(found.statements[1]) == ()
    assert found.faithfulness == Share(1, 4)
    # Without E2 the second sentence is about E5; the other two cards do not matter to it.
    assert found.elsewhere == Share(0, 2)


def test_a_sentence_on_two_cards_is_told_as_it_reads_without_each() -> None:
    def together(job: Job) -> list[Statement]:
        cards = why.read(job)
        return [said(" and ".join(c.statement for c in cards), *(c.id for c in cards))]

    found = explain(RuleWriter(together), Job((HEART, EFFUSION)))
    old = "Cardiomegaly and Pleural Effusion/left"
    assert [e.changed for e in found.effects] == [
        (Change("s1", old, "Pleural Effusion/left"),),
        (Change("s1", old, "Cardiomegaly"),),
    ]
    assert found.faithfulness == Share(2, 2)


def test_a_single_card_leaves_nothing_to_write_from() -> None:
    writer = RuleWriter()
    found = explain(writer, Job((HEART,)))
    assert [len(b) for b in writer.batches] == [1]
    assert found.effects == (Effect(CARD, gone=("s1",)),)
    assert found.faithfulness == Share(1, 1)


def test_an_empty_board_is_refused() -> None:
    with pytest.raises(Refused, match="nothing to write from"):
        explain(RuleWriter(), Job(()))


def test_priors_and_image_are_counted_by_themselves() -> None:
    def seeing(job: Job) -> list[Statement]:
        quote = ["P4"] if job.priors else []
        return [
            said("Severe cardiomegaly." if job.priors else "Cardiomegaly.", "E2", *quote),
            said("Unchanged heart.", "E2", *quote),
            said("A picture.", "E5") if job.picture is not None else said("No picture.", "E5"),
        ]

    found = explain(RuleWriter(seeing, sees=True), Job((HEART, EFFUSION), (QUOTED,), picture=PICTURE))
    assert [e.omission.kind for e in found.effects] == ["image", "priors", "card", "card"]
    assert found.priors == Share(1, 2)
    assert found.image == Share(1, 3)
    first, second, third = found.statements
    assert "P4" not in found.idle(first)
    assert "P4" in found.idle(second)
    assert found.faithfulness.of == 3, "a prior is no card of the score"
    assert not any(i.startswith("P") for i in found.idle(third))


def test_only_supported_sentences_of_the_model_are_scored() -> None:
    def mixed(job: Job) -> list[Statement]:
        kept = {c.id for c in why.read(job)}
        all_ = [
            said("Model.", "E2"),
            said("Struck.", "E2", support="unsupported"),
            said("Own words.", "E5", step=Step(("E5",), OWN_WORDS)),
        ]
        return [s for s in all_ if kept >= set(s.evidence)]

    found = explain(RuleWriter(mixed), JOB)
    assert found.faithfulness == Share(1, 1)
    assert found.elsewhere == Share(0, 2)
    assert found.effects[0].gone == ("s1", "s2"), "what is not scored is told all the same"


# ---- matching --------------------------------------------------------------------------------------------------------


def numbered(*statements: Statement) -> tuple[Statement, ...]:
    return tuple(Statement(**{**vars(s), "id": f"s{n}"}) for n, s in enumerate(statements, 1))


def test_the_same_words_match_before_the_same_card() -> None:
    draft = numbered(said("Large heart and effusion.", "E1", "E2"), said("Effusion.", "E2"))
    redraft = numbered(said("EFFUSION.", "E2"), said("The heart is enlarged.", "E1"))
    assert compared(CARD, draft, redraft) == Effect(
        CARD, (Change("s1", "Large heart and effusion.", "The heart is enlarged."),)
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The heart is normal in size.", "Heart size is within normal limits."),
        ("No pneumothorax.", "There is no pleural effusion or pneumothorax."),
        ("Severe thoracic kyphosis.", "There is severe kyphosis of the thoracic spine."),
        ("The liver has a volume of {E7}.", "Liver: volume of {E7}."),
        ("No acute disease.", "No acute cardiopulmonary abnormality."),
    ],
)
def test_other_words_for_the_same_are_no_change(old: str, new: str) -> None:
    effect = compared(CARD, numbered(said(old, "E1")), numbered(said(new, "E1")))
    assert effect == Effect(CARD, reworded=(Change("s1", old, new),), appeared=effect.appeared)
    assert not effect.touches("s1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The heart is enlarged.", "The heart is normal in size."),
        ("Small left pleural effusion.", "Small right pleural effusion."),
        ("Mild cardiomegaly.", "Severe cardiomegaly."),
        ("There is a nodule.", "There is possibly a nodule."),
        ("Nodule and pleural effusion.", "Pleural effusion."),
        ("The liver has a volume of {E7}.", "The liver has a volume of {E8}."),
    ],
)
def test_another_finding_side_degree_doubt_or_number_is_a_change(old: str, new: str) -> None:
    effect = compared(CARD, numbered(said(old, "E1")), numbered(said(new, "E1")))
    assert effect == Effect(CARD, changed=(Change("s1", old, new),))


def test_normal_structures_are_not_matched_for_citing_the_card_that_all_else_is_normal() -> None:
    draft, redraft = numbered(said("The lungs are clear.", "E5")), numbered(said("The heart is normal in size.", "E5"))
    assert compared(CARD, draft, redraft) == Effect(CARD, gone=("s1",), appeared=("The heart is normal in size.",))


def test_what_shares_most_is_taken_and_what_is_said_already_has_not_appeared() -> None:
    draft = numbered(said("Odd one.", "E1", "E3"), said("Odd two.", "E2"), said("Effusion.", "E4"))
    redraft = numbered(said("A.", "E1", "E4"), said("B.", "E1", "E3"), said("There is an effusion.", "E4"))
    effect = compared(CARD, draft, redraft)
    assert effect.changed == (Change("s1", "Odd one.", "B."),)
    assert [c.new for c in effect.reworded] == ["There is an effusion."]
    assert (effect.gone, effect.appeared) == (("s2",), ("A.",))


def test_one_affirmed_finding_stands_for_one_statement_and_one_denial_for_many() -> None:
    draft = numbered(said("Clavicle fracture.", "E2"), said("Rib fracture.", "E3"), said("No effusion.", "E5"))
    redraft = numbered(said("Fracture of a rib.", "E3"), said("No pneumothorax or effusion.", "E5"))
    effect = compared(CARD, draft, redraft)
    assert [(c.statement, c.new) for c in effect.reworded] == [
        ("s2", "Fracture of a rib."),
        ("s3", "No pneumothorax or effusion."),
    ]
    assert effect.gone == ("s1",)
    together = numbered(said("Fractures of the clavicle and a rib, cardiomegaly.", "E1", "E3"))
    effect = compared(CARD, numbered(said("Rib fracture.", "E3"), said("The heart is enlarged.", "E1")), together)
    assert [c.statement for c in effect.reworded] == ["s1", "s2"], "two findings of one sentence"


def test_what_moves_to_the_other_section_is_still_said_but_only_once() -> None:
    draft = numbered(said("Large heart.", "E1"), said("Large heart.", "E1", section="impression"))
    moved = numbered(said("Large heart.", "E1", section="impression"))
    assert compared(CARD, draft[:1], moved).reworded == (Change("s1", "Large heart.", "Impression: Large heart."),)
    assert compared(CARD, draft, moved) == Effect(CARD, gone=("s1",))


def test_what_says_something_else_is_looked_for_in_the_same_section() -> None:
    draft = numbered(said("Mild cardiomegaly.", "E1"))
    other = numbered(said("Severe cardiomegaly.", "E1", section="impression"))
    assert compared(CARD, draft, other) == Effect(CARD, gone=("s1",), appeared=("Severe cardiomegaly.",))


SENTENCES = st.lists(
    st.builds(
        lambda text, evidence, section: said(text, *evidence, section=section),
        st.sampled_from(
            ("Odd.", "Effusion.", "There is an effusion.", "No nodule.", "No effusion or nodule.", "Clear lungs.")
        ),
        st.lists(st.sampled_from(("E1", "E2", "E3")), max_size=2, unique=True),
        st.sampled_from(("findings", "impression")),
    ),
    max_size=6,
    unique_by=lambda s: (s.section, s.text),
)


@given(SENTENCES, SENTENCES)
def test_every_sentence_has_one_outcome(first: list[Statement], second: list[Statement]) -> None:
    draft, redraft = numbered(*first), numbered(*second)
    effect = compared(CARD, draft, redraft)
    told = [*(c.statement for c in (*effect.changed, *effect.reworded)), *effect.gone]
    assert len(told) == len(set(told))
    same = {s.id for s in draft if why.same(s, redraft)}
    assert {s.id for s in draft} == same | set(told)
    assert not same & set(told)
    assert {*(c.new for c in effect.changed), *effect.appeared} <= {r.text for r in redraft}
    assert compared(CARD, draft, draft) == Effect(CARD)


# ---- large boards ----------------------------------------------------------------------------------------------------


def all_goes(writer: RuleWriter, job: Job, first: tuple[str, ...] = ()) -> Explanation:
    found = explain(writer, job, first=first)
    while found.untried:
        found = explain(writer, job, found)
    return found


def test_a_large_board_takes_several_goes_and_every_card_its_turn() -> None:
    writer = RuleWriter()
    job = board(prompt.MAX_CARDS)
    found = explain(writer, job, first=("E20", "E9"))
    assert {"E9", "E20"} <= {e.omission.id for e in found.effects}, "the cards in question come first"
    assert len(found.untried) == prompt.MAX_CARDS - len(found.effects)
    assert found.faithfulness.of == len(found.effects), "a card that was not tried is not counted"
    found = all_goes(writer, job, ("E20", "E9"))
    assert sorted(e.omission.id for e in found.effects) == sorted(c.id for c in job.cards)
    assert found.faithfulness == Share(24, 24)
    assert found.elsewhere == Share(0, 24 * 23)
    assert all(len(batch) <= BATCH and batch[0] == job for batch in writer.batches)


@pytest.mark.parametrize("cards", [1, 2, 5, 6, 9, 12, 24])
def test_one_go_writes_about_no_more_cards_than_are_afforded(cards: int) -> None:
    writer = RuleWriter()
    explain(writer, board(cards))
    redrafts = len(writer.batches[0]) - 1
    written = sum(len(job.cards) for job in writer.batches[0])
    assert redrafts <= why.FEWEST or written <= why.AFFORDED


def test_a_sentence_that_only_one_go_wrote_is_not_told_about() -> None:
    writer = RuleWriter()

    def unsteady(job: Job) -> list[Statement]:
        extra = [said("By chance.", "E1")] if len(writer.batches) == 1 else []
        return [*extra, *one_each(job)]

    writer.rule = unsteady
    job = board(prompt.MAX_CARDS)
    first = explain(writer, job)
    assert first.statements[0].text == "By chance."
    found = explain(writer, job, first)
    assert [s.id for s in found.statements] == [f"s{n}" for n in range(2, 26)]
    assert [e.gone for e in found.effects] == [(f"s{n}",) for n in range(2, 2 + len(found.effects))]
