"""A store with one scan that came through intake, two overlapping segments, a board and a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from core_models.drafting.evidence import DraftModel, Evidence, Statement, Step
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.history import Step as SegmentStep
from core_models.segmentation.measure import measure
from core_models.study.intake import read_scan
from retrieval.report import CorpusReport, Prior
from tests.exports.dicom_files import ct_files, enhanced_ct_file, radiograph_file
from webapp.exports import ReportBundle, collect
from webapp.settings import load
from webapp.store import Store

SHAPE = (6, 20, 24)  # (slice, row, column)


@dataclass
class Scene:
    """A store and the study in it."""

    store: Store
    study_id: str

    def bundle(self, **kwargs) -> ReportBundle:
        return collect(self.store, self.study_id, **kwargs)

    def segment(self, label: str, full: np.ndarray) -> None:
        """Add a segment from a canonical whole-volume mask."""
        series = self.store.study(self.study_id).series[0]
        mask, volume = Mask.from_full(full), self.store.volume(series.id)
        self.store.add_segment(
            self.study_id,
            series.id,
            label=label,
            suggested=False,
            steps=(SegmentStep(Click((1, 1, 1))),),
            mask=mask,
            engine="watershed",
            engine_version="1",
            confidence=0.5,
            measurement=None if mask.empty else asdict(measure(volume, mask)),
        )

    def fill(self) -> None:
        """Two overlapping segments, one of each kind of card, a prior and a report."""
        shape = self.store.study(self.study_id).series[0].shape
        rng = np.random.default_rng(1)
        for n, label in enumerate(("liver", "nodule")):
            full = np.zeros(shape, bool)
            box = tuple(slice(s // 4, max(s // 4 + 1, s - n * s // 4 - 1)) for s in shape)
            full[box] = rng.random(full[box].shape) < 0.7
            self.segment(label, full)
        board = [
            Evidence("", "measurement", "abdomen", "liver: volume", 1512.0, "ml", source="watershed/1"),
            Evidence("", "finding", "lungs", "nodule <b>&amp;", probability=0.91, source="reader", status="accepted"),
            Evidence("", "finding", "lungs", "effusion", source="reader", status="rejected"),
        ]
        for card in board:
            self.store.add_evidence(self.study_id, card)
        report = CorpusReport("CXR7", "7", "cough", "A nodule.", "Nodule.", ("Nodule",))
        prior = Evidence("", "prior", "lungs", "A nodule.", source="report CXR7")
        self.store.set_priors(self.study_id, [(prior, Prior(report, 0.83, ("A nodule.",)))])
        self.store.set_indication(self.study_id, "Husten seit 3 Wochen & <i>Fieber</i>")
        statements = [
            Statement(
                "s1",
                "findings",
                "abdomen",
                "The liver has a volume of 1512 ml.",
                ("E1",),
                "supported",
                "model",
                "The liver has a volume of {E1}.",
            ),
            Statement("s2", "findings", "lungs", "Nodule < mass &c.", ("E2", "P1"), "supported", "edited"),
            Statement(
                "s3", "impression", "lungs", "Lung nodule.", ("E2",), "unsupported", step=Step(("E2",), "a nodule")
            ),
        ]
        self.store.save_report(
            self.study_id,
            statements=statements,
            free_text="Seen with Dr Öztürk.",
            base_revision=0,
            unseen=["No prior examination was available."],
            model=DraftModel("small-model", "adapter-1", "abc", 7),
        )

    def doubt(self) -> None:
        """Add three sentences of the model: struck out, restored by the reader, and contradicted."""
        state = self.store.report(self.study_id)
        more = [
            Statement("s4", "impression", "lungs", "Pneumothorax.", ("E2",), "unsupported", "model"),
            Statement("s5", "impression", "bones", "Old fracture.", (), "unsupported", "model", restored=True),
            Statement("s6", "impression", "lungs", "No nodule.", ("E2",), "contradicted", "model"),
        ]
        self.store.save_report(
            self.study_id, statements=[*state.statements, *more], free_text="", base_revision=state.revision
        )

    def sign(self) -> None:
        state = self.store.report(self.study_id)
        self.store.sign(self.study_id, author="Dr A", base_revision=state.revision)


@pytest.fixture
def scene_of(tmp_path):
    """files as bytes → a scene with that scan, read by the product's intake."""
    stores = []

    def make(files: list[bytes], filled: bool = True) -> Scene:
        folder = tmp_path / f"scan{len(stores)}"
        folder.mkdir()
        for n, data in enumerate(files):
            Path(folder / f"{n:03d}").write_bytes(data)
        store = Store(load({"READING_ROOM_HOME": str(tmp_path / f"home{len(stores)}")}))
        stores.append(store)
        (study,) = read_scan(folder)
        scene = Scene(store, store.add_study(study))
        if filled:
            scene.fill()
        return scene

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def voxels():
    """(slice, row, column) int16 HU."""
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def ct(scene_of, voxels):
    return scene_of(ct_files(voxels))


SCANS = {
    "axial": lambda v: ct_files(v),
    "axial, from head to foot": lambda v: ct_files(v, step=(0, 0, -2.5)),
    "coronal": lambda v: ct_files(v, orientation=(1, 0, 0, 0, 0, -1), step=(0, 2.5, 0)),
    "sagittal": lambda v: ct_files(v, orientation=(0, 1, 0, 0, 0, -1), step=(-2.5, 0, 0)),
    "tilted gantry": lambda v: ct_files(v, orientation=(1, 0, 0, 0, 0.96, -0.28)),
    "multi-frame, shuffled": lambda v: [enhanced_ct_file(v, [3, 0, 5, 1, 4, 2])],
    "radiograph": lambda v: [radiograph_file(v[0])],
}


@pytest.fixture(params=list(SCANS))
def any_scan(request, scene_of, voxels):
    return scene_of(SCANS[request.param](voxels))
