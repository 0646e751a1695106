"""Volumes, original files and masks ↔ files under one folder, each written whole or not at all.

A file gets a new name for every content and is renamed into place after fsync; the database row that names it is
committed afterwards.  So a process killed at any moment leaves the old row with the old file, or the new row with the
new file, and at worst a file that no row names, which `sweep` removes at a later start.
"""

from __future__ import annotations

import io
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from core_models.errors import ReadingRoomError
from core_models.segmentation.engine import Mask

ORPHAN_AGE_S = 3600  # another process on the same home may be in the middle of an upload


def write_whole(path: Path, data: bytes | np.ndarray) -> None:
    """Write bytes, or an array as .npy, so that `path` is either absent or complete.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as f:
            if isinstance(data, np.ndarray):
                np.save(f, data, allow_pickle=False)
            else:
                f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there; the rename is journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Files:
    """The folder of all studies: `<study>/<series>/volume.npy`, `.../sources/NNNNN.dcm`, `<study>/masks/<name>.npz`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put_series(self, study_id: str, series_id: str, array: np.ndarray, sources: Iterable[bytes]) -> None:
        """Write a series' voxels and original files.  Raises OSError."""
        folder = self.root / study_id / series_id
        write_whole(folder / "volume.npy", np.ascontiguousarray(array))
        for n, data in enumerate(sources):
            write_whole(folder / "sources" / f"{n:05d}.dcm", data)

    def array(self, study_id: str, series_id: str) -> np.ndarray:
        """The voxels (z, y, x), memory-mapped read-only."""
        try:
            return np.load(self.root / study_id / series_id / "volume.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as e:
            raise ReadingRoomError("The stored voxels of this series cannot be read; upload the scan again.") from e

    def sources(self, study_id: str, series_id: str, count: int) -> tuple[Path, ...]:
        folder = self.root / study_id / series_id / "sources"
        return tuple(folder / f"{n:05d}.dcm" for n in range(count))

    def put_mask(self, study_id: str, segment_id: str, mask: Mask) -> str:
        """Write a mask under a new name and return the name."""
        packed = io.BytesIO()
        np.savez_compressed(
            packed,
            offset=np.asarray(mask.offset, np.int64),
            shape=np.asarray(mask.shape, np.int64),
            size=np.asarray(mask.voxels.shape, np.int64),
            bits=np.packbits(np.asarray(mask.voxels, bool)),  # an eighth of what there would be to compress
        )
        name = f"{segment_id}-{uuid.uuid4().hex[:12]}.npz"
        write_whole(self.root / study_id / "masks" / name, packed.getvalue())
        return name

    def mask(self, study_id: str, name: str) -> Mask:
        """Read a mask.  Raises FileNotFoundError when it was replaced meanwhile, ReadingRoomError when damaged."""
        try:
            with np.load(self.root / study_id / "masks" / name, allow_pickle=False) as data:
                offset, shape = (tuple(int(v) for v in data[k]) for k in ("offset", "shape"))
                if "voxels" in data:  # as older versions wrote it
                    return Mask(offset, data["voxels"], shape)
                size = tuple(int(v) for v in data["size"])
                voxels = np.unpackbits(data["bits"], count=int(np.prod(size))).reshape(size).view(bool)
                return Mask(offset, voxels, shape)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
            raise ReadingRoomError("A stored mask is damaged; delete the segment and click it again.") from e

    def drop_mask(self, study_id: str, name: str) -> None:
        (self.root / study_id / "masks" / name).unlink(missing_ok=True)

    def drop_masks(self, files: Iterable[tuple[str, str]]) -> None:
        """Remove masks, each given as (study id, name)."""
        for study_id, name in files:
            self.drop_mask(study_id, name)

    def drop_series(self, study_id: str, series_id: str) -> None:
        shutil.rmtree(self.root / study_id / series_id, ignore_errors=True)

    def drop_study(self, study_id: str) -> None:
        shutil.rmtree(self.root / study_id, ignore_errors=True)

    def sweep(self, series: dict[str, set[str]], masks: dict[str, set[str]]) -> int:
        """Remove what no row names and nobody has touched for ORPHAN_AGE_S.

        Args:
            series: study id → its series ids; masks: study id → its mask file names.

        Returns:
            how many files or folders were removed.
        """
        removed = 0
        for folder in self.root.iterdir():
            if folder.name not in series:
                removed += _remove(folder)
                continue
            for child in folder.iterdir():
                if child.name != "masks" and child.name not in series[folder.name]:
                    removed += _remove(child)
            named = masks.get(folder.name, set())
            for child in (folder / "masks").glob("*") if (folder / "masks").is_dir() else ():
                if child.name not in named:
                    removed += _remove(child)
        return removed


def _remove(path: Path) -> int:
    try:
        newest = max((p.lstat().st_mtime for p in [path, *path.rglob("*")]), default=0.0)
        if time.time() - newest < ORPHAN_AGE_S:
            return 0
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # another process was faster
        return 0
    return 1
