"""Points that a reader set → measured, stored annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core_models.errors import Refused
from webapp.anatomy import PICTURES, RADIOGRAPHS
from webapp.store import AnnotationRow, SeriesRow, Store


class AnnotationService:
    """The one place where drawn points become a stored number.

    Args:
        on_change: called with the study's id after every stored change (measurement cards are refreshed there).
    """

    def __init__(self, store: Store, on_change: Callable[[str], object] | None = None) -> None:
        self._store = store
        self._on_change = on_change or (lambda study_id: None)

    def add(self, series_id: str, kind: str, plane: str, points: Sequence[Sequence[float]], label: str = "") -> str:
        """Measure and store; returns the new annotation's id.

        Raises:
            NotFound: no such series.
            Refused: as `lines.measure`, or a cardiothoracic ratio that is not on a frontal radiograph.
            Conflict: the study is signed.
        """
        from core_models.segmentation.lines import measure

        _, series = self._store.series(series_id)
        if kind == "ratio" and not is_frontal(series):
            raise Refused("A cardiothoracic ratio is measured on a frontal radiograph.")
        numbers = measure(self._store.volume(series_id), kind, plane, points)
        row = self._store.add_annotation(
            series_id, kind=kind, plane=plane, points=_points(points), numbers=numbers, label=label
        )
        self._on_change(row.study_id)
        return row.id

    def edit(
        self, annotation_id: str, *, points: Sequence[Sequence[float]] | None = None, label: str | None = None
    ) -> AnnotationRow:
        """Move its points, or name what it measures.  Raises NotFound, Refused, Conflict when signed."""
        from core_models.segmentation.lines import measure

        row = self._store.annotation(annotation_id)
        values: dict[str, Any] = {"label": label}
        if points is not None:
            numbers = measure(self._store.volume(row.series_id), row.kind, row.plane, points)
            values |= {"points": _points(points), "numbers": numbers}
        row = self._store.edit_annotation(annotation_id, **values)
        self._on_change(row.study_id)
        return row

    def delete(self, annotation_id: str) -> str:
        """Remove it; returns its study's id.  Raises NotFound, Conflict when signed."""
        row = self._store.annotation(annotation_id)
        self._store.delete_annotation(annotation_id)
        self._on_change(row.study_id)
        return row.study_id


def is_frontal(series: SeriesRow) -> bool:
    """Whether a series may be a frontal radiograph: one projection, or one picture, that is not a lateral one."""
    return series.shape[0] == 1 and series.modality in RADIOGRAPHS | PICTURES and series.view != "LATERAL"


def _points(points: Sequence[Sequence[float]]) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(i), float(j), float(k)) for i, j, k in points)
