"""A report's section as the corpus has it in → clean sentences out, and the rules for what a sentence is.

Open-i replaced identifying words by "XXXX", often in mid-sentence.  A finding with a hole in it must not be learnt from
or quoted, so such sentences are dropped from findings and impression (and counted); an indication keeps the rest.
"""

from __future__ import annotations

import html
import re

from retrieval import guard

MARK = "XXXX"

_ABBREVIATIONS = frozenset(
    {"dr", "mr", "mrs", "ms", "prof", "vs", "e.g", "i.e", "approx", "resp", "incl", "cf", "fig", "a.m", "p.m"}
    | {"hx", "dx", "rt", "lt"}
)
_NEXT_MUST_CONTINUE = frozenset({"a.m", "p.m", "rt", "lt", "hx", "dx"})
# A full stop followed by space, or one that the typist forgot the space after ("normal.The lungs").
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|(?<=[a-z)])[.!?](?=[A-Z][a-z]|\d{1,2}\.\s)")
_LIST_NUMBER = re.compile(r"^\(?\d{1,2}[.)](?!\d)\s*")
_ONLY_LIST_NUMBER = re.compile(r"^\(?\d{1,2}[.)]?$")
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•]\s|\(?\d{1,2}[.)]\s))")
_HEADING_NUMBER = re.compile(r"^(\w+(?: \w+)?):? \d{1,2}\.$")  # "Chest 1." before "Clear lungs."
_BULLET = re.compile(r"^\s*[-*•]\s+")

_COMPARISON = re.compile(
    r"\b(?:compar(?:ed|ison|ing)|unchanged|interval(?:ly)?|stable|changed?|previous(?:ly)?|since|new(?:ly)?)\b"
    r"|\bprior (?:\w+ )?(?:exam\w*|stud(?:y|ies)|films?|radiographs?|ct|scan|report|chest|x-?rays?|images?|imaging)\b"
    r"|\b(?:from|to|than|on) (?:the )?(?:\w+ )?(?:prior|previous|last|earlier)\b"
    r"|\bagain (?:seen|noted|demonstrated|identified|visualized|is|are)\b|\bredemonstrat\w+\b"
    r"|\b(?:has|have) (?:\w+ )?(?:increased|decreased|improved|worsened|resolved|progressed|cleared|developed)\b"
    r"|\b(?:worsening|worsened|improving|improved|improvement|progression|resolution|resolved|resolving)\b"
    r"|\b(?:remains?|persists?|persistent|continued|continues)\b|\b(?:increased|decreased) from\b",
    re.IGNORECASE,
)

_MARK_IN_BRACKETS = re.compile(r"<(X{4,})>")  # else the guard takes it for a special token
_AGE = re.compile(r"\bX{4,}[\s-]*(?:year|yr|month|week|day)s?[\s-]*old\b|\bX{4,}[\s-]*(?:y/?o|yo)\b", re.IGNORECASE)
_TOKEN = re.compile(r"[^\s,;.:()]*X{4,}[^\s,;.:()]*")
_DANGLING = re.compile(
    r"\b(?:with|of|and|or|to|for|in|on|from|the|a|an|by|at|due|status post)\s*(?=[.,;:)]|$)", re.IGNORECASE
)
_LEADING = re.compile(r"^(?:and|or|with|of|to|for|by)\b\s*", re.IGNORECASE)
_PUNCTUATION = re.compile(r"\s+(?=[.,;:])")
_REPEATED = re.compile(r"([.,;:])(?:\s*[.,;:])+")


def tidy(text: str) -> str:
    """Resolve HTML entities (some are escaped twice) and collapse white space inside lines; line breaks stay."""
    text = _MARK_IN_BRACKETS.sub(r" \1 ", html.unescape(html.unescape(text)))
    return re.sub(r"[^\S\n]+", " ", text).strip()


def sentences(text: str) -> tuple[str, ...]:
    """Split a section into sentences.

    List numbers and bullets are dropped ("1. Clear lungs. 2. No effusion." gives two sentences); decimals ("5.6 cm")
    and abbreviations ("Dr.", "vs.", "e.g.") do not end a sentence; a blank line or a list item does, full stop or not.
    """
    found: list[str] = []
    for block in _BLOCK.split(text):
        block = " ".join(_BULLET.sub("", block).split())
        start = 0
        for match in _END.finditer(block):
            candidate = block[start : match.end()]
            if _continues(candidate, block[match.end() :]):
                continue
            found.append(candidate)
            start = match.end()
        found.append(block[start:])
    stripped = (_HEADING_NUMBER.sub(r"\1.", _LIST_NUMBER.sub("", s.strip()).strip()) for s in found)
    return tuple(s for s in stripped if any(c.isalnum() for c in s))


def section(text: str) -> tuple[str, tuple[str, ...], int]:
    """Clean findings or an impression.

    Returns:
        The kept sentences joined by single spaces, each with its final punctuation; the guard's flags; and how many
        sentences were dropped because de-identification left a hole in them.
    """
    safe, flags = guard.clean(tidy(text))
    every = sentences(safe)
    kept = [_closed(s) for s in every if MARK not in s.upper()]
    return " ".join(kept), flags, len(every) - len(kept)


def indication(text: str) -> tuple[str, tuple[str, ...]]:
    """Clean an indication: "XXXX-year-old male with XXXX, chest pain" becomes "Male, chest pain"."""
    safe, flags = guard.clean(tidy(text))
    safe = " ".join(safe.split())
    if MARK not in safe.upper():
        return safe, flags
    safe = _TOKEN.sub("", _AGE.sub("", safe))
    safe = " ".join(safe.replace("( )", "").replace("()", "").split())
    before = None
    while before != safe:  # each removal may leave the next word dangling ("history of the XXXX")
        before = safe
        safe = _REPEATED.sub(lambda m: "." if "." in m.group() else m.group(1), _PUNCTUATION.sub("", safe))
        safe = _LEADING.sub("", _DANGLING.sub("", safe).strip(",;:- ").lstrip(".)"))
    safe = safe if any(c.isalpha() for c in safe) else ""
    return safe[:1].upper() + safe[1:], flags


def has_comparison(sentence: str) -> bool:
    """Whether the sentence compares with an earlier study ("unchanged", "stable since", "new"), which may not exist."""
    return _COMPARISON.search(sentence) is not None


def _continues(candidate: str, rest: str) -> bool:
    """Whether the full stop at the candidate's end belongs to a list number, an abbreviation or an initial."""
    if _ONLY_LIST_NUMBER.match(candidate.strip()):
        return True
    if not candidate.endswith("."):
        return False
    word = candidate.rstrip(".").split()[-1].lstrip("(\"'") if candidate.rstrip(".").split() else ""
    following = rest.lstrip()[:1]
    if word.lower() in _NEXT_MUST_CONTINUE:
        return following.islower() or following.isdigit()
    if word.lower() in _ABBREVIATIONS:
        return bool(following)
    return len(word) == 1 and word.isupper() and following.isupper() and len(candidate.split()) > 1 and word in "JMRSD"


def _closed(sentence: str) -> str:
    return sentence if sentence[-1] in ".!?" else sentence.rstrip(",;: ") + "."
