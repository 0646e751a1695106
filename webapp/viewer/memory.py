"""Masks in → the latest of them kept as bits, an eighth of their size; safe to use from any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from core_models.segmentation.engine import Mask, Segmentation


class Memory:
    """Segmentations by key, the least lately used ones given up first.

    Args:
        room: bytes of packed masks that are held.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: OrderedDict[Hashable, tuple[Segmentation, np.ndarray, tuple[int, ...]]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Segmentation | None:
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            answer, bits, shape = self._held[key]
        voxels = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).view(bool)
        return replace(answer, mask=Mask(answer.mask.offset, voxels, answer.mask.shape))

    def put(self, key: Hashable, answer: Segmentation) -> None:
        bits = np.packbits(answer.mask.voxels)
        light = replace(answer, mask=Mask(answer.mask.offset, np.zeros((0, 0, 0), bool), answer.mask.shape))
        with self._lock:
            if key in self._held:
                self._size -= self._held.pop(key)[1].nbytes
            self._held[key] = (light, bits, answer.mask.voxels.shape)
            self._size += bits.nbytes
            while self._size > self._room and len(self._held) > 1:
                self._size -= self._held.popitem(last=False)[1][1].nbytes

    def mask(self, key: Hashable) -> Mask | None:
        found = self.get(key)
        return found.mask if found else None

    def put_mask(self, key: Hashable, mask: Mask) -> None:
        self.put(key, Segmentation(mask, 0.0, 0))
