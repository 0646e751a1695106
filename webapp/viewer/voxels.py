"""Volume → the little-endian int16 bytes that the viewer reads, one slice at once or all, and how to undo the coding.

value = raw * slope + intercept.  int16 and uint8 go as they are; uint16 is moved by 32768; float32 is spread over all
65,536 codes between its own least and greatest value, or left whole where it holds integers only.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core_models.errors import NotFound
from core_models.study.volume import Volume

REDUCE_ABOVE = 400 * 2**20  # bytes of int16; past that every second voxel in plane is sent
CHUNK = 4 * 2**20  # bytes encoded at a time
CACHE_BYTES = 256 * 2**20  # of compressed volumes held in memory
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Coding:
    """How raw int16 codes lead to values.

    Attributes:
        slope, intercept: value = raw * slope + intercept.
        stride: every stride-th column and row is sent (1 = all).
    """

    slope: float
    intercept: float
    stride: int

    def raw(self, array: np.ndarray) -> np.ndarray:
        """Values of any volume type → little-endian int16 codes, contiguous, same shape."""
        if array.dtype in (np.int16, np.uint8) and (self.slope, self.intercept) == (1.0, 0.0):
            return np.ascontiguousarray(array, dtype="<i2")
        if array.dtype == np.uint16:
            return np.ascontiguousarray((array.astype(np.int32) - 32768), dtype="<i2")
        codes = np.nan_to_num((array.astype(np.float64) - self.intercept) / self.slope)
        return np.ascontiguousarray(np.clip(np.rint(codes), INT16.min, INT16.max), dtype="<i2")


def coding_of(volume: Volume) -> Coding:
    """The coding of a volume; reads all voxels of a float volume once."""
    array = volume.array
    stride = 2 if array.size * 2 > REDUCE_ABOVE else 1
    if array.dtype in (np.int16, np.uint8):
        return Coding(1.0, 0.0, stride)
    if array.dtype == np.uint16:
        return Coding(1.0, 32768.0, stride)
    low, high, whole = np.inf, -np.inf, True
    for k in range(array.shape[0]):
        plane = array[k][np.isfinite(array[k])]
        if plane.size:
            low, high = min(low, float(plane.min())), max(high, float(plane.max()))
            whole = whole and bool((plane == np.rint(plane)).all())
    if low > high:  # nothing finite
        return Coding(1.0, 0.0, stride)
    if whole and low >= INT16.min and high <= INT16.max:
        return Coding(1.0, 0.0, stride)
    slope = max((high - low) / 65535.0, 1e-30)
    return Coding(slope, low + 32768.0 * slope, stride)


def slice_bytes(volume: Volume, coding: Coding, k: int) -> bytes:
    """Axial slice k.  Raises NotFound outside the volume."""
    if not 0 <= k < volume.shape[0]:
        raise NotFound(f"There is no slice {k}: this series has {volume.shape[0]}, counted from 0.")
    return coding.raw(volume.array[k, :: coding.stride, :: coding.stride]).tobytes()


def chunks(volume: Volume, coding: Coding) -> Iterator[bytes]:
    """All voxels (z, y, x) in pieces of whole slices."""
    planes = max(1, CHUNK // (volume.shape[1] * volume.shape[2] * 2))
    for k in range(0, volume.shape[0], planes):
        yield coding.raw(volume.array[k : k + planes, :: coding.stride, :: coding.stride]).tobytes()


class Packed:
    """Compressed volumes, each compressed once and kept while there is room; safe to use from any thread."""

    def __init__(self, room: int = CACHE_BYTES) -> None:
        self._room = room
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def gzip(self, key: str, volume: Volume, coding: Coding) -> Iterator[bytes]:
        """The gzip stream (level 1) of all voxels, starting at once even when it is not held yet."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                held = self._held[key]
            else:
                held = None
        if held is not None:
            yield held
            return
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: gzip header and trailer
        parts, size = [], 0
        for piece in chunks(volume, coding):
            packed = packer.compress(piece)
            size += len(packed)
            if size <= self._room:
                parts.append(packed)
            yield packed
        parts.append(packer.flush())
        yield parts[-1]
        if size <= self._room:
            self._hold(key, b"".join(parts))

    def _hold(self, key: str, data: bytes) -> None:
        with self._lock:
            self._held[key] = data
            while sum(map(len, self._held.values())) > self._room:
                self._held.popitem(last=False)
