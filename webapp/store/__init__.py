"""Rows and files that outlive the process: `Store`, the rows it answers with, and the difference of two versions."""

from webapp.store.diff import diff, report_text
from webapp.store.rows import (
    Addendum,
    AnnotationRow,
    Intake,
    OutboxRow,
    PriorRow,
    ReportState,
    SegmentRow,
    SeriesRow,
    StudyRow,
    Version,
)
from webapp.store.store import Store

__all__ = [
    "Addendum",
    "AnnotationRow",
    "Intake",
    "OutboxRow",
    "PriorRow",
    "ReportState",
    "SegmentRow",
    "SeriesRow",
    "Store",
    "StudyRow",
    "Version",
    "diff",
    "report_text",
]
