"""Cleaned reports in → a verified FAISS index on disk, and back → an `Index` in memory.

On disk, a folder holds `CURRENT` (one line: the digest of the generation in force) and that generation's own folder of
the same name: index.faiss (exact inner product), reports.jsonl, sentences.jsonl, sentences.f2 (float16), and
manifest.json, which holds the SHA-256 of each of them.  The generation's name is the SHA-256 of its manifest, so one
flipped byte anywhere means the index is not opened.  A new generation is written beside the old one and put in force by
replacing CURRENT: after a crash either the old or the new one is whole and in force.

One vector stands for one report: its finding terms in words, then findings and impression ("terms first" found reports
with the same findings far more often than the text alone).  Every distinct sentence is embedded too, so that a search
can say at once which sentence matched.

One lock file per folder lets one process write at a time; reading needs no lock.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from filelock import FileLock, Timeout

from core_models.errors import Busy, Cancelled, ModelMissing, Refused
from retrieval import clean, split
from retrieval.embedding import DIMENSIONS, Encoder
from retrieval.report import CorpusReport

Progress = Callable[[int, int, str], None]
Cancel = Callable[[], bool]

FORMAT = 1
SIGNED = "signed"
"""Source of the reports that this house signed."""
CHUNK = 256
"""Texts per saved step of a build: what an interruption can cost."""
CALIBRATION_QUERIES = 300
CALIBRATION_PERCENTILE = 5.0
DEFAULT_MINIMUM = 0.44
"""Used below 50 calibration queries: the value that the Open-i reports give."""
MAX_FILE_BYTES = 4 << 30
LOCK_SECONDS = 5.0

_FILES = ("index.faiss", "reports.jsonl", "sentences.jsonl", "sentences.f2")
_REBUILD = "build it again with `python app.py index`"


@dataclass(frozen=True)
class Manifest:
    """What an index is.

    Attributes:
        corpora: source names with their number of reports.
        left_out: reports not indexed: {"test split": n, "no text": n}.
        minimum: cosine similarity below which a best hit is no close precedent; `calibration` says where it is from.
        files: name → SHA-256.
    """

    corpora: dict[str, int]
    reports: int
    sentences: int
    left_out: dict[str, int]
    embedding_model: str
    dimensions: int
    split_rule: str
    minimum: float
    calibration: str
    created_at: str
    files: dict[str, str]
    format: int = FORMAT


@dataclass(frozen=True)
class Index:
    """An opened, verified index.

    Attributes:
        digest: SHA-256 of the manifest, and with it of everything; a draft cites it.
        reports: row i of `vectors` is report i.
        vectors: FAISS inner-product index over (reports, 384) unit vectors.
        sentences: distinct sentences; `sentence_vectors`: (sentences, 384) float16 unit vectors.
        sentence_rows: for each report the rows of its sentences.
    """

    folder: Path
    digest: str
    manifest: Manifest
    reports: tuple[CorpusReport, ...]
    vectors: faiss.Index
    sentences: tuple[str, ...]
    sentence_vectors: np.ndarray
    sentence_rows: tuple[tuple[int, ...], ...]


def terms_text(terms: Sequence[str]) -> str:
    """Finding terms in words: ("Cardiomegaly/mild", "normal") becomes "cardiomegaly, mild. normal"."""
    words = (", ".join(part.strip().lower() for part in term.split("/")) for term in terms)
    return ". ".join(w for w in words if w and w != "no indexing")


def document(report: CorpusReport) -> str:
    """The text whose embedding stands for the report."""
    terms = terms_text(report.terms)
    return f"{terms}. {report.text}" if terms else report.text


def build(
    reports: Sequence[CorpusReport],
    encoder: Encoder,
    folder: Path,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> Index:
    """Index the training reports of corpora; test studies are left out here, whoever calls.

    An interrupted build goes on from its last saved step when it is started again with the same reports.  Signed
    reports that the folder's index already holds are carried over.

    Args:
        reports: any cleaned reports; those without text are left out and counted.
        folder: created where needed; its present index stays in force until the new one is whole.
        progress: called with (texts embedded, texts in all, what is being done).
        cancelled: asked between steps.

    Raises:
        Refused: nothing is left to index, or two reports have the same source and id.
        Busy: another process is writing this folder.
        Cancelled: `cancelled` said so; the finished steps are kept.
        ModelMissing: the encoder is not installed.
    """
    with _writing(folder):
        kept = {_key(r): r for r in _signed_of(folder)}
        chosen, left_out = _indexable(reports)
        for report in chosen:
            if _key(report) in kept and report.source != SIGNED:
                raise Refused(f"Two reports have the same source and id, {report.id!r}: ids must be unique.")
            kept[_key(report)] = report
        rows = list(kept.values())
        if not rows:
            raise Refused("No report is left to index: all are test studies or have no text.")
        sentence_rows, sentences = _sentences_of(rows)
        queries = _calibration_queries(rows)
        texts = [*map(document, rows), *sentences, *(q for _, q in queries)]
        steps = folder / f"building-{_digest_of_texts(texts, encoder.name)[:16]}"
        every = _embed_in_steps(texts, encoder, steps, progress, cancelled)
        vectors, rest = every[: len(rows)], every[len(rows) :]
        minimum, calibration = _calibrate(rows, vectors, queries, rest[len(sentences) :])
        manifest = _manifest(rows, len(sentences), left_out, encoder.name, minimum, calibration)
        _publish(folder, manifest, rows, vectors, sentences, rest[: len(sentences)], sentence_rows)
        for leftover in folder.glob("building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return open_index(folder)


def add(folder: Path, reports: Sequence[CorpusReport], encoder: Encoder) -> Index:
    """Add reports that this house signed; one that is already there (same id) is replaced, so a repeat does no harm.

    The split is a rule about corpora: a house's own signed report is not a test study, so it is not asked here, and
    therefore nothing but signed reports may come this way.

    Raises:
        Refused: a report's source is not "signed".
        Busy, ModelMissing: as `build` and `open_index`.
    """
    if any(r.source != SIGNED for r in reports):
        raise Refused("Only signed reports can be added to an index; a corpus is indexed with `python app.py index`.")
    with _writing(folder):
        index = open_index(folder)
        new = {_key(r): r for r in reports if r.text}
        gone = {_key(r) for r in reports}
        return _rewrite(index, gone, list(new.values()), encoder) if gone else index


def remove(folder: Path, ids: Sequence[str], encoder: Encoder) -> Index:
    """Take signed reports out again, by report id (their study was deleted).  Raises as `add`."""
    with _writing(folder):
        index = open_index(folder)
        gone = {(SIGNED, i) for i in ids} & {_key(r) for r in index.reports}
        return _rewrite(index, gone, [], encoder) if gone else index


def open_index(folder: Path) -> Index:
    """Open the generation in force after every byte of it was verified; FAISS sees only verified bytes.

    Raises:
        ModelMissing: there is no index, or its bytes are not those that were written; the message says how to rebuild.
    """
    current = folder / "CURRENT"
    if not current.is_file():
        raise ModelMissing(f"There is no index of prior reports yet: {_REBUILD}.")
    digest = _read(current, "CURRENT").decode("ascii", "replace").strip()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise _damaged("CURRENT")
    generation = folder / digest
    manifest_bytes = _read(generation / "manifest.json", "manifest.json")
    if hashlib.sha256(manifest_bytes).hexdigest() != digest:
        raise _damaged("manifest.json")
    fields = json.loads(manifest_bytes)
    if fields.get("format") != FORMAT:
        raise ModelMissing(f"The index of prior reports was written by another version: {_REBUILD}.")
    manifest = Manifest(**fields)
    content: dict[str, bytes] = {}
    for name in _FILES:
        content[name] = _read(generation / name, name)
        if hashlib.sha256(content[name]).hexdigest() != manifest.files.get(name):
            raise _damaged(name)
    reports, sentence_rows = [], []
    for line in content["reports.jsonl"].decode("utf-8").splitlines():
        row = json.loads(line)
        sentence_rows.append(tuple(row.pop("sentence_rows")))
        reports.append(CorpusReport(**row | {"terms": tuple(row["terms"]), "flags": tuple(row["flags"])}))
    sentences = tuple(json.loads(line) for line in content["sentences.jsonl"].decode("utf-8").splitlines())
    vectors = _from_bytes(content["index.faiss"])
    sentence_vectors = np.frombuffer(content["sentences.f2"], dtype="<f2").reshape(-1, DIMENSIONS)
    if vectors.ntotal != len(reports) or len(sentence_vectors) != len(sentences):
        raise _damaged("index.faiss")
    return Index(folder, digest, manifest, tuple(reports), vectors, sentences, sentence_vectors, tuple(sentence_rows))


def in_force(folder: Path) -> str:
    """The digest that CURRENT names, nothing verified; "" where there is no index."""
    try:
        return (folder / "CURRENT").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _key(report: CorpusReport) -> tuple[str, str]:
    return report.source, report.id


def _indexable(reports: Sequence[CorpusReport]) -> tuple[list[CorpusReport], dict[str, int]]:
    chosen: dict[tuple[str, str], CorpusReport] = {}
    left_out = {"test split": 0, "no text": 0}
    for report in reports:
        if split.split_of(report.study_id) == "test":
            left_out["test split"] += 1
        elif not report.text:
            left_out["no text"] += 1
        elif _key(report) in chosen:
            raise Refused(f"Two reports have the same source and id, {report.id!r}: ids must be unique.")
        else:
            chosen[_key(report)] = report
    return list(chosen.values()), left_out


def _signed_of(folder: Path) -> list[CorpusReport]:
    try:
        return [r for r in open_index(folder).reports if r.source == SIGNED]
    except ModelMissing:
        return []  # none yet, or damaged: the store feeds its signed reports in again


def _sentences_of(reports: Sequence[CorpusReport]) -> tuple[list[tuple[int, ...]], list[str]]:
    """For each report the rows of its sentences, and the distinct sentences; lone words ("Chest.") match nothing."""
    rows: dict[str, int] = {}
    per_report = []
    for report in reports:
        own = dict.fromkeys(s for s in clean.sentences(report.text) if len(s.split()) > 1)
        per_report.append(tuple(rows.setdefault(s, len(rows)) for s in own))
    return per_report, list(rows)


def _calibration_queries(reports: Sequence[CorpusReport]) -> list[tuple[int, str]]:
    """(report row, a query as a reader would cause it: indication and finding terms) for a fixed sample."""
    queries = []
    for row in random.Random(0).sample(range(len(reports)), min(CALIBRATION_QUERIES, len(reports))):
        terms = terms_text(reports[row].terms)
        if terms:
            queries.append((row, f"{reports[row].indication} {terms}".strip()))
    return queries


def _calibrate(
    reports: Sequence[CorpusReport], vectors: np.ndarray, queries: list[tuple[int, str]], embedded: np.ndarray
) -> tuple[float, str]:
    """The similarity that the best hit of all but a few real queries reaches, each without its own study."""
    if len(queries) < 50:
        return DEFAULT_MINIMUM, f"default: {len(queries)} reports with terms are too few to calibrate on"
    scores = embedded @ vectors.T  # (queries, reports)
    studies = np.array([r.study_id for r in reports])
    for i, (row, _) in enumerate(queries):
        scores[i, studies == studies[row]] = -1.0
    minimum = float(np.percentile(scores.max(1), CALIBRATION_PERCENTILE))
    return round(minimum, 4), (
        f"{CALIBRATION_PERCENTILE:g}th percentile of the best score of {len(queries)} indexed reports' own indication "
        "and terms, each searched without its own study"
    )


def _digest_of_texts(texts: Sequence[str], model: str) -> str:
    sha = hashlib.sha256(f"{FORMAT} {model} {CHUNK}".encode())
    for text in texts:
        sha.update(b"\0" + text.encode("utf-8", "replace"))
    return sha.hexdigest()


def _embed_in_steps(
    texts: Sequence[str], encoder: Encoder, steps: Path, progress: Progress | None, cancelled: Cancel | None
) -> np.ndarray:
    """(n, 384) float32; each step is saved, so that the next build with the same texts starts where this one ended."""
    steps.mkdir(parents=True, exist_ok=True)
    vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(texts), CHUNK):
        if cancelled and cancelled():
            raise Cancelled("Indexing was stopped; start it again to go on from here.")
        part = texts[start : start + CHUNK]
        saved = steps / f"{start:08d}.f4"
        block = _saved_step(saved, len(part))
        if block is None:
            block = np.ascontiguousarray(encoder.encode(part), dtype="<f4")
            content = block.tobytes()
            _write(saved.with_suffix(".tmp"), hashlib.sha256(content).digest() + content)
            os.replace(saved.with_suffix(".tmp"), saved)
        vectors[start : start + len(part)] = block
        if progress:
            progress(start + len(part), len(texts), "Embedding reports and sentences")
    return vectors


def _saved_step(saved: Path, count: int) -> np.ndarray | None:
    if not saved.is_file():
        return None
    content = saved.read_bytes()
    if len(content) != 32 + count * DIMENSIONS * 4 or hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return np.frombuffer(content[32:], dtype="<f4").reshape(count, DIMENSIONS)


def _manifest(
    reports: Sequence[CorpusReport],
    sentences: int,
    left_out: dict[str, int],
    model: str,
    minimum: float,
    calibration: str,
) -> Manifest:
    sources = [r.source for r in reports]
    return Manifest(
        corpora={name: sources.count(name) for name in dict.fromkeys(sources)},
        reports=len(reports),
        sentences=sentences,
        left_out=left_out,
        embedding_model=model,
        dimensions=DIMENSIONS,
        split_rule=split.RULE,
        minimum=minimum,
        calibration=calibration,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files={},
    )


def _rewrite(index: Index, gone: set[tuple[str, str]], new: list[CorpusReport], encoder: Encoder) -> Index:
    """A new generation without the reports `gone` and with `new`; only new texts are embedded."""
    if index.manifest.embedding_model != encoder.name:
        raise ModelMissing(f"The index of prior reports was made by another text encoder: {_REBUILD}.")
    stay = [i for i, r in enumerate(index.reports) if _key(r) not in gone]
    rows = [index.reports[i] for i in stay] + new
    if not rows:
        raise Refused("The last report of an index cannot be taken out.")
    old = index.vectors.reconstruct_n(0, index.vectors.ntotal) if index.vectors.ntotal else np.zeros((0, DIMENSIONS))
    vectors = np.concatenate([old[stay], encoder.encode([document(r) for r in new])]).astype(np.float32)
    sentence_rows, sentences = _sentences_of(rows)
    known = {s: i for i, s in enumerate(index.sentences)}
    fresh = [s for s in sentences if s not in known]
    pool = np.concatenate([index.sentence_vectors, encoder.encode(fresh).astype(np.float16)])
    place = known | {s: len(known) + i for i, s in enumerate(fresh)}
    sentence_vectors = pool[[place[s] for s in sentences]] if sentences else np.zeros((0, DIMENSIONS), np.float16)
    before = index.manifest
    manifest = _manifest(
        rows, len(sentences), before.left_out, before.embedding_model, before.minimum, before.calibration
    )
    _publish(index.folder, manifest, rows, vectors, sentences, sentence_vectors, sentence_rows)
    return open_index(index.folder)


def _publish(
    folder: Path,
    manifest: Manifest,
    reports: Sequence[CorpusReport],
    vectors: np.ndarray,
    sentences: Sequence[str],
    sentence_vectors: np.ndarray,
    sentence_rows: Sequence[tuple[int, ...]],
) -> None:
    """Write a generation, put it in force, and only then drop the others."""
    flat = faiss.IndexFlatIP(DIMENSIONS)
    flat.add(np.ascontiguousarray(vectors, dtype=np.float32))
    content = {
        "index.faiss": _to_bytes(flat),
        "reports.jsonl": _lines(asdict(r) | {"sentence_rows": s} for r, s in zip(reports, sentence_rows, strict=True)),
        "sentences.jsonl": _lines(sentences),
        "sentences.f2": np.ascontiguousarray(sentence_vectors, dtype="<f2").tobytes(),
    }
    manifest = replace(manifest, files={n: hashlib.sha256(c).hexdigest() for n, c in content.items()})
    manifest_bytes = json.dumps(asdict(manifest), indent=1, sort_keys=True).encode()
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=folder))
    try:
        for name, data in (content | {"manifest.json": manifest_bytes}).items():
            _write(temporary / name, data)
        if (folder / digest).exists():  # the same content again: written anew, in case the old bytes were damaged
            shutil.rmtree(folder / digest)
        os.replace(temporary, folder / digest)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _write(folder / "CURRENT.tmp", f"{digest}\n".encode())
    os.replace(folder / "CURRENT.tmp", folder / "CURRENT")
    for other in folder.iterdir():
        is_generation = len(other.name) == 64 and other.name != digest
        if other.is_dir() and (is_generation or other.name.startswith("writing-")):
            shutil.rmtree(other, ignore_errors=True)


def _lines(values: Iterator[object] | Sequence[object]) -> bytes:
    # ASCII JSON: no character of a report can be taken for a line end.
    return b"".join(json.dumps(v).encode("ascii") + b"\n" for v in values)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _damaged(name)
        return path.read_bytes()
    except OSError as error:
        raise _damaged(name) from error


def _damaged(name: str) -> ModelMissing:
    return ModelMissing(f"The index of prior reports is damaged ({name} is not what was written): {_REBUILD}.")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "writing.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise Busy("The index of prior reports is being written by another process: try again in a moment.") from error


def _to_bytes(vectors: faiss.Index) -> bytes:
    """The index as bytes.

    Not `faiss.serialize_index`: where SimpleITK was imported first, SWIG hands it that package's byte vector.
    """
    out = io.BytesIO()
    faiss.write_index(vectors, faiss.PyCallbackIOWriter(out.write))
    return out.getvalue()


def _from_bytes(content: bytes) -> faiss.Index:
    """The index in the bytes, whose digest the caller has verified."""
    return faiss.read_index(faiss.PyCallbackIOReader(io.BytesIO(content).read))
