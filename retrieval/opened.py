"""A verified index on disk ↔ an `Index` in memory.

A generation on disk (see `generation`) holds index.faiss (inner product, see `vectors`), reports.jsonl,
sentences.jsonl, sentences.f2 (float16) and, where there is something of the shared image-text space, shared.f2 (a
vector for each report's text), images.f2 and images.i4 (a vector for the radiograph of a signed study, and its report's
row).

Format 1 had nothing of the shared space, format 2 was always exact; both still open.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np

from core_models.errors import ModelMissing
from retrieval import guard
from retrieval import shared as space
from retrieval import vectors as search_index
from retrieval.embedding import DIMENSIONS
from retrieval.generation import REBUILD, damaged, publish, read_file, read_manifest
from retrieval.report import CorpusReport
from retrieval.shared import SharedVectors

FORMAT = 3
READABLE = (1, 2, FORMAT)

_FILES = ("index.faiss", "reports.jsonl", "sentences.jsonl", "sentences.f2")
_OPTIONAL = (space.TEXTS, space.IMAGES, space.IMAGE_ROWS)


@dataclass(frozen=True)
class Manifest:
    """What an index is.

    Attributes:
        corpora: source names with their number of reports.
        left_out: reports not indexed: {"test split": n, "no text": n}.
        minimum: cosine similarity below which a best hit is no close precedent; `calibration` says where it is from.
        files: name → SHA-256.
        shared_model: names the shared image-text space of shared.f2 and images.f2; "" where there is neither.
        shared_texts, images: how many reports have a text vector there (all or 0), how many an image vector.
        shared_note: why there are no text vectors, as a clause; "" where there are.
        image_minimum: as `minimum`, for a radiograph among the report texts; None: not calibrated.
        image_floor: cosine similarity below which two radiographs are no more alike than most; None: not calibrated.
        kind: of the vectors' index, "exact" or "inverted lists"; the latter from `exact_below` reports on.
        recall_at_10: of its text search against exact search, measured when it was written; 1 for an exact one.
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
    shared_model: str = ""
    shared_dimensions: int = 0
    shared_texts: int = 0
    images: int = 0
    shared_note: str = space.OLD_FORMAT
    image_minimum: float | None = None
    image_calibration: str = ""
    image_floor: float | None = None
    kind: str = search_index.EXACT
    exact_below: int = search_index.EXACT_BELOW
    recall_at_10: float = 1.0


@dataclass(frozen=True)
class Index:
    """An opened, verified index.

    Attributes:
        digest: SHA-256 of the manifest, and with it of everything; a draft cites it.
        reports: row i of `vectors` is report i.
        vectors: FAISS inner-product index over (reports, 384) unit vectors.
        sentences: distinct sentences; `sentence_vectors`: (sentences, 384) float16 unit vectors.
        sentence_rows: for each report the rows of its sentences.
        shared: the vectors of the shared image-text space.
    """

    folder: Path
    digest: str
    manifest: Manifest
    reports: tuple[CorpusReport, ...]
    vectors: faiss.Index
    sentences: tuple[str, ...]
    sentence_vectors: np.ndarray
    sentence_rows: tuple[tuple[int, ...], ...]
    shared: SharedVectors

    @property
    def with_image(self) -> frozenset[str]:
        """Ids of the signed reports whose study's radiograph is in the index."""
        return frozenset(self.reports[row].id for row in self.shared.image_rows.tolist())

    def times(self, sentence: str) -> int:
        """How many reports hold the sentence; case, punctuation and spacing aside."""
        return self._times[guard.words(sentence)]

    @cached_property
    def _times(self) -> Counter[str]:
        words = [guard.words(s) for s in self.sentences]
        return Counter(text for rows in self.sentence_rows for text in {words[row] for row in rows})

    def takes(self, image_model: str) -> bool:
        """Whether `add` would store an image vector of this model."""
        return self.shared.texts is None or self.shared.model == image_model


def open_index(folder: Path) -> Index:
    """Open the generation in force after every byte of it was verified; FAISS sees only verified bytes.

    Raises:
        ModelMissing: there is no index, or its bytes are not those that were written; the message says how to rebuild.
    """
    digest, fields = read_manifest(folder)
    if fields.get("format") not in READABLE:
        raise ModelMissing(f"The index of prior reports was written by another version: {REBUILD}.")
    manifest = Manifest(**fields)
    names = (*_FILES, *(n for n in _OPTIONAL if n in manifest.files))
    content = {n: read_file(folder / digest, n, manifest.files.get(n)) for n in names}
    reports, sentence_rows = [], []
    for line in content["reports.jsonl"].decode("utf-8").splitlines():
        row = json.loads(line)
        sentence_rows.append(tuple(row.pop("sentence_rows")))
        reports.append(CorpusReport(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}))
    sentences = tuple(json.loads(line) for line in content["sentences.jsonl"].decode("utf-8").splitlines())
    vectors = _from_bytes(content["index.faiss"])
    sentence_vectors = np.frombuffer(content["sentences.f2"], dtype="<f2").reshape(-1, DIMENSIONS)
    if vectors.ntotal != len(reports) or len(sentence_vectors) != len(sentences):
        raise damaged("index.faiss")
    try:
        held = SharedVectors.read(manifest.shared_model, manifest.shared_dimensions, len(reports), content)
    except (ValueError, KeyError) as error:
        raise damaged(space.TEXTS) from error
    return Index(
        folder, digest, manifest, tuple(reports), vectors, sentences, sentence_vectors, tuple(sentence_rows), held
    )


def store(
    folder: Path,
    manifest: Manifest,
    reports: Sequence[CorpusReport],
    vectors: np.ndarray,
    sentences: Sequence[str],
    sentence_vectors: np.ndarray,
    sentence_rows: Sequence[tuple[int, ...]],
    held: SharedVectors,
    like: faiss.Index | None = None,
) -> None:
    """Write a generation of the parts; the manifest's counts are theirs.  `like`: the index that it replaces."""
    searched = search_index.build(vectors, manifest.exact_below, like)
    content = {
        "index.faiss": _to_bytes(searched),
        "reports.jsonl": _lines(asdict(r) | {"sentence_rows": s} for r, s in zip(reports, sentence_rows, strict=True)),
        "sentences.jsonl": _lines(sentences),
        "sentences.f2": np.ascontiguousarray(sentence_vectors, dtype="<f2").tobytes(),
        **held.files(),
    }
    sources = [r.source for r in reports]
    manifest = replace(
        manifest,
        corpora={name: sources.count(name) for name in dict.fromkeys(sources)},
        reports=len(reports),
        sentences=len(sentences),
        format=FORMAT,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        shared_model=held.model,
        shared_dimensions=held.dimensions,
        shared_texts=0 if held.texts is None else len(held.texts),
        images=len(held.image_rows),
        kind=search_index.kind(searched),
        recall_at_10=round(search_index.recall(searched, vectors), 4),
    )
    publish(folder, content, lambda files: asdict(replace(manifest, files=files)))


def _lines(values: Iterator[object] | Sequence[object]) -> bytes:
    # ASCII JSON: no character of a report can be taken for a line end.
    return b"".join(json.dumps(v).encode("ascii") + b"\n" for v in values)


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
