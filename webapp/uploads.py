"""A multipart request body → numbered files in a private folder, written while the body streams in.

The sender's file names are counted and dropped: they never become paths, and nothing reads them (content decides what
a file is).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core_models.errors import Refused, TooLarge

MAX_FILES = 10_000  # the largest studies have some four thousand instances
FIELD = b"files"
MAX_PART_HEADERS = 8192
LEFTOVER_S = 6 * 3600


def private_folder(home: Path) -> Path:
    """A new empty folder under `home` that only this user can enter."""
    return Path(tempfile.mkdtemp(prefix="upload-", dir=incoming(home)))


def incoming(home: Path) -> Path:
    """Where scans lie while they are worked on; `sweep` removes what stays there."""
    base = home / "incoming"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    return base


def sweep(home: Path) -> None:
    """Remove what a killed process left of its uploads; fresh folders may be another process's and stay."""
    base = home / "incoming"
    for folder in base.iterdir() if base.is_dir() else ():
        if time.time() - folder.stat().st_mtime > LEFTOVER_S:
            discard(folder)


def discard(folder: Path) -> None:
    """Remove the folder and all in it; a missing one is fine."""
    shutil.rmtree(folder, ignore_errors=True)


async def receive(content_type: str, body: AsyncIterator[bytes], folder: Path) -> list[Path]:
    """Write every part named `files` of a multipart/form-data body to `folder`.

    Args:
        content_type: the request's Content-Type header.
        body: the body's chunks; their total length is bounded by the caller.

    Returns:
        the files in the order sent, named 00000, 00001, ...

    Raises:
        Refused: not multipart, malformed, cut short, or without a file.
        TooLarge: more files than MAX_FILES.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused("An upload is expected as multipart/form-data with the files in it.")
    parts = _Parts(folder)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise Refused("The upload is not well formed: its parts could not be told apart.") from None
    finally:
        parts.close()
    if not parts.ended:
        raise Refused("The upload was cut short: its last part is missing.")
    if not parts.files:
        raise Refused("The upload holds no file.")
    return parts.files


class _Parts:
    """What the parser calls; each part named `files` becomes one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.ended = False
        self._open: BinaryIO | None = None
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._header_bytes = 0

    def callbacks(self) -> dict:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _begin(self) -> None:
        self._disposition = b""
        self._header_bytes = 0

    def _grow(self, data: bytes, start: int, end: int) -> bytes:
        self._header_bytes += end - start
        if self._header_bytes > MAX_PART_HEADERS:
            raise Refused("The upload's part headers are too long.")
        return data[start:end]

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += self._grow(data, start, end)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._grow(data, start, end)

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD or b"filename" not in options:
            return
        if len(self.files) >= MAX_FILES:
            raise TooLarge(f"An upload holds at most {MAX_FILES} files; send a large study as one ZIP file.")
        path = self.folder / f"{len(self.files):05d}"
        self._open = path.open("xb")
        self.files.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is not None:
            self._open.write(data[start:end])

    def _end(self) -> None:
        self.ended = True
