"""A CT or MR → all organs that TotalSegmentator draws (Wasserthal et al., Radiology: AI 2023), then a click picks one.

It runs in a process of its own, begun when a series is prepared and waited for by the first click: its memory goes when
it ends, and `totalsegmentator_child` keeps it from opening any connection (by itself it would fetch weights and report
usage).  Voxels go there through a pipe; what TotalSegmentator itself puts on disk lies in a
folder of this process's own, which is gone at the end.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core_models.errors import Cancelled, Refused
from core_models.segmentation import optional
from core_models.segmentation.bigger.picked import Structure, pick, structures
from core_models.segmentation.engine import Prompt, Segmentation, never
from core_models.study.nifti import ras_affine
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.segmentation.optional import OptionalRow

TASKS = {"CT": ("total", (297,), (291, 292, 293, 294, 295)), "MR": ("total_mr", (852,), (850, 851))}
"""Modality → (task, datasets of its 3 mm weights, datasets of its 1.5 mm weights)."""
TICK_S = 0.2  # how soon a stop is noticed
LONGEST_S = 3600.0
_CHILD = Path(__file__).with_name("totalsegmentator_child.py")
_LOG = logging.getLogger(__name__)


class TotalSegmentatorEngine:
    """The engine over an installed TotalSegmentator and its weights.

    Raises, at construction:
        ModelMissing: there are no weights of the open tasks.
    """

    def __init__(self, row: OptionalRow, where: str, threads: int) -> None:
        self._row, self._threads = row, threads
        self._weights = _weights_folder(where)
        if not any(_has(self._weights, sets) for _, *both in TASKS.values() for sets in both):
            raise optional.missing(row, "has no weights of the tasks total and total_mr here")
        self.name, self.version, self.licence = row.name, _version(), row.licence

    def prepare(self, volume: Volume) -> Drawing:
        """Begin to draw, in the background.

        Raises:
            ModelMissing: there are no weights for this modality.
        """
        task, fast, full = TASKS["MR" if volume.modality == "MR" else "CT"]
        if not (_has(self._weights, fast) or _has(self._weights, full)):
            raise optional.missing(self._row, f"has no weights of the task {task} here")
        # On a processor the finer weights take the better part of an hour.
        finer = _has(self._weights, full) and (_graphics() or not _has(self._weights, fast))
        device = "gpu" if _graphics() else "cpu"
        options = {"task": task, "fast": not finer, "device": device}
        return Drawing(volume, options, self._weights, self._threads)

    def segment(
        self, prepared: Drawing, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Wait for the drawing, then pick.

        Raises:
            Cancelled: the reader did not wait; the drawing goes on.
            Refused: TotalSegmentator failed, a prompt outside the volume, or none that adds.
        """
        return pick(prepared.volume, prepared.wait(cancelled), prompts, "TotalSegmentator")


class Drawing:
    """One series that is being drawn, or was."""

    def __init__(self, volume: Volume, options: dict, weights: Path, threads: int) -> None:
        self.volume = volume
        self._found: tuple[Structure, ...] | None = None
        self._failed = False
        self._done = threading.Event()
        threading.Thread(
            target=self._draw, args=(options, weights, threads), name="totalsegmentator", daemon=True
        ).start()

    def wait(self, cancelled: Callable[[], bool]) -> tuple[Structure, ...]:
        """What was drawn.  Raises Cancelled, Refused."""
        while not self._done.wait(TICK_S):
            if cancelled():
                raise Cancelled("TotalSegmentator is still drawing; click again in a moment.")
        if self._found is None:
            raise Refused("TotalSegmentator could not draw this series; the server's log says why.")
        return self._found

    def _draw(self, options: dict, weights: Path, threads: int) -> None:
        try:
            self._found = _drawn(self.volume, options, weights, threads)
        except Exception as error:  # whatever a foreign program does is told in the thread that waits
            _LOG.warning("TotalSegmentator: %s", error)
        finally:
            self._done.set()


def _drawn(volume: Volume, options: dict, weights: Path, threads: int) -> tuple[Structure, ...]:
    given = io.BytesIO()
    array = volume.array.transpose(2, 1, 0)
    np.savez(given, array=array, affine=ras_affine(volume), options=np.array(json.dumps(options)))
    with tempfile.TemporaryDirectory(prefix="totalsegmentator-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "config.json").write_text(
            json.dumps({"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0,
                        "statistics_disclaimer_shown": True})
        )  # fmt: skip
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "TMPDIR": folder,
            "TOTALSEG_HOME_DIR": str(home),
            "TOTALSEG_WEIGHTS_PATH": str(weights),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],  # its own folder has a module of the library's name
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
        )
        atexit.register(child.kill)
        try:
            answered, said = child.communicate(given.getvalue(), LONGEST_S)
        finally:
            child.kill()  # where it took too long; one that ended does not mind
            child.wait()
            atexit.unregister(child.kill)
    if child.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise RuntimeError(lines[-1][:300] if lines else f"it ended with {child.returncode}")
    with np.load(io.BytesIO(answered), allow_pickle=False) as answer:
        labels, names = answer["labels"], json.loads(str(answer["names"]))
    if labels.shape != array.shape:
        raise RuntimeError(f"its labels have the shape {labels.shape}; {array.shape} was expected")
    return structures(labels.transpose(2, 1, 0), {int(n): words(name) for n, name in names.items()})


def words(name: str) -> str:
    """ "kidney_right" → "right kidney", as the table of organs has it."""
    parts = name.split("_")
    side = next((s for s in ("left", "right") if s in parts), "")
    rest = " ".join(p for p in parts if p != side)
    rest = {"esophagus": "oesophagus", "clavicula": "clavicle", "thyroid gland": "thyroid"}.get(rest, rest)
    return f"{side} {rest}".strip()


def _weights_folder(where: str) -> Path:
    """Where TotalSegmentator itself looks, unless a folder is named."""
    if where:
        return Path(where).expanduser().resolve()
    if path := os.environ.get("TOTALSEG_WEIGHTS_PATH"):
        return Path(path)
    home = os.environ.get("TOTALSEG_HOME_DIR")
    return (Path(home) if home else Path.home() / ".totalsegmentator") / "nnunet" / "results"


def _has(folder: Path, datasets: tuple[int, ...]) -> bool:
    return all(any(folder.glob(f"Dataset{n}_*")) for n in datasets)


def _graphics() -> bool:
    import torch

    return torch.cuda.is_available()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("TotalSegmentator")
    except PackageNotFoundError:
        return "unknown"
