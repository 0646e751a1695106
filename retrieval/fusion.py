"""Several ranked lists of the same things in → one list out, by reciprocal-rank fusion.

Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR
2009.  A thing scores the sum of weight / (60 + rank) over the lists that hold it.  Only ranks count, so cosine
similarities of different spaces, which have no common scale, need none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

CONSTANT = 60
"""The authors' value; it keeps one list's first place from outweighing two lists' agreement."""

TEXT, FINDINGS, IMAGE_REPORT, IMAGE_IMAGE = "text", "findings", "image to report", "image to image"

WEIGHTS = {TEXT: 1.0, FINDINGS: 4.0, IMAGE_REPORT: 1.0, IMAGE_IMAGE: 1.0}
"""The findings' was chosen beside the text's by `retrieval.evaluate`, on 151 studies of Open-i's training side searched
with one heading missing: of 0.25 to 8 it gave the best mean Jaccard index of the first five reports' findings with the
study's (0.473; equal weights 0.461).  The images' are equal and not chosen: there are no radiographs with their own
report to choose on."""

Thing = TypeVar("Thing", bound=Hashable)


@dataclass(frozen=True)
class Fused(Generic[Thing]):
    """One thing after the fusion.

    Attributes:
        score: the sum of weight / (CONSTANT + rank).
        found_by: (list's name, rank from 1, score in that list), in the order of the lists.
    """

    thing: Thing
    score: float
    found_by: tuple[tuple[str, int, float], ...]


def fuse(
    lists: Mapping[str, Sequence[tuple[Thing, float]]], weights: Mapping[str, float] | None = None
) -> tuple[Fused[Thing], ...]:
    """Fuse the lists.

    Args:
        lists: name → (thing, score) pairs, best first.  Equal scores share a rank (1, 2, 2, 4), so that the order in
            which equals happen to stand decides nothing.
        weights: name → the list's weight, 0 or more; a list that is not named has weight 1.

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
    weight = dict.fromkeys(lists, 1.0) | dict(weights or {})
    fused = [
        Fused(t, math.fsum(weight[name] / (CONSTANT + rank) for name, rank, _ in by), tuple(by))
        for t, by in found.items()
    ]
    return tuple(sorted(fused, key=lambda f: -f.score))
