"""What the exports write, the intake reads back: the same voxels, whatever the scan's orientation and kind."""

from __future__ import annotations

import io
import itertools

import highdicom as hd
import numpy as np
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from core_models.errors import Refused
from core_models.segmentation.attached import lay
from core_models.study.attachments import Attachment, Drawing, Plane
from core_models.study.intake import read_scan
from core_models.study.study import Patient
from tests.builders import edited
from tests.exports.dicom_files import ct_files
from tests.study.attached_files import structure_set
from webapp.exports import EXPORTS

ORGAN = CodedConcept("10200004", "SCT", "Liver")


def attachment(tmp_path, data: bytes) -> Attachment:
    path = tmp_path / "attached.dcm"
    path.write_bytes(data)
    (study,) = read_scan(path)
    assert study.series == ()
    return study.attachments[0]


def slices(bundle) -> dict[str, int]:
    return {str(pydicom.dcmread(p).SOPInstanceUID): n for n, p in enumerate(bundle.sources)}


def told(segments: str = "liver") -> hd.seg.SegmentDescription:
    kinds = hd.seg.SegmentAlgorithmTypeValues
    return hd.seg.SegmentDescription(1, segments, codes.SCT.Organ, ORGAN, kinds.MANUAL)


def written(images, pixels, kind, **options) -> bytes:
    seg = hd.seg.Segmentation(
        images, pixels, kind, [told()], hd.UID(), 300, hd.UID(), 1, "Another", "Maker", "1", "1", **options
    )  # fmt: skip
    buffer = io.BytesIO()
    seg.save_as(buffer)
    return buffer.getvalue()


def test_our_segmentation_comes_back_voxel_for_voxel(any_scan, tmp_path):
    bundle = any_scan.bundle()
    found = attachment(tmp_path, EXPORTS["seg"].write(bundle))
    known = {} if len(bundle.sources) != bundle.series.shape[0] and bundle.series.shape[0] > 1 else slices(bundle)
    laid = lay(found, bundle.volume(), known)
    assert [one.label for one in laid] == [row.label for row in bundle.own_segments]
    for one, row in zip(laid, bundle.own_segments, strict=True):
        np.testing.assert_array_equal(one.mask.full(), bundle.mask(row).full())
        assert one.note == ""
    assert found.series_uids == (bundle.series.uid,)


def test_by_position_alone_it_comes_back_too_with_empty_frames_left_out(any_scan, tmp_path):
    bundle = any_scan.bundle()
    if bundle.series.shape[0] == 1:
        pytest.skip("a radiograph has no position in the patient")
    seg = pydicom.dcmread(io.BytesIO(EXPORTS["seg"].write(bundle)))
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    buffer = io.BytesIO()
    seg.save_as(buffer)
    laid = lay(attachment(tmp_path, buffer.getvalue()), bundle.volume(), {})
    for one, row in zip(laid, bundle.own_segments, strict=True):
        np.testing.assert_array_equal(one.mask.full(), bundle.mask(row).full())


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_kinds_of_segmentation_and_a_compressed_one(ct, tmp_path, kind):
    bundle = ct.bundle()
    images = [pydicom.dcmread(p) for p in bundle.sources]
    row = bundle.own_segments[0]
    pixels = bundle.volume().layout.to_source(bundle.mask(row).full()).astype(np.uint8)
    options = {} if kind == "LABELMAP" else {"max_fractional_value": 200}
    given = pixels if kind == "LABELMAP" else pixels.astype(float)
    data = written(images, given, kind, transfer_syntax_uid=RLELossless, **options)
    (one,) = lay(attachment(tmp_path, data), bundle.volume(), slices(bundle))
    np.testing.assert_array_equal(one.mask.full(), bundle.mask(row).full())


def test_on_a_grid_of_its_own_it_is_resampled_as_highdicom_places_it(ct, tmp_path):
    """A segmentation at half the resolution in each direction; highdicom says where its voxels lie."""
    bundle = ct.bundle()
    volume, images = bundle.volume(), [pydicom.dcmread(p) for p in bundle.sources]
    coarse = volume.affine.copy()
    coarse[:3, :3] *= 2
    coarse[:3, 3] = volume.to_world((0.5, 0.5, 0.5))
    drawn = np.zeros((3, 10, 12), np.uint8)
    drawn[1:, 2:7, 3:9] = 1
    # highdicom's axes are (slice, row, column), and its affine takes them in that order
    geometry = hd.Volume(
        drawn,
        coarse[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=images[0].FrameOfReferenceUID,
    )
    data = written(images, geometry, "BINARY")
    (one,) = lay(attachment(tmp_path, data), volume, {})
    expected = np.kron(drawn, np.ones((2, 2, 2))).astype(bool)
    np.testing.assert_array_equal(one.mask.full(), expected)
    back = hd.seg.segread(io.BytesIO(data)).get_volume(combine_segments=True)
    k, j, i = np.argwhere(one.mask.full()).T
    at = back.map_reference_to_indices(volume.to_world(np.stack([i, j, k], 1)), round_output=True)
    assert (back.array[tuple(at.T)] == 1).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SegmentationType": "SURFACE"}, "SURFACE"),
        ({"SegmentSequence": []}, "does not describe"),
        ({"PerFrameFunctionalGroupsSequence": None}, "describes 0 frames"),
        ({"NumberOfFrames": 500}, "were expected"),
        ({"BitsAllocated": 4}, "BitsAllocated = 4"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 10**6}, "can be opened"),
        ({"StudyInstanceUID": ""}, "to which study"),
        ({"StudyInstanceUID": "../x"}, "valid UID"),
        ({"PixelData": None}, "cut short"),
    ],
)
def test_a_damaged_segmentation_is_refused(ct, tmp_path, change, said):
    path = tmp_path / "seg.dcm"
    path.write_bytes(edited(EXPORTS["seg"].write(ct.bundle()), **change))
    with pytest.raises(Refused, match=said):
        read_scan(path)


def hexagon(volume, centre: tuple[float, float], radius: float, k: float) -> np.ndarray:
    turns = np.linspace(0, 2 * np.pi, 7)[:-1]
    i, j = centre[0] + radius * np.cos(turns), centre[1] + radius * np.sin(turns)
    return volume.to_world(np.stack([i, j, np.full(6, k)], 1))


def test_contours_fill_the_pixel_centres_that_they_enclose(scene_of, voxels, tmp_path):
    """On a tilted, anisotropic CT a hexagon's pixels are those whose centres lie inside it, by the plane's own rule."""
    bundle = scene_of(ct_files(voxels, orientation=(1, 0, 0, 0, 0.96, -0.28))).bundle()
    volume = bundle.volume()
    contours = [hexagon(volume, (11.2, 9.3), 5.6, k) for k in (1, 2, 4)]
    data = structure_set({"GTV": contours}, study=bundle.study.uid, series=bundle.series.uid)
    (one,) = lay(attachment(tmp_path, data), volume, {})
    j, i = np.mgrid[0:20, 0:24]
    inside = np.ones((20, 24), bool)
    turns = np.linspace(0, 2 * np.pi, 7)
    corners = np.stack([11.2 + 5.6 * np.cos(turns), 9.3 + 5.6 * np.sin(turns)], 1)
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        inside &= (x1 - x0) * (j - y0) - (y1 - y0) * (i - x0) > 0
    full = one.mask.full()
    for k in (1, 2, 4):
        np.testing.assert_array_equal(full[k], inside)
    assert not full[[0, 3, 5]].any()
    assert one.note == "1 slice between its contours hold none and stay empty."


def test_points_lines_and_slanted_contours_are_left_out_and_counted(ct, tmp_path):
    volume = ct.bundle().volume()
    slanted = hexagon(volume, (11, 9), 5, 2)
    slanted[:, 2] += np.linspace(0, 9, 6)
    flat = hexagon(volume, (11, 9), 5, 2)
    ids = {"study": ct.bundle().study.uid, "series": ct.bundle().series.uid}
    (one,) = lay(attachment(tmp_path, structure_set({"a": [flat, slanted, flat[:2]]}, **ids)), volume, {})
    assert "2 contours enclose nothing" in one.note
    with pytest.raises(Refused, match="nothing is drawn"):
        attachment(tmp_path, structure_set({"a": [flat]}, **ids, kind="POINT"))
    with pytest.raises(Refused, match="Nothing that"):
        lay(attachment(tmp_path, structure_set({"a": [slanted]}, **ids)), volume, {})
    nan = structure_set({"a": [np.full((4, 3), np.nan)]}, **ids)
    with pytest.raises(Refused, match="finite"):
        attachment(tmp_path, nan)


def test_two_regions_of_one_name_stay_two(ct, tmp_path):
    volume = ct.bundle().volume()
    data = structure_set(
        {"node": [hexagon(volume, (6, 6), 3, 1)], "node ": [hexagon(volume, (15, 12), 3, 3)]},
        study=ct.bundle().study.uid,
        series=ct.bundle().series.uid,
    )
    assert [one.label for one in lay(attachment(tmp_path, data), volume, {})] == ["node", "node 2"]


@pytest.mark.parametrize("seed", range(60))
def test_a_segmentation_or_structure_set_with_broken_bytes_is_laid_or_refused(ct, tmp_path, seed):
    """Half of them lose what ties their frames to the images, so that positions and grids are what is broken."""
    bundle = ct.bundle()
    generator = np.random.default_rng(seed)
    if seed % 3:
        data = bytearray(EXPORTS["seg"].write(bundle))
    else:
        contour = hexagon(bundle.volume(), (11, 9), 5, 2)
        data = bytearray(structure_set({"a": [contour]}, study=bundle.study.uid, series=bundle.series.uid))
    start = data.find(b"\x00\x62") if seed % 2 else 132
    for at in generator.integers(max(start, 132), len(data), 6):
        data[at] = int(generator.integers(0, 256))
    path = tmp_path / "broken.dcm"
    path.write_bytes(bytes(data))
    try:
        (study,) = read_scan(path)
        if study.attachments:
            for one in lay(study.attachments[0], bundle.volume(), {} if seed % 2 else slices(bundle)):
                assert not one.mask.empty
    except Refused:
        pass


@pytest.mark.parametrize(
    ("position", "orientation", "spacing"),
    [
        ((1e300, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1)),
        ((0, 0, 0), (0, 0, 0, 0, 0, 0), (1, 1)),
        ((0, 0, 0), (1, 0, 0, 1, 0, 0), (1, 1)),
        ((float("nan"), 0, 0), (1, 0, 0, 0, 1, 0), (1, 1)),
        ((0, 0, 0), (1, 0, 0, 0, 1, 0), (9999, 2e-6)),
        ((1e6, -1e6, 1e6), (0.6, 0.8, 0, -0.8, 0.6, 0), (0.3, 0.3)),
    ],
)
def test_planes_at_absurd_places_are_refused(ct, position, orientation, spacing):
    planes = tuple(
        Plane(
            np.ones((4, 4), bool), (0, 0), (8, 8), (*position[:2], position[2] + 3 * n), orientation, spacing, 1.0, ""
        )
        for n in range(3)
    )
    found = Attachment("SEG", "a", "1.2", Patient(), (), (Drawing("x", planes),))
    with pytest.raises(Refused):
        lay(found, ct.bundle().volume(), {})


def test_a_grid_that_would_not_fit_into_memory_is_refused(ct):
    far = tuple(
        Plane(np.ones((4, 4), bool), (0, 0), (512, 512), (0, 0, z), (0.6, 0.8, 0, -0.8, 0.6, 0), (0.3, 0.3), 1.0, "")
        for z in (0.0, 0.002, 900.0)
    )
    with pytest.raises(Refused, match="too large"):
        lay(Attachment("SEG", "a", "1.2", Patient(), (), (Drawing("x", far),)), ct.bundle().volume(), {})
