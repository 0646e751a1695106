"""The visible segments of a series → a plotly figure of their surfaces, turned as the patient is."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

from core_models.errors import NotFound, ReadingRoomError

if TYPE_CHECKING:
    import plotly.graph_objects

    from webapp.service import Services

MAX_FACES = 12_000  # per segment; five of them are about two megabytes of JSON
MOST = 24
HELD = 64  # meshes kept, by the content of their mask
BACKGROUND = "#0b0d10"
LIGHT = {
    "lighting": {"ambient": 0.4, "diffuse": 0.8, "specular": 0.15, "roughness": 0.7},
    "lightposition": {"x": 20_000, "y": -80_000, "z": 60_000},  # before and above the patient
}


class Surfaces:
    """Callable: series id → figure. Meshes of unchanged masks are kept, so that a colour change costs nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._meshes: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = Lock()

    def __call__(self, series_id: Any) -> plotly.graph_objects.Figure:
        import numpy as np
        import plotly.graph_objects as go

        figure = go.Figure(layout=_layout())
        if not isinstance(series_id, str) or not series_id:
            return figure
        try:
            study, _ = self._services.store.series(series_id)
            rows = self._services.store.segments(study.id)
        except NotFound:
            return figure
        drawn = [r for r in rows if r.series_id == series_id and r.visible and all(r.box[3:])]
        meshes = []
        for row in drawn[:MOST]:
            # Deleted meanwhile, or too small for a surface: the others are still drawn.
            with contextlib.suppress(ReadingRoomError):
                meshes.append((row, self._mesh(row)))
        if not meshes:
            return figure
        points = np.concatenate([mesh.vertices for _, mesh in meshes])
        low, high = points.min(axis=0), points.max(axis=0)
        for row, mesh in meshes:
            # Plotly lights a mesh far from the origin from elsewhere, or not at all (plotly.js issue 2477).
            x, y, z = (mesh.vertices - (low + high) / 2).T
            i, j, k = mesh.faces.T
            look = {"color": row.colour, "name": f"{row.number}", "hoverinfo": "name"}
            figure.add_trace(go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, **look, **LIGHT))
        # The longest side is one: what is tall or wide stays inside the view.
        shape = dict(zip("xyz", ((high - low) / (high - low).max()).tolist(), strict=True))
        figure.update_scenes(aspectmode="manual", aspectratio=shape)
        return figure

    def _mesh(self, row) -> Any:
        from core_models.segmentation.surface import surface

        key = (row.id, row.version)
        with self._lock:
            if key in self._meshes:
                self._meshes.move_to_end(key)
                return self._meshes[key]
        store = self._services.store
        mesh = surface(store.volume(row.series_id), store.mask(row.id), MAX_FACES)
        with self._lock:
            self._meshes[key] = mesh
            while len(self._meshes) > HELD:
                self._meshes.popitem(last=False)
        return mesh


def _layout() -> dict[str, Any]:
    hidden = {"visible": False, "showbackground": False}
    # Seen from the front: x runs to the patient's left, y to posterior, z to superior.
    camera = {"eye": {"x": 0.0, "y": -1.9, "z": 0.2}, "up": {"x": 0, "y": 0, "z": 1}}
    return {
        "template": "plotly_dark",
        "paper_bgcolor": BACKGROUND,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "showlegend": False,
        "autosize": True,
        "uirevision": "kept",  # the reader's own camera survives a new segment
        "scene": {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "camera": camera},
    }
