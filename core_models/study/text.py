"""Untrusted header text → text that is safe to show as text: no control, direction or zero-width characters."""

from __future__ import annotations

import unicodedata

# Cc control, Cf format (bidirectional marks, zero-width signs, soft hyphen), Co private use, Cs lone surrogates.
_DROPPED = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def clean(value: object, limit: int = 64) -> str:
    """One line of at most `limit` characters; tabs and line ends become spaces, invisible characters vanish."""
    raw = "" if value is None else str(value)[: limit * 8]
    kept = (" " if c in "\t\r\n" else c for c in raw if c in "\t\r\n" or unicodedata.category(c) not in _DROPPED)
    text = " ".join("".join(kept).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def count(n: int, noun: str) -> str:
    """ "1 slice", "3 slices"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
