"""Cards, priors and indication in → the text that the language model reads: one form for training and for drafting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core_models.drafting import findings as f
from core_models.drafting.evidence import Evidence

MAX_CARDS = 24  # the adapter was trained on up to 16; more are named as unread, never silently dropped
MAX_PRIORS = 3
MAX_INDICATION = 240  # characters
MAX_CARD = 120
MAX_PRIOR = 160

Follows = Literal["present", "possible", "normal", "measured"]
"""What may follow from a card: a finding, a finding left open, that things are as they should be, a number."""

_CONTROL = re.compile(r"<[^<>\s]{1,40}>|[{}<>]|[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Line:
    """A card as the model reads it; a measured one is offered as a placeholder, a proposal as "possible …"."""

    region: str
    text: str
    follows: Follows = "present"


def safe(text: str, limit: int) -> str:
    """Text of others as one line of plain words: nothing in it can be read as a control token or a placeholder."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    if len(text) > limit:
        text = text[:limit].rsplit(" ", 1)[0]
    return text


def build(
    indication: str, cards: Sequence[Line], priors: Sequence[str], modality: str = "radiograph", steps: bool = True
) -> str:
    """The prompt.  Card k is called E(k+1), prior k P(k+1); the caller keeps the way back to its own ids.

    Args:
        steps: whether the model is to write its reasoning before each sentence; without, sentences alone.
    """
    out = [f"Modality: {safe(modality, 24)}", f"Indication: {safe(indication, MAX_INDICATION) or 'none given'}"]
    for k, card in enumerate(cards[:MAX_CARDS], 1):
        value = " {E" + str(k) + "}" if card.follows == "measured" else ""
        doubt = "possible " if card.follows == "possible" else ""
        out.append(f"E{k} {card.region} {doubt}{safe(card.text, MAX_CARD)}{value}")
    out += [f"P{k} {safe(text, MAX_PRIOR)}" for k, text in enumerate(priors[:MAX_PRIORS], 1)]
    return "\n".join([*out, "Report:" if steps else "Sentences:", ""])


def follows(card: Evidence) -> Follows:
    """What may follow from a card: its number; that things are normal; a finding, left open while it is proposed."""
    if card.value is not None:
        return "measured"
    if card.statement.casefold() in f.NORMAL_TERMS or f.is_normal(card.statement):
        return "normal"
    if card.status == "proposed" and card.probability is not None:
        return "possible"
    return "present"
