"""Segments → names of files: plain letters, never empty, never the same twice."""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable

from webapp.exports.bundle import ReportBundle
from webapp.store import SegmentRow

_TIME = (1980, 1, 1, 0, 0, 0)  # the same segments make the same bytes


def file_name(row: SegmentRow, suffix: str) -> str:
    """ "3-linke-niere.stl": the segment's number, which no other has, and its label in ASCII."""
    plain = unicodedata.normalize("NFKD", row.label.casefold()).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-")
    return f"{row.number}-{words or 'segment'}{suffix}"


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Named files → one ZIP."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def drawn(bundle: ReportBundle) -> str:
    """Why there is no segment to write, in a sentence; "" when there is one."""
    if not bundle.own_segments:
        return "There are no segments to export: click a structure first."
    empty = [s.label or f"segment {s.number}" for s in bundle.own_segments if min(s.box[3:]) == 0]
    if empty:
        return f"The segment {empty[0][:60]!r} is empty: delete it or click it again before exporting."
    return ""
