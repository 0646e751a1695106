"""A ZIP file → its members' names and bytes, one at a time and in memory only; a hostile archive is refused.

Nothing is ever written to disk, so no member name can reach outside and nothing is left behind on refusal or cancel.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from core_models.errors import Refused, TooLarge
from core_models.study.limits import Limits

MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


def is_zip(head: bytes) -> bool:
    """Whether the first bytes are those of a ZIP file."""
    return head.startswith(MAGIC)


def members(path: Path, limits: Limits) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """Check the archive's directory, then stream its files.

    Returns:
        how many files it holds, and an iterator of (name inside the archive, bytes).

    Raises:
        Refused: a name that leads outside, a link, encryption, a damaged or unreadable member; before any member is
            read where the directory tells, otherwise while streaming.
        TooLarge: more entries or bytes than `limits` allow, declared or real.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise Refused("The ZIP file is damaged: its directory cannot be read.") from error
    try:
        entries = _checked(archive, limits)
    except BaseException:
        archive.close()
        raise
    return len(entries), _stream(archive, entries, limits)


def _checked(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > limits.max_files:
        raise TooLarge(f"The ZIP file lists {len(listed):,} entries; at most {limits.max_files:,} are read.")
    entries = []
    for entry in listed:
        # orig_filename is the name before zipfile cuts it at a NUL or turns separators round.
        _check_name(entry.orig_filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Refused("The ZIP file holds a symbolic link; only plain files and folders are accepted.")
        if entry.flag_bits & _ENCRYPTED:
            raise Refused("The ZIP file is encrypted; please unpack it and upload the files.")
        if entry.compress_type not in _METHODS:
            raise Refused(f"The ZIP file uses compression method {entry.compress_type}, which is not supported.")
        if not entry.is_dir():
            entries.append(entry)
    declared = sum(entry.file_size for entry in entries)
    if declared > limits.max_bytes or any(entry.file_size > limits.max_file_bytes for entry in entries):
        raise TooLarge(
            f"The ZIP file would unpack to {declared / 1e6:,.0f} MB; at most {limits.max_bytes / 1e6:,.0f} MB are read."
        )
    return entries


def _check_name(name: str) -> None:
    unified = name.replace("\\", "/")
    outside = (
        "\x00" in name
        or unified.startswith("/")
        or (len(unified) > 1 and unified[1] == ":")
        or ".." in PurePosixPath(unified).parts
    )
    if outside:
        raise Refused("The ZIP file holds a name that leads outside of it; nothing was unpacked.")


def _stream(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], limits: Limits) -> Iterator[tuple[str, bytes]]:
    total = 0
    with archive:
        for entry in entries:
            data = _read(archive, entry, min(limits.max_file_bytes, limits.max_bytes - total))
            total += len(data)
            if is_zip(data[:4]):
                raise Refused("The ZIP file holds another ZIP file; please unpack the inner one first.")
            yield entry.filename, data


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, room: int) -> bytes:
    """One member's bytes; a member that unpacks to more than it declares is caught at the first byte over."""
    chunks = []
    size = 0
    try:
        with archive.open(entry) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > room:
                    raise TooLarge("The ZIP file unpacks to more bytes than are read; nothing was kept.")
                chunks.append(chunk)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise Refused("The ZIP file is damaged: one of its files cannot be unpacked.") from error
    if size != entry.file_size:
        raise Refused(f"A file in the ZIP declares {entry.file_size:,} bytes but unpacks to {size:,}; it is damaged.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
