"""Two versions of a report → their difference, word by word, as data."""

from __future__ import annotations

import difflib
import re
from typing import Literal

from core_models.drafting.evidence import Statement
from webapp.store.rows import ReportState, Version

Op = Literal["same", "delete", "insert"]


def report_text(report: Version | ReportState) -> str:
    """The report as plain text: findings, impression, free text, addenda; one sentence to a line."""
    parts = []
    for section, title in (("findings", "FINDINGS"), ("impression", "IMPRESSION")):
        lines = [_line(s) for s in report.statements if s.section == section]
        if lines:
            parts.append("\n".join([title, *lines]))
    if report.free_text.strip():
        parts.append(report.free_text.strip())
    for addendum in getattr(report, "addenda", ()):
        parts.append(f"ADDENDUM by {addendum.author}\n{addendum.text}")
    return "\n\n".join(parts)


def _line(statement: Statement) -> str:
    return " ".join(statement.text.split())


def diff(a: Version | ReportState, b: Version | ReportState) -> tuple[tuple[Op, str], ...]:
    """The steps from `a` to `b`: joining "same" and "delete" gives a's text, "same" and "insert" gives b's."""
    return diff_text(report_text(a), report_text(b))


def diff_text(a: str, b: str) -> tuple[tuple[Op, str], ...]:
    """Word-level difference; white space counts as a word, so that both texts can be put together again."""
    left, right = re.findall(r"\s+|\w+|[^\w\s]", a), re.findall(r"\s+|\w+|[^\w\s]", b)
    out: list[tuple[Op, str]] = []
    for op, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if op == "equal":
            out.append(("same", "".join(left[i:j])))
            continue
        if j > i:
            out.append(("delete", "".join(left[i:j])))
        if m > k:
            out.append(("insert", "".join(right[k:m])))
    return tuple(out)
