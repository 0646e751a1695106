"""A corpus in → reports ready for training the drafting model out, split into training and test studies."""

from __future__ import annotations

from pathlib import Path

from core_models.drafting.dataset import SourceReport
from retrieval import clean, corpora
from retrieval.split import split_of


def source_reports(corpus: str | Path) -> tuple[list[SourceReport], list[SourceReport]]:
    """The corpus's (training, test) reports; sentences that compare with an earlier study are left out."""
    sides: dict[str, list[SourceReport]] = {"train": [], "test": []}
    for report in corpora.read(corpus):
        found, said = (
            tuple(s for s in clean.sentences(text) if not clean.has_comparison(s))
            for text in (report.findings, report.impression)
        )
        sides[split_of(report.study_id)].append(SourceReport(report.id, report.indication, found, said, report.terms))
    return sides["train"], sides["test"]
