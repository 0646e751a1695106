"""Drawings that came as DICOM, laid on a volume → masks, each where its object says it lies and nowhere else.

A Segmentation's frame is placed by the image it was drawn on where that image is one of the volume's, else by its own
position in the patient; only a grid other than the volume's is resampled (nearest neighbour).  A contour fills the
pixels whose centres it encloses, and contours of one structure in one slice cut holes into each other (even-odd), as
planning systems write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import affine_transform
from skimage.draw import polygon2mask

from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.study.attachments import Attachment, Drawing, Plane
from core_models.study.study import KINDS
from core_models.study.text import count
from core_models.study.volume import MAX_VOXELS, Volume

_SAME_GRID = 0.2  # of a voxel: a frame that lies within it, and stays so to its far end, has the volume's grid
_IN_SLICE = 0.5  # of a slice: a contour farther from its slice's plane lies in none


@dataclass(frozen=True)
class Laid:
    """One drawing on the volume; `note` says what of it was left out, "" where nothing was; `drawn_by` as it came."""

    label: str
    mask: Mask
    note: str = ""
    drawn_by: str = "MANUAL"


def lay(attachment: Attachment, volume: Volume, slices: Mapping[str, int]) -> tuple[Laid, ...]:
    """Lay every drawing of a Segmentation or structure set on the volume; those that touch nothing are left out.

    Args:
        slices: SOPInstanceUID → slice in the source's order, of single-frame originals; {} for others.

    Raises:
        Refused: none of it lies on this volume, or it does not say where it lies.
    """
    found = []
    for drawing in attachment.drawings:
        full = np.zeros(volume.shape, bool)
        note = _planes(drawing, volume, slices, full) if drawing.planes else _contours(drawing, volume, full)
        mask = Mask.from_full(full)
        if not mask.empty:
            found.append(Laid(drawing.label, mask, note, drawing.drawn_by))
    if not found:
        raise Refused(f'Nothing that "{attachment.name}" ({KINDS[attachment.kind]}) draws lies on the images here.')
    return _told_apart(found)


def _told_apart(found: list[Laid]) -> tuple[Laid, ...]:
    """Equal names get a number."""
    seen: dict[str, int] = {}
    out = []
    for one in found:
        times = seen[one.label] = seen.get(one.label, 0) + 1
        out.append(one if times == 1 else replace(one, label=f"{one.label} {times}"))
    return tuple(out)


# Planes.


def _planes(drawing: Drawing, volume: Volume, slices: Mapping[str, int], full: np.ndarray) -> str:
    source = volume.layout.to_source(full)  # a view: what is set here is set in `full`
    outside = 0
    others: list[Plane] = []
    for plane in drawing.planes:
        rows, columns = (slice(at, at + n) for at, n in zip(plane.corner, plane.box.shape, strict=True))
        if plane.source in slices and plane.shape == source.shape[1:]:
            source[slices[plane.source], rows, columns] |= plane.box
        elif None in (plane.position, plane.orientation, plane.spacing):
            raise Refused("The segmentation does not say where its frames lie, and its images are not these.")
        elif (grid := _grid(plane, volume)) is None:
            others.append(plane)
        else:
            outside += _assign(plane, grid, full)
    if others:
        outside += _resampled(others, volume, full)
    return f"{count(outside, 'voxel')} of it lie outside of the scan." if outside else ""


def _affine(plane: Plane) -> np.ndarray:
    """(column, row, 0, 1) of the frame → LPS mm; the third column is the normal, of length 1."""
    cosines = np.array(plane.orientation)
    along, down = cosines[:3], cosines[3:]
    out = np.eye(4)
    out[:3, 0], out[:3, 1] = along * plane.spacing[1], down * plane.spacing[0]  # type: ignore[index]
    out[:3, 2], out[:3, 3] = np.cross(along, down), plane.position
    if not np.isfinite(out).all() or abs(np.linalg.det(out)) < 1e-9:
        raise Refused("The segmentation's orientation or position is not one that a plane can have.")
    return out


def _grid(plane: Plane, volume: Volume) -> np.ndarray | None:
    """Whole-numbered (origin, step per column, step per row) in (i, j, k), or None where the grid is another."""
    index = np.linalg.inv(volume.affine) @ _affine(plane)
    steps, origin = index[:3, :2], index[:3, 3]
    whole = np.rint(np.column_stack([origin, steps]))
    far = max(plane.shape)
    if np.abs(whole[:, 1:] - steps).max() * far > _SAME_GRID or np.abs(whole[:, 0] - origin).max() > _SAME_GRID:
        return None
    return whole.astype(int) if (np.abs(whole[:, 1:]).sum(0) == 1).all() else None


def _assign(plane: Plane, grid: np.ndarray, full: np.ndarray) -> int:
    """Set the plane's pixels; returns how many lie outside of the volume."""
    rows, columns = np.nonzero(plane.box)
    rows, columns = rows + plane.corner[0], columns + plane.corner[1]
    ijk = grid[:, :1] + grid[:, 1:2] * columns + grid[:, 2:] * rows
    inside = ((ijk >= 0) & (ijk < np.array(full.shape[::-1])[:, None])).all(0)
    i, j, k = ijk[:, inside]
    full[k, j, i] = True
    return int(inside.size - np.count_nonzero(inside))


def _resampled(planes: list[Plane], volume: Volume, full: np.ndarray) -> int:
    """Planes of one other grid, stacked and sampled at the volume's voxel centres."""
    first = _affine(planes[0])
    normal = first[:3, 2] / np.linalg.norm(first[:3, 2])
    alike = [np.allclose(_affine(p)[:3, :2], first[:3, :2], atol=1e-3) and p.shape == planes[0].shape for p in planes]
    depths = np.array([float(np.dot(p.position, normal)) for p in planes])  # type: ignore[arg-type]
    order = np.argsort(depths)
    gaps = np.diff(depths[order])
    gaps = gaps[gaps > 1e-3]
    step = float(gaps.min()) if gaps.size else planes[0].thickness or volume.spacing[0]
    places = np.rint((depths - depths.min()) / step).astype(int)
    if not all(alike) or np.abs((depths - depths.min()) / step - places).max() > 0.2:
        raise Refused("The segmentation's frames do not make one regular grid, and it is not that of the images.")
    if (int(places.max()) + 1) * planes[0].shape[0] * planes[0].shape[1] > MAX_VOXELS:
        raise Refused("The segmentation spans a grid that is too large to be laid on the images.")
    stack = np.zeros((int(places.max()) + 1, *planes[0].shape), np.uint8)
    for plane, place in zip(planes, places, strict=True):
        (r, c), (h, w) = plane.corner, plane.box.shape
        stack[place, r : r + h, c : c + w] |= plane.box
    affine = first.copy()
    affine[:3, 2] = normal * step
    affine[:3, 3] = _affine(planes[int(order[0])])[:3, 3]
    matrix = np.linalg.inv(affine) @ volume.affine  # volume (i, j, k) → stack (column, row, slice)
    box = _reach(stack.shape[::-1], np.linalg.inv(matrix), full.shape[::-1])
    if box is None:
        return int(stack.sum())
    low, high = box
    turned = matrix[:3, :3][::-1, ::-1]
    offset = (matrix[:3, :3] @ low + matrix[:3, 3])[::-1]
    size = tuple(int(n) for n in (high - low)[::-1])
    part = affine_transform(stack, turned, offset, size, order=0, mode="grid-constant") > 0
    full[low[2] : high[2], low[1] : high[1], low[0] : high[0]] |= part
    return 0


def _reach(shape: tuple[int, ...], to_volume: np.ndarray, bounds: tuple[int, ...]) -> tuple | None:
    """(low, high) in the volume's (i, j, k) of a grid's corners, clipped to it; None where they lie apart."""
    corners = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in shape))).reshape(3, -1)
    ijk = to_volume[:3, :3] @ corners + to_volume[:3, 3:]
    low = np.clip(np.floor(ijk.min(1)), 0, bounds).astype(int)
    high = np.clip(np.ceil(ijk.max(1)) + 1, 0, bounds).astype(int)
    return (low, high) if (high > low).all() else None


# Contours.


def _contours(drawing: Drawing, volume: Volume, full: np.ndarray) -> str:
    axis = 2 - volume.layout.axes.index(0)  # the index axis (i, j, k) along which the source's slices lie
    planes = np.moveaxis(full, 2 - axis, 0)  # (slice, ...), the other two in array order
    across = [a for a in (2, 1, 0) if a != axis]  # index axes of those two
    sizes = planes.shape[1:]
    left_out, used = drawing.left_out, set()
    for contour in drawing.contours:
        index = volume.to_index(contour)
        depth = index[:, axis]
        place = round(float(depth.mean()))
        if np.ptp(depth) > 2 * _IN_SLICE or not 0 <= place < planes.shape[0]:
            left_out += 1
            continue
        points = index[:, across]
        low = np.clip(np.floor(points.min(0)), 0, sizes).astype(int)
        high = np.clip(np.ceil(points.max(0)) + 1, 0, sizes).astype(int)
        if (high <= low).any():
            left_out += 1
            continue
        inside = polygon2mask(tuple(high - low), points - low)
        planes[place, low[0] : high[0], low[1] : high[1]] ^= inside
        used.add(place)
    notes = []
    if left_out:
        notes.append(f"{count(left_out, 'contour')} enclose nothing in a slice of this scan and were left out.")
    missing = max(used) - min(used) + 1 - len(used) if used else 0
    if missing:
        notes.append(f"{count(missing, 'slice')} between its contours hold none and stay empty.")
    return " ".join(notes)
