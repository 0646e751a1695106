"""NIfTI-1/2 bytes (.nii or .nii.gz) → a canonical Volume in LPS, and its notes.

The header is read and judged before the rest is unpacked, so a small file that declares a huge one costs nothing.
"""

from __future__ import annotations

import zlib

import nibabel
import numpy as np
from nibabel.wrapstruct import WrapStructError

from core_models.errors import Refused, TooLarge
from core_models.study.limits import Limits
from core_models.study.raster import luminance
from core_models.study.receipt import DEFAULT_CT_WINDOW, info, percentile_window, warning
from core_models.study.study import Note
from core_models.study.volume import Volume, canonical

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 544  # enough for NIfTI-1 (348) and NIfTI-2 (540)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_AIR_HU = -500  # values below this hardly occur in anything but CT


def ras_affine(volume: Volume) -> np.ndarray:
    """(4, 4): index (i, j, k, 1) → RAS mm, as NIfTI has it; the array that belongs to it is (x, y, z)."""
    return _RAS_TO_LPS @ volume.affine  # the turn is its own inverse


def source_ras_affine(volume: Volume) -> np.ndarray:
    """(4, 4): the source's own index (column, row, slice, 1) → RAS mm, whatever axes were turned on the way in."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for axis, (source, flipped) in enumerate(zip(volume.layout.axes, volume.layout.flips, strict=True)):
        turn[2 - axis, 2 - source] = -1.0 if flipped else 1.0
        turn[2 - axis, 3] = volume.shape[axis] - 1 if flipped else 0.0
    return ras_affine(volume) @ turn


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes (at least 4 KB, or all of the file) are a NIfTI header, plain or gzipped."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, _HEADER_BYTES)
        except zlib.error:
            return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def is_gzip(head: bytes) -> bool:
    """Whether the first bytes are those of a gzip stream."""
    return head.startswith(_GZIP)


def read(data: bytes, limits: Limits) -> tuple[Volume, list[Note]]:
    """Decode one image.

    Returns:
        the canonical volume and notes for the receipt; the first volume where there are several.

    Raises:
        TooLarge: the header declares more voxels than `limits` allow; raised before unpacking.
        Refused: a damaged or truncated file, a singular orientation, values that are not numbers of one channel.
    """
    header = _header(_prefix(data, _HEADER_BYTES))
    shape, components = _shape(header, limits)
    notes: list[Note] = []
    volumes = int(np.prod(header["dim"][4 : 1 + int(header["dim"][0])], dtype=np.int64)) if len(shape) > 3 else 1
    if volumes > 1:
        notes.append(warning(f"The file holds {volumes} volumes; the first is shown."))
    nx, ny, nz = shape[:3]
    stored = _voxels(data, header, nx * ny * nz).reshape((nz, ny, nx, *components))
    values = _values(stored, header, notes)
    affine, spacing_known = _affine(header, notes)
    modality, unit, window = _guess(values, nz, notes)
    try:
        array, affine, layout = canonical(values, affine)
    except (ValueError, FloatingPointError) as error:
        raise Refused("The NIfTI file's orientation is singular: its three axes do not span space.") from error
    return Volume(array, affine, modality, unit, spacing_known, window, layout), notes


def _prefix(data: bytes, size: int) -> bytes:
    """The first `size` bytes of the (unpacked) file.

    Raises:
        Refused: fewer bytes are there.
    """
    if not data.startswith(_GZIP):
        plain = data[:size]
    else:
        try:
            plain = zlib.decompressobj(31).decompress(data, size)
        except zlib.error as error:
            raise Refused("The gzip stream of the NIfTI file is damaged.") from error
    if len(plain) < min(size, 348):
        raise Refused(f"The NIfTI file ends after {len(plain):,} bytes; {size:,} were expected.")
    return plain


def _header(head: bytes) -> nibabel.Nifti1Header:
    kind = nibabel.Nifti2Header if head[4:8] in (b"n+2\0", b"ni2\0") else nibabel.Nifti1Header
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise Refused("This is the header half of a NIfTI pair; please upload a single .nii or .nii.gz file.")
    try:
        # Without what may follow it: a segmentation's names, written there as XML, are longer than what is read here.
        return kind(head[: kind.sizeof_hdr], check=False)
    except (nibabel.spatialimages.HeaderDataError, WrapStructError, OSError, ValueError, KeyError) as error:
        raise Refused("The NIfTI header is damaged.") from error


def _shape(header: nibabel.Nifti1Header, limits: Limits) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """((nx, ny, nz, ...), trailing component axes): (3,) for RGB, else ()."""
    rank = int(header["dim"][0])
    if not 2 <= rank <= 7:
        raise Refused(f"The NIfTI header declares {rank} dimensions; 2 to 7 are possible.")
    shape = tuple(int(n) for n in header["dim"][1 : 1 + rank]) + (1,) * max(0, 3 - rank)
    if min(shape) < 1:
        raise Refused(f"The NIfTI header declares a size of {shape}; every dimension must be at least 1.")
    nx, ny, nz = shape[:3]
    if nx * ny * nz > limits.max_voxels:
        raise TooLarge(f"The NIfTI header declares {nx} × {ny} × {nz} voxels; at most {limits.max_voxels:,} are read.")
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise Refused("The NIfTI header names a data type that does not exist.") from error
    if dtype.names and set("RGB") <= set(dtype.names):
        return shape, (len(dtype.names),)
    if dtype.kind not in "iuf":
        raise Refused(f"NIfTI values of type {dtype} cannot be shown as grey levels.")
    return shape, ()


def _voxels(data: bytes, header: nibabel.Nifti1Header, count: int) -> np.ndarray:
    """The first volume's stored values, flat (column fastest); RGB as bytes."""
    dtype = header.get_data_dtype()
    offset = float(header["vox_offset"])
    if not 0 <= offset < 1 << 24:
        raise Refused("The NIfTI header places the voxels at an impossible offset.")
    offset = max(int(offset), int(header["sizeof_hdr"]))
    end = offset + count * dtype.itemsize
    plain = data if not data.startswith(_GZIP) else _prefix(data, end)
    if len(plain) < end:
        raise Refused(f"The NIfTI file holds {len(plain) - offset:,} bytes of voxels; {end - offset:,} were expected.")
    base = np.dtype(np.uint8) if dtype.names else dtype
    return np.frombuffer(plain, base, (end - offset) // base.itemsize, offset)


def _values(stored: np.ndarray, header: nibabel.Nifti1Header, notes: list[Note]) -> np.ndarray:
    """Scaled values as uint8, int16, uint16 or float32."""
    if stored.ndim == 4:
        notes.append(info("Colour was reduced to luminance."))
        return luminance(stored[..., :3])
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # the standard's sign for "not scaled"
        slope, intercept = 1.0, 0.0
    intercept = intercept if np.isfinite(intercept) else 0.0
    scaled = (slope, intercept) != (1.0, 0.0)
    if stored.dtype.kind in "iu" and not scaled:
        return _narrow(stored)
    values = stored.astype(np.float32)
    if scaled:
        values *= np.float32(slope)
        values += np.float32(intercept)
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(values.size - np.count_nonzero(finite))
        if bad == values.size:
            raise Refused("The NIfTI file holds no finite value.")
        notes.append(warning(f"{bad:,} voxels are not finite numbers; they were set to the lowest value."))
        values[~finite] = values[finite].min()
    if np.abs(values).max() < 32768 and np.array_equal(values, np.rint(values)):
        values = values.astype(np.int16)  # whole numbers stored as float: a quarter to a half of the memory
    return values


def _narrow(stored: np.ndarray) -> np.ndarray:
    """Integers in the smallest of uint8, int16, uint16 that holds them, else float32."""
    if stored.dtype == np.uint8:
        return stored
    low, high = int(stored.min()), int(stored.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return stored.astype(kind, copy=False)
    return stored.astype(np.float32)


def _affine(header: nibabel.Nifti1Header, notes: list[Note]) -> tuple[np.ndarray, bool]:
    """Index (i, j, k, 1) → LPS mm, and whether millimetres can be trusted."""
    zooms = np.array([float(v) for v in header["pixdim"][1:4]])
    zooms_known = bool(np.isfinite(zooms).all() and (zooms != 0).all())
    try:
        if int(header["sform_code"]) > 0:
            ras = header.get_sform()
        elif int(header["qform_code"]) > 0 and zooms_known:
            ras = header.get_qform()
        else:
            notes.append(warning("The file does not say how it lies in the patient: left and right are not certain."))
            size = np.abs(zooms) if zooms_known else np.ones(3)
            ras = np.diag([-size[0], size[1], size[2], 1.0])
    except (nibabel.spatialimages.HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        raise Refused("The NIfTI file's orientation is not valid.") from error
    known = zooms_known or int(header["sform_code"]) > 0
    if not known:
        notes.append(warning("The file states no voxel size: lengths and volumes are not measured."))
    if not np.isfinite(ras).all() or (np.linalg.norm(ras[:3, :3], axis=0) == 0).any():
        raise Refused("The NIfTI file's orientation is singular: its three axes do not span space.")
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0 and zooms_known:
        other = header.get_qform()
        if not np.allclose(other[:3, :3], ras[:3, :3], atol=0.05 * float(np.abs(zooms).max())):
            notes.append(warning("The file's two orientations (sform and qform) disagree; the sform was used."))
    scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ _RAS_TO_LPS @ ras, known


def _guess(values: np.ndarray, slices: int, notes: list[Note]) -> tuple[str, str, tuple[float, float]]:
    """(modality, unit, window): NIfTI names no modality, so it is guessed from the values, with a note."""
    low, high = float(values.min()), float(values.max())
    if low < _AIR_HU and high < 40000:
        notes.append(info("NIfTI names no modality; the values look like CT in Hounsfield units."))
        return "CT", "HU", DEFAULT_CT_WINDOW
    window = percentile_window(values)
    if slices > 1 and high > 255 and low >= 0:
        notes.append(info("NIfTI names no modality; the values look like MR signal."))
        return "MR", "1", window
    notes.append(info("NIfTI names no modality; none was guessed."))
    return "OT", "1", window
