"""Study → series → volume, and the receipt that says what arrived.  Plain frozen data; no parsing here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.study.attachments import Attachment

Level = Literal["info", "warning"]
KINDS = {"SEG": "DICOM SEG", "RTSTRUCT": "DICOM RTSTRUCT", "SR": "DICOM SR"}  # of attachments, as they are called


@dataclass(frozen=True)
class Note:
    """One oddity, in a sentence a reader understands."""

    level: Level
    text: str


@dataclass(frozen=True)
class Receipt:
    """What was expected, what was loaded and what is odd, for one series, before any model runs.

    Attributes:
        format: "DICOM", "NIfTI", "PNG" or "JPEG" (by content).
        dimensions: (columns, rows, slices).
        spacing: (column, row, slice) mm, or None where unknown.
        expected: instances that should be there (from geometry), loaded: those that are.
        measurable: False when lengths and volumes would be wrong; the notes say why.
        spacing_source: the header's element (or the file's part) that the in-plane spacing was read from; "" for none.
    """

    format: str
    modality: str
    dimensions: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    expected: int
    loaded: int
    measurable: bool
    notes: tuple[Note, ...] = ()
    spacing_source: str = ""


@dataclass(frozen=True)
class Series:
    """One series: a volume, its receipt, and for DICOM the source files in the volume's source slice order.

    Attributes:
        uid: SeriesInstanceUID, or a made one ("2.25...") for other formats.
        sources: the original DICOM files as bytes, ordered as the source's slice axis (layout.axes refers to it);
            one file for a multi-frame object; empty for NIfTI and raster.
        view: of a projection, "PA", "AP" or "LATERAL"; "" where the header does not say or it is none.
    """

    uid: str
    number: int
    description: str
    modality: str
    volume: Volume
    receipt: Receipt
    sources: tuple[bytes, ...] = ()
    view: str = ""


@dataclass(frozen=True)
class Patient:
    """As in the header; every field may be empty.  Untrusted text: show as text only, never log."""

    id: str = ""
    name: str = ""
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""
    age: str = ""


@dataclass(frozen=True)
class Study:
    """All that one upload holds of one study of one patient.

    Attributes:
        series: empty where the upload holds only what was drawn on the study or measured in it.
        attachments: segmentations, structure sets and our own structured reports of the study.
    """

    uid: str
    patient: Patient
    date: str  # YYYYMMDD or ""
    description: str
    accession: str
    series: tuple[Series, ...]
    body_part: str = ""
    notes: tuple[Note, ...] = field(default=())
    attachments: tuple[Attachment, ...] = field(default=())

    @property
    def modality(self) -> str:
        """The modality of its largest series; "" without one."""
        return max(self.series, key=lambda s: s.volume.array.size).modality if self.series else ""
