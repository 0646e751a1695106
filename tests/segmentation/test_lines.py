"""Drawn points → numbers, against geometry that is known by construction: tilted, oblique, without spacing."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation.lines import measure
from core_models.study.volume import Volume
from tests.builders import affine

SHAPE = (10, 30, 40)


def volume(matrix: np.ndarray | None = None, **options) -> Volume:
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    matrix = affine((0.5, 0.8, 3.0), (10.0, -20.0, 5.0)) if matrix is None else matrix
    return Volume(array, matrix, **{"modality": "CT", "unit": "HU", **options})


def first(*args) -> float:
    return measure(*args)[0].value


@pytest.mark.parametrize(
    ("plane", "a", "b", "mm"),
    [
        ("axial", (4, 5, 2), (12, 5, 2), 4.0),
        ("axial", (4, 5, 2), (4, 10, 2), 4.0),
        ("axial", (0, 0, 2), (6, 5, 2), 5.0),
        ("coronal", (3, 7, 1), (3, 7, 5), 12.0),
        ("coronal", (3.25, 7, 1), (13.25, 7, 5), 13.0),
        ("sagittal", (9, 5, 4), (9, 10, 5), 5.0),
    ],
)
def test_a_length_is_in_millimetres_of_each_plane(plane, a, b, mm):
    (number,) = measure(volume(), "length", plane, [a, b])
    assert (number.key, number.unit) == ("length", "mm")
    assert number.value == pytest.approx(mm)


def test_a_gantry_tilt_and_an_oblique_scan_do_not_change_what_a_point_is_apart():
    tilted = affine((0.5, 0.8, 3.0))
    tilted[1, 2] = 3.0 * np.tan(np.radians(20))  # slices move back as they go up
    up = [(5, 5, 0), (5, 5, 4)]
    assert first(volume(tilted), "length", "sagittal", up) == pytest.approx(12.0 / np.cos(np.radians(20)))
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = affine((0.5, 0.8, 3.0))
    turned[:3, :3] = rotation @ turned[:3, :3]
    for points in ([(5, 5, 4), (15, 20, 4)], [(1, 2, 0), (30, 22, 0)]):
        assert first(volume(turned), "length", "axial", points) == pytest.approx(
            first(volume(), "length", "axial", points)
        )


def test_without_spacing_a_length_is_in_pixels_and_says_so():
    (number,) = measure(volume(spacing_known=False), "length", "axial", [(0, 0, 0), (3, 4, 0)])
    assert (number.value, number.unit) == (5.0, "px")
    area = measure(volume(spacing_known=False), "ellipse", "axial", [(2, 2, 0), (12, 8, 0)])[2]
    assert (area.value, area.unit) == (pytest.approx(np.pi * 5 * 3), "px²")


@pytest.mark.parametrize("degrees", [0.001, 12.0, 90.0, 135.5, 179.999])
def test_an_angle_is_measured_in_the_patient_and_not_in_pixels(degrees):
    ray = np.array([np.cos(np.radians(degrees)) / 0.5, np.sin(np.radians(degrees)) / 0.8, 0]) * 5
    corner = np.array([20.0, 5.0, 3.0])
    (number,) = measure(volume(), "angle", "axial", [corner + np.array([6, 0, 0]), corner, corner + ray])
    assert number.value == pytest.approx(degrees, abs=1e-6)
    assert number.unit == "°"


def test_an_ellipse_holds_the_pixels_whose_centres_lie_in_it():
    v = volume()
    mean, sd, area = measure(v, "ellipse", "coronal", [(4.0, 11, 2.5), (14.0, 11, 6.5)])
    k, i = np.mgrid[: SHAPE[0], : SHAPE[2]]
    inside = ((i - 9) / 5) ** 2 + ((k - 4.5) / 2) ** 2 <= 1
    values = v.array[:, 11, :][inside].astype(float)
    assert inside.sum() > 20
    assert (mean.value, sd.value) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert (mean.unit, mean.words, area.unit) == ("HU", "mean attenuation", "cm²")
    assert area.value == pytest.approx(np.pi * (5 * 0.5) * (2 * 3.0) / 100)


def test_corners_may_be_given_in_any_order_and_lie_past_the_last_centres():
    v = volume()
    a = measure(v, "ellipse", "axial", [(-0.5, -0.5, 1), (8.0, 9.0, 1)])
    b = measure(v, "ellipse", "axial", [(8.0, -0.5, 1), (-0.5, 9.0, 1)])
    assert a == b


def test_values_that_are_not_numbers_are_left_out():
    array = np.ones(SHAPE, np.float32)
    array[2, 5, 5] = np.nan
    v = Volume(array, affine(), modality="MR")
    assert measure(v, "ellipse", "axial", [(2, 2, 2), (9, 9, 2)])[0].value == 1.0
    with pytest.raises(Refused, match="not a number"):
        measure(v, "probe", "axial", [(5.2, 4.8, 2)])


def test_a_probe_reads_the_voxel_it_lies_in():
    (number,) = measure(volume(), "probe", "sagittal", [(7.4, 9.6, 3.0)])
    assert (number.value, number.unit) == (float(volume().array[3, 10, 7]), "HU")
    assert measure(volume(unit="1"), "probe", "axial", [(0, 0, 0)])[0].unit == ""


def test_the_ratio_of_heart_and_thorax_and_its_widths():
    v = Volume(np.zeros((1, 30, 40), np.uint16), affine((2.0, 2.0, 1.0)), modality="DX")
    points = [(10, 20, 0), (22, 20, 0), (4, 25, 0), (34, 25, 0)]
    ratio, heart, thorax = measure(v, "ratio", "axial", points)
    assert (ratio.value, ratio.unit) == (pytest.approx(0.4), "")
    assert (heart.value, thorax.value, heart.unit) == (pytest.approx(24), pytest.approx(60), "mm")
    with pytest.raises(Refused, match="first line is the heart"):
        measure(v, "ratio", "axial", [*points[2:], *points[:2]])


@pytest.mark.parametrize(
    ("kind", "plane", "points", "words"),
    [
        ("circle", "axial", [(0, 0, 0)], "no measurement 'circle'"),
        ("length", "oblique", [(0, 0, 0), (1, 0, 0)], "no plane"),
        ("length", "axial", [(0, 0, 0)], "takes 2 points"),
        ("length", "axial", [(0, 0, 0), (1, 0, 0), (2, 0, 0)], "takes 2 points"),
        ("length", "axial", [(0, 0, 0), (float("nan"), 0, 0)], "not a finite number"),
        ("length", "axial", [(0, 0, 0), (40, 0, 0)], "outside the scan of 40 × 30 × 10"),
        ("length", "axial", [(0, -0.6, 0), (4, 0, 0)], "outside the scan"),
        ("length", "axial", [(0, 0, 0), (4, 0, 1)], "on one slice"),
        ("length", "axial", [(3, 3, 0), (3, 3, 0)], "a place of its own"),
        ("angle", "axial", [(3, 3, 0), (3, 3, 0), (4, 4, 0)], "a place of its own"),
        ("ellipse", "axial", [(3.2, 3.2, 0), (3.4, 3.4, 0)], "no pixel"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(kind, plane, points, words):
    with pytest.raises(Refused, match=words):
        measure(volume(), kind, plane, points)
