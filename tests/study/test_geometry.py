"""Slices in, canonical volume out: left is left, whatever the scanner's order, direction, tilt or obliquity."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.study.intake import read_scan
from core_models.study.volume import canonical
from tests import builders

BODY = builders.phantom((8, 24, 32))
LEFT_FRONT_TOP = builders.affine((1.0, 1.5, 2.0), (-16.0, -12.0, 40.0))


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(4)
    a, b = [n for n in range(3) if n != axis]
    out[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return out


def reoriented(axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    """BODY as another scanner would store it: (slice, row, column) with the matching affine."""
    array, affine = BODY, LEFT_FRONT_TOP.copy()
    for axis, flip in enumerate(flips):
        if flip:
            column = 2 - axis
            affine[:3, 3] += affine[:3, column] * (array.shape[axis] - 1)
            affine[:3, column] *= -1
            array = np.flip(array, axis)
    moved = affine.copy()
    for new, old in enumerate(axes):
        moved[:3, 2 - new] = affine[:3, 2 - old]
    return array.transpose(axes), moved


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize(
    "flips", [(False, False, False), (True, False, False), (False, True, True), (True, True, True)]
)
def test_every_orientation_opens_as_the_same_canonical_volume(tmp_path, axes, flips):
    stored, geometry = reoriented(axes, flips)
    builders.ct_series(tmp_path, stored, geometry=geometry)
    (study,) = read_scan(tmp_path)
    (series,) = study.series
    np.testing.assert_array_equal(series.volume.array, BODY)
    np.testing.assert_allclose(series.volume.affine, LEFT_FRONT_TOP, atol=1e-6)
    assert series.receipt.measurable


def test_the_block_on_the_left_is_on_the_left(tmp_path):
    builders.ct_series(tmp_path, BODY, geometry=LEFT_FRONT_TOP)
    volume = read_scan(tmp_path)[0].series[0].volume
    k, j, i = np.argwhere(volume.array == 700).mean(0)
    x, y, z = volume.to_world((i, j, k))
    middle = volume.to_world((15.5, 11.5, 3.5))
    assert x > middle[0]  # left
    assert y < middle[1]  # anterior
    assert z > middle[2]  # superior


def test_layout_leads_back_to_the_source_files_order(tmp_path):
    stored, geometry = reoriented((1, 0, 2), (False, True, False))
    paths = builders.ct_series(tmp_path, stored, geometry=geometry)
    series = read_scan(tmp_path)[0].series[0]
    back = series.volume.layout.to_source(series.volume.array)
    by_bytes = {path.read_bytes(): k for k, path in enumerate(paths)}
    order = [by_bytes[data] for data in series.sources]
    assert sorted(order) == list(range(len(paths)))
    np.testing.assert_array_equal(back, stored[order])


def test_instance_numbers_do_not_decide_the_order(tmp_path):
    files = builders.ct_files(BODY, geometry=LEFT_FRONT_TOP)
    for n, data in enumerate(files):
        (tmp_path / f"{n}").write_bytes(builders.edited(data, InstanceNumber=(n * 5) % 8))
    np.testing.assert_array_equal(read_scan(tmp_path)[0].series[0].volume.array, BODY)


@pytest.mark.parametrize("degrees", [12.0, -30.0])
def test_oblique_scan_keeps_its_affine_and_voxels(tmp_path, degrees):
    geometry = rotation(degrees, 2) @ rotation(7.0, 0) @ LEFT_FRONT_TOP
    builders.ct_series(tmp_path, BODY, geometry=geometry)
    series = read_scan(tmp_path)[0].series[0]
    np.testing.assert_array_equal(series.volume.array, BODY)
    np.testing.assert_allclose(series.volume.affine, geometry, atol=1e-5)
    assert not any("tilt" in note.text for note in series.receipt.notes)


def test_gantry_tilt_is_in_the_affine_and_noted(tmp_path):
    geometry = LEFT_FRONT_TOP.copy()
    geometry[1, 2] = 2.0 * np.tan(np.radians(15))
    builders.ct_series(tmp_path, BODY, geometry=geometry)
    series = read_scan(tmp_path)[0].series[0]
    np.testing.assert_allclose(series.volume.affine, geometry, atol=1e-5)
    assert any("15.0° (gantry tilt)" in note.text for note in series.receipt.notes)
    assert series.volume.voxel_ml == pytest.approx(1.0 * 1.5 * 2.0 / 1000)
    assert series.receipt.measurable


def test_missing_slices_are_counted_placed_and_not_measured(tmp_path):
    paths = builders.ct_series(tmp_path, BODY, geometry=LEFT_FRONT_TOP)
    paths[3].unlink()
    paths[4].unlink()
    series = read_scan(tmp_path)[0].series[0]
    receipt = series.receipt
    assert (receipt.expected, receipt.loaded, receipt.measurable, receipt.spacing) == (8, 6, False, None)
    assert not series.volume.spacing_known
    assert any("2 slices missing between 44.0 and 50.0 mm (after slice 3)" in n.text for n in receipt.notes)


def test_uneven_slices_are_not_measured(tmp_path):
    files = builders.ct_files(BODY, geometry=LEFT_FRONT_TOP)
    z = [0, 2, 4, 6.6, 8, 10, 12, 14]
    for k, data in enumerate(files):
        (tmp_path / f"{k}").write_bytes(builders.edited(data, ImagePositionPatient=[0, 0, z[k]]))
    receipt = read_scan(tmp_path)[0].series[0].receipt
    assert receipt.expected == receipt.loaded == 8
    assert not receipt.measurable
    assert any("varies from 1.40 to 2.60 mm" in n.text for n in receipt.notes)


def test_localizer_becomes_its_own_stack(tmp_path):
    builders.ct_series(tmp_path / "ct", BODY, geometry=LEFT_FRONT_TOP)
    scout, geometry = reoriented((1, 0, 2), (False, False, False))
    data = builders.ct_files(scout[:1], geometry=geometry, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "scout").write_bytes(data[0])
    (study,) = read_scan(tmp_path)
    assert [s.receipt.loaded for s in study.series] == [8, 1]
    assert len({s.uid for s in study.series}) == 2
    assert all(any("mixes geometries" in n.text for n in s.receipt.notes) for s in study.series)
    np.testing.assert_array_equal(study.series[0].volume.array, BODY)


def test_two_echoes_at_each_position_become_two_stacks(tmp_path):
    for echo in (10, 80):
        files = builders.ct_files(BODY + np.int16(2000 + echo), modality="MR", EchoTime=str(echo))
        for k, data in enumerate(files):
            (tmp_path / f"{echo}-{k}").write_bytes(data)
    (study,) = read_scan(tmp_path)
    assert sorted(int(s.volume.array.max()) for s in study.series) == [2710, 2780]
    assert all(s.volume.shape == BODY.shape for s in study.series)


@pytest.mark.parametrize("cosines", [[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0.5, 0.8, 0]])
def test_singular_orientation_is_refused(tmp_path, cosines):
    (tmp_path / "a").write_bytes(builders.edited(builders.ct_files(n=1)[0], ImageOrientationPatient=cosines))
    with pytest.raises(Refused, match="orientation"):
        read_scan(tmp_path / "a")


def test_slices_without_a_position_open_by_number_and_are_not_measured(tmp_path):
    for k, data in enumerate(builders.ct_files(BODY)):
        bare = builders.edited(data, ImagePositionPatient=None, ImageOrientationPatient=None)
        (tmp_path / f"{9 - k}").write_bytes(bare)
    series = read_scan(tmp_path)[0].series[0]
    np.testing.assert_array_equal(series.volume.array, BODY)
    assert not series.receipt.measurable


@pytest.mark.parametrize("order", [list(range(8)), list(range(7, -1, -1)), [3, 0, 7, 1, 6, 2, 5, 4]])
def test_enhanced_multi_frame_is_ordered_by_position(tmp_path, order):
    path = tmp_path / "multi.dcm"
    path.write_bytes(builders.enhanced_ct(BODY, LEFT_FRONT_TOP, order))
    series = read_scan(path)[0].series[0]
    np.testing.assert_array_equal(series.volume.array, BODY)
    np.testing.assert_allclose(series.volume.affine, LEFT_FRONT_TOP, atol=1e-6)
    assert series.volume.unit == "HU"
    assert series.sources == (path.read_bytes(),)


def test_a_reversed_multi_frame_file_keeps_frame_n_as_source_slice_n(tmp_path):
    (tmp_path / "a").write_bytes(builders.enhanced_ct(BODY, LEFT_FRONT_TOP, list(range(7, -1, -1))))
    volume = read_scan(tmp_path / "a")[0].series[0].volume
    np.testing.assert_array_equal(volume.layout.to_source(volume.array), BODY[::-1])


def test_canonical_round_trip_on_random_orientations():
    generator = np.random.default_rng(0)
    array = generator.integers(0, 100, (3, 4, 5))
    for _ in range(30):
        directions, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = directions * [0.7, 0.9, 3.0]
        affine[:3, 3] = generator.normal(size=3) * 100
        out, moved, layout = canonical(array, affine)
        np.testing.assert_array_equal(layout.to_source(out), array)
        # A voxel keeps its place: find value by world position.
        k, j, i = (generator.integers(0, n) for n in out.shape)
        world = moved @ [i, j, k, 1]
        source = np.rint(np.linalg.inv(affine) @ world)[:3].astype(int)
        assert array[source[2], source[1], source[0]] == out[k, j, i]
