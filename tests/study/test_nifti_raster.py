"""NIfTI, PNG and JPEG: geometry, value types, and what is refused."""

from __future__ import annotations

import io
import tracemalloc

import nibabel
import numpy as np
import pytest
from PIL import Image

from core_models.errors import Refused, TooLarge
from core_models.study.intake import read_scan
from tests import builders

RAS = np.diag([-0.7, 0.8, 2.5, 1.0])  # what most scanners' converters write: left to right reversed
BODY = builders.phantom((6, 16, 20))


def read(tmp_path, data: bytes, name: str = "scan"):
    path = tmp_path / name
    path.write_bytes(data)
    (study,) = read_scan(path)
    return study.series[0]


def stored(array_zyx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BODY as an (x, y, z) NIfTI array with y running to anterior (RAS +y) and x to the left."""
    affine = RAS.copy()
    affine[:3, 3] = (10, -20, 30)
    return array_zyx[:, ::-1].transpose(2, 1, 0), affine


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [np.int16, np.float32, np.int32, np.float64])
def test_nifti_becomes_lps_in_hounsfield_units(tmp_path, zipped, kind):
    array, affine = stored(BODY)
    series = read(tmp_path, builders.nifti(array.astype(kind), affine, zipped=zipped))
    volume = series.volume
    np.testing.assert_array_equal(volume.array, BODY)
    assert (volume.array.dtype, volume.unit, volume.modality) == (np.int16, "HU", "CT")
    assert volume.spacing == pytest.approx((2.5, 0.8, 0.7))
    # NIfTI voxel (0, 0, 0) lies at RAS (10, -20, 30), which is LPS (-10, 20, 30): here row 15 of column 0.
    np.testing.assert_allclose(volume.to_world((0, 15, 0)), (-10, 20, 30), atol=1e-5)
    assert series.receipt.format == "NIfTI"
    assert "look like CT" in series.receipt.notes[0].text


def test_nifti_scale_is_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.0, -1024)
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([2.0, -1024], "<f4").tobytes()
    volume = read(tmp_path, bytes(data)).volume
    assert sorted(volume.array.ravel()) == [2 * n - 1024 for n in range(24)]


def test_the_names_that_segmenters_write_behind_the_header_do_no_harm(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4))
    plain = read(tmp_path, image.to_bytes()).volume
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, b"<Label>spleen</Label>" * 300))
    named = read(tmp_path, image.to_bytes()).volume
    np.testing.assert_array_equal(named.array, plain.array)


def test_nan_is_replaced_and_said(tmp_path):
    array = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    array[0, 0, 0] = np.nan
    series = read(tmp_path, builders.nifti(array, np.eye(4)))
    assert np.isfinite(series.volume.array).all()
    assert any("1 voxels are not finite" in n.text for n in series.receipt.notes)


def test_first_of_several_volumes(tmp_path):
    array = np.stack([np.full((3, 3, 3), n, np.int16) for n in (5, 9)], -1)
    series = read(tmp_path, builders.nifti(array, np.eye(4)))
    assert set(series.volume.array.ravel()) == {5}
    assert any("2 volumes" in n.text for n in series.receipt.notes)


def header_only(shape: tuple[int, ...], **changes: object) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape((1,) * len(shape))
    header["dim"][1 : 1 + len(shape)] = shape
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    for key, value in changes.items():
        header[key] = value
    return header.binaryblock + bytes(4)


def test_a_trillion_declared_voxels_cost_nothing(tmp_path):
    import gzip

    data = gzip.compress(header_only((10000, 10000, 10000)) + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="10000 × 10000 × 10000"):
        read(tmp_path, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header_only((4, 4, 4)), "128 were expected|64 were expected|256 were expected"),
        (header_only((4, -1, 4)), "at least 1"),
        (header_only((4, 4, 4), datatype=9999) + bytes(999), "data type"),
        (header_only((4, 4, 4), datatype=32, bitpix=64) + bytes(999), "grey levels"),
        (header_only((4, 4, 4), srow_x=(0, 0, 0, 0), srow_y=(0, 0, 0, 0)) + bytes(999), "singular"),
        (header_only((4, 4, 4), srow_x=(np.nan, 0, 0, 0)) + bytes(999), "singular"),
        (header_only((4, 4, 4), vox_offset=1e12), "offset"),
        (header_only((4, 4, 4), vox_offset=np.nan), "offset"),
        (header_only((4, 4, 4), magic=b"ni1"), "pair"),
    ],
)
def test_bad_nifti_is_refused(tmp_path, data, said):
    with pytest.raises(Refused, match=said):
        read(tmp_path, data)


def test_truncated_gzip(tmp_path):
    data = builders.nifti(np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16), np.eye(4))
    with pytest.raises(Refused, match="expected"):
        read(tmp_path, data[: len(data) // 2])


def test_unknown_voxel_size_is_not_measured(tmp_path):
    data = header_only((4, 4, 4), pixdim=(0,) * 8, sform_code=0, datatype=2, bitpix=8) + bytes(range(64))
    series = read(tmp_path, data)
    assert not series.receipt.measurable
    assert any("left and right are not certain" in n.text for n in series.receipt.notes)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_png_named_as_dicom_is_read_by_content(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    series = read(tmp_path, encoded(Image.fromarray(pixels), "PNG"), "scan.dcm")
    np.testing.assert_array_equal(series.volume.array, pixels[None])
    np.testing.assert_array_equal(series.volume.affine, np.eye(4))
    assert (series.receipt.format, series.receipt.measurable, series.modality) == ("PNG", False, "OT")
    assert series.sources == ()


def test_sixteen_bit_png_and_jpeg(tmp_path):
    deep = (np.arange(48, dtype=np.uint16) * 1000).reshape(6, 8)
    np.testing.assert_array_equal(read(tmp_path, encoded(Image.fromarray(deep), "PNG")).volume.array[0], deep)
    flat = read(tmp_path, encoded(Image.new("L", (16, 8), 77), "JPEG"))
    assert flat.receipt.format == "JPEG"
    assert np.abs(flat.volume.array.astype(int) - 77).max() <= 1


def test_colour_png_is_luminance(tmp_path):
    series = read(tmp_path, encoded(Image.new("RGBA", (4, 4), (200, 100, 0, 128)), "PNG"))
    assert set(series.volume.array.ravel()) == {118}
    assert any("luminance" in n.text for n in series.receipt.notes)


def test_cut_and_absurd_images(tmp_path, monkeypatch):
    data = encoded(Image.effect_noise((64, 64), 50), "PNG")
    with pytest.raises(Refused, match="damaged"):
        read(tmp_path, data[: len(data) // 2])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(TooLarge):
        read(tmp_path, data)
    with pytest.raises(TooLarge, match="32 × 50"):
        read(tmp_path, encoded(Image.new("L", (32, 50)), "PNG"))


def test_the_same_file_gets_the_same_study_uid(tmp_path):
    data = encoded(Image.new("L", (4, 4), 3), "PNG")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(data)
    first, second = read_scan(tmp_path / "a")[0], read_scan(tmp_path / "b")[0]
    assert first.uid == second.uid
    assert first.uid != first.series[0].uid
