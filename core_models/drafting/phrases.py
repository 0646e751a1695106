"""A finding heading ("Pleural Effusion/left/small") in → plain or hedged words for it ("small left pleural effusion").

They fill the places where the corpus has no sentence of its own: a rare heading in training, a card that the model did
not write about, and the baseline of templates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from core_models.drafting import findings as f

DEGREES = ("minimal", "mild", "small", "tiny", "borderline", "moderate", "large", "severe", "massive", "extensive")
SIDES = ("left", "right", "bilateral")
_NOUNS = ("hypoinflation", "hyperdistention", "eventration")  # qualifiers that are the finding, on an anatomical head
_HEDGED = (
    "Possible {}.",
    "There may be {}.",
    "Findings may represent {}.",
    "Suspected {}.",
    "Questionable {}.",
    "{} cannot be excluded.",
)


def phrase(term: str) -> str:
    """The heading as a noun phrase, in lower case: degree, side, other qualifiers, then the head."""
    head, *rest = (part.strip().lower() for part in term.split("/"))
    last, comma, first = head.partition(", ")
    head = f"{first} {last}" if comma else head  # "hernia, hiatal"
    rest = [q for q in dict.fromkeys(rest) if q and q != head]
    # A lobe is the lung's; of words that the table does not know, the check asks for all.
    if any(q.endswith("lobe") for q in rest) and f.mentions(" ".join((*rest, head))):
        rest = [q for q in rest if q != "lung"]
    nouns = [q for q in rest if q in _NOUNS]
    degrees = [q for q in rest if q in DEGREES]
    sides = [q for q in rest if q in SIDES]
    others = [q for q in rest if q not in nouns + degrees + sides]
    return " ".join([*degrees, *sides, *others, head, *nouns])


def plain(term: str) -> str:
    """A sentence that states the heading and nothing else."""
    text = phrase(term) if "/" in term or f.concepts_of_term(term) else term.strip()
    return f"{text[:1].upper()}{text[1:]}."


def hedged(term: str, rng: random.Random | None = None) -> str:
    """A sentence that leaves the heading open; without a generator the first form."""
    form = rng.choice(_HEDGED) if rng else _HEDGED[0]
    text = form.format(phrase(term))
    return f"{text[:1].upper()}{text[1:]}"


def joined(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
