"""The report's statements → headings with texts at the end of a structured report (TID 1500 may be extended).

Headings and texts are those of TID 2000 with CID 7001 and CID 7002, so that other readers of reports know them.
"""

from __future__ import annotations

from highdicom.sr import ContainerContentItem, RelationshipTypeValues, TextContentItem
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from core_models.study.received import COMMENT, FINDING, FINDINGS, IMPRESSION, IMPRESSIONS
from webapp.exports.bundle import ReportBundle

_MEANINGS = {
    FINDINGS: "Findings",
    FINDING: "Finding",
    IMPRESSIONS: "Impressions",
    IMPRESSION: "Impression",
    COMMENT: "Comment",
}


def items(bundle: ReportBundle) -> list[Dataset]:
    """One heading per section that says something, without the statements that stand struck out; then the free text."""
    meant = bundle.meant()
    out: list[Dataset] = []
    for section, heading, text in (("findings", FINDINGS, FINDING), ("impression", IMPRESSIONS, IMPRESSION)):
        said = [s.text.strip() for s in meant.section(section) if s.text.strip()]
        if said:
            container = ContainerContentItem(
                _concept(heading), is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS
            )
            container.ContentSequence = [_text(text, sentence) for sentence in said]
            out.append(container)
    if meant.report.free_text.strip():
        out.append(_text(COMMENT, meant.report.free_text.strip()))
    return out


def _concept(code: str) -> CodedConcept:
    return CodedConcept(code, "DCM", _MEANINGS[code])


def _text(code: str, value: str) -> TextContentItem:
    return TextContentItem(_concept(code), value, RelationshipTypeValues.CONTAINS)
