"""Every segmentation engine as one row of plain data; importing this loads no engine and no heavy library.

To add an engine: write its file with a class that follows `engine.Engine`, and add one row here.
Engines that only a setting chooses have their rows in `optional`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from core_models.errors import ModelMissing, NotFound

if TYPE_CHECKING:
    from core_models.segmentation.engine import Engine
    from core_models.study.volume import Volume


@dataclass(frozen=True)
class EngineRow:
    """What the page, the README and `engine` need to know of an engine.

    Attributes:
        task: what it answers ("click → one structure").
        cost: what it needs, for a person to read.
        modalities: DICOM codes it was made for; empty for any.
        entry: "module:class", imported on first use.
        needs: top-level packages that must be installed.
        leads: modalities whose default it may be; empty for all that it fits.
        other: the engine that draws where its second answer to the same prompts is asked for; "" where it has one.
    """

    name: str
    version: str
    task: str
    licence: str
    cost: str
    modalities: tuple[str, ...]
    entry: str
    needs: tuple[str, ...]
    leads: tuple[str, ...] = ()
    other: str = ""

    @property
    def available(self) -> bool:
        """Whether its packages are installed (nothing is imported to find out)."""
        return all(find_spec(package) is not None for package in self.needs)

    def fits(self, modality: str) -> bool:
        return not self.modalities or modality in self.modalities


# The first available row that fits a volume's modality, and leads there, is its default.
ENGINES: tuple[EngineRow, ...] = (
    EngineRow(
        name="click",
        version="7",
        task="prompts → one structure, by a small network and the watershed together",
        licence="Apache-2.0; the weights on the terms of their training data (assets/segmentation/README.md)",
        cost="2 CPU cores, 1-2 s per scan, 0.1-0.5 s per click, under 800 MB",
        modalities=(),
        entry="core_models.segmentation.clicks.click_engine:ClickEngine",
        needs=("openvino", "safetensors", "SimpleITK", "skimage", "edt", "numba", "scipy"),
        # On CT neither is ahead throughout (assets/segmentation/README.md has the figures): the watershed is steadier
        # on large organs, quicker and smaller; this engine is ahead on the training CTs, also on what was kept from it.
        # A picture or a NIfTI without HU names no modality: it is OT, and a radiograph or an MR as a rule.
        leads=("MR", "CR", "DX", "RG", "OT", "SC", "XC"),
        other="click",
    ),
    EngineRow(
        name="watershed",
        version="6",
        task="clicks → one structure, by tissue window and marker watershed",
        licence="Apache-2.0 (no weights)",
        cost="2 CPU cores, 1-2 s per scan, 0.05-0.4 s per click, under 500 MB; its other answer, of `click`, 200 more",
        modalities=(),
        entry="core_models.segmentation.clicks.watershed_first:WatershedFirst",
        needs=("SimpleITK", "skimage", "edt", "numba", "scipy"),
        other="click",
    ),
)


def drawing(name: str, version: str, alternative: bool) -> tuple[str, str]:
    """(name, version) of what draws a segment: the engine, or its `other` where an `Alternative` was asked for."""
    own = next((row.other for row in ENGINES if row.name == name and alternative), "")
    return next(((row.name, row.version) for row in ENGINES if row.name == own), (name, version))


def engine_for(volume: Volume) -> Engine:
    """The default engine for this volume.

    Raises:
        ModelMissing: none is available for its modality.
    """
    return engine(default_for(volume.modality).name)


def default_for(modality: str) -> EngineRow:
    """The row of the default engine for a modality.  Raises ModelMissing as `engine_for`."""
    for row in ENGINES:
        if row.available and row.fits(modality) and (not row.leads or modality in row.leads):
            return row
    raise ModelMissing(f"No segmentation engine for modality {modality} is installed; run `make run` once.")


def engine(name: str) -> Engine:
    """The engine of that name; one instance per process.

    Raises:
        NotFound: no such row.
        ModelMissing: its packages are not installed.
    """
    row = next((r for r in ENGINES if r.name == name), None)
    if row is None:
        raise NotFound(f"There is no segmentation engine {name!r}; there are {', '.join(r.name for r in ENGINES)}.")
    if not row.available:
        raise ModelMissing(f"The segmentation engine {name} needs {', '.join(row.needs)}; run `make run` once.")
    return _load(row.entry)


@cache
def _load(entry: str) -> Engine:
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)()
