"""Texts and an encoder in → their vectors out, saved step by step, so that an interrupted build goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core_models.errors import Cancelled
from retrieval.embedding import Encoder
from retrieval.generation import write

Progress = Callable[[int, int, str], None]
Cancel = Callable[[], bool]

CHUNK = 256
"""Texts per saved step of a build: what an interruption can cost."""


def embed(
    texts: Sequence[str],
    encoder: Encoder,
    dimensions: int,
    folder: Path,
    progress: Callable[[int], None] = lambda _: None,
    cancelled: Cancel | None = None,
) -> np.ndarray:
    """Embed the texts; each step is saved in `folder`, named by the texts and the encoder.

    Args:
        progress: called with the number of texts embedded so far.
        cancelled: asked between steps.

    Returns:
        (n, dimensions) float32.

    Raises:
        Cancelled: `cancelled` said so; the finished steps are kept.
    """
    steps = folder / f"building-{_digest_of(texts, encoder.name, dimensions)[:16]}"
    steps.mkdir(parents=True, exist_ok=True)
    vectors = np.empty((len(texts), dimensions), dtype=np.float32)
    for start in range(0, len(texts), CHUNK):
        if cancelled and cancelled():
            raise Cancelled("Indexing was stopped; start it again to go on from here.")
        part = texts[start : start + CHUNK]
        saved = steps / f"{start:08d}.f4"
        block = _saved(saved, len(part), dimensions)
        if block is None:
            block = np.ascontiguousarray(encoder.encode(part), dtype="<f4")
            content = block.tobytes()
            write(saved.with_suffix(".tmp"), hashlib.sha256(content).digest() + content)
            os.replace(saved.with_suffix(".tmp"), saved)
        vectors[start : start + len(part)] = block
        progress(start + len(part))
    return vectors


def forget(folder: Path) -> None:
    """Drop all saved steps: the build that they were for is whole."""
    for leftover in folder.glob("building-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _digest_of(texts: Sequence[str], model: str, dimensions: int) -> str:
    sha = hashlib.sha256(f"1 {model} {dimensions} {CHUNK}".encode())
    for text in texts:
        sha.update(b"\0" + text.encode("utf-8", "replace"))
    return sha.hexdigest()


def _saved(saved: Path, count: int, dimensions: int) -> np.ndarray | None:
    if not saved.is_file():
        return None
    content = saved.read_bytes()
    if len(content) != 32 + count * dimensions * 4 or hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return np.frombuffer(content[32:], dtype="<f4").reshape(count, dimensions)
