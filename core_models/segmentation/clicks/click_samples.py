"""Labelled grids → cubes with clicks to learn from: turned, stretched, recoloured, some with shapes painted into them.

Real labels are few (one chest, one body, hearts, radiographs), so the look of every cube is varied widely, CT is shown
as MR would be, and a part of the targets are shapes that no body has: after Billot et al., "SynthSeg" (2023), and Wong
et al., "ScribblePrompt" (2024), a network that is to follow edges and clicks must not know its organs by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import edt as euclidean
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from core_models.segmentation import cohorts
from core_models.segmentation.clicks import cues, rough
from core_models.segmentation.clicks.looking import in_half, levels
from core_models.segmentation.clicks.rough import Rough, largest
from core_models.segmentation.metrics import depths
from core_models.segmentation.voxels import grid
from core_models.segmentation.voxels.grid import RELATIVE_RANGE, Grid
from core_models.segmentation.voxels.morphology import Spacing

OBJECTS = 4  # targets of one cube
WEIGHTS = {"demo-ct": 0.24, "totalseg-example": 0.14, "la2018": 0.32, "acdc": 0.25, "jsrt": 0.05}  # pictures are quick
PAINTED = 0.10  # of CT cubes have painted shapes in them
RECOLOURED = 0.15  # of CT cubes are shown without HU
LEAST = 24  # voxels of a target within a cube
DEEP = 0.5  # a first click lies at least this deep, as a part of the deepest there is
COARSE_FROM = 3.0  # mm: cubes with such voxels are cut out of the grid's half
PAINT = 9000  # number of the first painted label
FINISHED = 0.3  # of cubes of scans that have rough answers: one of these is to be finished
AROUND = 30.0  # mm: a rough answer is finished in cubes around the middle of what lies so near to a place in it
LEFT_OUT = 0.9  # of a cube's half side: a click farther out is not seen


@dataclass(frozen=True)
class Source:
    """One training scan, as the sampler reads it.

    Attributes:
        levels: (values (1, z, y, x), spacing) of the grid and of its half, as tensors.
        labels: float32 (1, z, y, x), 0 where nothing is labelled; exact integers.
        deep: label → (n, 3) grid voxels (z, y, x) deep inside it.
        rims: label → (n, 3) grid voxels near its surface.
        rough: label → what the classical engine answered clicks on it; nothing where that is not to be finished.
    """

    cohort: str
    hounsfield: bool
    flat: bool
    spacing: tuple[float, float, float]
    levels: tuple[tuple[torch.Tensor, Spacing], tuple[torch.Tensor, Spacing]]
    labels: torch.Tensor
    deep: dict[int, np.ndarray]
    rims: dict[int, np.ndarray]
    rough: dict[int, list[Rough]] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """What the targets of a cube are to be finished from.

    Attributes:
        before: float32 (k, z, y, x), a rough answer to each target.
        inside, outside: for each target (n, 3) float clicks of it that the cube holds; no target is without one inside.
    """

    before: np.ndarray
    inside: list[np.ndarray]
    outside: list[np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One cube and its targets.

    Attributes:
        cube: (2, z, y, x) of `cues.channels`.
        targets: bool (k, z, y, x).
        first: (k, 3) float clicks inside the targets, in voxels of the cube.
        hounsfield: whether the cube is shown in HU; `step`: edge of its voxels in nominal mm.
        tissue: (k, MAPS, z/2, y/2, x/2) `cues.tissue_cues` of the first clicks.
        begun: rough answers to finish; None where the clicks are the beginning.
    """

    hounsfield: bool
    step: float
    cube: torch.Tensor
    tissue: torch.Tensor
    targets: np.ndarray
    first: np.ndarray
    begun: Begun | None = None


def source(
    case: cohorts.Case, wanted: Callable[[int], bool] = lambda label: True, readers: int = 0, seed: int = 0
) -> Source | None:
    """A case as the sampler reads it, with the labels that are `wanted`; None where it has no target.

    Args:
        readers: so many click each structure of a CT, and what the classical engine answers is to be finished.
    """
    volume, labels = case.load()
    built = grid.build(volume)
    labels_here = on_grid(built, labels)
    masks = {number: mask for number, mask in planes(case, labels_here).items() if wanted(number)}
    deep, rims = {}, {}
    for number, mask in masks.items():
        if np.count_nonzero(mask) < LEAST:
            continue
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        # Of a picture, whose one slice has a surface on either side here, any place is deep.
        depth = euclidean.edt(np.pad(mask[box], 1), anisotropy=built.spacing)[1:-1, 1:-1, 1:-1]
        offset = np.array([s.start for s in box])
        deep[number] = np.argwhere(depth >= DEEP * depth.max()) + offset
        rims[number] = np.argwhere((depth > 0) & (depth <= 2 * max(built.spacing[1:]))) + offset
    if not deep:
        return None
    joined = np.zeros(labels_here.shape, np.float32)
    for number, mask in masks.items():
        joined[mask] = number
    return Source(
        case.cohort,
        built.hounsfield,
        built.shape[0] == 1,
        built.spacing,
        tuple((torch.from_numpy(np.ascontiguousarray(v, np.float32))[None], s) for v, s in levels(built)),  # type: ignore[arg-type]
        torch.from_numpy(joined)[None],
        deep,
        rims,
        rough.answers(built, masks, readers, seed) if readers and built.hounsfield else {},
    )


def on_grid(built: Grid, labels: np.ndarray) -> np.ndarray:
    """Each grid voxel's label: that of the native voxel at its middle."""
    at = [((np.arange(c) + 0.5) * f).astype(int) for c, f in zip(built.shape, built.factor, strict=True)]
    return labels[np.ix_(*at)]


def planes(case: cohorts.Case, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Label → bool mask.  Of overlapping structures (JSRT) the smaller one is kept where they meet."""
    if case.flags:
        masks = {v[0]: (labels & v[0]) > 0 for v in (case.targets or {}).values()}
        return dict(sorted(masks.items(), key=lambda item: -int(item[1].sum())))
    if case.targets is None:
        joined = labels.astype(np.int32)
        if case.cohort == "demo-ct":
            for values in cohorts.LUNGS.values():
                joined[np.isin(joined, values)] = values[0]
        return {int(n): joined == n for n in np.unique(joined) if n}
    return {v[0]: np.isin(labels, v) for v in case.targets.values()}


def deep_places(
    target: np.ndarray, spacing: tuple[float, float, float], count: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """The deepest voxel of a mask, and others at least `DEEP` as deep."""
    depth = depths(target, spacing)
    places = np.argwhere(depth >= DEEP * depth.max())
    chosen = [np.array(np.unravel_index(int(np.argmax(depth)), depth.shape))]
    chosen += [places[n] for n in rng.integers(len(places), size=count - 1)]
    return [tuple(int(c) for c in p) for p in chosen]


class Sampler:
    """Sources → an endless, seeded row of samples."""

    def __init__(self, sources: Iterable[Source], seed: int) -> None:
        self.by_cohort: dict[str, list[Source]] = {}
        for one in sources:
            self.by_cohort.setdefault(one.cohort, []).append(one)
        self.cohorts = [c for c in WEIGHTS if c in self.by_cohort]
        weights = np.array([WEIGHTS[c] for c in self.cohorts])
        self.weights = weights / weights.sum()
        self.seed = seed

    def __call__(self, step: int) -> Sample:
        """The sample of a step; the same for the same seed, whatever was drawn before."""
        for attempt in range(50):
            rng = np.random.default_rng((self.seed, step, attempt))
            own = self.by_cohort[self.cohorts[rng.choice(len(self.cohorts), p=self.weights)]]
            made = draw(own[rng.integers(len(own))], rng)
            if made is not None:
                return made
        raise RuntimeError("no cube with a target was found in 50 tries")

    def rows(self, start: int, stop: int, workers: int = 1) -> Iterator[Sample]:
        """The samples of some steps, made ahead by other processes."""
        return iter(DataLoader(_Row(self, start, stop), batch_size=None, num_workers=workers, prefetch_factor=4))


class _Row(Dataset):
    def __init__(self, sampler: Sampler, start: int, stop: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, n: int) -> Sample:
        if n >= len(self):
            raise IndexError(n)
        return self.sampler(self.start + n)


def draw(scan: Source, rng: np.random.Generator) -> Sample | None:
    """One cube of a scan; None where no target of it is large enough."""
    if scan.rough and rng.random() < FINISHED:
        return _to_finish(scan, rng)
    number = int(rng.choice(list(scan.deep)))
    places = scan.deep if rng.random() < 0.7 else scan.rims
    place = places[number][rng.integers(len(places[number]))].astype(float)
    shape = cues.FLAT if scan.flat else (cues.SIDE,) * 3
    step = float((2.0 if scan.flat or rng.random() < 0.6 else 4.0) * np.exp(rng.uniform(-0.35, 0.35)))
    centre = place + rng.normal(0, 2.5, 3) * step / np.asarray(scan.spacing)
    if scan.flat:
        centre[0] = 0.0
    turn = _turn(rng, scan.flat)
    level = 1 if step >= COARSE_FROM else 0
    values, spacing = scan.levels[level]
    at = in_half(centre, scan.labels.shape[1:]) if level else tuple(centre)
    picture = _cut(values, spacing, at, step, shape, turn)[0]
    labels = _cut(scan.labels, scan.spacing, tuple(centre), step, shape, turn, nearest=True)[0]
    labels = labels.numpy().astype(np.int32)
    labels[~_within(scan, centre, step, shape, turn)] = 0
    if scan.hounsfield and rng.random() < PAINTED:
        picture, labels = _painted(picture, labels, rng)
    cube, hounsfield = _coloured(picture, scan.hounsfield, rng)
    found = _targets(labels, number, rng, scan.flat)
    if found is None:
        return None
    targets, first = found
    tissue = [tissue_of(cube, hounsfield, p[None], step) for p in first]
    return Sample(hounsfield, step, cube, torch.stack(tissue), targets, first)


def tissue_of(cube: torch.Tensor, hounsfield: bool, inside: np.ndarray, step: float) -> torch.Tensor:
    """`cues.tissue_cues` as a tensor."""
    return torch.from_numpy(cues.tissue_cues(cube.numpy(), hounsfield, inside, step))


def _channels(picture: torch.Tensor, hounsfield: bool) -> torch.Tensor:
    return torch.from_numpy(cues.channels(picture.numpy(), hounsfield))


def _cut(
    array: torch.Tensor,
    spacing: Sequence[float],
    centre: Sequence[float],
    step: float,
    shape: Sequence[int],
    turn: torch.Tensor,
    nearest: bool = False,
) -> torch.Tensor:
    """As `cues.sample`, turned.

    Args:
        array: (c, z, y, x).
        turn: (3, 3) from the cube's axes to the array's.
        nearest: take the nearest voxel's value, for labels.

    Returns:
        (c, *shape).
    """
    lines = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * step for n in shape]
    mesh = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1) @ turn.T
    at = mesh / torch.tensor(tuple(spacing), dtype=torch.float32) + torch.tensor(tuple(centre), dtype=torch.float32)
    sizes = torch.tensor(array.shape[1:], dtype=torch.float32)
    where = ((2 * at + 1) / sizes - 1).flip(-1)[None]
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(array[None], where, mode=mode, padding_mode="border", align_corners=False)[0]


def _to_finish(scan: Source, rng: np.random.Generator) -> Sample | None:
    """A cube in a rough answer, with the clicks it holds; other rough answers in it are targets as well."""
    number = int(rng.choice(list(scan.rough)))
    chosen = scan.rough[number][rng.integers(len(scan.rough[number]))]
    spacing, shape = np.asarray(scan.spacing), (cues.SIDE,) * 3
    places = np.argwhere(chosen.mask) + [s.start for s in chosen.box]
    if not len(places):
        return None
    away = np.abs((places - places[rng.integers(len(places))]) * spacing)
    centre = places[(away <= AROUND).all(1)].mean(0) + rng.normal(0, 4.0, 3) / spacing
    step = float(2.0 * np.exp(rng.uniform(-0.2, 0.2)))
    turn = _turn(rng, False)
    values, _ = scan.levels[0]
    picture = _cut(values, scan.spacing, tuple(centre), step, shape, turn)[0]
    labels = _cut(scan.labels, scan.spacing, tuple(centre), step, shape, turn, nearest=True)[0]
    labels = labels.numpy().astype(np.int32)
    labels[~_within(scan, centre, step, shape, turn)] = 0
    cube, hounsfield = _coloured(picture, True, rng)

    back = np.linalg.inv(turn.numpy().astype(float).T)
    present = [int(n) for n in np.unique(labels) if n and n != number and int(n) in scan.rough]
    rng.shuffle(present)
    targets, begun, inside, outside, tissue = [], [], [], [], []
    for n in [number, *present][:OBJECTS]:
        one = chosen if n == number else scan.rough[n][rng.integers(len(scan.rough[n]))]
        so_far = _seen(one, scan.spacing, centre, step, shape, turn)
        clicks = ((one.clicks - centre) * spacing) @ back / step + (np.array(shape) - 1) / 2
        held = (np.abs(clicks - (np.array(shape) - 1) / 2) < LEFT_OUT * np.array(shape) / 2).all(1)
        within = clicks[held & one.adds].astype(np.float32)
        if not len(within):
            if np.count_nonzero(so_far > 0.5) < LEAST:
                continue
            within = deepest(so_far > 0.5)[None].astype(np.float32)
        targets.append(labels == n)
        begun.append(so_far)
        inside.append(within)
        outside.append(clicks[held & ~one.adds].astype(np.float32))
        tissue.append(tissue_of(cube, hounsfield, within, step))
    if not targets:
        return None
    first = np.stack([p[0] for p in inside])
    rest = Begun(np.stack(begun), inside, outside)
    return Sample(hounsfield, step, cube, torch.stack(tissue), np.stack(targets), first, rest)


def deepest(mask: np.ndarray) -> np.ndarray:
    """(z, y, x) of the voxel farthest from a mask's surface; the array's rim is none."""
    depth = euclidean.edt(np.ascontiguousarray(mask))
    return np.array(np.unravel_index(int(np.argmax(np.where(np.isinf(depth), 0, depth))), mask.shape))


def _seen(
    one: Rough,
    spacing: tuple[float, float, float],
    centre: np.ndarray,
    step: float,
    shape: Sequence[int],
    turn: torch.Tensor,
) -> np.ndarray:
    """A rough answer as a cube shows it, float32 (z, y, x)."""
    padded = torch.from_numpy(np.pad(one.mask, 1).astype(np.float32))[None]
    at = centre - [s.start - 1 for s in one.box]
    return _cut(padded, spacing, tuple(at), step, shape, turn)[0].numpy()


def _within(scan: Source, centre: np.ndarray, step: float, shape: Sequence[int], turn: torch.Tensor) -> np.ndarray:
    """Which voxels of the cube lie in the scan: beyond its rim the picture goes on, but no label does."""
    lines = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * step for n in shape]
    mesh = (torch.stack(torch.meshgrid(*lines, indexing="ij"), -1) @ turn.T).numpy()
    at = mesh / np.asarray(scan.spacing, np.float32) + np.asarray(centre, np.float32)
    size = np.asarray(scan.labels.shape[1:])
    axes = slice(1, 3) if scan.flat else slice(0, 3)
    return ((at >= -0.5) & (at < size - 0.5))[..., axes].all(-1)


def _turn(rng: np.random.Generator, flat: bool) -> torch.Tensor:
    """A random (3, 3): small turns, mirrored left and right as often as not, stretched a little."""
    about = np.deg2rad(rng.normal(0, [3, 3, 12]))
    if flat:
        about = np.array([0, 0, np.deg2rad(rng.uniform(-25, 25)) + rng.integers(4) * np.pi / 2])
    sines, cosines = np.sin(about), np.cos(about)
    x = np.array([[cosines[0], -sines[0], 0], [sines[0], cosines[0], 0], [0, 0, 1]])
    y = np.array([[cosines[1], 0, -sines[1]], [0, 1, 0], [sines[1], 0, cosines[1]]])
    z = np.array([[1, 0, 0], [0, cosines[2], -sines[2]], [0, sines[2], cosines[2]]])
    mirror = np.where(rng.random(3) < [0.0 if flat else 0.05, 0.05, 0.5], -1.0, 1.0)
    stretch = np.exp(rng.normal(0, 0.1, 3))
    if flat:
        stretch[0] = 1.0
    return torch.from_numpy((z @ y @ x) @ np.diag(mirror * stretch)).float()


def _field(shape: Sequence[int], rng: np.random.Generator, cells: int) -> torch.Tensor:
    """Smooth noise of about unit size."""
    small = torch.from_numpy(rng.normal(0, 1, (1, 1, *(max(2, min(cells, n)) for n in shape))).astype(np.float32))
    return functional.interpolate(small, tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def _painted(picture: torch.Tensor, labels: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """One to three bumpy balls of another grey level, with a soft rim and a texture of their own."""
    picture, labels = picture.clone(), labels.copy()
    mesh = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij"), -1)
    for number in range(int(rng.integers(1, 4))):
        middle = np.array([rng.uniform(0.2, 0.8) * n for n in labels.shape])
        radii = rng.uniform(0.08, 0.3) * max(labels.shape) * np.exp(rng.normal(0, 0.35, 3))
        radius = np.sqrt((((mesh - middle) / radii) ** 2).sum(-1)) + 0.25 * _field(labels.shape, rng, 5).numpy()
        inside = radius < 1
        base = float(picture[torch.from_numpy(inside)].median()) if inside.any() else 0.0
        level = base + float(rng.choice([-1, 1]) * rng.uniform(20, 160))
        texture = level + rng.uniform(0, 15) * _field(labels.shape, rng, 16)
        soft = torch.sigmoid(torch.from_numpy((1 - radius).astype(np.float32)) * rng.uniform(6, 30))
        picture = soft * texture + (1 - soft) * picture
        labels[inside] = PAINT + number
    return picture, labels


def _coloured(picture: torch.Tensor, hounsfield: bool, rng: np.random.Generator) -> tuple[torch.Tensor, bool]:
    """Other scanners, other doses, other contrast; CT now and then as a modality without HU, which is told."""
    if hounsfield:
        picture = picture * float(np.exp(rng.normal(0, 0.04))) + float(rng.normal(0, 10))
        picture = picture + float(rng.uniform(0, 14)) * torch.from_numpy(rng.normal(0, 1, picture.shape)).float()
        if rng.random() >= RECOLOURED:
            return _channels(picture, True), True
        low, high = float(rng.uniform(-1000, -100)), float(rng.uniform(150, 700))
        picture = (picture.clamp(low, high) - low) / (high - low) * RELATIVE_RANGE
    unit = (picture / RELATIVE_RANGE).clamp(0, 1.2) ** float(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.15:
        unit = 1 - unit
    unit = unit * (1 + 0.12 * _field(picture.shape, rng, 3)) + 0.02 * float(rng.random()) * torch.from_numpy(
        rng.normal(0, 1, picture.shape)
    )
    return _channels((unit * RELATIVE_RANGE).float(), False), False


def _targets(
    labels: np.ndarray, number: int, rng: np.random.Generator, flat: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """(targets, first clicks) of a cube."""
    found, counts = np.unique(labels, return_counts=True)
    large = [int(n) for n, c in zip(found, counts, strict=True) if n and c >= LEAST]
    if not large:
        return None
    chosen = [number] * (number in large) + [n for n in large if n >= PAINT]
    others = [n for n in large if n not in chosen]
    rng.shuffle(others)
    targets, first = [], []
    for n in (chosen + others)[:OBJECTS]:
        part = largest(labels == n)
        targets.append(part)
        first.append(_deep(part, rng, flat))
    return np.stack(targets), np.stack(first)


def _depth(mask: np.ndarray, flat: bool) -> np.ndarray:
    """Distance to the surface in voxels; the cube's rim is none, for the structure goes on beyond it."""
    return euclidean.edt(np.ascontiguousarray(mask), anisotropy=(1000.0, 1.0, 1.0) if flat else (1.0, 1.0, 1.0))


def _deep(mask: np.ndarray, rng: np.random.Generator, flat: bool) -> np.ndarray:
    """A place well inside, mostly near the middle of the cube, as a click is."""
    depth = _depth(mask, flat)
    places = np.argwhere(depth >= rng.uniform(DEEP, 1.0) * depth.max())
    return places[rng.integers(len(places))].astype(np.float32)


def correction(target: np.ndarray, answer: np.ndarray, flat: bool) -> tuple[np.ndarray, bool] | None:
    """The reader's next click in a cube, (place, whether it adds); None where the answer is right."""
    missed, extra = largest(target & ~answer), largest(answer & ~target)
    sizes = int(missed.sum()), int(extra.sum())
    if max(sizes) == 0:
        return None
    adds = sizes[0] >= sizes[1]
    depth = _depth(missed if adds else extra, flat)
    if np.isinf(depth).any():
        depth = np.where(np.isinf(depth), 0, depth)
    return np.array(np.unravel_index(int(np.argmax(depth)), depth.shape), np.float32), adds


def spoilt(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wrong answer that no network gave: the target grown, shrunk and bitten by smooth noise."""
    signed = euclidean.edt(target.copy()) - euclidean.edt(~target)
    signed = np.clip(np.nan_to_num(signed, posinf=20, neginf=-20), -20, 20)
    return signed + rng.uniform(1, 6) * _field(target.shape, rng, int(rng.integers(3, 8))).numpy() > rng.normal(0, 2)
