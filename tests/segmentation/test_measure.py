"""Measurements and surfaces against shapes whose size is known by formula."""

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.segmentation.measure import deepest_index, measure
from core_models.segmentation.surface import surface
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

SHAPE = (60, 120, 120)


@pytest.mark.parametrize("shear", [None, 0.7])
@pytest.mark.parametrize("radii", [(30, 30, 30), (35, 20, 28), (12, 26, 15)])
def test_an_ellipsoid_has_its_volume_diameter_and_centre(shear, radii):
    affine = affine_of((1.5, 0.8, 0.8), shear)
    centre = (60, 60, 30)
    inside = ellipsoid(SHAPE, affine, centre, radii)
    volume = ct([(inside, 100)], SHAPE, affine, noise=0)
    found = measure(volume, Mask.from_full(inside))
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(radii) / 1000, rel=0.02)
    assert found.area_mm2 is None
    assert (found.mean, found.sd, found.minimum, found.maximum, found.unit) == (100, 0, 100, 100, "HU")
    longest = 2 * max(radii[:2])  # the sheared axis leaves the axial cuts as they are
    assert longest - 0.8 <= found.longest_axial_diameter_mm <= longest + 1.7
    assert found.diameter_slice == pytest.approx(30, abs=2)
    first, second = (np.array(e) for e in found.diameter_ends)
    assert np.linalg.norm(first - second) == pytest.approx(found.longest_axial_diameter_mm)
    assert volume.to_index(first)[2] == pytest.approx(found.diameter_slice)
    assert found.largest_slice == pytest.approx(30, abs=1)
    i, j, k = np.rint(volume.to_index(found.centroid_lps)).astype(int)
    assert inside[k, j, i]
    assert np.linalg.norm(np.array(found.centroid_lps) - volume.to_world(centre)) < 4


def test_a_box_is_measured_exactly():
    affine = affine_of((3.0, 0.5, 0.7))
    inside = np.zeros(SHAPE, bool)
    inside[10:14, 20:60, 30:60] = True
    volume = ct([(inside, -5)], SHAPE, affine, noise=0)
    found = measure(volume, Mask.from_full(inside))
    assert found.voxels == 4 * 40 * 30
    assert found.volume_ml == pytest.approx(4 * 40 * 30 * 3.0 * 0.5 * 0.7 / 1000)
    assert found.longest_axial_diameter_mm == pytest.approx(np.hypot(40 * 0.5, 30 * 0.7))


def test_the_diameter_agrees_with_brute_force_on_ragged_shapes():
    rng = np.random.default_rng(4)
    affine = affine_of((2.0, 0.9, 1.3))
    affine[0, 1] = 0.35  # sheared in the plane as well
    for _ in range(5):
        inside = rng.random((6, 12, 11)) > 0.8
        inside[0, 0, 0] = True
        volume = Volume(inside.astype(np.int16), affine, "CT", "HU")
        best = 0.0
        for plane in inside:
            j, i = np.nonzero(plane)
            corners = np.concatenate([np.stack([i + a, j + b], 1) for a in (-0.5, 0.5) for b in (-0.5, 0.5)])
            points = corners @ affine[:3, :2].T
            if len(points):
                best = max(best, np.linalg.norm(points[:, None] - points[None], axis=2).max())
        assert measure(volume, Mask.from_full(inside)).longest_axial_diameter_mm == pytest.approx(best)


def test_the_point_of_a_ring_lies_in_the_ring():
    affine = affine_of((2.0, 1.0, 1.0))
    y, x = np.mgrid[:80, :80]
    r = np.hypot(x - 40, y - 40)
    inside = np.zeros((9, 80, 80), bool)
    inside[2:7] = (r > 20) & (r < 30)
    volume = ct([(inside, 50)], inside.shape, affine)
    i, j, k = np.rint(volume.to_index(measure(volume, Mask.from_full(inside)).centroid_lps)).astype(int)
    assert inside[k, j, i]


def test_a_huge_thin_mask_still_has_a_point_inside():
    inside = np.zeros((130, 130, 130), bool)
    inside[::2, 65, 1::2] = True
    volume = Volume(np.zeros(inside.shape, np.int16), np.eye(4), "CT", "HU")
    i, j, k = np.rint(volume.to_index(measure(volume, Mask.from_full(inside)).centroid_lps)).astype(int)
    assert inside[k, j, i]


def test_a_radiograph_has_an_area_and_no_volume():
    inside = np.zeros((1, 50, 50), bool)
    inside[0, 10:20, 10:30] = True
    volume = Volume(np.ones(inside.shape, np.uint16), affine_of((1.0, 0.2, 0.3)), "DX", "1")
    found = measure(volume, Mask.from_full(inside))
    assert found.volume_ml is None
    assert found.area_mm2 == pytest.approx(200 * 0.06)
    assert found.longest_axial_diameter_mm == pytest.approx(np.hypot(2, 6))


def test_untrusted_spacing_gives_no_millimetres():
    inside = np.ones((3, 4, 5), bool)
    found = measure(Volume(inside.astype(np.uint8), np.eye(4), "OT", "1", spacing_known=False), Mask.from_full(inside))
    assert (found.volume_ml, found.area_mm2, found.longest_axial_diameter_mm, found.diameter_ends) == (None,) * 4
    assert found.mean == 1
    assert found.voxels == 60


def test_values_that_are_not_finite_are_left_out():
    array = np.array([[[1.0, np.nan, 3.0]]], np.float32)
    found = measure(Volume(array, np.eye(4), "MR", "1"), Mask.from_full(np.ones(array.shape, bool)))
    assert (found.mean, found.minimum, found.maximum) == (2.0, 1.0, 3.0)
    nothing = Volume(np.full((1, 1, 3), np.nan, np.float32), np.eye(4), "MR", "1")
    assert measure(nothing, Mask.from_full(np.ones((1, 1, 3), bool))).mean is None


def test_an_empty_mask_and_a_foreign_one_are_refused():
    volume = Volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "CT", "HU")
    empty = Mask.from_full(np.zeros((4, 4, 4), bool))
    with pytest.raises(Refused, match="empty"):
        measure(volume, empty)
    with pytest.raises(Refused, match="empty"):
        surface(volume, empty)
    with pytest.raises(Refused, match="drawn on a volume"):
        measure(volume, Mask.from_full(np.ones((4, 4, 5), bool)))


def enclosed_ml(mesh) -> float:
    """Divergence theorem over the triangles; positive when normals point outward."""
    a, b, c = (mesh.vertices[mesh.faces[:, n]].astype(float) for n in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6000)


@pytest.mark.parametrize("shear", [None, 0.7])
def test_a_surface_lies_on_the_ellipsoid(shear):
    affine = affine_of((1.5, 0.8, 0.8), shear)
    radii = np.array((30, 24, 28))
    inside = ellipsoid(SHAPE, affine, (60, 60, 30), radii)
    volume = ct([(inside, 100)], SHAPE, affine, noise=0)
    mesh = surface(volume, Mask.from_full(inside), max_faces=4000)
    assert len(mesh.faces) <= 4000
    assert mesh.faces.min() == 0
    assert mesh.faces.max() == len(mesh.vertices) - 1
    reach = np.linalg.norm((mesh.vertices - volume.to_world((60, 60, 30))) / radii, axis=1)
    assert abs(reach - 1).max() < 0.09
    assert enclosed_ml(mesh) == pytest.approx(4 / 3 * np.pi * radii.prod() / 1000, rel=0.04)


def test_a_large_mask_is_thinned_and_stays_in_place():
    inside = np.zeros((150, 150, 150), bool)
    inside[10:140, 20:130, 30:120] = True
    volume = Volume(np.zeros(inside.shape, np.int16), affine_of((1.0, 1.0, 1.0)), "CT", "HU")
    mesh = surface(volume, Mask.from_full(inside), max_faces=3000)
    assert len(mesh.faces) <= 3000
    low, high = volume.to_world((29.5, 19.5, 9.5)), volume.to_world((119.5, 129.5, 139.5))
    assert np.allclose(mesh.vertices.min(axis=0), low, atol=1.5)
    assert np.allclose(mesh.vertices.max(axis=0), high, atol=1.5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (2, 1, 3)])
def test_the_smallest_masks_have_a_surface(shape):
    volume = Volume(np.zeros((4, 50, 50), np.int16), np.eye(4), "CT", "HU")
    mesh = surface(volume, Mask((1, 2, 3), np.ones(shape, bool), volume.shape))
    assert len(mesh.faces) >= 4
    assert enclosed_ml(mesh) > 0


def test_the_deepest_point_of_a_drawing_on_one_slice_is_its_middle():
    drawn = np.zeros((1, 120, 120), bool)
    drawn[0, 20:81, 30:71] = True
    volume = Volume(np.zeros((1, 120, 120), np.int16), np.diag([0.5, 0.5, 1.0, 1.0]), "DX")
    i, j, k = deepest_index(volume, Mask.from_full(drawn))
    assert (i, k) == (50, 0)
    assert 40 <= j <= 60
