"""Cases → those that judge an engine, and the targets that a reader would click in each: always the same choice.

Only test sides judge.  The one exception stands apart and says so: the example CT of TotalSegmentator, which trains the
learned engine, is run for the engines that learned nothing from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from core_models.segmentation.cohorts import COHORTS, Case, Targets
from core_models.segmentation.engine import Mask
from core_models.segmentation.judging.reader import largest_part

TRAINS = "totalseg-example"
EXAMPLE: Targets = {
    "spleen": (1,),
    "right kidney": (2,),
    "left kidney": (3,),
    "liver": (5,),
    "stomach": (6,),
    "urinary bladder": (21,),
    "vertebra L3": (29,),
    "aorta": (52,),
    "left femur": (75,),
    "spinal cord": (79,),
}
"""Of that CT's 61 structures (TotalSegmentator v2 numbers): few, since it judges few engines."""
JSRT_CASES = 24
SEED = 0


def judged(cases: Iterable[Case], limit: int = 0) -> list[Case]:
    """The cases to run, cohort by cohort.

    Of ACDC one slice for each patient and frame: the middle one of those that show all three structures.  Of JSRT
    `JSRT_CASES` radiographs drawn with a fixed seed.  All of the others.

    Args:
        limit: so many cases of each cohort instead (of JSRT more than usual, if it is larger); 0 for the usual ones.
    """
    apart = [c for c in cases if c.side == "test" or c.cohort == TRAINS]
    chosen: list[Case] = []
    for cohort in COHORTS:
        own = [c for c in apart if c.cohort == cohort]
        if cohort == "acdc":
            own = list(_middle_slices(own))
        if cohort == "jsrt":
            own = _drawn(own, limit or JSRT_CASES)
        chosen += own[:limit] if limit else own
    return chosen


def patient_of(case: Case) -> str:
    """Whose image it is: intervals draw patients, not images."""
    return case.name.split("_")[0] if case.cohort == "acdc" else case.name


def targets(case: Case, labels: np.ndarray) -> Iterator[tuple[str, Mask]]:
    """(name, its largest connected part) of everything that a reader is to click; what is not there is left out."""
    named = EXAMPLE if case.cohort == TRAINS else case.targets
    if named is None:
        named = {f"vertebra {v}": (v,) for v in sorted(int(v) for v in np.unique(labels) if v)}
    for name, values in named.items():
        part = Mask.from_full(largest_part(case.mask(labels, values)))
        if not part.empty:
            yield name, part


def _middle_slices(cases: list[Case]) -> Iterator[Case]:
    frames: dict[str, list[Case]] = {}
    for case in cases:
        frames.setdefault(case.name.rsplit("_slice_", 1)[0], []).append(case)
    for _, own in sorted(frames.items()):
        own.sort(key=lambda c: int(re.search(r"\d+$", c.name).group()))  # type: ignore[union-attr]
        whole = [c for c in own if _shows_all(c)]
        if whole:
            yield whole[len(whole) // 2]


def _shows_all(case: Case) -> bool:
    labels = case.load()[1]
    return all(case.mask(labels, values).any() for values in (case.targets or {}).values())


def _drawn(cases: list[Case], number: int) -> list[Case]:
    """`number` of the cases, in their order; a larger number holds what a smaller one does."""
    order = np.random.default_rng(SEED).permutation(len(cases))[:number]
    return [cases[k] for k in sorted(order.tolist())]
