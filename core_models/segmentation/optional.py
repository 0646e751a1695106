"""A setting → which engine answers clicks; each optional engine as one row of plain data.  Importing this loads none.

"" leaves the choice to `registry.engine_for`; the name of a row there insists on that one; NAME:WHERE is an optional
engine.  Nothing is ever fetched: weights are a folder that a person put there, and voxels go to a server only where a
setting names it.

To add one: write its file with a class that follows `engine.Engine` and is made as `Class(row, where, threads)` (a
server's also takes `key` and `allow_remote`), and add one row here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from core_models.errors import ModelMissing, Refused
from core_models.segmentation import registry
from core_models.segmentation.registry import EngineRow

if TYPE_CHECKING:
    from core_models.segmentation.engine import Engine, Prompt, Segmentation
    from core_models.study.volume import Volume

SETTING = "READING_ROOM_SEGMENTER"
_TRANSFORMERS = ("torch", "torchvision", "transformers", "safetensors")


@dataclass(frozen=True)
class OptionalRow(EngineRow):
    """A row of an engine that only a setting chooses.

    Attributes:
        form: how it is set, as READING_ROOM_SEGMENTER.
        obtain: what to install or fetch, half a sentence for a person to read.
        sends: where the voxels go.
        server: whether `where` is an address.
    """

    form: str = ""
    obtain: str = ""
    sends: str = "nothing leaves this machine"
    server: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed (nothing is imported to find out)."""
        return tuple(package for package in self.needs if not _there(package))

    @property
    def available(self) -> bool:
        return not self.missing


OPTIONAL: tuple[OptionalRow, ...] = (
    OptionalRow(
        name="sam",
        version="1",
        task="clicks, boxes → one structure, slice by slice (SAM, MedSAM, SAM 2 and 2.1 in transformers' format)",
        licence="that of the folder's own card: facebook/sam-vit-* and facebook/sam2.1-hiera-* Apache-2.0, commercial "
        "use allowed; MedSAM's code Apache-2.0, its weights by their card; read it before use",
        cost="12 s of processor time for a slice the first time with weights of SAM 2's tiny size, more with larger "
        "ones (those were not measured), later prompts on it under 1 s; 1.5 GB; a GPU where there is one",
        modalities=(),
        entry="core_models.segmentation.bigger.sam:SamEngine",
        needs=_TRANSFORMERS,
        form="sam:FOLDER",
        obtain="fetch a folder such as facebook/sam-vit-base or facebook/sam2.1-hiera-tiny (config.json, "
        "model.safetensors, preprocessor_config.json) on a machine with a network and copy it here",
    ),
    OptionalRow(
        name="nninteractive",
        version="2",
        task="clicks, scribbles, boxes, lassos → one structure in 3D, by an nnInteractive server",
        licence="client and server Apache-2.0; the published weights CC BY-NC-SA 4.0: for non-commercial use only",
        cost="nothing here; the server wants a GPU with 10 GB",
        modalities=(),
        entry="core_models.segmentation.bigger.nninteractive:NnInteractiveEngine",
        needs=("nnInteractive.inference.remote", "httpx"),
        form="nninteractive:http://127.0.0.1:1527",
        obtain="install the client with `pip install nninteractive-client==2.6.0` and start `nninteractive-server`",
        sends="at the first click the voxels of that series and then every prompt go to the server; no field of the "
        "patient's record does",
        server=True,
    ),
    OptionalRow(
        name="totalsegmentator",
        version="2",
        task="a click → the organ under it, all organs drawn once (117 on CT, 50 on MR)",
        licence="code and the weights of its open tasks (total, total_mr, as used here) Apache-2.0, commercial use "
        "allowed; its other tasks want a licence of their own and are not used",
        cost="a CT of the trunk at 3 mm takes some minutes on two cores and 8 GB; at 1.5 mm a GPU",
        modalities=("CT", "MR"),
        entry="core_models.segmentation.bigger.totalsegmentator:TotalSegmentatorEngine",
        needs=("totalsegmentator", "nibabel"),
        form="totalsegmentator or totalsegmentator:FOLDER",
        obtain="install it with `pip install TotalSegmentator==2.18.0` and its weights once with "
        "`totalseg_download_weights -t total_fast` (`total_fast_mr` for MR)",
    ),
    OptionalRow(
        name="monai",
        version="1",
        task="a click → the structure under it, as a MONAI bundle draws it",
        licence="that of the bundle's LICENSE: MONAI's code is Apache-2.0, the weights of the model zoo mostly so, "
        "some trained on data for non-commercial use; read it and docs/data_license.txt before use",
        cost="the bundle's own; a 3D U-Net over a CT takes minutes on two cores",
        modalities=(),
        entry="core_models.segmentation.bigger.monai_bundle:MonaiBundleEngine",
        needs=("torch",),
        form="monai:FOLDER",
        obtain="unpack a bundle of the MONAI model zoo (configs/inference.json, configs/metadata.json, models/model.ts "
        "or models/model.pt) here; for model.pt also `pip install monai==1.6.1`",
    ),
)


def chooser(setting: str, threads: int = 2, *, key: str = "", allow_remote: bool = False) -> Callable[[Volume], Engine]:
    """A setting → what gives the engine for a volume; the engine is opened at the first volume, once.

    Args:
        setting: "", the name of a row of `registry`, or NAME:WHERE of a row here.
        key, allow_remote: of a server.

    Raises:
        Refused: no engine has this form.
    """
    name, _, where = setting.strip().partition(":")
    if not name and not where:
        return registry.engine_for
    if not where and any(known.name == name for known in registry.ENGINES):
        return lambda volume: registry.engine(name)
    row = row_of(setting)
    opened: list[Engine] = []
    lock = threading.Lock()

    def engine_for(volume: Volume) -> Engine:
        if not row.fits(volume.modality):
            return Instead(registry.engine_for(volume), row, volume.modality)
        with lock:  # held while one loads, so that nothing is loaded twice
            if not opened:
                opened.append(open_engine(row, where, threads, key=key, allow_remote=allow_remote))
        return opened[0]

    return engine_for


def row_of(setting: str) -> OptionalRow:
    """The row of a setting.  Raises Refused where no engine has this form."""
    name, colon, where = setting.strip().partition(":")
    for row in OPTIONAL:
        if name == row.name and (where.strip() or (not colon and " or " in row.form)):
            return row
    forms = ", ".join([*(row.name for row in registry.ENGINES), *(row.form for row in OPTIONAL)])
    raise Refused(f"{SETTING} is set to {setting[:60]!r}; {forms} or nothing is expected.")


def open_engine(row: OptionalRow, where: str, threads: int = 2, *, key: str = "", allow_remote: bool = False) -> Engine:
    """The engine of a row.

    Raises:
        ModelMissing: a package, the weights or the server is not there; the sentence says what to install and what the
            licence allows.
        Refused: what is there is not what the engine reads, or may not be used so.
    """
    if row.missing:
        raise missing(row, f"needs {', '.join(row.missing)}, which is not installed here")
    module, _, name = row.entry.partition(":")
    options: dict[str, Any] = {"key": key, "allow_remote": allow_remote} if row.server else {}
    return getattr(import_module(module), name)(row, where.strip(), threads, **options)


def missing(row: OptionalRow, what: str) -> ModelMissing:
    """The error that says what an engine lacks, how to get it and what its licence allows."""
    return ModelMissing(f"The segmentation engine {row.name} {what}: {row.obtain}. Licence: {row.licence}.")


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False


class Instead:
    """The default engine where the chosen one was not made for the modality; its answers say so."""

    def __init__(self, engine: Engine, row: OptionalRow, modality: str) -> None:
        self._engine = engine
        self._note = f"{row.name} was not made for {modality[:16]}: {engine.name} answered."
        self.name, self.version, self.licence = engine.name, engine.version, engine.licence

    def prepare(self, volume: Volume) -> Any:
        return self._engine.prepare(volume)

    def segment(
        self, prepared: Any, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = lambda: False
    ) -> Segmentation:
        """As the default engine's."""
        answer = self._engine.segment(prepared, prompts, cancelled)
        return replace(answer, note=f"{answer.note} {self._note}".strip())
