"""RTSTRUCT, NIfTI and STL: read back by other readers, the masks are the same at native resolution."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image, ImageDraw

from core_models.errors import Refused
from core_models.segmentation.attached import lay
from core_models.segmentation.metrics import dice
from tests.exports.dicom_files import ct_files, radiograph_file
from tests.exports.test_dicom import validate
from tests.exports.test_seg_comes_back import attachment
from webapp.exports import EXPORTS
from webapp.exports.names import file_name


def ball(shape, centre, radius, spacing) -> np.ndarray:
    away = sum(((np.indices(shape)[a] - centre[a]) * spacing[a]) ** 2 for a in range(3))
    return away <= radius**2


@pytest.fixture
def curved(scene_of):
    """A CT of 24 × 60 × 64 voxels with a hollow ball, one that overlaps it, and one apart."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (24, 60, 64)).astype(np.int16)
    scene = scene_of(ct_files(voxels), filled=False)
    spacing = (2.5, 0.8, 0.7)
    whole = ball(voxels.shape, (12, 30, 30), 18.0, spacing)
    scene.segment("Leber, groß", whole & ~ball(voxels.shape, (12, 30, 30), 8.0, spacing))
    scene.segment("nodule", ball(voxels.shape, (12, 30, 44), 9.0, spacing))
    return scene


def masks(bundle) -> list[np.ndarray]:
    return [bundle.mask(row).full() for row in bundle.own_segments]


def files_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- RTSTRUCT --------------------------------------------------------------------------------------------------------


def test_structures_pass_the_validator(any_scan, tmp_path):
    bundle = any_scan.bundle()
    if bundle.series.shape[0] == 1:
        with pytest.raises(Refused, match="do not say where they lie"):
            EXPORTS["rtstruct"].write(bundle)
        return
    validate(EXPORTS["rtstruct"].write(bundle), tmp_path)


def test_our_structures_come_back_voxel_for_voxel_also_where_they_overlap(any_scan, tmp_path):
    bundle = any_scan.bundle()
    if bundle.series.shape[0] == 1:
        pytest.skip("a radiograph has no position in the patient")
    found = attachment(tmp_path, EXPORTS["rtstruct"].write(bundle))
    laid = lay(found, bundle.volume(), {})
    assert [one.label for one in laid] == [row.label for row in bundle.own_segments]
    for one, full in zip(laid, masks(bundle), strict=True):
        np.testing.assert_array_equal(one.mask.full(), full)
    assert found.series_uids == (bundle.series.uid,)


def test_overlapping_segments_survive_seg_structures_and_nifti(curved, tmp_path):
    bundle = curved.bundle()
    truth = masks(bundle)
    assert (truth[0] & truth[1]).any()
    for kind in ("seg", "rtstruct"):
        laid = lay(attachment(tmp_path, EXPORTS[kind].write(bundle)), bundle.volume(), {})
        for one, full in zip(laid, truth, strict=True):
            np.testing.assert_array_equal(one.mask.full(), full)


def test_another_reader_that_paints_each_contour_gets_the_hollow_ball(curved):
    """As usual readers do: patient → pixel by the image's own header, each polygon filled, all of a slice joined."""
    bundle = curved.bundle()
    structures = pydicom.dcmread(io.BytesIO(EXPORTS["rtstruct"].write(bundle)))
    images = {str(i.SOPInstanceUID): (n, i) for n, i in enumerate(pydicom.dcmread(p) for p in bundle.sources)}
    fine = 8  # PIL paints whole pixels and their rims: a finer grid makes the rim thin
    for item, full in zip(structures.ROIContourSequence, masks(bundle), strict=True):
        got = np.zeros(full.shape, bool)
        for contour in item.ContourSequence:
            n, image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(image.ImagePositionPatient, float)
            assert np.abs(points[:, 2]).max() < 1e-3
            along, down = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
            pixel = np.stack([points @ along / image.PixelSpacing[1], points @ down / image.PixelSpacing[0]], 1)
            canvas = Image.new("1", (image.Columns * fine, image.Rows * fine))
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in (pixel * fine).tolist()], fill=1)
            got[n] |= np.asarray(canvas)[::fine, ::fine]
        assert dice(got, full) >= 0.97


def test_structures_refer_to_the_images_and_name_what_was_drawn(curved):
    bundle = curved.bundle()
    images = [pydicom.dcmread(p) for p in bundle.sources]
    out = pydicom.dcmread(io.BytesIO(EXPORTS["rtstruct"].write(bundle)))
    again = pydicom.dcmread(io.BytesIO(EXPORTS["rtstruct"].write(bundle)))
    assert out.SOPInstanceUID == again.SOPInstanceUID
    assert (out.StudyInstanceUID, out.PatientID) == (images[0].StudyInstanceUID, images[0].PatientID)
    assert out.SeriesInstanceUID != images[0].SeriesInstanceUID
    (frame,) = out.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    told = {str(i.ReferencedSOPInstanceUID) for i in series.ContourImageSequence}
    assert told == {str(i.SOPInstanceUID) for i in images}
    assert [(r.ROINumber, r.ROIName, r.ROIGenerationAlgorithm) for r in out.StructureSetROISequence] == [
        (1, "Leber, groß", "SEMIAUTOMATIC"),
        (2, "nodule", "SEMIAUTOMATIC"),
    ]
    for item in out.ROIContourSequence:
        for contour in item.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            assert contour.NumberOfContourPoints == len(contour.ContourData) // 3
            z = float(contour.ContourData[2])
            (image,) = [i for i in images if abs(float(i.ImagePositionPatient[2]) - z) < 1e-3]
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert out.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence[0].CodeValue == "27925004"
    assert out.ApprovalStatus == "UNAPPROVED"


def test_a_contour_longer_than_explicit_vr_can_say_is_written_whole(scene_of, tmp_path):
    voxels = np.zeros((3, 80, 80), np.int16)
    scene = scene_of(ct_files(voxels), filled=False)
    comb = np.zeros(voxels.shape, bool)
    comb[1, 2:78, 2:78:2] = True
    comb[1, 2, 2:78] = True
    comb[1, 3:78:2, 3:78:4] = True
    scene.segment("comb", comb)
    bundle = scene.bundle()
    data = EXPORTS["rtstruct"].write(bundle)
    longest = max(
        len(c.get_item("ContourData").value)
        for c in pydicom.dcmread(io.BytesIO(data)).ROIContourSequence[0].ContourSequence
    )
    assert longest > 65536
    (one,) = lay(attachment(tmp_path, data), bundle.volume(), {})
    np.testing.assert_array_equal(one.mask.full(), comb)


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


def test_each_segment_is_a_mask_on_the_images_own_grid(any_scan, tmp_path):
    bundle = any_scan.bundle()
    files = files_of(EXPORTS["nifti"].write(bundle))
    volume = bundle.volume()
    for row, full in zip(bundle.own_segments, masks(bundle), strict=True):
        path = tmp_path / "mask.nii.gz"
        path.write_bytes(files[file_name(row, ".nii.gz")])
        image = nibabel.load(path)
        ijk = np.argwhere(np.asarray(image.dataobj))
        world = ijk @ image.affine[:3, :3].T + image.affine[:3, 3]
        expected = volume.to_world(np.argwhere(full)[:, ::-1]) * (-1, -1, 1)
        np.testing.assert_allclose(np.sort(world, axis=0), np.sort(expected, axis=0), atol=1e-2)
        assert int(image.header["sform_code"]) == 1
        assert image.header.get_xyzt_units()[0] == "mm"


def test_simpleitk_places_the_masks_where_the_images_are(curved, tmp_path):
    bundle = curved.bundle()
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(p) for p in bundle.sources])
    images = reader.Execute()
    files = files_of(EXPORTS["nifti"].write(bundle))
    for row, full in zip(bundle.own_segments, masks(bundle), strict=True):
        path = tmp_path / "mask.nii.gz"
        path.write_bytes(files[file_name(row, ".nii.gz")])
        mask = sitk.ReadImage(str(path))
        np.testing.assert_allclose(mask.GetOrigin(), images.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(mask.GetDirection(), images.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(mask.GetSpacing(), images.GetSpacing(), atol=1e-5)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, full)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PIR", "SAL"])
def test_a_nifti_that_was_uploaded_gets_masks_of_its_own_shape_and_affine(scene_of, tmp_path, axes):
    oblique = np.array([[0.8, 0.1, 0, -30], [-0.1, 0.9, 0.05, 12], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    values = np.random.default_rng(0).integers(-1000, 1000, (14, 11, 9)).astype(np.int16)
    image = nibabel.Nifti1Image(values, oblique)
    wanted = nibabel.orientations.axcodes2ornt(tuple(axes))
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(oblique), wanted))
    scene = scene_of([image.to_bytes()], filled=False)
    marked = np.asarray(image.dataobj) > 300
    bundle = scene.bundle()
    full = np.zeros(bundle.series.shape, bool)
    full[bundle.volume().array > 300] = True
    scene.segment("bright", full)
    files = files_of(EXPORTS["nifti"].write(scene.bundle()))
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(files["labels.nii.gz"])
    mask = nibabel.load(path)
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(mask.dataobj) == 1, marked)


def test_a_label_map_is_there_where_no_segments_overlap_and_only_then(curved, scene_of):
    assert set(files_of(EXPORTS["nifti"].write(curved.bundle()))) == {
        "1-leber-gross.nii.gz",
        "2-nodule.nii.gz",
        "labels.txt",
    }
    apart = scene_of(ct_files(np.zeros((4, 12, 12), np.int16)), filled=False)
    for n, label in enumerate(('liver "big"', "肝")):
        full = np.zeros((4, 12, 12), bool)
        full[n, 2:5, 2:5] = True
        apart.segment(label, full)
    files = files_of(EXPORTS["nifti"].write(apart.bundle()))
    assert set(files) == {"labels.nii.gz", "1-liver-big.nii.gz", "2-segment.nii.gz", "labels.txt"}
    rows = [line.split(None, 7) for line in files["labels.txt"].decode().splitlines()[2:]]
    assert [(int(r[0]), r[7]) for r in rows] == [(1, '"liver big"'), (2, '"肝"')]
    assert EXPORTS["nifti"].write(apart.bundle()) == EXPORTS["nifti"].write(apart.bundle())


# ---- STL -------------------------------------------------------------------------------------------------------------


def triangles(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(normals (n, 3), corners (n, 3, 3)) of a binary STL, by its published layout."""
    assert not data.startswith(b"solid")
    count = int.from_bytes(data[80:84], "little")
    assert len(data) == 84 + 50 * count
    rows = np.frombuffer(data, np.uint8, offset=84).reshape(count, 50)[:, :48].copy().view("<f4").reshape(count, 4, 3)
    return rows[:, 0], rows[:, 1:]


def test_surfaces_are_closed_outward_in_patient_millimetres_and_of_the_masks_volume(curved):
    bundle = curved.bundle()
    files = files_of(EXPORTS["stl"].write(bundle))
    assert EXPORTS["stl"].named(bundle) == ("application/zip", "surfaces.zip")
    assert set(files) == {"1-leber-gross.stl", "2-nodule.stl"}
    volume = bundle.volume()
    for (_, data), full in zip(sorted(files.items()), masks(bundle), strict=True):
        normals, corners = triangles(data)
        signed = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6000
        assert signed == pytest.approx(full.sum() * volume.voxel_ml, rel=0.06)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (np.einsum("ij,ij->i", normals, across) >= 0).all()
        edges = np.sort(
            np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(-1, 3)[
                :, [[0, 1], [1, 2], [2, 0]]
            ],
            axis=-1,
        ).reshape(-1, 2)
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
        lps = volume.to_world(np.argwhere(full)[:, ::-1])
        np.testing.assert_allclose(corners.mean((0, 1)), lps.mean(0), atol=1.5)
        assert (np.abs(corners.reshape(-1, 3).min(0) - lps.min(0)) < 2.5).all()


def test_one_segment_is_one_file(scene_of):
    scene = scene_of(ct_files(np.zeros((8, 20, 20), np.int16)), filled=False)
    full = np.zeros((8, 20, 20), bool)
    full[2:6, 5:15, 5:15] = True
    scene.segment("liver", full)
    assert EXPORTS["stl"].named(scene.bundle()) == ("model/stl", "segment.stl")
    triangles(EXPORTS["stl"].write(scene.bundle()))


# ---- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rtstruct", "nifti", "stl"])
def test_without_segments_or_with_an_empty_one_it_says_so(scene_of, voxels, kind):
    scene = scene_of(ct_files(voxels), filled=False)
    with pytest.raises(Refused, match="click a structure first"):
        EXPORTS[kind].write(scene.bundle())
    scene.segment("liver", np.zeros(voxels.shape, bool))
    with pytest.raises(Refused, match="'liver' is empty"):
        EXPORTS[kind].write(scene.bundle())


def test_what_a_format_needs_of_the_images_is_told(ct, scene_of, voxels):
    with pytest.raises(Refused, match=r"An RT Structure Set needs the original DICOM images"):
        EXPORTS["rtstruct"].write(replace(ct.bundle(), sources=()))
    film = scene_of([radiograph_file(voxels[0])])
    with pytest.raises(Refused, match="single image"):
        EXPORTS["stl"].write(film.bundle())
    with pytest.raises(Refused, match="they do not match"):
        EXPORTS["rtstruct"].write(replace(ct.bundle(), sources=ct.bundle().sources[:-1]))
