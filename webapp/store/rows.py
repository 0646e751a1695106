"""What the store answers with: frozen rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from core_models.drafting.evidence import IMAGE, DraftModel, Evidence, Statement
from core_models.segmentation.engine import Click
from core_models.segmentation.history import Step
from core_models.segmentation.lines import Number
from core_models.study.study import Note, Receipt
from core_models.study.volume import SourceLayout
from retrieval.report import Prior

State = Literal["new", "drafted", "signed"]
VersionKind = Literal["draft", "signed", "addendum"]


@dataclass(frozen=True)
class SeriesRow:
    """One series without its voxels.

    Attributes:
        shape: (z, y, x) of the canonical volume.
        affine: 4 rows of 4, index (i, j, k, 1) → LPS mm.
        has_sources: the original DICOM files are kept, so DICOM exports are possible.
        view: of a projection, "PA", "AP" or "LATERAL"; "" where it is not known.
        after_signing: it came when the study's report was signed already, so that the report says nothing of it.
    """

    id: str
    study_id: str
    uid: str
    number: int
    description: str
    modality: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    window: tuple[float, float]
    unit: str
    spacing_known: bool
    layout: SourceLayout
    receipt: Receipt
    has_sources: bool
    view: str = ""
    after_signing: bool = False


@dataclass(frozen=True)
class StudyRow:
    """One line of the worklist; header text is untrusted.  Dates are YYYYMMDD or ""; `created_at` ISO 8601 UTC."""

    id: str
    uid: str
    accession: str
    patient_name: str
    patient_id: str
    patient_sex: str
    birth_date: str
    age: str
    date: str
    modality: str
    description: str
    body_part: str
    state: State
    created_at: str
    indication: str
    notes: tuple[Note, ...]
    series: tuple[SeriesRow, ...]


@dataclass(frozen=True)
class Intake:
    """What one upload brought into a study.

    Attributes:
        new: the study is; `series`: ids of those that are new.
        signed: the study's report was signed before.
    """

    study_id: str
    new: bool
    series: tuple[str, ...]
    signed: bool = False


@dataclass(frozen=True)
class SegmentRow:
    """One segment without its voxels.

    Attributes:
        number: 1, 2, ... within the study, never reused; the colour follows from it.
        suggested: True, or what the guess rests on and how sure it is, where the reader has not confirmed the label.
        steps, undone: prompts and edits in order, and the stack that redo takes from.
        hint: where the next click would tell the engine most; None where it does not say.
        settled: the latest click changed next to nothing, so that the next one will hardly help.
        measurement: JSON of the measurement, or None.
        box: (x0, y0, z0, dx, dy, dz) in voxels; all sizes 0 for an empty mask.
        mask_file: names the mask's content; another mask has another name.
        based: a model drew it, so that the mask is that drawing with the steps applied; undo ends at the drawing.
        outline: it is shown as a line only, not filled.
    """

    id: str
    study_id: str
    series_id: str
    number: int
    label: str
    suggested: bool | str
    colour: str
    visible: bool
    steps: tuple[Step, ...]
    undone: tuple[Step, ...]
    engine: str
    engine_version: str
    confidence: float
    note: str
    measurement: dict[str, Any] | None
    box: tuple[int, int, int, int, int, int]
    mask_file: str = field(default="", compare=False)
    based: bool = False
    outline: bool = False
    hint: Click | None = None
    settled: bool = False

    @property
    def version(self) -> str:
        """Another one for every mask; the file's own name stays here."""
        return hashlib.blake2b(self.mask_file.encode(), digest_size=8).hexdigest()

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Those of the steps that are clicks."""
        return tuple(step.action for step in self.steps if isinstance(step.action, Click))


@dataclass(frozen=True)
class AnnotationRow:
    """One measurement that a reader drew.

    Attributes:
        number: 1, 2, ... within the study, never reused.
        kind, plane, points: as `core_models.segmentation.lines.measure` takes them.
        label: the reader's word for what was measured; "" where none was given.
        numbers: what it measures, the one that names it first.
    """

    id: str
    study_id: str
    series_id: str
    number: int
    kind: str
    plane: str
    points: tuple[tuple[float, float, float], ...]
    label: str
    numbers: tuple[Number, ...]

    def title(self, flat: bool) -> str:
        """What a card and a report call it: the reader's own word, else the place where it was drawn.

        Args:
            flat: whether its series is a single image.
        """
        if self.label.strip() or self.kind == "ratio":
            return self.label.strip() or "heart"
        through = {"axial": 2, "coronal": 1, "sagittal": 0}[self.plane]
        return IMAGE if flat else f"{self.plane} slice {round(self.points[0][through]) + 1}"


@dataclass(frozen=True)
class PriorRow:
    """A prior's card and the report behind it."""

    evidence: Evidence
    prior: Prior


@dataclass(frozen=True)
class Addendum:
    """Text added after signing; `created_at` ISO 8601 UTC."""

    author: str
    created_at: str
    text: str


@dataclass(frozen=True)
class ReportState:
    """The working report.  `revision` counts its changes; `signed_version` is the frozen version's number."""

    study_id: str
    revision: int
    statements: tuple[Statement, ...]
    free_text: str
    unseen: tuple[str, ...]
    model: DraftModel | None
    state: State
    signed_version: int | None


@dataclass(frozen=True)
class Version:
    """One frozen version of the report, whole.

    Attributes:
        evidence: the board as it stood.
        addenda: all addenda so far, oldest first; empty before signing.
        sha256: of the content (everything but number, author and time).
    """

    study_id: str
    number: int
    kind: VersionKind
    author: str
    created_at: str
    statements: tuple[Statement, ...]
    free_text: str
    indication: str
    evidence: tuple[Evidence, ...]
    unseen: tuple[str, ...]
    model: DraftModel | None
    addenda: tuple[Addendum, ...]
    sha256: str


@dataclass(frozen=True)
class OutboxRow:
    """Work for the index that a committed transaction left: kind "signed", "addendum" or "deleted"."""

    id: int
    study_id: str
    version: int
    kind: str
    created_at: str
