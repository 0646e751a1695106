"""Segments → triangle meshes, binary STL in LPS mm: one file where there is one segment, else a ZIP of them."""

from __future__ import annotations

import numpy as np

from core_models.segmentation.surface import Surface, surface
from webapp.exports.bundle import ReportBundle
from webapp.exports.names import drawn, file_name, zipped

MAX_FACES = 200_000  # of one segment: 10 MB, what printing and planning programs open at ease
CELLS = 8_000_000  # the mask is meshed at its own resolution up to here
HEADER = b"binary STL, LPS mm, Reading Room (research use, not a medical device)"  # may not begin with "solid"
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])


def available(bundle: ReportBundle) -> str:
    """Why there can be no STL, in a sentence; "" when there can be."""
    if reason := drawn(bundle):
        return reason
    if bundle.series.shape[0] == 1 or not bundle.receipt.spacing:
        return "A surface needs a volume of known voxel size; this series is a single image or does not state it."
    return ""


def named(bundle: ReportBundle) -> tuple[str, str]:
    """(media type, file name)."""
    if len(bundle.own_segments) == 1:
        return "model/stl", "segment.stl"
    return "application/zip", "surfaces.zip"


def write(bundle: ReportBundle) -> bytes:
    """The meshes.  Raises Refused."""
    volume = bundle.volume()
    made = [
        (file_name(row, ".stl"), to_stl(surface(volume, bundle.mask(row), MAX_FACES, CELLS)))
        for row in bundle.own_segments
    ]
    return made[0][1] if len(made) == 1 else zipped(made)


def to_stl(mesh: Surface) -> bytes:
    """A mesh as binary STL: 80 bytes of text, the count, then 50 bytes for each triangle, little endian."""
    corners = mesh.vertices[mesh.faces].astype(np.float32)
    out = np.zeros(len(corners), _TRIANGLE)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(across, axis=1, keepdims=True)
    out["normal"] = np.divide(across, length, out=np.zeros_like(across), where=length > 0)
    out["corners"] = corners
    return HEADER.ljust(80) + np.uint32(len(out)).tobytes() + out.tobytes()
