"""Named bytes in → a generation on disk, put in force at once or not at all; and back → verified bytes.

A folder holds `CURRENT` (one line: the digest of the generation in force) and that generation's own folder of the same
name, with its files and manifest.json, which holds the SHA-256 of each of them.  The generation's name is the SHA-256
of its manifest, so one flipped byte anywhere means that it is not opened.  A new generation is written beside the old
one and put in force by replacing CURRENT: after a crash either the old or the new one is whole and in force.

One lock file per folder lets one process write at a time; reading needs no lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core_models.errors import Busy, ModelMissing

MAX_FILE_BYTES = 4 << 30
LOCK_SECONDS = 5.0
REBUILD = "build it again with `python app.py index`"


def publish(folder: Path, content: Mapping[str, bytes], manifest: Callable[[dict[str, str]], Mapping[str, Any]]) -> str:
    """Write a generation, put it in force, and only then drop the others.

    Args:
        content: file name → bytes.
        manifest: file name → SHA-256 in, the manifest's fields out.

    Returns:
        The generation's digest.
    """
    fields = manifest({name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
    manifest_bytes = json.dumps(fields, indent=1, sort_keys=True).encode()
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=folder))
    try:
        for name, data in {**content, "manifest.json": manifest_bytes}.items():
            write(temporary / name, data)
        if (folder / digest).exists():  # the same content again: written anew, in case the old bytes were damaged
            shutil.rmtree(folder / digest)
        os.replace(temporary, folder / digest)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    write(folder / "CURRENT.tmp", f"{digest}\n".encode())
    os.replace(folder / "CURRENT.tmp", folder / "CURRENT")
    for other in folder.iterdir():
        is_generation = len(other.name) == 64 and other.name != digest
        if other.is_dir() and (is_generation or other.name.startswith("writing-")):
            shutil.rmtree(other, ignore_errors=True)
    return digest


def read_manifest(folder: Path) -> tuple[str, dict[str, Any]]:
    """The digest in force and its verified manifest's fields.  Raises ModelMissing: there is none, or it is damaged."""
    current = folder / "CURRENT"
    if not current.is_file():
        raise ModelMissing(f"There is no index of prior reports yet: {REBUILD}.")
    digest = _read(current, "CURRENT").decode("ascii", "replace").strip()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise damaged("CURRENT")
    manifest_bytes = _read(folder / digest / "manifest.json", "manifest.json")
    if hashlib.sha256(manifest_bytes).hexdigest() != digest:
        raise damaged("manifest.json")
    return digest, json.loads(manifest_bytes)


def read_file(generation: Path, name: str, sha256: str | None) -> bytes:
    """A file of a generation.  Raises ModelMissing: its bytes are not those that were written."""
    content = _read(generation / name, name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(name)
    return content


def in_force(folder: Path) -> str:
    """The digest that CURRENT names, nothing verified; "" where there is no index."""
    try:
        return (folder / "CURRENT").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def write(path: Path, content: bytes) -> None:
    """Write the bytes through to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def damaged(name: str) -> ModelMissing:
    return ModelMissing(f"The index of prior reports is damaged ({name} is not what was written): {REBUILD}.")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The right to write the folder.  Raises Busy: another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "writing.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise Busy("The index of prior reports is being written by another process: try again in a moment.") from error


def _read(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise damaged(name)
        return path.read_bytes()
    except OSError as error:
        raise damaged(name) from error
