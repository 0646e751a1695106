"""A search's hits and the board's findings → the few priors that are of use, each with what it says of the board.

Of use is a report near enough that states a finding of the board which no nearer one states; on a board without
findings, one that states anything new.  A report that says nothing of the board's findings is no precedent for them,
however alike it reads.  Reports that deny a finding of the board are no support: of these the nearest is shown as
what it is, beside the others.  Where none is close, the nearest is shown, marked as not close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from retrieval import stance
from retrieval.report import Prior
from retrieval.stance import Finding, Stance

__all__ = ["MOST", "NONE_STATES", "Finding", "chosen"]

MOST = 5
NONE_STATES = "No close precedent: none of the nearest reports states a finding of the board."


@dataclass(frozen=True)
class _Read:
    """A close hit, what it says of the board, and what it is good for: cards that it states, or all that it states."""

    hit: Prior
    says: Stance
    good_for: frozenset[str]


def chosen(hits: Sequence[Prior], board: Sequence[Finding], most: int = MOST) -> tuple[Prior, ...]:
    """The hits that are of use.

    Args:
        hits: best first, from more than are wanted: what adds a finding may stand further down.
        board: the cards that assert or deny a finding, without the rejected ones.
        most: hits wanted at most, 2 or more, the contradicting one included.

    Returns:
        At most `most` hits in their order, the contradicting one last; where no precedent is close, the nearest hit
        alone, with `close` false.  A close earlier report of the study's own patient is always of use.
    """
    asking = any(stance.asserted(card.statement) for card in board)
    near = []
    for hit in hits:
        if hit.close:
            says = stance.read(hit.report, board)
            near.append(_Read(hit, says, says.states if asking else stance.stated(hit.report)))
    precedents = [one for one in near if one.good_for or one.hit.same_patient or not asking]
    if not precedents:
        return tuple(replace(hit, close=False) for hit in hits[:1])
    # Of a board with many findings each report may deny one: then one that states another is still support.
    useful = _useful([one for one in precedents if not one.says.contradicts] or precedents)
    against = next((one for one in near if one.says.contradicts and one not in useful), None)
    told = [
        replace(one.hit, stance="supports", said=one.says.supports) if one.says.supports else one.hit
        for one in useful[: most if against is None else most - 1]
    ]
    if against is not None:
        told.append(replace(against.hit, stance="contradicts", said=against.says.contradicts))
    return tuple(told)


def _useful(read: Sequence[_Read]) -> list[_Read]:
    covered: frozenset[str] = frozenset()
    out = []
    for one in read:
        if one.good_for - covered or one.hit.same_patient:
            out.append(one)
            covered |= one.good_for
    return out or list(read[:1])
