"""Broken copies of pydicom's own files → intake, thousands of times: only a refusal may come out of it.

Run as a program this is the process that is put at risk: its memory is capped, and it prints one JSON object last.
`run` starts it and says what became of it.  Arguments: how many cases, the seed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core_models.errors import ModelMissing, ReadingRoomError, Refused
from core_models.study import dicom
from core_models.study.deidentify import Deidentifier
from core_models.study.intake import read_scan
from core_models.study.limits import DEFAULT

MEMORY_BYTES = 3 * 1024**3 // 2  # address space of the process that reads
MAX_FILE_BYTES = 300_000  # of the files that are broken, so that thousands of cases take minutes
NATIVE_TIMES = 8  # an uncompressed file is taken this often for each compressed one, which costs a decoder process
SECONDS_PER_CASE = 20.0  # before the run is given up as hanging

_ODD = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\x00" * 8, b"SQ", b"UN\0\0")


def run(cases: int, seed: int = 0, timeout: float | None = None) -> dict[str, Any]:
    """Read that many broken files in a process of their own.

    Returns:
        cases, read, refused (by class), escaped (the errors that no refusal is), slowest_s and the file that was
        broken there, peak_mb, cap_mb.

    Raises:
        ModelMissing: hypothesis is not installed.
        ReadingRoomError: the process died or hung.
    """
    command = [sys.executable, "-m", "core_models.study.fuzz", str(cases), str(seed)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout or 60 + cases * SECONDS_PER_CASE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ReadingRoomError("The reading process hung on a broken file and was ended.") from error
    if done.returncode == 3:
        raise ModelMissing("This command needs the package 'hypothesis'.")
    if done.returncode:
        raise ReadingRoomError(f"The reading process died with exit code {done.returncode} on a broken file.")
    return json.loads(done.stdout.splitlines()[-1])


def samples() -> list[tuple[str, bytes]]:
    """(name, bytes) of pydicom's DICOM files up to MAX_FILE_BYTES; uncompressed images several times."""
    import pydicom

    out = []
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES or path.suffix in (".py", ".pyc"):
            continue
        data = path.read_bytes()
        if not dicom.is_dicom(data[:4096]):
            continue
        try:
            file = dicom.opened(path.name, data, DEFAULT)
        except Refused:
            file = None
        plain = file is not None and file.at is not None and file.syntax in dicom.NATIVE
        out += [(path.name, data)] * (NATIVE_TIMES if plain else 1)
    return out


def broken(
    data: bytes, flips: list[tuple[float, int]], cut: tuple[float, float] | None, odd: tuple[float, int]
) -> bytes:
    """The bytes with some overwritten, a stretch cut out, and an odd length or tag put in.

    Args:
        flips: (place, byte); cut: (from, share of what follows); odd: (place, which one).  Places are 0 to 1, and
            count twice as densely in the first 4 KB, where the header is.
    """
    out = bytearray(data)

    def at(place: float) -> int:
        head = min(len(out), 4096)
        where = place * 2 * head if place < 0.5 else head + (place - 0.5) * 2 * (len(out) - head)
        return min(int(where), len(out) - 1)

    for place, value in flips:
        out[at(place)] = value
    place, which = odd
    if which < len(_ODD):
        start = at(place)
        out[start : start + len(_ODD[which])] = _ODD[which]
    if cut is not None:
        start = at(cut[0])
        del out[start : start + 1 + int(cut[1] * (len(out) - start))]
    return bytes(out)


def _main(cases: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    _limit()
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import seed as seeded
        from hypothesis import strategies as st
    except ModuleNotFoundError:
        sys.exit(3)
    files = samples()
    random.Random(seed).shuffle(files)
    place = st.floats(0, 1)
    outcomes: Counter[str] = Counter()
    escaped: list[dict[str, str]] = []
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / "scan"

        @seeded(seed)
        @settings(
            max_examples=cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.sampled_from(files),
            st.lists(st.tuples(place, st.integers(0, 255)), max_size=12),
            st.none() | st.tuples(place, place),
            st.tuples(place, st.integers(0, 2 * len(_ODD))),
            st.booleans(),
        )
        def one(file, flips, cut, odd, clean):
            nonlocal slowest
            path.write_bytes(broken(file[1], flips, cut, odd))
            began = time.perf_counter()
            try:
                read_scan(path, deidentifier=Deidentifier(b"fuzz") if clean else None)
                outcomes["read"] += 1
            except Refused as error:
                outcomes[type(error).__name__] += 1
            except Exception as error:
                escaped.append({"file": file[0], "error": type(error).__name__})
            slowest = max(slowest, (time.perf_counter() - began, file[0]))

        one()
    read = outcomes.pop("read", 0)
    result = {
        "cases": read + sum(outcomes.values()) + len(escaped),
        "read": read,
        "refused": dict(outcomes),
        "escaped": escaped,
        "slowest_s": round(slowest[0], 2),
        "slowest_file": slowest[1],
        "peak_mb": _peak_mb(),
        "cap_mb": MEMORY_BYTES // 1024**2,
    }
    print(json.dumps(result))


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, hard))  # the decoder process sets its own


def _peak_mb() -> int | None:
    """Resident memory at its highest, of this process without the decoder's."""
    try:
        import resource
    except ImportError:
        return None
    try:  # what getrusage says on Linux begins with the parent's peak
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024
    except (OSError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1024**2


def report(result: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what came of it.  Raises ReadingRoomError where something else than a refusal escaped."""
    refused = ", ".join(f"{n} {name}" for name, n in sorted(result["refused"].items()))
    say(f"{result['cases']} broken files: {result['read']} read, refused: {refused}.")
    say(f"Slowest {result['slowest_s']} s; memory at most {result['peak_mb']} MB of {result['cap_mb']} MB.")
    if result["escaped"]:
        kinds = Counter(one["error"] for one in result["escaped"])
        told = ", ".join(f"{n} {name}" for name, n in kinds.items())
        raise ReadingRoomError(f"What is no refusal escaped from {len(result['escaped'])} files: {told}.")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
