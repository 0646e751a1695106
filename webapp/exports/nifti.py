"""Segments → a ZIP of NIfTI masks on the scan's own grid: each segment a file, so that those that overlap stay whole.

Where none overlap there is also one label map, as programs for training and planning expect it.  `labels.txt` names the
values in ITK-SNAP's form.  The arrays have the order of the source's own (a NIfTI that was uploaded gets masks of its
own shape and affine), the affine is RAS mm.
"""

from __future__ import annotations

import gzip
import re

import nibabel
import numpy as np

from core_models.study.nifti import source_ras_affine
from core_models.study.volume import Volume
from webapp.exports.bundle import ReportBundle
from webapp.exports.names import drawn, file_name, zipped

LABEL_MAP, TABLE = "labels.nii.gz", "labels.txt"
_LEVEL = 6  # of gzip


def available(bundle: ReportBundle) -> str:
    """Why there can be no NIfTI, in a sentence; "" when there can be."""
    return drawn(bundle)


def write(bundle: ReportBundle) -> bytes:
    """The ZIP.  Raises Refused."""
    volume = bundle.volume()
    rows = bundle.own_segments
    together = np.zeros(volume.shape, np.uint16)
    overlap = False
    files = []
    for row in rows:
        mask = bundle.mask(row)
        here = together[mask.slices]
        overlap |= bool(here[mask.voxels].any())
        here[mask.voxels] = row.number
        files.append((file_name(row, ".nii.gz"), to_nifti(volume, mask.full().astype(np.uint8))))
    if not overlap:
        files.insert(0, (LABEL_MAP, to_nifti(volume, together)))
    files.append((TABLE, _table(bundle).encode()))
    return zipped(files)


def to_nifti(volume: Volume, array: np.ndarray) -> bytes:
    """Array (z, y, x) on the volume's grid → .nii.gz in the source's order."""
    affine = source_ras_affine(volume)
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.layout.to_source(array).transpose(2, 1, 0)), affine)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    straight = np.abs(directions.T @ directions - np.eye(3)).max() < 1e-4
    image.set_sform(affine, 1)
    image.set_qform(affine, 1 if straight else 0)  # a quaternion cannot say that a gantry was tilted
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"Reading Room, research use, not a medical device"
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)


def _table(bundle: ReportBundle) -> str:
    lines = ["# index, red, green, blue, opacity, visible, meshed, label"]
    lines.append('    0     0    0    0        0  0  0    "Clear Label"')
    for row in bundle.own_segments:
        red, green, blue = (int(row.colour[n : n + 2], 16) for n in (1, 3, 5))
        label = re.sub(r'["\s\x00-\x1f\x7f]+', " ", row.label).strip() or f"segment {row.number}"
        lines.append(f'{row.number:5d} {red:5d}{green:5d}{blue:5d}        1  1  1    "{label}"')
    return "\n".join(lines) + "\n"
