"""A DICOM file with a patient in its header → the same image without, and a record of what was taken out.

PS3.15 Annex E, Basic Application Level Confidentiality Profile with the option to retain longitudinal temporal
information with modified dates: the actions stand in confidentiality.csv, read from the standard's Table E.1-1 (2026c),
and are taken at every depth of every sequence.  Private elements, and elements that no dictionary knows, are removed.
The names of regions of interest are cleaned instead of emptied, as the standard's Clean Descriptors Option does it: an
organ's name stays, any other becomes "ROI" and its number.  UIDs and the pseudonym are keyed hashes, so what belonged
together still does, in this upload and in the next; dates of one patient move back by one number of days, which only
the key's holder can tell.  Pixels are not changed: what may show in them is flagged.

Packages were tried first: dicom-anonymizer (BSD) has the table and does not enter sequences, dicognito (MIT) enters
them and follows no table; neither looks for the name in what is left.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from core_models.study import dicom
from core_models.study.elements import values, whole
from core_models.study.identity import face_in_pixels, text_in_pixels
from core_models.study.limits import Limits
from core_models.study.text import clean

TABLE = Path(__file__).with_name("confidentiality.csv")
EXPORTED = ("SEG", "RTSTRUCT")  # objects beside images that can be cleaned; reports are free text and cannot
_MAX_DAYS = 3650
_KNOWN_UIDS = "1.2.840.10008."
_DATES = ("DA", "DT")
_TEXTS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR", "CS")
# Codes without which the image cannot be read; a patient may be called so.
_STRUCTURE = {
    "SpecificCharacterSet",
    "Modality",
    "ImageType",
    "PhotometricInterpretation",
    "PatientOrientation",
    "SegmentationType",
    "ContourGeometricType",
}
_NUMBERS = ("DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV")
_BIRTH = {0x00100030, 0x00100032}  # no longitudinal information: emptied or removed as the table says
_WORD = re.compile(r"[^\W_]+")
_ROI_NAME = 0x30060026
METHOD = "PS3.15 basic profile, dates moved; pixels not changed"
# CID 7050: what was done, in the standard's own codes.
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


@dataclass(frozen=True)
class Record:
    """What was done to one file; it holds no value that was removed.

    Attributes:
        name: the new SOPInstanceUID.
        actions: (keyword or tag, "removed" | "emptied" | "replaced") → how often.
        private, unknown: elements removed because they are private, or in no dictionary.
        uids, dates: values replaced, moved.
        named: keywords in which the patient's name or a number of theirs still stood; they were emptied.
        regions: names of regions of interest that stayed; `renamed`: how many became "ROI" and a number.
        flags: why the pixels may tell who it is, each the end of a sentence that begins "the image".
    """

    name: str
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    private: int = 0
    unknown: int = 0
    uids: int = 0
    dates: int = 0
    named: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    renamed: int = 0
    flags: tuple[str, ...] = ()


class Deidentifier:
    """Cleans files; the same key gives the same pseudonyms, UIDs and shifts.

    Args:
        key: secret bytes; who has them can tell that two pseudonyms are one patient, and undo the shift of dates.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.records: list[Record] = []

    def clean(self, name: str, data: bytes, limits: Limits) -> bytes:
        """The file without its patient, and its record added to `records`.

        Raises:
            NotAScan: it is neither an image nor one of `EXPORTED`.
            Refused, TooLarge: as `dicom.read`.
        """
        file = dicom.opened(name, data, limits)
        if file.modality not in EXPORTED:
            dicom.frames(file, limits)  # a document, or an image that is damaged
        with dicom.plain_refusals(name, limits):
            dataset = pydicom.dcmread(io.BytesIO(file.buffer), force=True)
            work = _Work(self, dataset)
            work.run()
            stream = io.BytesIO()
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
            meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
            little = "1.2.840.10008.1.2" if dataset.original_encoding[0] else "1.2.840.10008.1.2.1"
            meta.TransferSyntaxUID = file.syntax if file.syntax in dicom.COMPRESSED else little
            dataset.file_meta = meta
            dataset.preamble = bytes(128)
            dataset.save_as(stream, enforce_file_format=True)
        self.records.append(work.record)
        return stream.getvalue()

    def uid(self, value: str) -> str:
        """Another UID, the same for the same one (PS3.5 B.2)."""
        return f"2.25.{int.from_bytes(self._hash('uid', value)[:16], 'big')}"

    def pseudonym(self, patient: str) -> str:
        return f"RR-{self._hash('patient', patient).hex()[:12].upper()}"

    def days(self, patient: str) -> int:
        """How many days the dates of a patient move back, 1 to ten years."""
        return 1 + int.from_bytes(self._hash("days", patient)[:8], "big") % _MAX_DAYS

    def _hash(self, kind: str, value: str) -> bytes:
        return hmac.new(self._key, f"{kind}|{value}".encode("utf-8", "replace"), hashlib.sha256).digest()


@lru_cache(1)
def table() -> dict[str, str]:
    """Tag as eight hexadecimal digits ("x" for any) → action of the basic profile."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return {row["tag"]: row["basic"] for row in csv.DictReader(stream)}


def action_of(tag: BaseTag) -> str:
    """The basic profile's action on an element; "" where the table does not name it."""
    text = f"{int(tag):08x}"
    known = table()
    if text in known:
        return known[text]
    if text[:2] == "50":
        return known["50xxxxxx"]
    return known.get(f"60xx{text[4:]}", "") if text[:2] == "60" else ""


class _Work:
    """One file being cleaned."""

    def __init__(self, owner: Deidentifier, dataset: Dataset) -> None:
        self._owner, self._dataset = owner, dataset
        who = str(dataset.get("PatientID") or "").strip()
        who = who or str(dataset.get("PatientName") or "").strip() or str(dataset.get("StudyInstanceUID") or "")
        self._pseudonym, self._shift = owner.pseudonym(who), timedelta(owner.days(who))
        self._identifying = _identifying(dataset)
        self._actions: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()
        self._named: dict[str, None] = {}
        self._regions: dict[str, None] = {}

    @property
    def record(self) -> Record:
        header = self._dataset
        return Record(
            name=str(header.get("SOPInstanceUID", "")),
            actions=self._actions,
            private=self._counts["private"],
            unknown=self._counts["unknown"],
            uids=self._counts["uids"],
            dates=self._counts["dates"],
            named=tuple(self._named),
            regions=tuple(self._regions),
            renamed=self._counts["renamed"],
            flags=self._flags,
        )

    def run(self) -> None:
        """Clean the data set in place."""
        self._flags = tuple(filter(None, (text_in_pixels(self._dataset), face_in_pixels(self._dataset))))
        self._level(self._dataset)
        header = self._dataset
        header.PatientName = header.PatientID = self._pseudonym
        header.PatientIdentityRemoved = "YES"
        header.LongitudinalTemporalInformationModified = "MODIFIED"
        header.DeidentificationMethod = METHOD if not self._regions else [METHOD, "names of known organs kept"]
        header.DeidentificationMethodCodeSequence = Sequence([_code(*method) for method in METHODS])

    def _level(self, dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            if tag.is_private:
                self._counts["private"] += 1
                del dataset[tag]
            elif not dictionary_has_tag(tag) and not action_of(tag):
                self._counts["unknown"] += 1
                del dataset[tag]
            elif tag.element == 0 or tag.group == 0x7FE0:
                continue
            else:
                self._element(dataset, dataset[tag])

    def _element(self, dataset: Dataset, element: DataElement) -> None:
        action = action_of(element.tag)
        name = keyword_for_tag(element.tag) or str(element.tag)
        if element.VR in _DATES and element.tag not in _BIRTH and action:
            self._moved(element)
        elif element.VR == "TM" and element.tag not in _BIRTH:
            pass  # whole days move: the hour tells nothing more
        elif element.VR == "UI" and action in ("", "U", "D"):
            self._replaced_uids(element, always=bool(action))
        elif element.tag == _ROI_NAME:
            self._region(dataset, element)
        elif action == "X":
            self._did(name, "removed")
            del dataset[element.tag]
        elif action in ("Z", "X/Z", "Z/D") and element.VR != "SQ":
            self._did(name, "emptied")
            element.value = b"" if element.VR in ("OB", "OW", "UN") else None
        elif element.VR == "SQ" and action in ("Z", "X/Z"):
            self._did(name, "emptied")
            element.value = Sequence()
        elif element.VR == "SQ":
            if action not in ("", "X/Z/U*"):
                self._did(name, "replaced")
                self._emptied(element)
            for item in element.value or ():
                self._level(item)
        elif action:  # D, X/D, X/Z/D
            self._did(name, "replaced")
            element.value = _dummy(element.VR)
        elif element.VR in _DATES:
            self._moved(element)
        else:
            self._searched(element, name)

    def _region(self, dataset: Dataset, element: DataElement) -> None:
        """Keep an organ's name, which says nothing of the patient; unless the patient is called so."""
        from core_models.segmentation.naming.labels import is_known

        name = clean(element.value)
        if is_known(name) and not {w.casefold() for w in _WORD.findall(name)} & self._identifying:
            self._regions[name] = None
            return
        self._counts["renamed"] += 1
        element.value = f"ROI {whole(dataset.get('ROINumber')) or self._counts['renamed']}"

    def _did(self, name: str, what: str) -> None:
        self._actions[name, what] += 1

    def _emptied(self, sequence: DataElement) -> None:
        """Take the values out of a sequence that must stay: its own texts and numbers become dummies."""
        for item in sequence.value or ():
            for element in item:
                if element.VR == "SQ":
                    self._emptied(element)
                elif element.VR not in ("UI", *_DATES, "TM"):
                    element.value = _dummy(element.VR)

    def _replaced_uids(self, element: DataElement, always: bool) -> None:
        """Replace what names an instance; what names a class, a syntax or a coding scheme stays."""
        name = keyword_for_tag(element.tag)
        if not always and ("Class" in name or "Scheme" in name or "Resource" in name or "Context" in name):
            return
        found = [str(v) for v in values(element.value)]
        new = [v if not v or v.startswith(_KNOWN_UIDS) else self._owner.uid(v) for v in found]
        self._counts["uids"] += sum(a != b for a, b in zip(found, new, strict=True))
        element.value = new if len(new) > 1 else "".join(new)

    def _moved(self, element: DataElement) -> None:
        found = [str(v) for v in values(element.value)]
        self._counts["dates"] += len(found)
        new = [_earlier(v, self._shift) for v in found]
        element.value = new if len(new) > 1 else "".join(new)

    def _searched(self, element: DataElement, name: str) -> None:
        """Empty a text in which the patient is named although the table leaves it alone."""
        if element.VR not in _TEXTS or name in _STRUCTURE or not self._identifying:
            return
        words = {w.casefold() for v in values(element.value) for w in _WORD.findall(str(v))}
        if words & self._identifying:
            self._named[name] = None
            element.value = ""


def _identifying(dataset: Dataset) -> frozenset[str]:
    """The words of the patient's names and numbers, case-folded; short ones would be found everywhere."""
    found: list[str] = []
    for keyword in ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"):
        found += [str(v) for v in values(dataset.get(keyword))]
    for keyword in ("PatientID", "OtherPatientIDs", "AccessionNumber"):
        found += [str(v) for v in values(dataset.get(keyword))]
    words: Iterable[str] = (w for text in found for w in _WORD.findall(text))
    return frozenset(w.casefold() for w in words if len(w) >= 3)


def _earlier(text: str, shift: timedelta) -> str:
    """A DICOM date or date-time moved back, at its own precision; "" for what is none."""
    digits = re.match(r"(\d{4})\.?(\d{2})?\.?(\d{2})?", text.strip())
    if digits is None:
        return ""
    year, month, day = (int(part) if part else 1 for part in digits.groups())
    try:
        moved = date(year, month, day) - shift
    except (ValueError, OverflowError):
        return ""
    precision = sum(part is not None for part in digits.groups())
    rest = text.strip()[digits.end() :] if precision == 3 else ""
    return f"{moved:%Y%m%d}"[: 2 + 2 * precision] + rest


def _dummy(vr: str) -> object:
    """A value of that kind which says nothing."""
    if vr in _NUMBERS:
        return 0
    if vr in ("OB", "OW", "UN"):
        return b"\0\0"
    return {"AS": "000Y", "CS": "ANONYMIZED", "UR": "http://anonymized.invalid"}.get(vr, "Anonymized")


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def report(records: Iterable[Record], left_out: dict[str, int], withheld: Iterable[Record] = ()) -> dict:
    """What was taken out of a set of files, as JSON; it names no value and no patient.

    Args:
        records: of the files that were written.
        left_out: why files were left out → how many.
        withheld: of files that were left out for what their pixels may show.
    """
    records, withheld = list(records), list(withheld)
    totals: Counter[tuple[str, str]] = Counter()
    for record in records:
        totals.update(record.actions)
    return {
        "method": "DICOM PS3.15 Annex E, Table E.1-1 (2026c)",
        "profiles": [{"code": code, "meaning": meaning} for code, meaning in METHODS],
        "files": len(records),
        "left_out": [{"why": why, "files": n} for why, n in sorted(left_out.items())],
        "attributes": [
            {"keyword": clean(keyword), "action": what, "times": n} for (keyword, what), n in sorted(totals.items())
        ],
        "private_elements_removed": sum(r.private for r in records),
        "unknown_elements_removed": sum(r.unknown for r in records),
        "uids_replaced": sum(r.uids for r in records),
        "dates_moved": sum(r.dates for r in records),
        "regions_of_interest": {
            "kept": sorted({name for r in records for name in r.regions}),
            "renamed": sum(r.renamed for r in records),
        },
        "named_elsewhere": sorted({keyword for r in records for keyword in r.named}),
        "pixels": [
            {"instance": r.name, "the image": list(r.flags), "written": written}
            for some, written in ((records, True), (withheld, False))
            for r in some
            if r.flags
        ],
        "notice": "Pixels were not changed and not looked at. Look at every image before it is given away.",
    }
