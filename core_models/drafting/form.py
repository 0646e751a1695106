"""The cards of a report in → what the next line may begin with: the grammar that a model's writing is held to.

A line is `statements.Line`: section, the cards it rests on, the region, what follows, the sentence.  All but the
sentence is chosen among what is possible: findings before impression, a card a few times and no more, no card beside
one of another kind, no number beside one of another structure, the region and what follows from a card as the card
says.  Where one thing alone is possible it is
not asked for.  A report may not end before every finding and number is written about (`uncovered`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from core_models.drafting import findings as f
from core_models.drafting import prompt
from core_models.drafting.evidence import REGIONS

MAX_LINES = 28
MAX_TOGETHER = 6  # cards in one line
# How often one card may be written about: (findings, impression).  A negative of the reader stands in its own words:
# the model was not taught any.
_TIMES: dict[str, tuple[int, int]] = {"present": (2, 1), "possible": (1, 1), "measured": (1, 0), "normal": (0, 0)}
_WHOLE = (8, 2)  # the card that says that all else is normal
# What a report on a chest radiograph says of these it says in four of five, where nothing is wrong with them.
CORE = ("heart", "lungs", "pleura")
_TAKEN_BACK = 3  # after so many sentences that do not stand, nothing more is called normal


@dataclass
class Form:
    """What one report may hold, and how far it is.

    Args:
        cards: E1, E2, … as the model reads them.
        priors: how many there are, P1, P2, ….
        steps: whether each sentence comes with its reasoning; without, only the section is chosen.
        core: regions of which the findings say that they are normal where a card says that the rest is, and none of
            theirs says otherwise.

    Attributes:
        covered: cards (from 1) that are stated; `called`: regions of which something is called normal.
    """

    cards: Sequence[prompt.Line]
    priors: int = 0
    steps: bool = True
    core: Sequence[str] = ()
    section: str = "F"
    lines: int = 0
    covered: set[int] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    _used: Counter[tuple[str, int]] = field(default_factory=Counter)
    _forced: set[int] = field(default_factory=set)
    _closed: set[tuple[str, str]] = field(default_factory=set)
    _before: str = "F"

    def uncovered(self) -> tuple[int, ...]:
        """Cards (from 1) that a report must write about, that it has not, and that it was not made to try before."""
        asked = (k for k in self.unstated() if self.cards[k - 1].follows != "normal")
        return tuple(k for k in asked if self.steps and k not in self._forced)

    def unstated(self) -> tuple[int, ...]:
        """Cards that a report must write about and has not, however often it was made to try."""
        return tuple(k for k, card in enumerate(self.cards, 1) if k not in self.covered and not self._whole(card))

    def owed(self) -> tuple[int, list[str]]:
        """The card that says that the rest is normal, and the core regions that the findings have not spoken of yet."""
        whole = next((k for k, card in enumerate(self.cards, 1) if self._whole(card)), 0)
        if not (whole and self.steps and self.section == "F" and self.lines < MAX_LINES and self._open("F", whole)):
            return 0, []
        wrong = {card.region for card in self.cards if card.follows in ("present", "possible")}
        regions = self._regions("F")
        return whole, [r for r in self.core if r not in self.called and r not in wrong and r in regions]

    def sections(self) -> list[str]:
        """The sections that the next line may be of; none where nothing is left to write about."""
        if self.lines >= MAX_LINES:
            return []
        wanted = ["F", "I"] if self.section == "F" else ["I"]
        if not self.steps:
            return [f"{s}:" for s in wanted]
        return [s for s in wanted if any(self._open(s, k) for k in range(1, len(self.cards) + 1))]

    def first(self, section: str) -> list[int]:
        """The cards that a line of this section may begin with."""
        return [k for k in range(1, len(self.cards) + 1) if self._open(section, k)]

    def more(self, section: str, ids: Sequence[int], priors: Sequence[int]) -> Iterator[str]:
        """What may follow the cards so far: " E3", " P1", or the region with what follows (" heart present:")."""
        first = self.cards[ids[0] - 1]
        whole = self._whole(first)
        if not whole and not priors and len(ids) < MAX_TOGETHER:
            for k in range(ids[-1] + 1, len(self.cards) + 1):
                card = self.cards[k - 1]
                if self._go_together(first, card) and self._open(section, k):
                    yield f" E{k}"
        if first.follows in ("present", "possible"):
            yield from (f" P{k}" for k in range((priors[-1] if priors else 0) + 1, self.priors + 1))
        for region in self._regions(section) if whole else (first.region,):
            yield f" {region} {first.follows}:"

    def began(self, section: str, ids: Iterable[int]) -> None:
        """A line on these cards is being written."""
        self._before, self.section = self.section, section
        self.lines += 1
        for k in ids:
            self._used[section, k] += 1

    def took_back(self, section: str, ids: Iterable[int], region: str) -> None:
        """The line that was begun last does not stand: a card says otherwise of that region, where no other sentence of
        this section calls things normal any more.
        """
        self.section = self._before
        for k in ids:
            self._used[section, k] -= 1
        self._closed.add((section, region))

    def rests_on_the_whole(self, ids: Sequence[int]) -> bool:
        """Whether a line on these cards says of a region that it is normal because all else is."""
        return bool(ids) and self._whole(self.cards[ids[0] - 1])

    def forced(self, k: int) -> None:
        """The model was made to write about card k; it is not made to a second time."""
        self._forced.add(k)

    def _open(self, section: str, k: int) -> bool:
        card = self.cards[k - 1]
        most = _WHOLE if self._whole(card) else _TIMES[card.follows]
        if section == "I" and k in self._forced and k not in self.covered:
            return True  # the last chance of a card that the findings left out
        if self._whole(card) and not self._regions(section):
            return False
        return self._used[section, k] < most[section == "I"]

    def _regions(self, section: str) -> list[str]:
        if len(self._closed) >= _TAKEN_BACK:
            return []
        return [region for region in REGIONS if (section, region) not in self._closed]

    def _go_together(self, first: prompt.Line, card: prompt.Line) -> bool:
        if first.follows == "measured":
            alike = first.text.rpartition(": ")[0] == card.text.rpartition(": ")[0]
        else:
            alike = not self._whole(card)
        return alike and card.follows == first.follows

    @staticmethod
    def _whole(card: prompt.Line) -> bool:
        return card.follows == "normal" and card.text.casefold() in f.NORMAL_TERMS
