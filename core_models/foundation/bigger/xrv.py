"""torchxrayvision's DenseNet121 (18 findings) from a folder of converted weights; its PSPNet lies in `xrv_anatomy`.

The library (Cohen et al., MIDL 2022, PMLR 172:231-249) fetches its weights from the network and opens them as pickles
that can run code.  Here only safetensors made by `convert` are read, named as the library names its weights:
`densenet121-res224-all.safetensors` (or `-nih`, `-chex`, ...) and `pspnet.safetensors`; either may be absent.

One lock guards a reading: it bounds the memory, and the library keeps state of its own.
"""

from __future__ import annotations

import threading
import time
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core_models.errors import Refused
from core_models.foundation.bigger import common
from core_models.foundation.bigger.terms import BY_NAME
from core_models.foundation.reading import Context, Finding, Reading
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.foundation.bigger.xrv_anatomy import Anatomy
    from core_models.registry import ModelRow

DENSENET = "densenet121-res224-"
PSPNET = "pspnet"
SIDE = 224
CALIBRATED_ELSEWHERE = (
    "Its numbers are scaled so that 0.5 is the operating point that the library's authors chose on their own data."
)


@cache
def library() -> Any:
    """The torchxrayvision package, imported without its silencing of all warnings and its prints."""
    with warnings.catch_warnings():  # importing it calls filterwarnings("ignore") for the whole process
        import torchxrayvision as package
    package.utils.warning_log.setdefault("norm_check", True)  # our input is scaled by construction; it would print
    return package


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """(h, w) in 0..1 → float32 (1, side, side) in -1024..1024, by the library's own crop and resize."""
    package = library()
    image = package.utils.normalize(picture, 1.0)[None]
    return package.datasets.XRayResizer(side)(package.datasets.XRayCenterCrop()(image))


class Classifier:
    """DenseNet121 with the thresholds that the library publishes for these weights."""

    def __init__(self, path: Path, row: ModelRow) -> None:
        import torch

        package = library()
        known = package.models.model_urls.get(path.stem)
        if known is None:
            raise Refused(
                f"The weights {path.name} of the model {row.name} do not have one of the library's names, such as "
                f"{DENSENET}all.safetensors."
            )
        self.targets: tuple[str, ...] = tuple(known["labels"])
        self._model = package.models.DenseNet(num_classes=len(self.targets))
        try:
            self._model.load_state_dict(common.read_tensors(path, row))
        except RuntimeError as error:
            raise Refused(
                f"The weights {path.name} of the model {row.name} are not those of a DenseNet121 with "
                f"{len(self.targets)} findings."
            ) from error
        self._model.op_threshs = torch.tensor(known["op_threshs"])
        self._model.eval()

    def findings(self, picture: np.ndarray) -> tuple[Finding, ...]:
        """(h, w) in 0..1 → the findings that these weights were trained for, in the library's order."""
        import torch

        with torch.inference_mode():
            scores = self._model(torch.from_numpy(square(picture, SIDE))[None])[0]  # (findings,)
        out = []
        for target, score in zip(self.targets, scores.tolist(), strict=True):
            if target:  # "" is a finding that these weights were not trained for
                term = BY_NAME[target]
                out.append(Finding(target, term.term, term.region, score, 0.5, calibrated=False))
        return tuple(out)


class XrvEyes:
    """The `Eyes` over whichever of the two networks the folder holds.

    Raises, at construction:
        ModelMissing: no folder, or neither network in it.
        Refused: pickled, damaged or unfitting weights, or several DenseNets.
    """

    def __init__(self, row: ModelRow, folder: Path | None, threads: int) -> None:
        import torch

        where = common.folder_of(row, folder)
        found = common.safetensors_in(where, row)
        dense = [path for path in found if path.stem.startswith("densenet")]
        scene = [path for path in found if path.stem == PSPNET]
        if len(dense) > 1:
            raise Refused(f"The folder of the model {row.name} holds {len(dense)} DenseNets; one is expected.")
        if not dense and not scene:
            raise Refused(
                f"The folder of the model {row.name} holds {found[0].name}, which is neither "
                f"{DENSENET}all.safetensors nor {PSPNET}.safetensors."
            )
        torch.set_num_threads(threads)
        self._row = row
        self._lock = threading.Lock()
        self._classifier = Classifier(dense[0], row) if dense else None
        self._anatomy: Anatomy | None = None
        if scene:
            from core_models.foundation.bigger.xrv_anatomy import Anatomy

            self._anatomy = Anatomy(scene[0], row)
        self.name, self.version, self.licence, self.modalities = row.name, row.version, row.licence, row.modalities
        weights = "+".join(path.stem for path in (*dense, *scene))
        self._model = f"{self.name}/{self.version} {weights} ({common.digest_of((*dense, *scene))[:12]})"

    def read(self, volume: Volume, context: Context = common.NOTHING) -> Reading:
        """See `Eyes.read`; raises Refused on another modality or a series of several slices."""
        began = time.monotonic()
        picture = common.picture(volume, self._row)
        with self._lock:
            findings = self._classifier.findings(picture) if self._classifier else ()
            structures = self._anatomy.structures(picture) if self._anatomy else ()
        if not np.isfinite([f.probability for f in findings]).all():
            raise Refused(f"The model {self.name} answered with numbers that mean nothing for this image.")
        missing = (common.UNCALIBRATED, CALIBRATED_ELSEWHERE) if findings else ()
        if not self._classifier:
            missing = ("The folder holds no finding weights: findings were not looked for.",)
        notes: tuple[str, ...] = ()
        if self._anatomy:
            from core_models.foundation.bigger.xrv_anatomy import SIDES

            notes = (SIDES,)
        notes = (*notes, *common.cropped(picture))
        return Reading(
            model=self._model,
            licence=self.licence,
            quality=common.unjudged("a frontal chest radiograph"),
            findings=findings,
            structures=structures,
            missing=(*missing, *common.missing_context(context)),
            notes=notes,
            seconds=time.monotonic() - began,
        )
