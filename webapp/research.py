"""Scans → the same scans without their patients, for research: a stored study as a ZIP, or a folder into a folder.

What may still show who it is in its pixels is left out unless it is asked for, and is named in the report either way.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core_models.errors import Refused
from core_models.study import deidentify, dicom, intake
from core_models.study.deidentify import Deidentifier, Record
from core_models.study.limits import DEFAULT
from core_models.study.text import clean
from webapp.exports import EXPORTS, collect
from webapp.store import Store

FILENAME = "research.zip"
REPORT = "report.json"
NO_IMAGE = "no image, segmentation or structure set"
IN_PIXELS = "its pixels may show who the patient is"
NO_HEADER = "no DICOM file"


class _Cleaning:
    """Files through a `Deidentifier`, with what was left out and why."""

    def __init__(self, key: bytes, flagged: bool) -> None:
        self._cleaner, self._flagged = Deidentifier(key), flagged
        self.left_out: Counter[str] = Counter()
        self._kept: list[Record] = []
        self._withheld: list[Record] = []

    def take(self, name: str, data: bytes) -> bytes | None:
        """The cleaned file, or None where it is left out."""
        try:
            data = self._cleaner.clean(name, data, DEFAULT)
        except dicom.NotAScan:
            self.left_out[NO_IMAGE] += 1
            return None
        record = self._cleaner.records[-1]
        if record.flags and not self._flagged:
            self.left_out[IN_PIXELS] += 1
            self._withheld.append(record)
            return None
        self._kept.append(record)
        return data

    def report(self) -> dict[str, Any]:
        return deidentify.report(self._kept, dict(self.left_out), self._withheld)

    def check(self, written: int) -> None:
        """Raises Refused where nothing may go out."""
        if not written and self.left_out[IN_PIXELS]:
            raise Refused(
                f"Nothing was exported: of all {self.left_out[IN_PIXELS]} images the pixels may show who the patient "
                "is. Look at them, then export with the flagged ones."
            )
        if not written:
            raise Refused("Nothing was exported: there is no DICOM image.")


def write(store: Store, study_id: str, key: bytes, out: Path, flagged: bool = False) -> dict[str, Any]:
    """A stored study's original images and its segments as a ZIP at `out`, without the patient; the report's text
    stays here, since free text cannot be cleaned.

    Raises:
        NotFound: no such study; Refused: nothing may go out.
    """
    cleaning, written = _Cleaning(key, flagged), 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path, data in _originals(store, study_id):
            if (cleaned := cleaning.take(path, data)) is not None:
                archive.writestr(path, cleaned)
                written += 1
        cleaning.check(written)
        bundle = collect(store, study_id)
        if not EXPORTS["seg"].available(bundle):
            cleaned = cleaning.take("segments.dcm", EXPORTS["seg"].write(bundle))
            if cleaned is not None:
                archive.writestr("segments.dcm", cleaned)
        told = cleaning.report()
        archive.writestr(REPORT, json.dumps(told, indent=1))
    return told


def _originals(store: Store, study_id: str) -> Iterator[tuple[str, bytes]]:
    for n, series in enumerate(store.study(study_id).series, 1):
        for k, path in enumerate(store.sources(series.id)):
            yield f"series{n:03d}/{k:05d}.dcm", path.read_bytes()


def folder(
    source: Path, out: Path, key: bytes, flagged: bool = False, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, Any]:
    """Every DICOM file of a folder or ZIP into `out` under a number, without the patient; and the report.

    Raises:
        Refused, TooLarge: a file is damaged or hostile, `out` is not empty, or nothing may go out.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise Refused(f"The folder {str(out)!r} is not empty; de-identified files are not mixed with others.")
    except OSError as error:
        raise Refused(f"The folder {str(out)!r} cannot be made: {error.strerror}.") from error
    cleaning, written = _Cleaning(key, flagged), []
    try:
        for done, found in enumerate(intake.contents(source, DEFAULT), 1):
            if not dicom.is_dicom(found.data[:4096]):
                cleaning.left_out[NO_HEADER] += 1
            elif (data := cleaning.take(clean(Path(found.path).name, 60), found.data)) is not None:
                path = out / f"{len(written):05d}.dcm"
                path.write_bytes(data)
                written.append(path)
            if progress is not None:
                progress(done, found.total, "")
        cleaning.check(len(written))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    told = cleaning.report()
    (out / REPORT).write_text(json.dumps(told, indent=1), encoding="utf-8")
    return told
