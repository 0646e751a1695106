"""Store and annotation service → the routes that make, change and remove what a reader measures by hand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from webapp.routes import shapes
from webapp.store import Store
from webapp.viewer.annotations import AnnotationService

Points = Annotated[list[Annotated[list[float], Field(min_length=3, max_length=3)]], Field(min_length=1, max_length=4)]


class AnnotationBody(BaseModel):
    """A new annotation; points are (i, j, k), whole numbers at voxel centres."""

    model_config = ConfigDict(extra="forbid")
    kind: str
    plane: str
    points: Points
    label: str = ""


class ChangeBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    points: Points | None = None
    label: str | None = None


def router(store: Store, service: AnnotationService) -> APIRouter:
    """The routes as of docs/architecture.md."""
    routes = APIRouter(prefix="/api")

    def changed(study_id: str, annotation_id: str | None) -> dict[str, Any]:
        flat = {series.id: series.shape[0] == 1 for series in store.study(study_id).series}
        rows = [shapes.annotation(row, flat[row.series_id]) for row in store.annotations(study_id)]
        return {"annotation": annotation_id, "annotations": rows}

    @routes.get("/studies/{study_id}/annotations")
    def annotations(study_id: str) -> list[dict[str, Any]]:
        return changed(study_id, None)["annotations"]

    @routes.post("/series/{series_id}/annotations")
    def add(series_id: str, body: AnnotationBody) -> dict[str, Any]:
        made = service.add(series_id, body.kind, body.plane, body.points, body.label)
        return changed(store.annotation(made).study_id, made)

    @routes.patch("/annotations/{annotation_id}")
    def edit(annotation_id: str, body: ChangeBody) -> dict[str, Any]:
        return changed(service.edit(annotation_id, points=body.points, label=body.label).study_id, annotation_id)

    @routes.delete("/annotations/{annotation_id}")
    def delete(annotation_id: str) -> dict[str, Any]:
        return changed(service.delete(annotation_id), None)

    return routes
