"""What the image models answer: frozen data that the board, the viewer and the command line pass along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from core_models.segmentation.engine import Mask
from core_models.study.volume import Volume


@dataclass(frozen=True)
class Context:
    """What is known beside the image; None or "" where it is not.

    Attributes:
        view: "PA", "AP", "LATERAL" or "".
        age: years.
        sex: "F", "M" or "".
    """

    view: str = ""
    age: float | None = None
    sex: str = ""

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what is known, in order."""
        return tuple(
            name for name, known in (("view", self.view), ("age", self.age is not None), ("sex", self.sex)) if known
        )


@dataclass(frozen=True)
class Quality:
    """The gate before any finding: what the image is, judged from its pixels.

    Attributes:
        chest, frontal, inverted, rotated: probabilities of being a chest radiograph, a frontal one, one with inverted
            grey levels, one turned by a quarter or half turn.
        usable: whether findings may be shown at all.
        notes: one sentence for each thing that the reader must know; empty for a plain frontal radiograph.
    """

    chest: float
    frontal: float
    inverted: float
    rotated: float
    usable: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One finding that a model looked for.

    Attributes:
        name: the model's own label ("Effusion"); `term`: the corpus's heading for it ("Pleural Effusion").
        region: one of `core_models.drafting.evidence.REGIONS`.
        probability: calibrated where `calibrated`, on the data that the model's card names.
        threshold: chosen on validation; `present` is probability >= threshold.
        box: (x0, y0, x1, y1) pixels of the source image, ends exclusive, around the strongest attribution; or None.
        heat: float32 (h, w) attribution, 0 to 1, of the whole image on a coarse grid, or None.
    """

    name: str
    term: str
    region: str
    probability: float
    threshold: float
    calibrated: bool = True
    box: tuple[int, int, int, int] | None = None
    heat: np.ndarray | None = None

    @property
    def present(self) -> bool:
        return self.probability >= self.threshold


@dataclass(frozen=True)
class Structure:
    """One named structure of a radiograph, as `right lung`; `confidence` 0 to 1 is the mean probability inside it."""

    label: str
    mask: Mask
    confidence: float


@dataclass(frozen=True)
class Caliper:
    """A length that a number was made of: where it was measured, so that a reader can check it.

    Attributes:
        words: what it is of ("heart"); start, end: (i, j) pixels of the source image, on the outlines' own borders.
    """

    words: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """One number from structures.

    Attributes:
        key: stable name ("cardiothoracic_ratio", "lung_area_right", "lung_area_left", "lung_area_ratio").
        words: as on a card ("cardiothoracic ratio"); `unit`: "", "cm²" or "mm"; "" is a plain ratio.
        point: (i, j) pixel of the source image that shows it, or None.
        calipers: the lengths it was made of; none for areas.
    """

    key: str
    words: str
    region: str
    value: float
    unit: str = ""
    point: tuple[float, float] | None = None
    calipers: tuple[Caliper, ...] = ()


@dataclass(frozen=True)
class Reading:
    """All that one model says of one radiograph.

    Attributes:
        model: "name/version (digest)": what a card cites as its source.
        inputs: what the model had: ("image",) or ("image", "view", "age", "sex").
        missing: sentences on what it did not have or was not trained on.
        embedding: (d,) float32 unit vector in the shared image-text space, or None.
    """

    model: str
    licence: str
    quality: Quality
    findings: tuple[Finding, ...] = ()
    structures: tuple[Structure, ...] = ()
    measured: tuple[Measured, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    missing: tuple[str, ...] = ()
    embedding: np.ndarray | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())


class Eyes(Protocol):
    """A model that reads images; the embedded one and the bigger ones by a setting stand behind it.

    `read` raises Refused where the volume is not of a modality in `modalities` (empty: any), and is deterministic.
    It may be called from several threads.
    """

    name: str
    version: str
    licence: str
    modalities: tuple[str, ...]

    def read(self, volume: Volume, context: Context = Context()) -> Reading: ...
