"""Untrusted text in → harmless quoted text and what was odd about it out; and: was this sentence copied from a prior?

A retrieved report is data that is quoted, never an instruction that is followed.  Three things make that so: nothing
invisible survives, nothing survives that a tokenizer could read as one of its control tokens, and text that talks to a
model rather than about a patient is flagged for the reader (it stays readable: a person should see what was tried).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from retrieval.report import Prior

MAX_CHARACTERS = 8_000
"""Longest text of one section; the longest real one in Open-i has about 1,600 characters."""

INVISIBLE = "invisible characters removed"
SPECIAL_TOKENS = "special tokens removed"
INSTRUCTION = "instruction-like text"
SHORTENED = "text shortened"

MIN_CONTAINED_WORDS = 6
"""From this many words on, a sentence that stands inside a longer one of a prior counts as copied too."""

_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_FULL_WIDTH = str.maketrans({"＜": "<", "＞": ">", "｜": "|"})  # some chat templates use these forms
_TAG = re.compile(
    r"<{1,2}[|/]{0,2}[A-Za-z_@][\w|/@.:\u2581-]{0,60}\s?/?>{1,2}"  # <eos>, <|im_end|>, </s>, <<SYS>>, <br/>
    r"|<0[xX][0-9A-Fa-f]{2}>"  # byte tokens
    r"|\[/?(?:INST|CLS|SEP|PAD|MASK|UNK|BOS|EOS|multimodal|@BOS@)\]"
)
_MARKUP = re.compile(r"</?(?:br|p|b|i|u|em|strong|div|span|li|ul|ol|sub|sup)\s?/?>", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instruction|prompt|rule|direction|context|above)s?\b"
    r"|^\W*(?:system|assistant|user|developer)\s*:"
    r"|\b(?:system|assistant)\s*(?:prompt|message)?\s*:"
    r"|\byou are (?:now|an? (?:ai|assistant|language model|helpful))\b"
    r"|\b(?:act|respond|reply|answer|behave) (?:as|only (?:with|as)|like) (?:an?|if|the)\b"
    r"|\b(?:new|updated|following) instructions?\b|\bas an ai\b|\bjailbreak|\bdo not mention\b|\bprompt injection\b"
    r"|^\s*#{2,}\s*(?:instruction|system|response)",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"[^\W_]+(?:[.'][^\W_]+)*")


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """Make untrusted text safe to show, to embed and to quote in a prompt.

    Args:
        text: any text; line breaks are kept, other control characters are not.

    Returns:
        The text, at most `MAX_CHARACTERS` long, and the flags that apply (`INVISIBLE`, `SPECIAL_TOKENS`,
        `INSTRUCTION`, `SHORTENED`), in that order.
    """
    flags: list[str] = []
    shortened = len(text) > MAX_CHARACTERS
    text = text[: 4 * MAX_CHARACTERS]  # bounds the work below whatever comes in
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    visible = _without_invisible(text)
    if visible != text:
        flags.append(INVISIBLE)
    harmless, special = _without_tags(visible.translate(_FULL_WIDTH) if _FULL_WIDTH_SEEN.search(visible) else visible)
    if special:
        flags.append(SPECIAL_TOKENS)
    if special or _INSTRUCTION.search(harmless):
        flags.append(INSTRUCTION)
    if shortened or len(harmless) > MAX_CHARACTERS:
        flags.append(SHORTENED)
        harmless = harmless[:MAX_CHARACTERS].rsplit(None, 1)[0]
    return harmless.strip(), tuple(flags)


def copied(sentence: str, priors: Iterable[Prior]) -> Prior | None:
    """The first prior that states this sentence word for word (case, punctuation and spacing aside), or None.

    A sentence of at least `MIN_CONTAINED_WORDS` words also counts when it is a run of words within a prior.
    """
    text = words(sentence)
    if not text:
        return None
    contained = len(text.split()) >= MIN_CONTAINED_WORDS
    # Imported here: cleaning itself uses this module.
    from retrieval.clean import sentences

    for prior in priors:
        for section in (prior.report.findings, prior.report.impression):
            if contained and f" {text} " in f" {words(section)} ":
                return prior
            if any(words(s) == text for s in sentences(section)):
                return prior
    return None


_FULL_WIDTH_SEEN = re.compile("[＜＞｜]")


def words(text: str) -> str:
    """The text's words alone, for comparing word for word: case, punctuation and spacing aside."""
    return " ".join(_WORD.findall(text.casefold()))


def _without_invisible(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    text = _VARIATION_SELECTORS.sub("", text)
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _DROPPED_CATEGORIES else "" for c in text)


def _without_tags(text: str) -> tuple[str, bool]:
    """Remove tags until none is left: "<e<eos>os>" must not leave a token behind."""
    special = False
    while True:
        text = _MARKUP.sub(" ", text)
        shorter = _TAG.sub("", text)
        if shorter == text:
            return text, special
        special = True
        text = shorter
