"""What a reader drew goes into the structured report with its numbers, codes and places, and comes back by reading."""

from __future__ import annotations

import io

import highdicom as hd
import numpy as np
import pytest

from core_models.segmentation.lines import measure
from tests.exports.dicom_files import ct_files, radiograph_file
from tests.exports.test_dicom import validate
from webapp.exports import EXPORTS
from webapp.exports.sr_drawn import ellipse_axes

DRAWN = {
    "length": ("axial", [(3.0, 4.0, 2.0), (13.0, 9.0, 2.0)]),
    "angle": ("coronal", [(3.0, 5.0, 1.0), (9.0, 5.0, 2.0), (12.0, 5.0, 4.0)]),
    "ellipse": ("sagittal", [(7.0, 3.0, 1.0), (7.0, 12.0, 4.0)]),
    "probe": ("axial", [(5.0, 6.0, 3.0)]),
}


def draw(scene, kind, plane, points, label=""):
    (series,) = scene.store.study(scene.study_id).series
    numbers = measure(scene.store.volume(series.id), kind, plane, points)
    return scene.store.add_annotation(
        series.id, kind=kind, plane=plane, points=tuple(map(tuple, points)), numbers=numbers, label=label
    )


def read(scene):
    data = EXPORTS["sr"].write(scene.bundle())
    return data, hd.sr.srread(io.BytesIO(data)).content.get_image_measurement_groups()


@pytest.mark.parametrize("segments", [True, False])
def test_every_number_reads_back_with_its_unit_and_place(scene_of, voxels, tmp_path, segments):
    scene = scene_of(ct_files(voxels), filled=segments)
    for kind, (plane, points) in DRAWN.items():
        draw(scene, kind, plane, points)
    data, groups = read(scene)
    validate(data, tmp_path)
    assert len(groups) == 4
    volume = scene.bundle().volume()
    for group, (kind, (plane, points)) in zip(groups, DRAWN.items(), strict=True):
        wanted = {"HU": "[hnsf'U]", "cm²": "cm2", "°": "deg", "mm": "mm"}
        expected = [(n.value, wanted[n.unit]) for n in measure(volume, kind, plane, points)]
        found = [(m.value, m.unit.value) for m in group.get_measurements()]
        assert found == [(pytest.approx(value, abs=1e-3), unit) for value, unit in expected]
        for measured in group.get_measurements():
            (place,) = [i for m in measured for i in m.get("ContentSequence", []) if i.ValueType == "SCOORD3D"]
            at = np.asarray(place.GraphicData).reshape(-1, 3)
            drawn = ellipse_axes(plane, points) if kind == "ellipse" else points
            np.testing.assert_allclose(at, volume.to_world(np.asarray(drawn)), atol=1e-3)


def test_an_ellipses_longer_axis_comes_first():
    assert ellipse_axes("axial", ((0.0, 0.0, 5.0), (4.0, 10.0, 5.0))) == [
        [2.0, 0.0, 5.0],
        [2.0, 10.0, 5.0],
        [0.0, 5.0, 5.0],
        [4.0, 5.0, 5.0],
    ]


def test_a_ratio_on_a_radiograph_has_its_two_lines_in_pixels_of_the_image(scene_of, voxels, tmp_path):
    scene = scene_of([radiograph_file(voxels[0])], filled=False)
    draw(scene, "ratio", "axial", [(6, 9, 0), (14, 9, 0), (2, 12, 0), (20, 12, 0)])
    data, (group,) = read(scene)
    validate(data, tmp_path)
    ratio, heart, thorax = group.get_measurements()
    assert (ratio.name.meaning, ratio.value) == ("Cardiothoracic ratio", pytest.approx(8 / 18, abs=1e-4))
    lines = [
        [np.asarray(i.GraphicData).reshape(-1, 2).tolist() for i in m[0].ContentSequence if i.ValueType == "SCOORD"]
        for m in (ratio, heart, thorax)
    ]
    first, second = [[6.5, 9.5], [14.5, 9.5]], [[2.5, 12.5], [20.5, 12.5]]
    assert lines == [[first, second], [first], [second]]


def test_a_label_from_the_table_is_the_finding_site(scene_of, voxels):
    scene = scene_of(ct_files(voxels), filled=False)
    draw(scene, "length", *DRAWN["length"], label="liver")
    _, (group,) = read(scene)
    (measured,) = group.get_measurements()
    sites = [i for i in measured[0].ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"]
    assert [s.ConceptCodeSequence[0].CodeValue for s in sites] == ["10200004"]
