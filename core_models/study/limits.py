"""The bounds at the boundary: how much of an upload is read before it is refused, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from core_models.study.volume import MAX_VOXELS


@dataclass(frozen=True)
class Limits:
    """All sizes in bytes unless said otherwise.

    Attributes:
        max_files: files in one upload, folders and archives counted through.
        max_bytes: bytes of one upload after unpacking.
        max_file_bytes: bytes of one file after unpacking.
        max_attachment_bytes: bytes of one structure set or structured report.
        max_voxels: voxels of one volume.
        max_sequence_depth: nesting of DICOM sequences; real objects stay below ten.
        max_items: items of all DICOM sequences of one file; a segmentation of a hundred organs has some fifty thousand.
        max_elements: DICOM elements at one file's top level; real ones have a few hundred.
        decode_seconds: longest time that the decoder may take for one file, beside one second for each frame.
        decode_bytes: address space of each decoder process; `decode_processes`: how many of them one upload has.
    """

    max_files: int = 20_000
    max_bytes: int = 4 * 1024**3
    max_file_bytes: int = 3 * 1024**3
    max_attachment_bytes: int = 256 * 1024**2
    max_voxels: int = MAX_VOXELS
    max_sequence_depth: int = 32
    max_items: int = 300_000
    max_elements: int = 20_000
    decode_seconds: float = 60.0
    decode_bytes: int = 4 * 1024**3
    decode_processes: int = 2


DEFAULT = Limits()
