"""DICOM frames → stored values, then modality values in the smallest type that holds them.

Uncompressed pixels are views into the file's bytes.  Compressed ones are decoded in child processes with capped memory
and time, because codecs are where a hostile file does its damage; when a child dies, only that upload is refused.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from pydicom.pixels import apply_color_lut, apply_modality_lut, convert_color_space

from core_models.errors import Cancelled, Refused
from core_models.study.frames import COMPRESSED, Frame, Instance
from core_models.study.limits import Limits
from core_models.study.raster import luminance

_CHILD = Path(__file__).with_name("decode_child.py")


class Decoder:
    """Child processes for one upload, at most `Limits.decode_processes`, started when compressed files need them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._children: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._all = [_Child(limits) for _ in range(max(1, limits.decode_processes))]
        for child in self._all:
            self._children.put(child)

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            child.end()

    def frames(self, instance: Instance) -> list[np.ndarray]:
        """All frames, each (rows, columns) or (rows, columns, 3) RGB.

        Raises:
            Refused: the pixels are damaged, decode to another size, or took too much time or memory.
        """
        child = self._children.get()
        try:
            return child.frames(instance)
        finally:
            self._children.put(child)

    def in_order(self, instances: Sequence[Instance]) -> Iterator[list[np.ndarray]]:
        """The frames of each, in this order; as many are decoded ahead as there are children.

        Whoever leaves it early closes it; the children are ended then.

        Raises:
            Refused: as `frames`, of the first that is refused.
        """
        count = len(self._all)
        if len(instances) < 2 or count < 2:
            yield from map(self.frames, instances)
            return
        waiting: deque[Future[list[np.ndarray]]] = deque()
        coming = iter(instances)
        pool = ThreadPoolExecutor(count, "decoder")
        try:
            for instance in islice(coming, count + 1):
                waiting.append(pool.submit(self.frames, instance))
            while waiting:
                yield waiting.popleft().result()
                for instance in islice(coming, 1):
                    waiting.append(pool.submit(self.frames, instance))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if waiting:
                for child in self._all:
                    child.stop()
            pool.shutdown()


class _Child:
    """One decoder process; for one thread at a time, but for `stop`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen | None = None
        self._stopped = False

    def stop(self) -> None:
        """Kill it, also while another thread waits for its answer, which is a `Refused` then."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Kill it and let its pipes go; no thread may be at work with it."""
        self.stop()
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen:
        if self._process is None and not self._stopped:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD), str(self._limits.decode_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        if self._process is None:
            raise OSError("the decoder was ended")
        return self._process

    def frames(self, instance: Instance) -> list[np.ndarray]:
        try:
            process = self._started()
            timer = threading.Timer(self._limits.decode_seconds + instance.pixels.frames, process.kill)
            timer.daemon = True
            timer.start()
            try:
                assert process.stdin is not None
                process.stdin.write(len(instance.data).to_bytes(8, "big"))
                process.stdin.write(instance.data)
                process.stdin.flush()
                frames = list(self._receive(process, instance))
            finally:
                timer.cancel()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _undecodable(instance) from error
        if len(frames) != instance.pixels.frames:
            raise Refused(
                f'"{instance.name}" holds {len(frames)} compressed frames; {instance.pixels.frames} were expected.'
            )
        return frames

    def _receive(self, process: subprocess.Popen, instance: Instance) -> Iterator[np.ndarray]:
        pixels = instance.pixels
        shape = (pixels.rows, pixels.columns) + ((3,) if pixels.samples == 3 else ())
        received = 0
        while True:
            head = json.loads(_exactly(process.stdout, int.from_bytes(_exactly(process.stdout, 4), "big")))
            if "done" in head:
                return
            received += 1
            if head.get("unsupported"):
                raise Refused(
                    f'"{instance.name}" uses a variant of {COMPRESSED[instance.transfer_syntax]} '
                    f"({pixels.stored} bits) that is not supported."
                )
            if "error" in head or received > pixels.frames:
                raise _undecodable(instance)
            dtype = np.dtype(head["dtype"])
            if tuple(head["shape"]) != shape or head["size"] != int(np.prod(shape)) * dtype.itemsize:
                raise Refused(
                    f'"{instance.name}" decodes to {tuple(head["shape"])}; {shape} was expected from its header.'
                )
            yield np.frombuffer(_exactly(process.stdout, head["size"]), dtype).reshape(shape)


def _undecodable(instance: Instance) -> Refused:
    return Refused(
        f'The {COMPRESSED[instance.transfer_syntax]} pixels of "{instance.name}" are damaged and cannot be decoded.'
    )


def _exactly(stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise OSError("the decoder ended")
    return data


def stored_frames(
    frames: Sequence[Frame],
    decoder: Decoder,
    tick: Callable[[], None] = lambda: None,
    cancelled: Callable[[], bool] | None = None,
) -> list[np.ndarray]:
    """The stored values of each frame, (rows, columns), colour as luminance; views where nothing had to be decoded.

    Raises:
        Refused: pixels cannot be decoded, or a palette index lies outside its table.
        Cancelled: `cancelled` answered True.
    """
    whole: dict[int, list[np.ndarray]] = {}
    last_use = {id(frame.instance): n for n, frame in enumerate(frames)}
    compressed = list({id(f.instance): f.instance for f in frames if f.instance.compressed}.values())
    out = []
    with closing(decoder.in_order(compressed)) as decoded:
        for n, frame in enumerate(frames):
            if cancelled is not None and cancelled():
                raise Cancelled("Reading was cancelled; nothing was kept.")
            key = id(frame.instance)
            if key not in whole:
                whole[key] = _all_frames(frame.instance, decoded)
            out.append(whole[key][frame.index])
            if last_use[key] == n:
                del whole[key]
            tick()
    return out


def _all_frames(instance: Instance, decoded: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    pixels = instance.pixels
    if instance.compressed:
        frames = next(decoded)
        if pixels.samples == 1 and pixels.photometric != "PALETTE COLOR":
            frames = [_used_bits(frame, instance) for frame in frames]
    elif pixels.samples == 1:
        kind = np.dtype(f"<{'i' if pixels.signed else 'u'}{pixels.allocated // 8}")
        block = np.frombuffer(instance.raw_pixels(), kind).reshape(pixels.frames, pixels.rows, pixels.columns)
        frames = [_used_bits(frame, instance) for frame in block]
    else:
        frames = _native_colour(instance)
    if pixels.photometric == "PALETTE COLOR":
        frames = [_palette(frame, instance) for frame in frames]
    elif instance.has_table:
        frames = [_tabled(frame, instance) for frame in frames]
    return [luminance(frame) if frame.ndim == 3 else frame for frame in frames]


def _used_bits(frame: np.ndarray, instance: Instance) -> np.ndarray:
    """The frame without what is hidden in bits above BitsStored (old overlays), sign-extended."""
    pixels = instance.pixels
    spare = frame.dtype.itemsize * 8 - pixels.stored
    if spare == 0 or instance.compressed:
        return frame
    half = 1 << (pixels.stored - 1)
    low, high = (-half, half - 1) if pixels.signed else (0, 2 * half - 1)
    if low <= int(frame.min()) and int(frame.max()) <= high:
        return frame
    return np.right_shift(np.left_shift(frame, spare), spare)


def _native_colour(instance: Instance) -> list[np.ndarray]:
    """Uncompressed RGB or YBR frames as (rows, columns, 3) RGB."""
    pixels = instance.pixels
    kind = np.dtype(f"<u{pixels.allocated // 8}")
    flat = np.frombuffer(instance.raw_pixels(), kind).reshape(pixels.frames, -1)
    shape = (pixels.rows, pixels.columns)
    frames = []
    for frame in flat:
        if pixels.photometric == "YBR_FULL_422":
            if pixels.columns % 2:
                raise Refused(f'"{instance.name}" is YBR_FULL_422 with an odd number of columns.')
            pairs = frame.reshape(pixels.rows, pixels.columns // 2, 4)  # Y1 Y2 Cb Cr
            colour = np.empty((*shape, 3), kind)
            colour[:, 0::2, 0], colour[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
            colour[..., 1:] = np.repeat(pairs[..., 2:], 2, axis=1)
        elif instance.header.get("PlanarConfiguration") == 1:
            colour = np.moveaxis(frame.reshape(3, *shape), 0, -1)
        else:
            colour = frame.reshape(*shape, 3)
        if pixels.photometric.startswith("YBR"):
            colour = convert_color_space(colour, "YBR_FULL", "RGB")
        frames.append(colour)
    return frames


def _palette(frame: np.ndarray, instance: Instance) -> np.ndarray:
    header = instance.header
    descriptor = header.get("RedPaletteColorLookupTableDescriptor")
    if descriptor is None or len(descriptor) != 3:
        raise Refused(f'"{instance.name}" is a palette image without a palette.')
    first, entries = int(descriptor[1]), int(descriptor[0]) or 65536
    if int(frame.min()) < first or int(frame.max()) >= first + entries:
        raise Refused(
            f'"{instance.name}" uses palette entry {int(frame.max())}; '
            f"its palette has {first} to {first + entries - 1}."
        )
    try:
        return apply_color_lut(frame, header)[..., :3]
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise Refused(f'The palette of "{instance.name}" is damaged.') from error


def _tabled(frame: np.ndarray, instance: Instance) -> np.ndarray:
    """The frame through its modality look-up table (PS3.3 C.11.1), which stands in place of a rescale."""
    try:
        return apply_modality_lut(frame, instance.header)
    except (ValueError, AttributeError, TypeError, IndexError, KeyError, NotImplementedError) as error:
        raise Refused(f'The modality look-up table of "{instance.name}" is damaged.') from error


def to_values(stored: Sequence[np.ndarray], slopes: Sequence[float], intercepts: Sequence[float]) -> np.ndarray:
    """Apply each frame's rescale: (slices, rows, columns) in the smallest of uint8, int16, uint16 that holds them all.

    float32 where a slope or intercept is not whole or the values do not fit (PS3.3 C.11.1.1.2).
    """
    shape = (len(stored), *stored[0].shape)
    whole = all(float(s).is_integer() and float(b).is_integer() for s, b in zip(slopes, intercepts, strict=True))
    ends = [
        value * slope + intercept
        for frame, slope, intercept in zip(stored, slopes, intercepts, strict=True)
        for value in (float(frame.min()), float(frame.max()))
    ]
    low, high = min(ends), max(ends)
    kind: type = np.float32
    if whole:
        kinds = (np.uint8, np.int16, np.uint16) if stored[0].dtype == np.uint8 else (np.int16, np.uint16)
        kind = next((k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max), np.float32)
    out = np.empty(shape, kind)
    for target, frame, slope, intercept in zip(out, stored, slopes, intercepts, strict=True):
        if slope == 1 and intercept == 0:
            target[...] = frame
        elif kind is np.float32:
            target[...] = frame.astype(np.float64) * slope + intercept
        else:
            wide = frame.astype(np.int64 if frame.dtype.itemsize > 2 or abs(slope) > 1e4 else np.int32)
            if slope != 1:
                wide *= int(slope)
            wide += int(intercept)
            target[...] = wide
    return out
