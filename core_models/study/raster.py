"""PNG or JPEG bytes → a one-slice Volume without known spacing (one pixel counts as 1 mm), and its notes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from core_models.errors import Refused, TooLarge
from core_models.study.limits import Limits
from core_models.study.receipt import info, percentile_window, warning
from core_models.study.study import Note
from core_models.study.volume import Volume

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luminance, as DICOM's YBR_FULL


def format_of(head: bytes) -> str:
    """ "PNG", "JPEG" or "" by the first bytes."""
    return "PNG" if head.startswith(_PNG) else "JPEG" if head.startswith(_JPEG) else ""


def luminance(colour: np.ndarray) -> np.ndarray:
    """(..., 3) RGB of an unsigned type → (...) luminance of the same type."""
    if np.array_equal(colour[..., 0], colour[..., 1]) and np.array_equal(colour[..., 1], colour[..., 2]):
        return colour[..., 0]
    exact = np.float32 if colour.dtype.itemsize < 4 else np.float64  # 32-bit samples do not fit float32's mantissa
    return np.rint(colour.astype(exact) @ _WEIGHTS.astype(exact)).astype(colour.dtype)


def read(data: bytes, limits: Limits) -> tuple[Volume, list[Note]]:
    """Decode one image.

    Returns:
        the volume, (1, rows, columns) uint8 or uint16, and notes for the receipt.

    Raises:
        TooLarge: more pixels than Pillow's decompression-bomb limit or `limits`, before decoding.
        Refused: damaged or truncated bytes.
    """
    kind = format_of(data[:16])
    notes = [warning("The image states no pixel spacing: lengths are not measured.")]
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check_size(image, limits)
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                notes.append(warning(f"The file holds {frames} frames; the first is shown."))
            upright = ImageOps.exif_transpose(image)
            if upright.size != image.size or upright.tobytes() != image.tobytes():
                notes.append(info("The image was turned as its EXIF orientation says."))
            pixels = _grey(upright, notes)
    except Image.DecompressionBombError as error:
        raise TooLarge("The image has more pixels than can be opened safely.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise Refused(f"The {kind} image is damaged or cut short and cannot be decoded.") from error
    array = np.ascontiguousarray(pixels[None])
    volume = Volume(array, np.eye(4), "OT", "1", spacing_known=False, window=percentile_window(array))
    return volume, notes


def _check_size(image: Image.Image, limits: Limits) -> None:
    columns, rows = image.size
    bound = min(limits.max_voxels, Image.MAX_IMAGE_PIXELS or limits.max_voxels)
    if columns * rows > bound:
        raise TooLarge(f"The image has {columns} × {rows} pixels; at most {bound:,} can be opened.")


def _grey(image: Image.Image, notes: list[Note]) -> np.ndarray:
    """(rows, columns) of the image in grey; colour becomes luminance, with a note."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        deep = np.asarray(image)
        return np.clip(deep, 0, 65535).astype(np.uint16)
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    colour = np.asarray(image.convert("RGB"))
    grey = luminance(colour)
    if not np.array_equal(grey, colour[..., 0]) or not np.array_equal(grey, colour[..., 2]):
        notes.append(info("Colour was reduced to luminance."))
    return grey
