"""Small reports, an encoder of words that needs no weights, and the real encoder with a small real index, once."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval import corpora, embedding, index
from retrieval.report import CorpusReport
from retrieval.split import split_of


class WordEncoder:
    """Bag of hashed words, unit length: texts that share words are near each other."""

    name = "words"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += texts
        vectors = np.zeros((len(texts), embedding.DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
                place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % embedding.DIMENSIONS
                vectors[row, place] += 1.0
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class SharedWords:
    """A shared image-text space of words: the image of a text is that text's own vector, a little turned."""

    dimensions = 64

    def __init__(self, name: str = "eyes/1 (abc)") -> None:
        self.name = name
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += texts
        vectors = WordEncoder().encode(texts).reshape(len(texts), -1, self.dimensions).sum(1)
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def image(self, text: str) -> np.ndarray:
        turned = self.encode([text])[0] + 0.05 * self.encode(["pixels"])[0]
        return turned / np.linalg.norm(turned)


def report(id: str, findings: str, **fields: object) -> CorpusReport:
    return CorpusReport(**{"id": id, "study_id": id, "indication": "", "findings": findings, "impression": ""} | fields)


def ids_of(side: str, count: int) -> list[str]:
    return [name for i in range(100 * count) if split_of(name := f"S{i}") == side][:count]


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def shared() -> SharedWords:
    return SharedWords()


@pytest.fixture(scope="session")
def open_i() -> tuple[CorpusReport, ...]:
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision, which carries the Open-i reports, is not installed")
    return corpora.read("open-i")


@pytest.fixture(scope="session")
def encoder() -> embedding.TextEncoder:
    if importlib.util.find_spec(embedding.PACKAGE) is None:
        pytest.skip("the package of the text encoder is not installed")
    return embedding.TextEncoder(threads=1)


@pytest.fixture(scope="session")
def real_index(
    open_i: tuple[CorpusReport, ...], encoder: embedding.TextEncoder, tmp_path_factory: pytest.TempPathFactory
) -> index.Index:
    folder: Path = tmp_path_factory.mktemp("index")
    return index.build(open_i[:300], encoder, folder)
