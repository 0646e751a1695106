"""The frames of one series → stacks of parallel slices in order of position, each with an affine and what is odd."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core_models.errors import Refused
from core_models.study.frames import Frame
from core_models.study.receipt import info, warning
from core_models.study.study import Note
from core_models.study.text import count

_SAME_DIRECTION = 1e-3  # difference of direction cosines that still counts as one orientation
_SAME_POSITION = 0.01  # mm
_GAP = 1.5  # a step this many times the usual one has lost a slice
_UNEVEN = 0.1  # steps that differ by more than this fraction make lengths along the stack wrong
_TILT_DEGREES = 0.5
_PROJECTIONS = {"CR", "DX", "MG", "XA", "RF", "US", "SC", "OT", "IO", "PX", "XC", "ES", "GM", "SM", "OP", "OPT"}


@dataclass(frozen=True)
class Stack:
    """Slices in order.

    Attributes:
        affine: index (column, row, slice, 1) → LPS mm of the source order.
        expected: slices that the geometry calls for.
        spacing_known: whether millimetres are right.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray
    expected: int
    spacing_known: bool
    notes: tuple[Note, ...]


def split(frames: Sequence[Frame]) -> list[Stack]:
    """Group frames by geometry and order each group.

    Raises:
        Refused: an orientation is singular or a position is not finite.
    """
    groups: list[list[Frame]] = []
    for frame in frames:
        home = next((g for g in groups if _alike(g[0], frame)), None)
        if home is None:
            groups.append([frame])
        else:
            home.append(frame)
    pieces: list[tuple[list[Frame], list[Note]]] = []
    for group in groups:
        pieces += _by_phase(group) if group[0].position is not None else _unplaced(group)
    stacks = [_placed(p, n) if p[0].position is not None else _flat(p, n) for p, n in pieces]
    return sorted(stacks, key=lambda stack: -len(stack.frames))


def _alike(a: Frame, b: Frame) -> bool:
    """Whether two frames may lie in one stack."""
    p, q = a.instance.pixels, b.instance.pixels
    if (p.rows, p.columns, p.samples, p.photometric) != (q.rows, q.columns, q.samples, q.photometric):
        return False
    if a.instance.localizer != b.instance.localizer or (a.orientation is None) != (b.orientation is None):
        return False
    if (a.spacing is None) != (b.spacing is None):
        return False
    if a.spacing is not None and not np.allclose(a.spacing, b.spacing, rtol=1e-3):
        return False
    return a.orientation is None or bool(
        np.allclose(a.orientation, b.orientation, atol=_SAME_DIRECTION, equal_nan=True)
    )


def _axes(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along increasing column, along increasing row, and their normal."""
    cosines = np.array(frame.orientation)
    along, down = cosines[:3], cosines[3:]
    if not np.isfinite(cosines).all() or not np.isfinite(frame.position).all():  # type: ignore[arg-type]
        raise Refused("The scan's orientation or position holds numbers that are not finite.")
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if not all(0.9 < length < 1.1 for length in lengths) or abs(along @ down) > 0.01:
        raise Refused("The scan's orientation is singular: its rows and columns are not at right angles.")
    along, down = along / lengths[0], down / lengths[1]
    normal = np.cross(along, down)
    return along, down, normal / np.linalg.norm(normal)


def _by_phase(group: list[Frame]) -> list[tuple[list[Frame], list[Note]]]:
    """Split a group that holds several images at one position (echoes, phases) into one group for each."""
    normal = _axes(group[0])[2]
    places = Counter(round(float(np.dot(f.position, normal)) / _SAME_POSITION) for f in group)
    most = max(places.values())
    if most == 1:
        return [(group, [])]
    note = info(f"The series holds up to {most} images at one position; it was split into stacks.")
    for n in range(len(group[0].phase)):
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in group:
            parts[frame.phase[n] if n < len(frame.phase) else ""].append(frame)
        # More parts than images at a place: that value changes from slice to slice and tells no stacks apart.
        if 1 < len(parts) <= most:
            out = [piece for part in parts.values() for piece in _by_phase(part)]
            return [(piece, [note]) for piece, _ in out]
    # Nothing in the headers tells them apart: take them in the order of acquisition.
    layers: dict[int, list[Frame]] = defaultdict(list)
    seen: Counter[int] = Counter()
    for frame in sorted(group, key=lambda f: (f.instance.number, f.index)):
        place = round(float(np.dot(frame.position, normal)) / _SAME_POSITION)  # type: ignore[arg-type]
        layers[seen[place]].append(frame)
        seen[place] += 1
    return [(layer, [note]) for layer in layers.values()]


def _unplaced(group: list[Frame]) -> list[tuple[list[Frame], list[Note]]]:
    """Frames without a position: projections stay single images, slices of a tomogram stay together."""
    if group[0].instance.modality not in _PROJECTIONS:
        return [(group, [])]
    parts: dict[int, list[Frame]] = defaultdict(list)
    for frame in group:
        parts[id(frame.instance)].append(frame)
    return [(part, []) for part in parts.values()]


def _flat(frames: list[Frame], notes: list[Note]) -> Stack:
    """A stack that does not know its place: index order, one pixel 1 mm where the spacing is unknown."""
    frames = sorted(frames, key=lambda f: (f.instance.number, f.index))
    first = frames[0]
    notes = list(notes)
    known = first.spacing is not None
    if not known:
        notes.append(warning("The header states no usable pixel spacing: lengths are not measured."))
    if len(frames) > 1:
        known = False
        notes.append(
            warning("The header does not say where the images lie: they are in order of their number, not measured.")
        )
    rows, columns = first.spacing or (1.0, 1.0)
    affine = np.diag([columns, rows, first.thickness or 1.0, 1.0])
    return Stack(tuple(frames), affine, len(frames), known, tuple(notes))


def _placed(frames: list[Frame], notes: list[Note]) -> Stack:
    notes = list(notes)
    along, down, normal = _axes(frames[0])
    frames = sorted(frames, key=lambda f: float(np.dot(f.position, normal)))  # type: ignore[arg-type]
    positions = np.array([f.position for f in frames])
    if _runs_backwards(frames):
        frames, positions = frames[::-1], positions[::-1]
    known = frames[0].spacing is not None
    if not known:
        notes.append(warning("The header states no usable pixel spacing: lengths and volumes are not measured."))
    rows, columns = frames[0].spacing or (1.0, 1.0)
    expected = len(frames)
    if len(frames) == 1:
        step = normal * (frames[0].thickness or 1.0)
    else:
        step, expected, sound = _step(positions, normal, notes)
        known = known and sound
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = along * columns, down * rows, step, positions[0]
    _check_tilt(frames[0], step, normal, notes)
    return Stack(tuple(frames), affine, expected, known, tuple(notes))


def _runs_backwards(frames: list[Frame]) -> bool:
    """Whether a multi-frame file's own order is exactly the reverse; it is then kept, so frame n is slice n."""
    return len(frames) > 1 and all(
        a.instance is b.instance and a.index > b.index for a, b in itertools.pairwise(frames)
    )


def _step(positions: np.ndarray, normal: np.ndarray, notes: list[Note]) -> tuple[np.ndarray, int, bool]:
    """The vector from slice to slice, the expected number of slices, and whether lengths along it are right."""
    steps = np.diff(positions, axis=0)
    depths = np.abs(steps @ normal)
    usual = float(np.median(depths))
    expected = len(positions)
    gaps = np.flatnonzero(depths > _GAP * usual)
    for gap in gaps[:5]:
        lost = max(1, round(float(depths[gap]) / usual) - 1)
        where = f"between {float(positions[gap] @ normal):.1f} and {float(positions[gap + 1] @ normal):.1f} mm"
        notes.append(warning(f"{count(lost, 'slice')} missing {where} (after slice {gap + 1})."))
    expected += sum(max(1, round(float(depths[gap]) / usual) - 1) for gap in gaps)
    if len(gaps):
        notes.append(
            warning(f"{expected} slices were expected, {len(positions)} arrived: lengths and volumes are not measured.")
        )
        regular = steps[depths <= _GAP * usual]
        return np.median(regular, axis=0), expected, False
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    sound = True
    if depths.max() - depths.min() > _UNEVEN * usual:
        sound = False
        notes.append(
            warning(
                f"Slice spacing varies from {depths.min():.2f} to {depths.max():.2f} mm: "
                "lengths and volumes are not measured."
            )
        )
    ideal = positions[0] + np.arange(len(positions))[:, None] * step
    off = np.linalg.norm((positions - ideal) - ((positions - ideal) @ normal)[:, None] * normal, axis=1).max()
    if off > 1.0:
        sound = False
        notes.append(warning(f"Slices are shifted sideways by up to {off:.1f} mm: lengths are not measured."))
    return step, expected, sound


def _check_tilt(frame: Frame, step: np.ndarray, normal: np.ndarray, notes: list[Note]) -> None:
    cosine = abs(float(step @ normal)) / float(np.linalg.norm(step))
    angle = float(np.degrees(np.arccos(min(1.0, cosine))))
    if angle > _TILT_DEGREES:
        notes.append(
            info(f"The slices are sheared by {angle:.1f}° (gantry tilt); positions and measurements follow the shear.")
        )
