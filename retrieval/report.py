"""A report as the corpus and the index hold it; a prior as search returns it.  Plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CorpusReport:
    """One cleaned report.

    Attributes:
        id: unique in its corpus ("CXR1000", or a stored report's own id).
        study_id: the unit of the split (all reports and images of one study share it).
        terms: finding headings as the corpus has them ("Cardiomegaly/mild"; "normal"); empty if it has none.
        modality, region: for filters ("CR", "chest").
        source: corpus name ("open-i", "signed", a folder's name).
        patient_key: salted digest of the patient id for "never the same patient's later report", or "".
        date: YYYYMMDD or "".
        readers: who may see it, by name; empty: everybody.
        flags: what cleaning removed or found suspicious ("instruction-like text").
    """

    id: str
    study_id: str
    indication: str
    findings: str
    impression: str
    terms: tuple[str, ...] = ()
    modality: str = "CR"
    region: str = "chest"
    source: str = "open-i"
    patient_key: str = ""
    date: str = ""
    flags: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(t for t in (self.findings, self.impression) if t)


Split = Literal["train", "test"]


Stance = Literal["supports", "contradicts", ""]

FoundBy = tuple[str, int, float]
"""(list's name, rank from 1, score in that list)."""

Said = tuple[str, str]
"""(card's id, a report's sentence about what the card says)."""


@dataclass(frozen=True)
class Prior:
    """One search hit.

    Attributes:
        score: cosine similarity, -1 to 1, of the report's text with the query's text where there is one; else with the
            image in the shared space; else, in an index without texts of that space, of the study's image.
        matched: the report's sentences nearest to the query's text, best first (at most three); none without one.
        found_by: the lists that found it, each with its rank and score there; reports that read alike count as one.
        close: its score reaches the calibrated threshold; one that does not is shown, and quoted to no model.
        same_patient: an earlier report of the study's own patient.
        stance: whether it states what a card of the board states, or the opposite; "" where it says nothing of it.
        said: (card's id, the report's sentence that says so), in the order of the board, a card at most once.
    """

    report: CorpusReport
    score: float
    matched: tuple[str, ...]
    found_by: tuple[FoundBy, ...] = ()
    close: bool = True
    same_patient: bool = False
    stance: Stance = ""
    said: tuple[Said, ...] = ()

    @property
    def found_words(self) -> str:
        """How it was found, for a card: "findings, rank 1; image to report, rank 2"; "" where that is not known."""
        return "; ".join(f"{name}, rank {rank}" for name, rank, _ in sorted(self.found_by, key=lambda f: f[1]))
