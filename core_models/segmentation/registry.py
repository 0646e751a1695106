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
        alternatives: it has a second answer to the same prompts.
    """

    name: str
    version: str
    task: str
    licence: str
    cost: str
    modalities: tuple[str, ...]
    entry: str
    needs: tuple[str, ...]
    alternatives: bool = False

    @property
    def available(self) -> bool:
        """Whether its packages are installed (nothing is imported to find out)."""
        return all(find_spec(package) is not None for package in self.needs)

    def fits(self, modality: str) -> bool:
        return not self.modalities or modality in self.modalities


# The first available row that fits a volume's modality is its default.
ENGINES: tuple[EngineRow, ...] = (
    EngineRow(
        name="click",
        version="8",
        task="prompts → one structure, by a small network and the watershed together",
        licence="Apache-2.0; the weights on the terms of their training data (assets/segmentation/README.md)",
        cost="2 CPU cores, 1-2 s per scan, 0.1-0.4 s per click, about 900 MB",
        modalities=(),
        entry="core_models.segmentation.clicks.click_engine:ClickEngine",
        needs=("openvino", "safetensors", "SimpleITK", "skimage", "edt", "numba", "scipy"),
        alternatives=True,
    ),
    EngineRow(
        name="watershed",
        version="7",
        task="clicks → one structure, by tissue window and marker watershed",
        licence="Apache-2.0 (no weights)",
        cost="2 CPU cores, 1-2 s per scan, 0.05-0.4 s per click, under 700 MB",
        modalities=(),
        entry="core_models.segmentation.watershed_engine:WatershedEngine",
        needs=("SimpleITK", "skimage", "edt", "numba", "scipy"),
    ),
)


def engine_for(volume: Volume) -> Engine:
    """The default engine for this volume.

    Raises:
        ModelMissing: none is available for its modality.
    """
    return engine(default_for(volume.modality).name)


def default_for(modality: str) -> EngineRow:
    """The row of the default engine for a modality.  Raises ModelMissing as `engine_for`."""
    for row in ENGINES:
        if row.available and row.fits(modality):
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
