"""A patient (or a near-duplicate cluster) → train, validation or test, the same on every machine and in every order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

Side = Literal["train", "validation", "test"]
SALT = "reading-room/foundation/1"
HASH_SIDE = 16
NEAR = 20
"""Bits of 256 that may differ between near twins: what the images at hand give as the gap between twins and others."""


def side(key: str, test_percent: int, validation_percent: int) -> Side:
    """The side of a patient or cluster by the SHA-256 of its key."""
    number = int.from_bytes(hashlib.sha256(f"{SALT}:{key}".encode()).digest()[:8], "big") % 100
    if number < test_percent:
        return "test"
    return "validation" if number < test_percent + validation_percent else "train"


def difference_hash(picture: np.ndarray) -> np.ndarray:
    """uint8 (h, w) → (256,) bool: whether each cell of a 16 × 17 thumbnail is darker than its right neighbour."""
    small = np.asarray(Image.fromarray(picture).resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def clusters(hashes: np.ndarray, near: int = NEAR) -> np.ndarray:
    """(n, 256) bool → (n,) cluster numbers; two pictures at most `near` bits apart are in one cluster."""
    n = len(hashes)
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    signed = hashes.astype(np.float32) * 2.0 - 1.0  # dot product = 256 - 2 * differing bits
    for start in range(0, n, 512):
        close = signed[start : start + 512] @ signed.T >= hashes.shape[1] - 2 * near
        for a, b in zip(*np.nonzero(close), strict=True):
            a, b = root(start + int(a)), root(int(b))
            if a != b:
                parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(n)])


def sides_of_clusters(cluster: np.ndarray, own: Sequence[Side]) -> list[Side]:
    """The side of each picture when a whole cluster goes to its strictest side (test, then validation, then train)."""
    order: dict[Side, int] = {"train": 0, "validation": 1, "test": 2}
    strictest: dict[int, Side] = {}
    for number, one in zip(cluster.tolist(), own, strict=True):
        if number not in strictest or order[one] > order[strictest[number]]:
            strictest[number] = one
    return [strictest[number] for number in cluster.tolist()]
