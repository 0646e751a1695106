"""Volumes in → a running application that holds the viewer alone: its component, its routes, a store, a box engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from fastapi import FastAPI

from core_models.segmentation.engine import Alternative, Mask, Prompt, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.study import Patient, Receipt, Series, Study
from core_models.study.volume import Volume
from tests.builders import affine, phantom
from webapp import errors
from webapp.settings import Settings, load
from webapp.store import Store
from webapp.viewer import annotation_routes, routes
from webapp.viewer.annotations import AnnotationService
from webapp.viewer.service import SegmentService

SHAPE = (20, 40, 60)  # (z, y, x), each its own, so that no two axes can be mistaken
SPACING = (0.8, 0.9, 2.5)  # column, row, slice in mm
ORIGIN = (-24.0, -18.0, -100.0)


class BoxEngine:
    """A box of 5 × 5 × 3 voxels around every adding click, less one voxel around every removing one."""

    name, version, licence = "box", "1", "none"

    def __init__(self) -> None:
        self.segmented: list[tuple[Prompt, ...]] = []
        self.prepared = 0

    def prepare(self, volume: Volume) -> Volume:
        self.prepared += 1
        return volume

    def segment(
        self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        self.segmented.append(clicks)
        full = np.zeros(prepared.shape, bool)
        for click in as_clicks(prepared, clicks):
            i, j, k = click.index
            r, s = (2, 1) if click.positive else (0, 0)
            full[max(0, k - s) : k + s + 1, max(0, j - r) : j + r + 1, max(0, i - r) : i + r + 1] = click.positive
        return Segmentation(Mask.from_full(full), 0.9, len(clicks))


class TwoBoxEngine(BoxEngine):
    """As `BoxEngine`, and as the other answer the same a slice higher; under a name that has alternatives."""

    name, alternatives = "click", True

    def segment(self, prepared: Volume, clicks: tuple[Prompt, ...], cancelled=never) -> Segmentation:
        answer = super().segment(prepared, clicks)
        turns = sum(isinstance(c, Alternative) for c in clicks)
        z, y, x = answer.mask.offset
        return replace(answer, mask=replace(answer.mask, offset=(z + turns % 2, y, x)))


def ct(shape: tuple[int, int, int] = SHAPE) -> Volume:
    """The phantom whose dense block lies to the patient's left, front and top."""
    return Volume(phantom(shape), affine(SPACING, ORIGIN), modality="CT", unit="HU", window=(40.0, 400.0))


def radiograph(rows: int = 300, columns: int = 250) -> Volume:
    """A uint16 gradient that uses all of its range."""
    array = np.linspace(0, 65535, rows * columns).astype(np.uint16).reshape(1, rows, columns)
    return Volume(array, np.eye(4), modality="DX", unit="1", window=(32768.0, 65535.0))


def study(*volumes: Volume, uid: str = "2.25.1") -> Study:
    """One study with a series for each volume."""
    series = []
    for n, volume in enumerate(volumes, 1):
        z, y, x = volume.shape
        receipt = Receipt("NIfTI", volume.modality, (x, y, z), volume.spacing[::-1], z, z, volume.spacing_known)
        series.append(Series(f"{uid}.{n}", n, f"Series {n}", volume.modality, volume, receipt))
    return Study(uid, Patient(), "20260102", "Test", "", tuple(series))


class Harness:
    """An application on an empty home.

    Attributes:
        changes: the studies that `on_change` was called for, in order.
    """

    def __init__(self, home: Path, engine: BoxEngine | None = None, **options) -> None:
        self.settings: Settings = load({"READING_ROOM_HOME": str(home)})
        self.store = Store(self.settings)
        self.engine = engine or BoxEngine()
        self.changes: list[str] = []
        options.setdefault("engine_for", lambda volume: self.engine)
        self.service = SegmentService(self.store, self.changes.append, **options)
        self.app = FastAPI()
        errors.install(self.app)
        self.app.include_router(routes.router(self.store, self.service))
        drawn = AnnotationService(self.store, self.changes.append)
        self.app.include_router(annotation_routes.router(self.store, drawn))

    def add(self, *volumes: Volume, uid: str = "2.25.1"):
        """Store a study and answer its row."""
        return self.store.study(self.store.add_study(study(*volumes, uid=uid)))

    def with_page(self) -> FastAPI:
        """The application with the Gradio page that holds the viewer, and the modules it loads."""
        import gradio as gr

        from webapp.routes import shapes
        from webapp.server import _static
        from webapp.viewer.component import SliceViewer

        @self.app.get("/api/studies/{study_id}")
        def one(study_id: str):
            return shapes.study(self.store.study(study_id), self.store.segments(study_id))

        @self.app.get("/api/studies/{study_id}/earlier")
        def earlier(study_id: str):
            return [shapes.study(row) for row in self.store.earlier(study_id)]

        _static(self.app)
        with gr.Blocks(analytics_enabled=False, fill_width=True) as page:
            SliceViewer()
        css = ".gradio-container, .gradio-container main {padding: 0 !important; max-width: none !important}"
        return gr.mount_gradio_app(self.app, page, path="/", footer_links=[], ssr_mode=False, css=css)

    def close(self) -> None:
        self.service.close()
        self.store.close()
