"""Small studies, masks and statements for the store's tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core_models.drafting.evidence import DraftModel, Evidence, Statement, Step
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.history import Step as SegmentStep
from core_models.study.study import Note, Patient, Receipt, Series, Study
from core_models.study.volume import SourceLayout, Volume
from webapp.settings import Settings, load

MODEL = DraftModel("small-model", "adapter-1", "abc123", 7)


def settings_in(folder: Path) -> Settings:
    return load({"READING_ROOM_HOME": str(folder / "home")})


def volume(shape=(4, 6, 8), seed=0) -> Volume:
    array = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    affine = np.array([[0.5, 0, 0, -10], [0, 0.6, 0, -20], [0, 0, 2.0, 5.5], [0, 0, 0, 1]])
    return Volume(array, affine, "CT", "HU", True, (40.0, 400.0), SourceLayout((0, 2, 1), (True, False, False)))


def series(uid="1.2.3.1", seed=0, sources=(b"first", b"second")) -> Series:
    notes = (Note("warning", "One slice is missing."),)
    receipt = Receipt("DICOM", "CT", (8, 6, 4), (0.5, 0.6, 2.0), 5, 4, False, notes)
    return Series(uid, 3, "thin", "CT", volume(seed=seed), receipt, sources)


def study(uid="1.2.3", patient="P1", **changes) -> Study:
    one = Study(
        uid,
        Patient(patient, "Müller^Anna", "19600102", "F", "064Y"),
        "20260101",
        "CT chest",
        "A1",
        (series(),),
        "CHEST",
    )
    return replace(one, **changes)


def mask(shape=(4, 6, 8), seed=0) -> Mask:
    full = np.zeros(shape, bool)
    full[1:3, 2:5, 1:7] = np.random.default_rng(seed).random((2, 3, 6)) < 0.5
    full[1, 2, 1] = True
    return Mask.from_full(full)


def add_segment(store, study_id, **changes):
    series_id = store.study(study_id).series[0].id
    values = {
        "label": "liver",
        "suggested": True,
        "steps": (SegmentStep(Click((1, 2, 3))), SegmentStep(Click((4, 5, 1), False))),
        "undone": (),
        "mask": mask(),
        "engine": "grid",
        "engine_version": "1",
        "confidence": 0.8,
        "measurement": {"volume_ml": 1.5},
    }
    return store.add_segment(study_id, series_id, **{**values, **changes})


def statement(id="s1", text="The liver is normal.", **changes) -> Statement:
    return replace(
        Statement(id, "findings", "abdomen", text, ("E1",), "supported", "model", text, Step(("E1",), "no lesion")),
        **changes,
    )


def card(text="liver: volume", **changes) -> Evidence:
    return replace(
        Evidence("", "measurement", "abdomen", text, 1512.0, "ml", location=(1.0, 2.0, 3.0), source="grid/1"), **changes
    )
