"""Public radiographs with captions or labels → pictures that training pairs may show, and the findings given with them.

A caption is the words of a publication's figure: arrows, panels and "chest radiograph showing" are taken off, and what
remains is used only where it states a finding that the check knows.  Only the training side is read, and no picture
with a near twin on another side (`foundation.data`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core_models.drafting import findings as f
from core_models.drafting.dataset import Pictured
from core_models.foundation import data
from core_models.foundation.labels import FINDINGS

CAPTIONED, LABELLED = "rocov2-cxr", "nih-cxr14-1000"
MAX_WORDS = 30

_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z(])")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\([^()]*$")
_OPENING = re.compile(
    r"^.{0,60}?\b(?:chest|thora\w+|radiogra\w+|x-?rays?|roentgen\w*|films?|cxr)\b.{0,60}?\b(?:show\w*|demonstrat\w*|reveal\w*|"
    r"depict\w*|indicat\w*|illustrat\w*|confirm\w*|with|of|suggest\w*|display\w*)\b:?\s+",
    re.IGNORECASE,
)
_FIGURE = re.compile(
    r"\b(?:arrow\w*|panel|figure|fig|patient\w*|year|case|postoperative|post-operative|admission|after|before|day|follow\w*|"
    r"taken|ct|mri|tomograph\w*|computed|image|radiogra\w*|x-?ray|view|projection|month\w*|week\w*|treatment|therapy|"
    r"diagnos\w*|marked|circle|star|asterisk|black|white|red|blue|yellow|letter)\b|[<>{}#*]|\d",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pictures:
    """Pictured studies of the training side, and the pictures themselves: uint8 (size, size) by id."""

    studies: tuple[Pictured, ...]
    images: dict[str, np.ndarray]

    def used(self) -> Iterator[tuple[str, np.ndarray]]:
        """(id, picture) of those that a study shows."""
        return ((s.id, self.images[s.id]) for s in self.studies)


def load(root: Path, size: int, progress: data.Progress | None = None, limit: int = 0) -> Pictures:
    """Read the training side of both sources.

    Raises:
        Refused: a folder or a table is not there.
    """
    pools = data.load((CAPTIONED, LABELLED), root, size, progress, limit)
    studies: list[Pictured] = []
    images: dict[str, np.ndarray] = {}
    for name, pool in pools.items():
        for row in pool.rows("train"):
            ident = f"{name}:{pool.files[row]}"
            one = (
                captioned(ident, pool.captions[row])
                if name == CAPTIONED
                else Pictured(ident, labelled(pool.findings[row]))
            )
            if one is not None:
                studies.append(one)
                images[ident] = pool.images[row]
    return Pictures(tuple(studies), images)


def captioned(ident: str, caption: str) -> Pictured | None:
    """The findings that a caption affirms, as headings, and its sentences; None where it affirms none plainly."""
    sentences = [s for part in _SENTENCE.split(caption) if (s := cleaned(part))]
    terms: dict[str, None] = {}
    for sentence in sentences:
        side = f.side_of(sentence)
        for mention in f.mentions(sentence):
            heads = f.BY_NAME[mention.concept].heads
            if mention.polarity == "absent" or not heads:
                continue
            where = "bilateral" if len(side) == 2 else "".join(side)
            terms.setdefault(f"{heads[0].capitalize()}/{where}".rstrip("/"))
    return Pictured(ident, tuple(terms), tuple(sentences)) if terms else None


def cleaned(sentence: str) -> str:
    """A caption's sentence as a report would have it; "" where too much of it speaks of the figure."""
    text = _BRACKETS.sub(" ", sentence)
    text = _OPENING.sub("", text, count=1)
    text = " ".join(re.sub(r"\s+([.,;])", r"\1", text).split()).strip(" ,;:.")
    if _FIGURE.search(text) or not 1 <= len(text.split()) <= MAX_WORDS or not text[:1].isalpha():
        return ""
    text = re.sub(r"^(?:a|an|the)\s+", "", text, flags=re.IGNORECASE)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def labelled(row: np.ndarray) -> tuple[str, ...]:
    """(labels,) 0/1 → headings; ("normal",) where none is given."""
    return tuple(label.term for label, there in zip(FINDINGS, row, strict=True) if there) or (f.NORMAL_TERM,)
