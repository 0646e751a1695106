"""The same point of the patient gives the same value in our volume, in SimpleITK's and in highdicom's.

Files are written with every orientation that a scanner may choose; each reader finds its own way through their headers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from core_models.study.intake import read_scan
from tests import builders

SHAPE = (9, 14, 18)
VALUES = np.random.default_rng(11).integers(-1000, 1500, SHAPE).astype(np.int16)
BASE = builders.affine((0.8, 1.1, 2.5), (-30.0, 12.5, 100.0))


def turned(*steps: tuple[float, int]) -> np.ndarray:
    """BASE turned by degrees about patient axes, one after the other."""
    out = np.eye(4)
    for degrees, axis in steps:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        a, b = (n for n in range(3) if n != axis)
        one = np.eye(4)
        one[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
        out = one @ out
    return out @ BASE


def flipped(*axes: int) -> np.ndarray:
    """BASE with some index axes running the other way."""
    out = BASE.copy()
    for axis in axes:
        out[:3, 3] += out[:3, axis] * (SHAPE[2 - axis] - 1)
        out[:3, axis] *= -1
    return out


def tilted(degrees: float) -> np.ndarray:
    """A gantry tilt: slices stay parallel and move back as they go up."""
    out = BASE.copy()
    out[1, 2] = BASE[2, 2] * np.tan(np.radians(degrees))
    return out


ORIENTATIONS = {
    "axial": BASE,
    "feet first": flipped(2),
    "prone": flipped(0, 1),
    "columns run to the right": flipped(0),  # with the handedness of slices that go down
    "coronal": turned((90, 0)),
    "sagittal": turned((90, 0), (90, 2)),
    "oblique": turned((17, 2), (-9, 0)),
    "twice oblique": turned((33, 1), (12, 2), (-28, 0)),
}


def points(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """40 voxels of what was written: (their values, where they lie in LPS mm)."""
    k, j, i = (np.random.default_rng(2).integers(0, n, 40) for n in SHAPE)
    return VALUES[k, j, i], np.stack([i, j, k], 1) @ affine[:3, :3].T + affine[:3, 3]


def ours(folder: Path, lps: np.ndarray) -> np.ndarray:
    volume = read_scan(folder)[0].series[0].volume
    assert volume.unit == "HU"
    index = volume.to_index(lps)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-4)
    i, j, k = np.rint(index).astype(int).T
    return volume.array[k, j, i]


@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_three_readers_agree_on_every_point(tmp_path: Path, name: str) -> None:
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    import highdicom as hd

    geometry = ORIENTATIONS[name]
    paths = builders.ct_series(tmp_path, VALUES, geometry=geometry)
    expected, lps = points(geometry)
    np.testing.assert_array_equal(ours(tmp_path, lps), expected)

    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    theirs = [image[image.TransformPhysicalPointToIndex(tuple(map(float, p)))] for p in lps]
    np.testing.assert_array_equal(theirs, expected)

    volume = hd.get_volume_from_series([pydicom.dcmread(path) for path in paths], apply_modality_transform=True)
    index = volume.map_reference_to_indices(lps, round_output=True)
    np.testing.assert_array_equal(volume.array[tuple(index.T)], expected)


@pytest.mark.parametrize("degrees", [8.0, -22.5])
def test_a_tilted_gantry_agrees_with_each_files_own_header(tmp_path: Path, degrees: float) -> None:
    """SimpleITK and highdicom read no sheared volume, so each slice is read by itself, as they would read it."""
    geometry = tilted(degrees)
    expected, lps = points(geometry)
    np.testing.assert_array_equal(
        ours(builders.ct_series(tmp_path / "ct", VALUES, geometry=geometry)[0].parent, lps), expected
    )
    found = 0
    for path in (tmp_path / "ct").iterdir():
        ds = pydicom.dcmread(path)
        along, down = (np.array(ds.ImageOrientationPatient[n : n + 3], float) for n in (0, 3))
        from_corner = lps - np.array(ds.ImagePositionPatient, float)
        here = np.abs(from_corner @ np.cross(along, down)) < 1e-3
        column = np.rint(from_corner[here] @ along / float(ds.PixelSpacing[1])).astype(int)
        row = np.rint(from_corner[here] @ down / float(ds.PixelSpacing[0])).astype(int)
        values = ds.pixel_array[row, column] * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_array_equal(values, expected[here])
        found += int(here.sum())
    assert found == len(expected)


def test_an_enhanced_multi_frame_file_agrees_with_highdicom(tmp_path: Path) -> None:
    import highdicom as hd

    geometry = ORIENTATIONS["oblique"]
    data = builders.enhanced_ct(VALUES, geometry, [4, 0, 8, 1, 7, 2, 6, 3, 5])
    (tmp_path / "a.dcm").write_bytes(data)
    expected, lps = points(geometry)
    np.testing.assert_array_equal(ours(tmp_path / "a.dcm", lps), expected)
    volume = hd.imread(tmp_path / "a.dcm").get_volume(apply_modality_transform=True)
    index = volume.map_reference_to_indices(lps, round_output=True)
    np.testing.assert_array_equal(volume.array[tuple(index.T)], expected)


@pytest.mark.parametrize(("slope", "intercept"), [("1", "-1024"), ("2", "-1000"), ("0.5", "7.25")])
def test_the_rescale_agrees_with_simpleitk(tmp_path: Path, slope: str, intercept: str) -> None:
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    builders.ct_series(tmp_path, VALUES, RescaleSlope=slope, RescaleIntercept=intercept)
    volume = read_scan(tmp_path)[0].series[0].volume
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_allclose(volume.array, itk.GetArrayFromImage(reader.Execute()), atol=1e-3)


def test_the_side_is_the_patients_in_a_scan_whose_labels_know_it(demo_ct: Path) -> None:
    """The demo CT's label map was made by others and names sides: the heart's apex, spleen and liver do the rest."""
    scan = read_scan(demo_ct)[0].series[0].volume
    labels = read_scan(demo_ct.with_name("mask.nii.gz"))[0].series[0].volume
    np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-3)

    def place(numbers: tuple[int, ...]) -> np.ndarray:
        k, j, i = np.argwhere(np.isin(labels.array, numbers)).mean(0)
        return scan.to_world((i, j, k))

    left_kidney, right_kidney, spleen, liver = (place(n) for n in ((3,), (2,), (1,), (5,)))
    assert left_kidney[0] > right_kidney[0], "LPS: x grows to the patient's left"
    assert spleen[0] > liver[0]
