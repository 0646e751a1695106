"""Several ranked lists of the same things in → one list out, by reciprocal-rank fusion.

Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR
2009.  A thing scores the sum of 1 / (60 + rank) over the lists that hold it.  Only ranks count, so cosine similarities
of different spaces, which have no common scale, need none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

CONSTANT = 60
"""The authors' value; it keeps one list's first place from outweighing two lists' agreement."""

Thing = TypeVar("Thing", bound=Hashable)


@dataclass(frozen=True)
class Fused(Generic[Thing]):
    """One thing after the fusion.

    Attributes:
        score: the sum of 1 / (CONSTANT + rank).
        found_by: (list's name, rank from 1, score in that list), in the order of the lists.
    """

    thing: Thing
    score: float
    found_by: tuple[tuple[str, int, float], ...]


def fuse(lists: Mapping[str, Sequence[tuple[Thing, float]]]) -> tuple[Fused[Thing], ...]:
    """Fuse the lists.

    Args:
        lists: name → (thing, score) pairs, best first.  Equal scores share a rank (1, 2, 2, 4), so that the order in
            which equals happen to stand decides nothing.

    Returns:
        Every thing of any list once, best first; equals in the order in which the lists first name them, so one list
        alone comes out as it went in.

    Raises:
        ValueError: a list names a thing twice, or is not in descending order of its scores.
    """
    found: dict[Thing, list[tuple[str, int, float]]] = {}
    for name, pairs in lists.items():
        rank, previous = 0, math.inf
        seen: set[Thing] = set()
        for place, (thing, score) in enumerate(pairs, start=1):
            if thing in seen or not score <= previous:
                raise ValueError(f"the list {name!r} names {thing!r} twice, or is not in descending order")
            seen.add(thing)
            if score < previous:
                rank = place
            previous = score
            found.setdefault(thing, []).append((name, rank, score))
    # fsum: the sum must not depend on the order of the lists
    fused = [Fused(t, math.fsum(1.0 / (CONSTANT + rank) for _, rank, _ in by), tuple(by)) for t, by in found.items()]
    return tuple(sorted(fused, key=lambda f: -f.score))
