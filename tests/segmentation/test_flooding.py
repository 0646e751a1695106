"""The compiled flood, watershed, resampling and diffusion, held to the libraries' own."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from skimage.segmentation import watershed as reference

from core_models.segmentation.voxels import grid, native
from core_models.segmentation.voxels.diffusion import curvature_diffusion
from core_models.segmentation.voxels.flooding import reached, watershed
from core_models.segmentation.voxels.morphology import depth_of, distance, grown, signed_distance
from tests.segmentation.phantoms import affine_of, ct

SPACING = (2.5, 2.0, 2.0)


def smooth_noise(shape, seed, sigma=2.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (values / values.std()).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_the_watershed_is_that_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    cost = np.round(smooth_noise((13, 17, 19), seed) * 20)
    mask = smooth_noise(cost.shape, seed + 100) > -0.6
    markers = np.zeros(cost.shape, np.int32)
    for label, place in enumerate(rng.permutation(np.argwhere(mask))[:4]):
        markers[tuple(place)] = 1 + label % 2
    found = watershed(cost, markers, mask)
    wanted = reference(cost, markers, mask=mask)
    assert set(np.unique(found)) == set(np.unique(wanted))
    # Where two floods meet at one cost, the order of arrival decides, and that of the markers is each one's own.
    assert (found != wanted).mean() < 0.01


def test_a_watershed_without_mask_or_markers_labels_nothing():
    cost = smooth_noise((4, 5, 6), 0)
    markers = np.ones(cost.shape, np.int32)
    assert not watershed(cost, markers, np.zeros(cost.shape, bool)).any()
    assert not watershed(cost, np.zeros(cost.shape, np.int32), np.ones(cost.shape, bool)).any()


def test_a_cost_of_any_range_is_told_apart():
    cost = np.zeros((1, 1, 9), np.float32)
    cost[0, 0] = [0, 1, 2, 3, 1e6, 3, 2, 1, 0]
    markers = np.zeros(cost.shape, np.int32)
    markers[0, 0, 0], markers[0, 0, -1] = 1, 2
    assert watershed(cost, markers, np.ones(cost.shape, bool))[0, 0, [0, 3, 5, 8]].tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("cost", [-np.inf, np.inf, np.nan])
def test_a_cost_that_is_not_finite_ends(cost):
    """A mask that fills its array is infinitely deep everywhere."""
    costs = np.full((6, 7, 8), cost, np.float32)
    markers = np.zeros(costs.shape, np.int32)
    markers[1, 1, 1], markers[5, 6, 7] = 1, 2
    found = watershed(costs, markers, np.ones(costs.shape, bool))
    assert set(np.unique(found)) == {1, 2}
    costs[:, :, :4] = 1.0
    found = watershed(costs, markers, np.ones(costs.shape, bool))
    assert (found[1, 1, 1], found[5, 6, 7]) == (1, 2)
    assert found.all()


@pytest.mark.parametrize("shape", [(9, 14, 11), (1, 20, 20), (5, 1, 1)])
def test_what_is_reached_is_the_component_of_the_seed(shape):
    mask = smooth_noise(shape, 3, 1.0) > 0
    labels, _ = ndimage.label(mask)
    inside = tuple(int(c) for c in np.argwhere(mask)[0])
    outside = tuple(int(c) for c in np.argwhere(~mask)[0])
    assert np.array_equal(reached(mask, [inside, outside]), labels == labels[inside])
    assert not reached(mask, [outside]).any()


@pytest.mark.parametrize("shape", [(12, 20, 22), (1, 40, 40), (30, 6, 5)])
def test_the_diffusion_is_that_of_itk(shape):
    values = smooth_noise(shape, 5) * 200 + np.random.default_rng(6).normal(0, 15, shape).astype(np.float32)
    planar = shape[0] == 1
    image = sitk.GetImageFromArray(values[0] if planar else values)
    image.SetSpacing(SPACING[:0:-1] if planar else SPACING[::-1])
    wanted = sitk.GetArrayFromImage(sitk.CurvatureAnisotropicDiffusion(image, 0.06, 2.0, 1, 5))
    found = curvature_diffusion(values, SPACING, 0.06, 5, threads=2)
    assert np.abs(found - values).mean() > 2  # it does smooth
    assert np.abs((found[0] if planar else found) - wanted).max() < 0.05


def test_an_even_image_stays_as_it_is():
    values = np.full((4, 5, 6), 37.0, np.float32)
    assert np.array_equal(curvature_diffusion(values, SPACING, 0.06, 5, threads=2), values)


@pytest.mark.parametrize("part", [slice(None), slice(4, 9), slice(0, 0)])
def test_distances_in_a_box_are_those_of_the_whole(part):
    mask = np.zeros((14, 16, 18), bool)
    mask[part, part, part] = smooth_noise(mask.shape, 8)[part, part, part] > 0
    whole, beyond = distance(mask, SPACING), distance(~mask, SPACING)
    assert np.array_equal(depth_of(mask, SPACING), np.where(mask, whole, 0))
    for radius in (2.0, 5.3):
        assert np.array_equal(grown(mask, radius, SPACING), (beyond <= radius) if mask.any() else mask)
    if mask.any():
        assert np.array_equal(signed_distance(mask, SPACING), whole - beyond)


@pytest.mark.parametrize("native_shape", [(14, 50, 47), (1, 60, 61)])
def test_a_surface_is_where_a_trilinear_sample_crosses_zero(native_shape):
    volume = ct([], native_shape, affine_of((1.0, 1.0, 2.5)))
    built = grid.build(volume)
    values = smooth_noise(built.shape, 4)
    box = tuple(slice(0, n) for n in values.shape)
    start, stop = np.array([0, 3, 5]), np.array(native_shape) - [0, 2, 0]
    found = native._above_zero(values, built, values > 0, box, start, stop)
    at = [(np.arange(a, b) + 0.5) / f - 0.5 for a, b, f in zip(start, stop, built.factor, strict=True)]
    wanted = ndimage.map_coordinates(values, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    assert 0.2 < found.mean() < 0.8
    assert np.array_equal(found[np.abs(wanted) > 1e-4], wanted[np.abs(wanted) > 1e-4] > 0)
