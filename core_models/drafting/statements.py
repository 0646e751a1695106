"""One line of the model's writing ↔ one statement, and the numbers in it that stay bound to their cards.

The model writes a line per statement, its reasoning first:

    F E1 P1 heart present: The heart is mildly enlarged.
    F E2 lungs possible: Possible pneumonia.
    F E3 E4 abdomen measured: The liver has a volume of {E3} and a longest axial diameter of {E4}.
    I E1 heart present: Mild cardiomegaly.

section (F, I), the evidence considered, the region it speaks of, what follows from it, and only then the sentence.  A
number never passes through the model: it writes the card's placeholder, and the value is filled in here.  Without its
reasoning (an experiment, see `evaluation`) a line is "F: The heart is mildly enlarged."
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core_models.drafting.evidence import REGIONS, Evidence, Section, Statement
from core_models.drafting.findings import region_of

FOLLOWS = ("present", "possible", "normal", "measured")
MAX_TEXT = 600  # characters of one statement; the longest sentence of the corpus has 391

_SECTIONS: dict[str, Section] = {"F": "findings", "I": "impression"}
_LINE = re.compile(
    rf"^(?P<section>[FI])(?P<ids>(?: [EP]\d{{1,4}})*) (?P<region>{'|'.join(REGIONS)}) "
    rf"(?P<follows>{'|'.join(FOLLOWS)}): ?(?P<text>.*)$"
)
_BARE = re.compile(r"^(?P<section>[FI]): ?(?P<text>.*)$")
PLACEHOLDER = re.compile(r"\{([EP]\d{1,4})\}")


@dataclass(frozen=True)
class Line:
    """A parsed line of the model: the reasoning (ids, region, follows) and the sentence's template.

    Without reasoning `follows` is "" and the region that of the words.
    """

    section: Section
    region: str
    evidence: tuple[str, ...]
    follows: str
    template: str

    def format(self) -> str:
        """The line as the model is taught to write it."""
        letter = "F" if self.section == "findings" else "I"
        if not self.follows:
            return f"{letter}: {self.template}"
        return f"{' '.join((letter, *self.evidence, self.region, self.follows))}: {self.template}"


def parse(line: str) -> Line | None:
    """A line of the model's output, or None when it does not have the form."""
    line = line.strip()
    match = _LINE.match(line)
    if match is None:
        bare = _BARE.match(line)
        if bare is None:
            return None
        text = bare["text"].strip()[:MAX_TEXT]
        return Line(_SECTIONS[bare["section"]], region_of(text), (), "", text)
    template = match["text"].strip()[:MAX_TEXT]
    ids = tuple(dict.fromkeys(match["ids"].split()))
    return Line(_SECTIONS[match["section"]], match["region"], ids, match["follows"], template)


def placeholders(template: str) -> tuple[str, ...]:
    """The card ids whose values stand in the template, in order."""
    return tuple(dict.fromkeys(PLACEHOLDER.findall(template)))


def render(template: str, cards: Sequence[Evidence]) -> str:
    """The template with each placeholder replaced by its card's value; an unknown or valueless card shows as "[?]"."""
    values = {card.id: card.value_text for card in cards}
    return PLACEHOLDER.sub(lambda m: values.get(m[1]) or "[?]", template)


def renumber(template: str, names: dict[str, str]) -> str:
    """Placeholders renamed by `names` (from the model's numbering to the board's)."""
    return PLACEHOLDER.sub(lambda m: "{" + names.get(m[1], m[1]) + "}", template)


def rebind(statement: Statement, cards: Sequence[Evidence]) -> Statement:
    """The statement after its cards changed: stale when a number it holds, or a card it rests on, is no longer so.

    The reader's text is never changed here: a stale statement keeps its words until the reader agrees (`refresh`).
    """
    known = {card.id: card for card in cards if card.status != "rejected"}
    lost = any(i not in known for i in statement.evidence)
    moved = bool(placeholders(statement.template)) and render(statement.template, [*known.values()]) != statement.text
    stale = lost or moved
    return statement if stale == statement.stale else replace(statement, stale=stale)


def refresh(statement: Statement, cards: Sequence[Evidence]) -> Statement:
    """The reader agrees to the new numbers: placeholders are filled anew, cards that are gone are let go.

    A number whose card is gone becomes "[?]", and the statement unsupported.
    """
    known = {card.id: card for card in cards if card.status != "rejected"}
    numbers = placeholders(statement.template)
    text = render(statement.template, [*known.values()]) if numbers else statement.text
    kept = tuple(i for i in statement.evidence if i in known)
    support, note = statement.support, statement.note
    if statement.evidence and not kept:
        support, note = "unsupported", "The evidence that it rested on is gone."
    elif any(i not in known for i in numbers):
        support, note = "unsupported", "The card of a number in it is gone."
    return replace(statement, text=text, evidence=kept, support=support, note=note, stale=False)
