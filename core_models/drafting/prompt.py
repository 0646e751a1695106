"""Cards, priors and indication in → the text that the language model reads: one form for training and for drafting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_CARDS = 24  # the adapter was trained on up to 16; more are named as unread, never silently dropped
MAX_PRIORS = 3
MAX_INDICATION = 240  # characters
MAX_CARD = 120
MAX_PRIOR = 160

_CONTROL = re.compile(r"<[^<>\s]{1,40}>|[{}<>]|[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Line:
    """A card (or a prior's sentence) as the model reads it; `measured` cards are offered as a placeholder."""

    region: str
    text: str
    measured: bool = False


def safe(text: str, limit: int) -> str:
    """Text of others as one line of plain words: nothing in it can be read as a control token or a placeholder."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    if len(text) > limit:
        text = text[:limit].rsplit(" ", 1)[0]
    return text


def build(indication: str, cards: Sequence[Line], priors: Sequence[str], modality: str = "radiograph") -> str:
    """The prompt.  Card k is called E(k+1), prior k P(k+1); the caller keeps the way back to its own ids."""
    out = [f"Modality: {safe(modality, 24)}", f"Indication: {safe(indication, MAX_INDICATION) or 'none given'}"]
    for k, card in enumerate(cards[:MAX_CARDS], 1):
        value = " {E" + str(k) + "}" if card.measured else ""
        out.append(f"E{k} {card.region} {safe(card.text, MAX_CARD)}{value}")
    out += [f"P{k} {safe(text, MAX_PRIOR)}" for k, text in enumerate(priors[:MAX_PRIORS], 1)]
    return "\n".join([*out, "Report:", ""])
