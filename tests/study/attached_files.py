"""Hand-made DICOM objects that belong to a study: an RT structure set of contours in patient millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from tests.builders import encoded, uid


def structure_set(
    rois: dict[str, Sequence[np.ndarray]],
    *,
    study: str,
    series: str,
    patient: str = "RR-0001",
    kind: str = "CLOSED_PLANAR",
) -> bytes:
    """One region per name; each contour is (n, 3) LPS mm."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, uid("rtstruct", *rois)
    ds.Modality, ds.PatientID, ds.PatientName = "RTSTRUCT", patient, "Phantom^Anna"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, uid("rtstruct series")
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "PLAN", "20240201", "101500"
    in_series = Dataset()
    in_series.SeriesInstanceUID = series
    in_study = Dataset()
    in_study.RTReferencedSeriesSequence = [in_series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uid("frame", patient), [in_study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for n, (name, contours) in enumerate(rois.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = n, name, frame.FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = n, []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{v:.4f}" for v in np.ravel(points)]
            drawn.ContourSequence.append(item)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    return encoded(ds)


def box_contour(volume, k: int, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """The outline in LPS mm of a slice's pixels [rows) × [columns), along their outer edges."""
    (r0, r1), (c0, c1) = rows, columns
    corners = [(c0, r0), (c1, r0), (c1, r1), (c0, r1)]
    return volume.to_world(np.array([(c - 0.5, r - 0.5, k) for c, r in corners]))
