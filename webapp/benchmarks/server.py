"""A home of its own, and the application as a process on a free port: what a browser or a client is pointed at."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from core_models.errors import ModelMissing
from webapp.settings import Settings

APP = Path(__file__).resolve().parents[2] / "app.py"
READY_WITHIN_S = 120.0
SHARED = ("models", "index", "demo")


@contextlib.contextmanager
def own_home(settings: Settings) -> Iterator[Settings]:
    """Settings on an empty home that sees the prepared models, the index and the demo scans of the real one."""
    with tempfile.TemporaryDirectory(prefix="reading-room-benchmark-") as name:
        home = Path(name)
        for part in SHARED:
            if (settings.home / part).is_dir():
                (home / part).symlink_to(settings.home / part)
        yield replace(settings, home=home, database_url=f"sqlite:///{home / 'benchmark.sqlite3'}")


@dataclass(frozen=True)
class Server:
    """A running application."""

    address: str
    process: psutil.Process
    ready_s: float

    def rss_mb(self) -> float:
        """Resident memory of the process and its children, in MB (10^6 bytes)."""
        every = [self.process, *self.process.children(recursive=True)]
        return round(sum(p.memory_info().rss for p in every) / 1e6, 1)


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """`python app.py` on the settings' home until the block ends; `ready_s` is from start to the first whole page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "READING_ROOM_HOME": str(settings.home),
        "READING_ROOM_DATABASE_URL": settings.database_url,
        "READING_ROOM_PORT": str(port),
        "READING_ROOM_HOST": "127.0.0.1",
    }
    address = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(APP)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(process, address)
        yield Server(address, psutil.Process(process.pid), time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, address: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ModelMissing("The server ended while it was starting; run `python app.py` to see why.")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address, timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise ModelMissing(f"The server did not answer within {READY_WITHIN_S:.0f} s.")
