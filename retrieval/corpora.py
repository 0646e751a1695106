"""A corpus's name, a folder of reports or a CSV file in → cleaned `CorpusReport`s out.

A new corpus is one reader function here and one line in `NAMED`.  Files are untrusted: nothing is unpacked to disk,
sizes are capped before they are read, and XML with a document type (the door to entity bombs) is refused unparsed.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core_models.errors import ModelMissing, Refused, TooLarge
from retrieval import clean
from retrieval.report import CorpusReport

Progress = Callable[[int, int, str], None]
"""Called with (done, total, text); total is 0 where it is not known beforehand."""
Note = Callable[[str], None]

MAX_REPORT_BYTES = 4 << 20
MAX_CSV_BYTES = 512 << 20
MAX_REPORTS = 500_000
MAX_FIELD_CHARACTERS = 1 << 20
MAX_ID_CHARACTERS = 128

SUFFIXES = (".txt", ".json", ".xml", ".csv", ".tsv")
COLUMNS = ("id", "study_id", "indication", "findings", "impression", "text", "terms", "modality", "region", "date")
_TEXT_COLUMNS = ("findings", "impression", "text")
_HEADINGS = {
    "indication": "indication",
    "clinical history": "indication",
    "clinical information": "indication",
    "history": "indication",
    "findings": "findings",
    "impression": "impression",
    "conclusion": "impression",
    "opinion": "impression",
    "comparison": "",
    "technique": "",
    "exam": "",
    "examination": "",
}
_HEADING = re.compile(
    rf"^[ \t]*(?P<name>{'|'.join(sorted(_HEADINGS, key=len, reverse=True))})[ \t]*:", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class _Raw:
    """One report as its file has it."""

    id: str
    study_id: str = ""
    indication: str = ""
    findings: str = ""
    impression: str = ""
    terms: tuple[str, ...] = ()
    modality: str = "CR"
    region: str = "chest"
    date: str = ""


def read(corpus: str | Path, progress: Progress | None = None, note: Note | None = None) -> tuple[CorpusReport, ...]:
    """Read and clean a corpus.

    Args:
        corpus: a name in `NAMED` ("open-i"), or the path of a folder of .txt, .json, .xml, .csv or .tsv reports, or of
            one such file.
        progress: called as reports are read.
        note: called with a sentence for what was left out (unknown columns, links, other files).

    Returns:
        The reports in the corpus's order.  A report whose every sentence was dropped stays, with an empty text: its
        terms are still true of its images.

    Raises:
        ModelMissing: the package that holds a named corpus is not installed.
        Refused: there is no such corpus, or a file in it is not a report in the form that its name says.
        TooLarge: a file or the number of reports is over its limit.
    """
    name = str(corpus)
    if name in NAMED:
        return _cleaned(NAMED[name](progress or _silent), name)
    path = Path(corpus)
    if not path.exists():
        raise Refused(f"There is no corpus, folder or file called {path.name!r}; named corpora: {', '.join(NAMED)}.")
    return _cleaned(_files(path, progress or _silent, note or _unnoted), path.stem or "folder")


def _open_i(progress: Progress) -> Iterator[_Raw]:
    """The Indiana University collection as the torchxrayvision package carries it; read in memory."""
    package = importlib.util.find_spec("torchxrayvision")
    archive = Path(package.origin).parent / "data" / "NLMCXR_reports.tgz" if package and package.origin else None
    if archive is None or not archive.is_file():
        raise ModelMissing("The Open-i reports come with torchxrayvision, which is not installed: run `make prepare`.")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for done, member in enumerate(tar, start=1):
                if done > MAX_REPORTS:
                    raise TooLarge(f"The Open-i archive holds more than {MAX_REPORTS:,} entries.")
                if not member.isreg() or not member.name.endswith(".xml"):
                    continue
                label = Path(member.name).name
                if member.size > MAX_REPORT_BYTES:
                    raise TooLarge(
                        f"{label} in the Open-i archive has {member.size:,} bytes, over {MAX_REPORT_BYTES:,}."
                    )
                content = tar.extractfile(member)
                yield _citation(_xml(content.read() if content else b"", label), label)
                progress(done, 0, "Reading Open-i reports")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Refused("The Open-i archive is damaged: install torchxrayvision again.") from error


NAMED: dict[str, Callable[[Progress], Iterable[_Raw]]] = {"open-i": _open_i}


def _cleaned(raws: Iterable[_Raw], source: str) -> tuple[CorpusReport, ...]:
    reports: dict[str, CorpusReport] = {}
    for raw in raws:
        if raw.id in reports:
            raise Refused(f"Two reports of the corpus {source!r} have the same id, {raw.id!r}: ids must be unique.")
        if len(reports) >= MAX_REPORTS:
            raise TooLarge(f"The corpus {source!r} has more than {MAX_REPORTS:,} reports.")
        reports[raw.id] = _clean_report(raw, source)
    if not reports:
        raise Refused(f"The corpus {source!r} holds no reports.")
    return tuple(reports.values())


def _clean_report(raw: _Raw, source: str) -> CorpusReport:
    findings, findings_flags, holes = clean.section(raw.findings)
    impression, impression_flags, more_holes = clean.section(raw.impression)
    indication, indication_flags = clean.indication(raw.indication)
    flags = list(dict.fromkeys(findings_flags + impression_flags + indication_flags))
    if holes + more_holes:
        flags.append(f"de-identified sentences dropped: {holes + more_holes}")
    return CorpusReport(
        id=raw.id,
        study_id=raw.study_id or raw.id,
        indication=indication,
        findings=findings,
        impression=impression,
        terms=tuple(t for t in (" ".join(clean.guard.clean(t)[0].split()) for t in raw.terms) if t),
        modality=raw.modality,
        region=raw.region,
        source=source,
        date=raw.date,
        flags=tuple(flags),
    )


def _files(path: Path, progress: Progress, note: Note) -> Iterator[_Raw]:
    if path.is_file():
        yield from _file(path, path.name, path.stem, note)
        return
    files, ignored = [], 0
    for file in sorted(path.rglob("*")):
        if file.is_symlink() or (file.is_file() and file.suffix.lower() not in SUFFIXES):
            ignored += 1  # a link may lead out of the folder that the user named
        elif file.is_file():
            files.append(file)
        if len(files) > MAX_REPORTS:
            raise TooLarge(f"The folder {path.name!r} has more than {MAX_REPORTS:,} report files.")
    if ignored:
        note(f"{ignored} links and files of other kinds were left out.")
    if not files:
        raise Refused(f"The folder {path.name!r} holds no reports; expected files ending in {', '.join(SUFFIXES)}.")
    for done, file in enumerate(files, start=1):
        relative = file.relative_to(path)
        yield from _file(file, relative.as_posix(), relative.with_suffix("").as_posix(), note)
        progress(done, len(files), "Reading reports")


def _file(file: Path, label: str, stem: str, note: Note) -> Iterator[_Raw]:
    """The reports in one file; `label` names it in refusals, `stem` is the id of a report that has none."""
    suffix = file.suffix.lower()
    limit = MAX_CSV_BYTES if suffix in (".csv", ".tsv") else MAX_REPORT_BYTES
    try:
        size = file.stat().st_size
        if size > limit:
            raise TooLarge(f"{label} has {size:,} bytes, over the limit of {limit:,}.")
        content = file.read_bytes()
    except OSError as error:
        raise Refused(f"{label} cannot be read ({error.strerror}).") from error
    if suffix in (".csv", ".tsv"):
        yield from _table(_text(content, label), label, stem, note)
    elif suffix == ".json":
        yield from _json(_text(content, label), label, stem)
    elif suffix == ".xml":
        yield _citation(_xml(content, label), label, stem)
    elif suffix == ".txt":
        yield _Raw(_identifier(stem, label), **_sections(_text(content, label)))
    else:
        raise Refused(f"{label} is not a report file; expected one ending in {', '.join(SUFFIXES)}.")


def _text(content: bytes, label: str) -> str:
    if b"\0" in content:
        raise Refused(f"{label} holds binary data; expected UTF-8 text.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{label} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def _xml(content: bytes, label: str) -> ET.Element:
    text = _text(content, label)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Refused(f"{label} declares a document type or entities, which reports never need.")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise Refused(f"{label} is not well-formed XML.") from error


def _citation(root: ET.Element, label: str, stem: str = "") -> _Raw:
    """One report in the Open-i form: eCitation with labelled AbstractText and MeSH `major` terms.

    The `automatic` terms were found by a program in the text and are not read: they take negated findings for findings.
    """
    identity = root.find("uId")
    sections = {
        part.get("Label", "").lower(): "".join(part.itertext())
        for part in root.iter("AbstractText")
        if part.get("Label")
    }
    if identity is None and not sections:
        raise Refused(f"{label} is not a report in the Open-i form (no uId, no AbstractText).")
    return _Raw(
        id=_identifier((identity.get("id") if identity is not None else "") or stem, label),
        indication=sections.get("indication", ""),
        findings=sections.get("findings", ""),
        impression=sections.get("impression", ""),
        terms=tuple(t.text.strip() for t in root.iter("major") if t.text and t.text.strip()),
    )


def _json(text: str, label: str, stem: str) -> Iterator[_Raw]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{label} is not valid JSON.") from error
    items = value if isinstance(value, list) else [value]
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise Refused(f"{label} item {number} is not an object with the keys {', '.join(COLUMNS)}.")
        fields = {str(k).lower(): v for k, v in item.items()}
        terms = fields.pop("terms", ())
        if isinstance(terms, list):
            terms = ";".join(str(t) for t in terms)
        row = {k: str(v) for k, v in fields.items() if isinstance(v, str | int)} | {"terms": str(terms or "")}
        if not any(column in row for column in _TEXT_COLUMNS):
            raise Refused(f"{label} item {number} has no report text; expected one of {', '.join(_TEXT_COLUMNS)}.")
        yield _row(row, f"{label} item {number}", stem if len(items) == 1 else f"{stem}-{number}")


def _table(text: str, label: str, stem: str, note: Note) -> Iterator[_Raw]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=header.count)
    previous = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
        names = {name: name.strip().lower() for name in reader.fieldnames or () if name}
        if not any(column in names.values() for column in _TEXT_COLUMNS):
            raise Refused(f"{label} has no column with report text; expected one of {', '.join(_TEXT_COLUMNS)}.")
        unknown = sum(name not in COLUMNS for name in names.values())
        if unknown:
            note(f"{unknown} columns of {label} that are not {', '.join(COLUMNS)} were left out.")
        for number, values in enumerate(reader, start=1):
            row = {names[k]: v for k, v in values.items() if k in names and isinstance(v, str)}
            yield _row(row, f"{label} row {number}", f"{stem}-{number}")
    except csv.Error as error:
        raise Refused(f"{label} is not a readable table ({error}).") from error
    finally:
        csv.field_size_limit(previous)


def _row(row: dict[str, str], label: str, fallback: str) -> _Raw:
    sections = _sections(row["text"]) if row.get("text") else {}
    for name in ("indication", "findings", "impression"):
        if row.get(name):
            sections[name] = row[name]
    return _Raw(
        id=_identifier(row.get("id", "").strip() or fallback, label),
        study_id=row.get("study_id", "").strip()[:MAX_ID_CHARACTERS],
        terms=tuple(t.strip() for t in row.get("terms", "").split(";") if t.strip()),
        modality=(row.get("modality", "").strip().upper() or "CR")[:16],
        region=(row.get("region", "").strip().lower() or "chest")[:64],
        date="".join(c for c in row.get("date", "") if c in "0123456789")[:8],
        **sections,
    )


def _sections(text: str) -> dict[str, str]:
    """Split a free text at its headings; a text without any is findings."""
    parts = {"indication": "", "findings": "", "impression": ""}
    current, start = "findings", 0
    for match in [*_HEADING.finditer(text), None]:
        end = match.start() if match else len(text)
        if current:
            parts[current] = f"{parts[current]}\n\n{text[start:end]}".strip()
        if match:
            current, start = _HEADINGS[match.group("name").lower()], match.end()
    return parts


def _identifier(value: str, label: str) -> str:
    cleaned = "".join(c for c in value.strip() if c.isprintable())
    if not cleaned or len(cleaned) > MAX_ID_CHARACTERS:
        raise Refused(f"{label} has an id of {len(cleaned)} characters; expected 1 to {MAX_ID_CHARACTERS}.")
    return cleaned


def _silent(done: int, total: int, text: str) -> None:
    """No progress wanted."""


def _unnoted(text: str) -> None:
    """No notes wanted."""
