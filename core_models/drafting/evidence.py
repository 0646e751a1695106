"""The board's cards and the statements that rest on them: frozen data that every other room passes along."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["finding", "measurement", "clinical", "prior", "comparison"]
Status = Literal["proposed", "accepted", "rejected"]
Section = Literal["findings", "impression"]
Support = Literal["supported", "unsupported", "contradicted"]
Origin = Literal["model", "edited", "human"]

IMAGE = "image"  # the place of what was measured on a single image and was given no name
_PLACE = re.compile(rf"(?:(?:axial|coronal|sagittal) slice \d+|{IMAGE}): ")

REGIONS = (
    "devices",
    "lungs",
    "pleura",
    "heart",
    "mediastinum",
    "bones",
    "abdomen",
    "other",
)


@dataclass(frozen=True)
class Evidence:
    """One card.

    Attributes:
        id: "E1", "E2", ... ("P1", ... for priors); unique within a study, never reused.
        kind: what it is; `region`: one of REGIONS.
        statement: the card in words, without its value ("liver: volume").
        value, unit: the measured number, e.g. 1512.0 and "ml", or 0.56 and "" for a plain ratio; None and "" where
            there is none.
        probability: calibrated probability of a model finding, None otherwise.
        segment_id: the store's segment that it was measured on, or None.
        annotation_id: the store's annotation (lines that the reader drew) that it was measured by, or None.
        location: (x, y, z) in LPS mm that the viewer may move to, or None.
        source: who says so: "reader", "engine name/version", "report CXR123", "indication".
        status: proposed until the reader accepts or rejects it.
    """

    id: str
    kind: Kind
    region: str
    statement: str
    value: float | None = None
    unit: str = ""
    probability: float | None = None
    segment_id: str | None = None
    location: tuple[float, float, float] | None = None
    source: str = ""
    status: Status = "proposed"
    annotation_id: str | None = None

    @property
    def unnamed(self) -> bool:
        """Whether it is a number that the reader measured and did not say of what: its statement tells the place."""
        return self.annotation_id is not None and bool(_PLACE.match(self.statement))

    @property
    def value_text(self) -> str:
        """The value with its unit as it stands in a report ("1512 ml", "5.6 cm", "32.1°", "0.56"); "" without one."""
        if self.value is None:
            return ""
        magnitude = abs(self.value)
        ratio = self.unit == "" and magnitude < 10  # told to hundredths on both sides of 1
        digits = 0 if magnitude >= 100 or self.unit == "HU" else 1 if magnitude >= 1 and not ratio else 2
        return f"{self.value:.{digits}f}{'' if self.unit == '°' else ' '}{self.unit}".strip()

    @property
    def text(self) -> str:
        """The whole card in one line."""
        return f"{self.statement} {self.value_text}".strip()


@dataclass(frozen=True)
class Step:
    """One reasoning step, written before its statement: which evidence was considered, and what follows."""

    considered: tuple[str, ...]
    follows: str


@dataclass(frozen=True)
class Statement:
    """One sentence of a report with what it rests on.

    Attributes:
        id: stable within a report ("s1", ...).
        template: the text with live numbers as ``{E3}`` placeholders; `text` is the rendering.
        stale: a bound number changed after the sentence was written or edited.
        step: the reasoning step that led to it; None for human statements.
        note: why the check found it unsupported or contradicted, in a sentence; "" otherwise.
        restored: the reader kept it although the check found no support.
        copied_from: id of the prior ("P2") that states the sentence word for word; "" where none does.
        rewritten: the model's first attempt, which the check refused, where this is a later one; "" otherwise.
    """

    id: str
    section: Section
    region: str
    text: str
    evidence: tuple[str, ...] = ()
    support: Support = "unsupported"
    origin: Origin = "human"
    template: str = ""
    step: Step | None = None
    note: str = ""
    stale: bool = False
    restored: bool = False
    copied_from: str = ""
    rewritten: str = ""

    def edited(self, text: str) -> Statement:
        """The same statement in the reader's words: it is theirs now, bound numbers included."""
        if text == self.text:
            return self
        origin: Origin = "human" if self.origin == "human" else "edited"
        return replace(self, text=text, template=text, origin=origin, stale=False, copied_from="", rewritten="")


@dataclass(frozen=True)
class DraftModel:
    """What wrote the draft, enough to write it again.

    Attributes:
        seed: recorded with the draft; decoding is greedy, so the same board gives the same draft whatever it is.
    """

    name: str
    adapter: str
    index_digest: str
    seed: int


@dataclass(frozen=True)
class Draft:
    """An ordered list of statements with how it came about.

    Attributes:
        unseen: what the model did not see, each in a sentence ("Images were not read by the language model.").
        complete: False when the reader stopped it or the length limit was reached.
        left_out: sentences that called something normal of which a card says otherwise, at every try.
    """

    statements: tuple[Statement, ...]
    model: DraftModel
    unseen: tuple[str, ...] = ()
    complete: bool = True
    seconds: float = 0.0
    tokens: int = 0
    warnings: tuple[str, ...] = field(default=())
    left_out: tuple[Statement, ...] = ()
