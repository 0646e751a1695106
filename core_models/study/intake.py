"""Uploaded files, folders and archives → studies of checked volumes, each with its receipt.

A file's format is judged by its content, never by its name.  Inside a folder or an archive, what is not a scan is
skipped with a note; what claims to be one and is damaged refuses the whole upload, so that nobody reads a scan that
silently lacks a part.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from core_models.errors import Cancelled, Conflict, Refused, TooLarge
from core_models.study import archive, attachments, dicom, nifti, pixels, raster, receipt, stacks
from core_models.study.attachments import Attachment
from core_models.study.deidentify import Deidentifier
from core_models.study.dicom import NotAScan
from core_models.study.elements import date, whole
from core_models.study.frames import Frame, Instance
from core_models.study.limits import DEFAULT, Limits
from core_models.study.receipt import info, warning
from core_models.study.study import Note, Patient, Series, Study
from core_models.study.text import clean, count
from core_models.study.volume import Volume, canonical

Progress = Callable[[int, int, str], None]
_HEAD = 4096
_ABSURD_COUNT = 100_000  # no series has as many images: the element holds something else
# ViewPosition (0018,5101); decubitus and oblique views are none of the three that models know.
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LATERAL": "LATERAL", "LAT": "LATERAL"}


@dataclass
class _Upload:
    """What has been found so far."""

    limits: Limits
    deidentifier: Deidentifier | None = None
    frames: list[Frame] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    studies: list[Study] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    bytes: int = 0
    done: int = 0


def read_scan(
    paths: Path | Sequence[Path],
    *,
    limits: Limits = DEFAULT,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    deidentifier: Deidentifier | None = None,
) -> tuple[Study, ...]:
    """Read one upload.

    Args:
        paths: files or folders: DICOM, NIfTI, PNG, JPEG, or ZIP of these.
        progress: called with (done, total, what is being done); total grows while archives are opened.
        cancelled: asked between files; True stops with nothing kept.
        deidentifier: takes the patient out of every DICOM file before anything else reads it.

    Returns:
        one Study per StudyInstanceUID, NIfTI file or image, in order of arrival; each with a series or an attachment.

    Raises:
        Refused: nothing readable, a damaged or hostile file, or two patients under one study.
        TooLarge: over `limits`.
        Conflict: two different images claim to be the same instance.
        Cancelled: `cancelled` answered True.
    """
    upload = _Upload(limits, deidentifier)
    for found in contents(paths, limits):
        _check(cancelled)
        _take(upload, found)
        if progress is not None:
            progress(upload.done, found.total, "Reading files")
    return _finish(upload, progress, cancelled)


@dataclass(frozen=True)
class Content:
    """One file of an upload.

    Attributes:
        path: its name inside the upload.
        alone: whether the upload is this one file and no archive.
        total: how many files the upload holds, as far as is known.
    """

    path: str
    data: bytes
    alone: bool
    total: int


def contents(paths: Path | Sequence[Path], limits: Limits) -> Iterator[Content]:
    """The files of files, folders and archives, one after the other.

    Raises:
        Refused, TooLarge: there is none, there are too many, or an archive is hostile.
    """
    roots = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for root in roots for file in _walk(Path(root), limits)]
    if not files:
        raise Refused("The upload is empty: there is no file in it.")
    if len(files) > limits.max_files:
        raise TooLarge(f"The upload holds {len(files):,} files; at most {limits.max_files:,} are read.")
    alone = len(files) == 1
    total = len(files)
    for path, name in files:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if archive.is_zip(head):
            inside, members = archive.members(path, limits)
            total += inside - 1
            blobs: Iterator[tuple[str, bytes]] = members
            single = False
        else:
            blobs = iter([(name, _load(path, limits))])
            single = alone
        for member, data in blobs:
            yield Content(member, data, single, total)


def _check(cancelled: Callable[[], bool] | None) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled("Reading was cancelled; nothing was kept.")


def _walk(root: Path, limits: Limits) -> list[tuple[Path, str]]:
    """(path, name inside the upload) of a file, or of all files under a folder in name order; links are skipped."""
    if root.is_file():
        return [(root, root.name)]
    if not root.is_dir():
        raise Refused("The file to read does not exist.")
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        found.append((path, path.relative_to(root).as_posix()))
        if len(found) > limits.max_files:
            raise TooLarge(f"The folder holds more than {limits.max_files:,} files.")
    return found


def _load(path: Path, limits: Limits) -> bytes:
    size = path.stat().st_size
    if size > limits.max_file_bytes:
        raise TooLarge(f"A file of {size / 1e6:,.0f} MB is over the limit of {limits.max_file_bytes / 1e6:,.0f} MB.")
    return path.read_bytes()


def _take(upload: _Upload, found: Content) -> None:
    """Read one file of the upload into it."""
    path, data, alone = found.path, found.data, found.alone
    upload.done += 1
    upload.bytes += len(data)
    if upload.bytes > upload.limits.max_bytes:
        raise TooLarge(f"The upload is over {upload.limits.max_bytes / 1e6:,.0f} MB.")
    base = path.replace("\\", "/").rsplit("/", 1)[-1]
    name = clean(base, 60) or "a file"
    if not alone and (base.startswith(".") or path.startswith("__MACOSX/")):
        upload.skipped.append(name)
        return
    head = data[:_HEAD]
    if dicom.is_dicom(head):
        try:
            if upload.deidentifier is not None:
                data = upload.deidentifier.clean(name, data, upload.limits)
            file = dicom.opened(name, data, upload.limits)
            if attachments.holds(file):
                upload.attachments.append(attachments.read(file, upload.limits))
            else:
                upload.frames.extend(dicom.frames(file, upload.limits))
        except NotAScan as error:
            upload.refusals.append(error)
            upload.skipped.append(name)
    elif nifti.is_nifti(head):
        upload.studies.append(_single(_shown(upload, name), data, "NIfTI", *nifti.read(data, upload.limits)))
    elif kind := raster.format_of(head):
        upload.studies.append(_single(_shown(upload, name), data, kind, *raster.read(data, upload.limits)))
    elif not alone:
        upload.skipped.append(name)
    elif not data:
        raise Refused(f'"{name}" is empty (0 bytes).')
    else:
        raise Refused(f'"{name}" is none of the formats that are read: DICOM, NIfTI, PNG, JPEG, or a ZIP of them.')


def _shown(upload: _Upload, name: str) -> str:
    """The name that a file without a header is described by; a file is often named after its patient."""
    return name if upload.deidentifier is None else "scan"


def _single(name: str, data: bytes, kind: str, volume: Volume, notes: list[Note]) -> Study:
    """A study of one file that knows neither patient nor study; its UIDs follow from its bytes."""
    digest = hashlib.sha256(data).digest()
    stem = name
    for suffix in (".gz", ".nii", ".png", ".jpg", ".jpeg", ".dcm"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    slices = volume.layout.to_source(volume.array).shape[0]
    series = Series(
        uid=_made_uid(digest, b"series"),
        number=1,
        description=stem,
        modality=volume.modality,
        volume=volume,
        receipt=receipt.build(kind, volume, slices, slices, notes, "NIfTI header" if volume.spacing_known else ""),
    )
    return Study(_made_uid(digest, b"study"), Patient(), "", stem, "", (series,))


def _made_uid(*parts: bytes) -> str:
    """A UUID-derived UID (PS3.5 B.2) that is the same for the same content."""
    return f"2.25.{int.from_bytes(hashlib.sha256(b'|'.join(parts)).digest()[:16], 'big')}"


def _finish(upload: _Upload, progress: Progress | None, cancelled: Callable[[], bool] | None) -> tuple[Study, ...]:
    if not upload.frames and not upload.studies and not upload.attachments:
        if upload.refusals:
            raise upload.refusals[0]
        raise Refused(f"There is no scan in the upload: {count(upload.done, 'file')}, none of a format that is read.")
    by_study: dict[str, list[Frame]] = defaultdict(list)
    for frame in upload.frames:
        instance = frame.instance
        by_study[instance.study_uid or _made_uid(instance.data[:65536], b"study")].append(frame)
    total = len(upload.frames)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, "Building volumes")

    with pixels.Decoder(upload.limits) as decoder:
        dicom_studies = [_study(uid, found, decoder, tick, cancelled) for uid, found in by_study.items()]
    studies = _with_attachments(dicom_studies, upload.attachments) + upload.studies
    if upload.deidentifier is not None:
        studies = [_with_note(study, _cleaned(upload.deidentifier)) for study in studies]
    if upload.skipped:
        shown = ", ".join(f'"{name}"' for name in upload.skipped[:3])
        more = "" if len(upload.skipped) <= 3 else f" and {len(upload.skipped) - 3} more"
        note = info(f"{count(len(upload.skipped), 'file')} without a scan skipped: {shown}{more}.")
        studies = [_with_note(study, note) for study in studies]
    return tuple(studies)


def _with_attachments(studies: list[Study], found: list[Attachment]) -> list[Study]:
    """The studies with what was drawn on them; one without its images becomes a study without series."""
    by_study: dict[str, list[Attachment]] = defaultdict(list)
    for attachment in found:
        by_study[attachment.study_uid].append(attachment)
    out = []
    for study in studies:
        own = by_study.pop(study.uid, [])
        _check_one_patient([study.patient, *(a.patient for a in own)])
        out.append(replace(study, attachments=tuple(own)))
    for uid, own in by_study.items():
        _check_one_patient([a.patient for a in own])
        out.append(Study(uid, own[0].patient, "", "", "", (), attachments=tuple(own)))
    return out


def _check_one_patient(patients: Iterable[Patient]) -> None:
    """Raises Refused where two are named."""
    named = {p.id or f"\0{p.name}" for p in patients}
    if len(named - {"\0"}) > 1:
        raise Refused("The upload mixes patients: one study names two of them. Please upload one patient's images.")


def _cleaned(deidentifier: Deidentifier) -> Note:
    records = deidentifier.records
    removed = sum(sum(r.actions.values()) + r.private + r.unknown + len(r.named) for r in records)
    told = f"De-identified on intake: {removed:,} header elements were taken out, UIDs replaced and dates moved"
    flagged = sum(bool(r.flags) for r in records)
    if not flagged:
        return info(f"{told}; pixels were not looked at.")
    return warning(f"{told}; {count(flagged, 'image')} may still show who the patient is in the pixels.")


def _with_note(study: Study, note: Note) -> Study:
    return replace(study, notes=receipt.unique((*study.notes, note)))


def _study(
    uid: str,
    frames: list[Frame],
    decoder: pixels.Decoder,
    tick: Callable[[], None],
    cancelled: Callable[[], bool] | None,
) -> Study:
    _check_one_patient(f.instance.patient for f in frames)
    frames, notes = _without_duplicates(frames)
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.instance.series_uid or _made_uid(uid.encode(), b"series")].append(frame)
    series = [s for key, found in by_series.items() for s in _series(key, found, decoder, tick, cancelled)]
    first = frames[0].instance.header
    if not frames[0].instance.study_uid:
        notes.append(warning("The header names no study; one was made up."))
    return Study(
        uid=uid,
        patient=frames[0].instance.patient,
        date=date(first.get("StudyDate")),
        description=clean(first.get("StudyDescription")),
        accession=clean(first.get("AccessionNumber"), 32),
        series=tuple(sorted(series, key=lambda s: s.number)),
        body_part=clean(first.get("BodyPartExamined"), 32).upper(),
        notes=receipt.unique(notes),
    )


def _without_duplicates(frames: list[Frame]) -> tuple[list[Frame], list[Note]]:
    """The frames of one instance per SOP UID.

    Raises:
        Conflict: two with one UID differ in their pixels.
    """
    first: dict[str, Instance] = {}
    kept = []
    dropped = set()
    for frame in frames:
        instance = frame.instance
        known = first.setdefault(instance.sop_uid or f"unnamed {id(instance)}", instance)
        if known is instance:
            kept.append(frame)
        elif id(instance) not in dropped:
            if known.raw_pixels() != instance.raw_pixels():
                raise Conflict("Two different images of the upload claim to be the same instance; neither was stored.")
            dropped.add(id(instance))
    return kept, [info(f"{count(len(dropped), 'duplicate image')} ignored.")] if dropped else []


def _series(
    uid: str,
    frames: list[Frame],
    decoder: pixels.Decoder,
    tick: Callable[[], None],
    cancelled: Callable[[], bool] | None,
) -> list[Series]:
    found = stacks.split(frames)
    header = frames[0].instance.header
    number = whole(header.get("SeriesNumber")) or 0
    description = clean(header.get("SeriesDescription"))
    out = []
    for n, stack in enumerate(found, 1):
        volume, notes = _volume(stack, decoder, tick, cancelled)
        if len(found) > 1:
            notes.append(info(f"The series mixes geometries; this is stack {n} of {len(found)}."))
        used = list({id(f.instance): f.instance for f in stack.frames}.values())
        complete = all(i.pixels.frames == sum(f.instance is i for f in stack.frames) for i in used)
        expected = stack.expected
        if len(found) == 1:
            expected = max(expected, _counted(header, len(stack.frames), notes))
            notes += _numbers(used)
        out.append(
            Series(
                uid=uid if n == 1 else _made_uid(uid.encode(), str(n).encode()),
                number=number,
                description=description if len(found) == 1 else f"{description} (stack {n})".strip(),
                modality=volume.modality,
                volume=volume,
                receipt=receipt.build("DICOM", volume, len(stack.frames), expected, notes, used[0].spacing_source),
                sources=tuple(i.data for i in used) if complete else (),
                view=_VIEWS.get(clean(used[0].header.get("ViewPosition"), 16).upper(), ""),
            )
        )
    return out


def _counted(header: Dataset, arrived: int, notes: list[Note]) -> int:
    """How many images the header itself counts, 0 where it does not or fewer."""
    for keyword, words in (("ImagesInAcquisition", "acquisition"), ("NumberOfSeriesRelatedInstances", "series")):
        counted = whole(header.get(keyword)) or 0
        if arrived < counted < _ABSURD_COUNT:
            notes.append(warning(f"The header counts {counted} images in this {words}; {arrived} arrived."))
            return counted
    return 0


def _numbers(used: Sequence[Instance]) -> list[Note]:
    """What the instance numbers tell that positions cannot: images missing before the first one."""
    numbers = {i.number for i in used}
    lowest = min(numbers)
    if len(used) < 3 or len(numbers) != len(used) or not 1 < lowest < _ABSURD_COUNT:
        return []
    if max(numbers) - lowest + 1 != len(numbers):
        return []
    return [info(f"The first image has number {lowest}: {count(lowest - 1, 'image')} before it may not have arrived.")]


def _volume(
    stack: stacks.Stack,
    decoder: pixels.Decoder,
    tick: Callable[[], None],
    cancelled: Callable[[], bool] | None,
) -> tuple[Volume, list[Note]]:
    frames = stack.frames
    first = frames[0].instance
    notes = [*stack.notes, *dict.fromkeys(n for f in frames for n in f.instance.notes)]
    stored = pixels.stored_frames(frames, decoder, tick, cancelled)
    values = pixels.to_values(stored, [f.slope for f in frames], [f.intercept for f in frames])
    if first.pixels.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        notes.append(info("Colour was reduced to luminance."))
    window = frames[len(frames) // 2].window
    unit = "1"
    if first.modality == "CT":
        if first.has_rescale and first.rescale_type in ("", "HU"):
            unit = "HU"
        else:
            notes.append(warning("The header gives no rescale to Hounsfield units: values are raw."))
        window = window or (receipt.DEFAULT_CT_WINDOW if unit == "HU" else None)
    elif first.pixels.photometric == "MONOCHROME1":
        values, window = _inverted(values, window)
        notes.append(info("The image was stored with white as its lowest value (MONOCHROME1); it was inverted once."))
    if first.modality == "PT":
        notes.append(info("Values are the scanner's own, not standardised uptake values."))
    array, affine, layout = canonical(values, stack.affine)
    window = window or receipt.percentile_window(array)
    volume = Volume(array, affine, first.modality, unit, stack.spacing_known, window, layout)
    if told := receipt.content_note(volume):
        notes.append(told)
    return volume, notes


def _inverted(values: np.ndarray, window: tuple[float, float] | None) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Mirror grey levels within their own range, so that type and range stay; the window is mirrored with them."""
    ends = values.min(), values.max()
    mirror = int(ends[0]) + int(ends[1]) if values.dtype.kind in "iu" else float(ends[0]) + float(ends[1])
    if values.dtype.kind in "iu":
        mirrored = (mirror - values.astype(np.int32)).astype(values.dtype)
    else:
        mirrored = np.float32(mirror) - values
    return mirrored, None if window is None else (mirror - window[0], window[1])
