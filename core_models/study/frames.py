"""A checked DICOM header → its frames: where each 2-D image lies in the patient and how its values are scaled.

Classic single-frame objects state this at the top level, enhanced ones in functional groups, shared or per frame
(PS3.3 C.7.6.16); both end as the same `Frame`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from core_models.errors import Refused
from core_models.study.elements import first, floats, number, pair, values, whole
from core_models.study.receipt import info, warning
from core_models.study.study import Note, Patient
from core_models.study.text import clean

COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}
# What tells images at one position apart, in this order: echo, phase, diffusion, contrast phase, kind of image.
_PHASE_KEYWORDS = (
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "ImageType",
)


_AT_DETECTOR = warning("Pixel spacing is that at the detector: lengths come out somewhat too large.")


@dataclass(frozen=True)
class Pixels:
    """Where the pixels lie and how they are stored.

    Attributes:
        offset, length: of the pixel data's value in `Instance.buffer`; length None when encapsulated.
        samples: 1 (grey or palette) or 3 (colour).
    """

    offset: int
    length: int | None
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool


@dataclass(frozen=True)
class Frame:
    """One 2-D image with its place in the patient.

    Attributes:
        index: its number within the instance, from 0.
        position: LPS mm of the first pixel's centre, or None.
        orientation: direction cosines of increasing column, then of increasing row, or None.
        spacing: (between rows, between columns) in mm, or None.
        thickness: distance to the next slice that the header states, or None.
        phase: values that tell images at one position apart.
    """

    instance: Instance
    index: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    window: tuple[float, float] | None
    phase: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """One file: identity, pixels and header.  `data` is the file as it came (preamble zeroed), for exports."""

    name: str
    data: bytes
    buffer: bytes
    header: Dataset
    transfer_syntax: str
    sop_uid: str
    study_uid: str
    series_uid: str
    number: int
    modality: str
    patient: Patient
    pixels: Pixels
    has_rescale: bool
    rescale_type: str
    localizer: bool
    notes: tuple[Note, ...] = ()
    spacing_source: str = ""

    @property
    def has_table(self) -> bool:
        """Whether values go through a modality look-up table and not through a rescale."""
        return bool(self.header.get("ModalityLUTSequence")) and self.pixels.samples == 1

    @property
    def compressed(self) -> bool:
        return self.transfer_syntax in COMPRESSED

    def raw_pixels(self) -> memoryview:
        """The stored pixel bytes, encapsulated or not."""
        end = None if self.pixels.length is None else self.pixels.offset + self.pixels.length
        return memoryview(self.buffer)[self.pixels.offset : end]


def spacing_of(header: Dataset, notes: list[Note]) -> tuple[tuple[float, float] | None, str]:
    """(between rows, between columns) in mm from the instance's top level, and the element that says so."""
    if "PixelSpacing" in header:
        spacing = pair(header.get("PixelSpacing"))
        if spacing is None:
            notes.append(warning("The pixel spacing is zero or not a number: lengths are not measured."))
            return None, ""
        return spacing, "PixelSpacing" + _calibration(header, spacing, notes)
    source = "ImagerPixelSpacing" if pair(header.get("ImagerPixelSpacing")) else "NominalScannedPixelSpacing"
    detector = pair(header.get(source))
    if detector is not None:
        factor = number(header.get("EstimatedRadiographicMagnificationFactor"))
        if factor and factor >= 1:
            notes.append(info(f"Pixel spacing was corrected for the stated magnification of {factor:.2f}."))
            return (detector[0] / factor, detector[1] / factor), f"{source}, less the magnification"
        notes.append(_AT_DETECTOR)
        return detector, source
    regions = header.get("SequenceOfUltrasoundRegions") or ()
    steps = {
        (number(r.get("PhysicalDeltaY")), number(r.get("PhysicalDeltaX")))
        for r in regions
        if r.get("PhysicalUnitsXDirection") == 3 and r.get("PhysicalUnitsYDirection") == 3  # centimetres
    }
    if len(steps) == 1 and len(regions) == 1:
        return pair([10 * abs(v or 0) for v in steps.pop()]), "SequenceOfUltrasoundRegions"
    return None, ""


def _calibration(header: Dataset, spacing: tuple[float, float], notes: list[Note]) -> str:
    """What a projection's PixelSpacing is worth beside its ImagerPixelSpacing (PS3.3 10.7.1.3)."""
    detector = pair(header.get("ImagerPixelSpacing"))
    if detector is None:
        return ""
    if abs(detector[0] - spacing[0]) < 1e-4 * spacing[0] and abs(detector[1] - spacing[1]) < 1e-4 * spacing[1]:
        notes.append(_AT_DETECTOR)
        return ", that at the detector"
    how = clean(header.get("PixelSpacingCalibrationType"), 16).lower()
    notes.append(info(f"Pixel spacing was calibrated{f' by {how}' if how else ''}."))
    return ", calibrated"


def frames_of(instance: Instance, spacing: tuple[float, float] | None) -> tuple[Frame, ...]:
    """The frames in stored order; `spacing` is the top-level one, for where no functional group has its own.

    Raises:
        Refused: the functional groups do not match the frames, or a rescale slope is zero or not finite.
    """
    name, header, count = instance.name, instance.header, instance.pixels.frames
    shared = first(header.get("SharedFunctionalGroupsSequence"))
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    if shared is None and not per_frame:
        groups: Sequence[Dataset | None] = [None] * count
    elif len(per_frame) not in (0, count):
        raise Refused(f'"{name}" describes {len(per_frame)} frames but declares {count}.')
    else:
        groups = per_frame or [None] * count
    frames = []
    for index, group in enumerate(groups):

        def macro(sequence: str, group: Dataset | None = group) -> Dataset:
            for holder in (group, shared):
                item = first(holder.get(sequence)) if holder is not None else None
                if item is not None:
                    return item
            return header

        measures = macro("PixelMeasuresSequence")
        own_spacing = pair(measures.get("PixelSpacing")) if measures is not header else spacing
        rescale = macro("PixelValueTransformationSequence")
        slope = number(rescale.get("RescaleSlope"), 1.0)
        intercept = number(rescale.get("RescaleIntercept"), 0.0)
        if not slope or intercept is None:
            raise Refused(f'"{name}" has a rescale slope of zero or not a number: its values are lost.')
        position = floats(macro("PlanePositionSequence").get("ImagePositionPatient"), 3)
        orientation = floats(macro("PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
        frames.append(
            Frame(
                instance,
                index,
                position if orientation else None,  # type: ignore[arg-type]
                orientation if position else None,
                own_spacing,
                number(measures.get("SpacingBetweenSlices")) or number(measures.get("SliceThickness")),
                slope,
                intercept,
                _window(macro("FrameVOILUTSequence")),
                _phase(header, group),
            )
        )
    return tuple(frames)


def _phase(header: Dataset, group: Dataset | None) -> tuple[str, ...]:
    told = [clean(header.get(keyword), 100) for keyword in _PHASE_KEYWORDS]
    if group is not None:
        content = first(group.get("FrameContentSequence"))
        if content is not None:
            # All but the last dimension tell stacks apart; which one is the position is found by the geometry.
            told.append(clean(content.get("TemporalPositionIndex")))
            told.append(clean(content.get("StackID")))
        diffusion = first(group.get("MRDiffusionSequence"))
        echo = first(group.get("MREchoSequence"))
        told.append(clean(diffusion.get("DiffusionBValue")) if diffusion is not None else "")
        told.append(clean(echo.get("EffectiveEchoTime")) if echo is not None else "")
    return tuple(told)


def _window(source: Dataset) -> tuple[float, float] | None:
    """(centre, width): the first linear one, or the range of a VOI look-up table, whose curve is not applied."""
    centre, width = (number(first(values(source.get(k)))) for k in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width > 0:
        return centre, width
    table = first(source.get("VOILUTSequence"))
    descriptor = values(table.get("LUTDescriptor")) if table is not None else []
    if len(descriptor) != 3:
        return None
    entries, lowest = whole(descriptor[0]), whole(descriptor[1])
    if entries is None or lowest is None or not 0 <= entries <= 65536:
        return None
    entries = entries or 65536
    return lowest + entries / 2, float(entries)
