"""A prior report and the board's findings → the sentences that state one of them, and those that say the opposite.

Words are read by the same table as the drafts' rule check (`core_models.drafting.findings`), and in favour of doubt: a
denial counts only where no other sentence or heading of the report affirms the finding, where it is of the card's own
side, and where it is not of a kind or degree ("no large effusion", "no new opacity").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core_models.drafting import findings as f
from retrieval import clean
from retrieval.report import CorpusReport, Said

_OF_A_KIND = re.compile(
    r"\b(?:large|big|significant|sizeable|sizable|massive|gross|obvious|other|additional|further|new|interval|residual"
    r"|recurrent|change\w*|increas\w*|worsen\w*|acute|displaced|suspicious|cavitary|rather than|rule[sd]? out"
    r"|exclude\w*|(?:focal|lobar) (?:\w+ )?consolidation)\b",
    re.IGNORECASE,
)
_PARTLY_NORMAL = re.compile(
    r"\b(?:top|upper|borderline|otherwise|except|remain(?:ing|der)|but|although)\b", re.IGNORECASE
)
_NORMAL: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = (
    (
        re.compile(
            r"\b(?:heart|cardiac|cardiomediastinal)\b(?! rate)[^.;]{0,60}\b(?:normal|unremarkable|not enlarged)\b"
            r"|\bnormal (?:heart|cardiac|cardiomediastinal)\b",
            re.IGNORECASE,
        ),
        frozenset({"cardiomegaly"}),
    ),
    (
        re.compile(r"\blungs?\b[^.;]{0,40}\bclear\b(?! of)|\bclear lungs?\b", re.IGNORECASE),
        frozenset({"opacity", "pneumonia", "atelectasis", "congestion"}),
    ),
)
"""Sentences of normality that name no finding, and the findings that cannot be where they are true."""

_OF_THE_BODY = frozenset({"lungs", "pleura", "heart", "mediastinum", "bones", "abdomen"})


@dataclass(frozen=True)
class Finding:
    """A finding card: its id and what it says, as a heading ("Cardiomegaly/mild") or in the reader's words."""

    card: str
    statement: str


@dataclass(frozen=True)
class Stance:
    """What a report says of the board, in the order of its cards, at most one sentence each.

    Attributes:
        states: the cards that its sentences or its headings state.
    """

    supports: tuple[Said, ...]
    contradicts: tuple[Said, ...]
    states: frozenset[str]


@dataclass(frozen=True)
class _Sentence:
    text: str
    affirmed: frozenset[str]
    possible: frozenset[str]
    denied: frozenset[str]
    sides: frozenset[str]


def read(report: CorpusReport, board: Sequence[Finding]) -> Stance:
    """What the report says of the board's findings; one card is never both stated and denied."""
    sentences = tuple(_sentences(report))
    supports, contradicts, states = [], [], set()
    for card in board:
        headed = any(asserted(term) & asserted(card.statement) and _alike(term, card) for term in report.terms)
        for_it, against = _about(card, sentences, report.terms)
        if for_it:
            supports.append((card.card, for_it))
        elif against:
            contradicts.append((card.card, against))
        if for_it or headed:
            states.add(card.card)
    return Stance(tuple(supports), tuple(contradicts), frozenset(states))


def asserted(statement: str) -> frozenset[str]:
    """What a card asserts: concepts; "normal"; a heading that the table of concepts lacks; nothing of a denial."""
    head = statement.partition("/")[0].strip().lower()
    if head in f.NORMAL_TERMS:
        return frozenset({head} & {f.NORMAL_TERM})
    return f.concepts_of_term(statement) or frozenset(() if f.mentions(statement) else {head})


def stated(report: CorpusReport) -> frozenset[str]:
    """What a report's headings assert (see `asserted`), and the concepts that its sentences affirm."""
    return frozenset().union(*map(asserted, report.terms), *(s.affirmed for s in _sentences(report)))


def _about(card: Finding, sentences: Sequence[_Sentence], terms: Sequence[str]) -> tuple[str, str]:
    """The sentence for the card and the one against it; "" where there is none."""
    own, sides = asserted(card.statement), f.side_of(card.statement)
    headed = frozenset().union(*map(asserted, terms))
    if own == {f.NORMAL_TERM}:
        if own <= headed:  # as its readers indexed it, whatever it mentions
            return _first(s for s in sentences if f.is_normal(s.text)), ""
        return "", _first(s for s in sentences if any(f.BY_NAME[c].region in _OF_THE_BODY for c in s.affirmed))
    if own & f.BY_NAME.keys():
        affirming = _first(s for s in sentences if own & s.affirmed and _meets(s.sides, sides))
        denying = _first(s for s in sentences if own & s.denied and _whole(s.sides, sides))
        open_ = own & headed or any(own & (s.affirmed | s.possible) for s in sentences)
        return affirming, "" if open_ else denying
    refused = {m.concept for m in f.mentions(card.statement) if m.polarity == "absent"}
    affirming = _first(s for s in sentences if refused & s.affirmed and _meets(s.sides, sides))
    denying = _first(s for s in sentences if refused & s.denied and _whole(s.sides, sides))
    return "" if affirming or refused & headed else denying, affirming


def _first(sentences: Iterator[_Sentence]) -> str:
    return next((s.text for s in sentences), "")


def _sentences(report: CorpusReport) -> Iterator[_Sentence]:
    for text in clean.sentences(report.text):
        by = {m.concept: m.polarity for m in f.mentions(text)}
        denied = {c for c, polarity in by.items() if polarity == "absent"}
        if not _PARTLY_NORMAL.search(text):
            denied |= {c for words, absent in _NORMAL if words.search(text) for c in absent if c not in by}
        yield _Sentence(
            text,
            frozenset(c for c, polarity in by.items() if polarity == "present"),
            frozenset(c for c, polarity in by.items() if polarity == "possible"),
            frozenset() if _OF_A_KIND.search(text) else frozenset(denied),
            f.side_of(text),
        )


def _alike(term: str, card: Finding) -> bool:
    return _meets(f.side_of(term), f.side_of(card.statement))


def _meets(said: frozenset[str], card: frozenset[str]) -> bool:
    """Whether a sentence or heading with these sides can speak of a card with those."""
    return not said or not card or bool(said & card)


def _whole(said: frozenset[str], card: frozenset[str]) -> bool:
    """Whether what a sentence denies on its sides leaves nothing of the card."""
    return not said or (bool(card) and card <= said)
