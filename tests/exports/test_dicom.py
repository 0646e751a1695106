"""SEG and SR go through bytes: written, validated, read back, compared."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from core_models.drafting.evidence import Statement
from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.segmentation.measure import measure
from core_models.study import received
from tests.exports.dicom_files import read
from webapp.exports import EXPORTS, seg


def source_masks(bundle) -> np.ndarray:
    """(frame in file order, row, column, segment) as the originals lie, found by position and not by the layout."""
    volume = bundle.volume()
    full = np.stack([bundle.mask(s).full() for s in bundle.own_segments], axis=-1)
    planes = []
    for path in bundle.sources:
        ds = pydicom.dcmread(path)
        for frame in range(int(ds.get("NumberOfFrames", 1))):
            if "PerFrameFunctionalGroupsSequence" in ds:
                shared = ds.SharedFunctionalGroupsSequence[0]
                origin = ds.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0].ImagePositionPatient
                directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
                spacing = shared.PixelMeasuresSequence[0].PixelSpacing
            elif "ImagePositionPatient" in ds:
                origin, directions, spacing = ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
            else:
                planes.append(full[0])
                continue
            row, column = np.mgrid[0 : ds.Rows, 0 : ds.Columns]
            along, down = np.array(directions[:3], float), np.array(directions[3:], float)
            points = (
                np.array(origin, float)
                + column[..., None] * along * float(spacing[1])
                + row[..., None] * down * float(spacing[0])
            )
            i, j, k = np.moveaxis(np.rint(volume.to_index(points)).astype(int), -1, 0)
            planes.append(full[k, j, i])
    return np.array(planes)


def validate(data: bytes, tmp_path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    path = tmp_path / "object.dcm"
    path.write_bytes(data)
    result = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert errors == []


def sources(bundle):
    return [pydicom.dcmread(p, stop_before_pixels=True) for p in bundle.sources]


def test_seg_reads_back_equal_on_the_original_images(any_scan):
    bundle = any_scan.bundle()
    images, expected = sources(bundle), source_masks(bundle)
    back = hd.seg.segread(io.BytesIO(EXPORTS["seg"].write(bundle)))
    flat = "FrameOfReferenceUID" not in images[0]
    options = {"assert_missing_frames_are_empty": True, "ignore_spatial_locations": flat}
    if len(images) == 1 and int(images[0].get("NumberOfFrames", 1)) > 1:
        uid, frames = images[0].SOPInstanceUID, list(range(1, len(expected) + 1))
        got = back.get_pixels_by_source_frame(uid, frames, **options)
    else:
        got = back.get_pixels_by_source_instance([i.SOPInstanceUID for i in images], **options)
    assert expected.sum() > 50
    assert (expected.all(axis=-1)).any(), "the segments overlap"
    assert np.array_equal(got.astype(bool), expected)
    assert [s.SegmentLabel for s in back.SegmentSequence] == ["liver", "nodule"]
    kinds = [s.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for s in back.SegmentSequence]
    assert kinds == ["Anatomical Structure", "Morphologically Abnormal Structure"]
    assert back.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert (back.PatientID, back.StudyInstanceUID) == ("P1", images[0].StudyInstanceUID)


def test_seg_passes_the_validator(any_scan, tmp_path):
    validate(EXPORTS["seg"].write(any_scan.bundle()), tmp_path)


def test_sr_passes_the_validator(any_scan, tmp_path):
    validate(EXPORTS["sr"].write(any_scan.bundle()), tmp_path)


def test_signed_sr_passes_the_validator_and_names_the_reader(ct, tmp_path):
    ct.sign()
    ct.store.addendum(ct.study_id, author="Dr B", text="Seen again.")
    data = EXPORTS["sr"].write(ct.bundle())
    validate(data, tmp_path)
    ds = read(data)
    assert (ds.CompletionFlag, ds.PreliminaryFlag) == ("COMPLETE", "FINAL")
    people = [str(i.PersonName) for i in ds.ContentSequence if i.ValueType == "PNAME"]
    assert people == ["Dr A^"]


def test_the_reports_text_is_in_the_sr_without_what_stands_struck_out(ct, tmp_path):
    said = [
        Statement("s1", "findings", "abdomen", "The liver is large.", support="supported"),
        Statement("s2", "findings", "lungs", "A nodule.", support="unsupported", origin="model"),
        Statement("s3", "impression", "abdomen", "Hepatomegaly ≥ 20 cm, groß.", support="supported"),
    ]
    state = ct.store.report(ct.study_id)
    ct.store.save_report(ct.study_id, statements=said, free_text="One.\n\nTwo.", base_revision=state.revision)
    data = EXPORTS["sr"].write(ct.bundle())
    validate(data, tmp_path)
    found = received.read(read(data))
    assert (found.findings, found.impression) == (("The liver is large.",), ("Hepatomegaly ≥ 20 cm, groß.",))
    assert (found.text, found.author, found.final) == ("One.\n\nTwo.", "", False)
    assert len(found.measured) == 2
    assert len(hd.sr.srread(io.BytesIO(data)).content.get_volumetric_roi_measurement_groups()) == 2


def values(group) -> dict[str, tuple[float, str]]:
    return {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}


def test_sr_measurements_read_back_equal_and_refer_to_the_seg(ct):
    bundle = ct.bundle()
    segmentation = read(EXPORTS["seg"].write(bundle))
    report = hd.sr.srread(io.BytesIO(EXPORTS["sr"].write(bundle)))
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    for n, (group, row) in enumerate(zip(groups, bundle.own_segments, strict=True), 1):
        m = measure(bundle.volume(), bundle.mask(row))
        assert values(group) == {
            "Volume": (pytest.approx(m.volume_ml, abs=1e-3), "mL"),
            "Attenuation Coefficient": (pytest.approx(m.mean, abs=0.05), "[hnsf'U]"),
            "Long Axis": (pytest.approx(m.longest_axial_diameter_mm, abs=0.01), "mm"),
        }
        assert group.tracking_identifier == row.label
        assert group.tracking_uid == segmentation.SegmentSequence[n - 1].TrackingUID
        item = group.referenced_segment
        assert item.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert item.referenced_segment_numbers == [n]


def test_a_radiographs_segments_are_planar_with_an_area(scene_of, voxels):
    from tests.exports.dicom_files import radiograph_file

    scene = scene_of([radiograph_file(voxels[0])])
    report = hd.sr.srread(io.BytesIO(EXPORTS["sr"].write(scene.bundle())))
    groups = report.content.get_planar_roi_measurement_groups()
    bundle = scene.bundle()
    for group, row in zip(groups, bundle.own_segments, strict=True):
        m = measure(bundle.volume(), bundle.mask(row))
        assert values(group)["Area"] == (pytest.approx(m.area_mm2, abs=0.01), "mm2")
        assert "Volume" not in values(group)
    segmentation = read(EXPORTS["seg"].write(bundle))
    for n, item in enumerate(g.referenced_segmentation_frame for g in groups):
        assert item.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        (frame,) = item.referenced_frame_numbers
        held = segmentation.PerFrameFunctionalGroupsSequence[frame - 1].SegmentIdentificationSequence[0]
        assert held.ReferencedSegmentNumber == n + 1


def test_the_same_segments_give_the_same_uid_and_changed_ones_another(ct):
    first, again = (read(EXPORTS["seg"].write(ct.bundle())) for _ in range(2))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    row = ct.bundle().own_segments[0]
    full = ct.store.mask(row.id).full()
    full[0, 0, 0] = True
    ct.store.save_segment(row.id, steps=row.steps, undone=(), mask=Mask.from_full(full), confidence=1.0)
    changed = read(EXPORTS["seg"].write(ct.bundle()))
    assert changed.SOPInstanceUID != first.SOPInstanceUID
    assert changed.SegmentSequence[0].TrackingUID == first.SegmentSequence[0].TrackingUID


def test_large_exports_leave_empty_frames_out_and_still_read_back(ct, monkeypatch):
    monkeypatch.setattr(seg, "ALL_FRAMES_BYTES", 0)
    row = ct.bundle().own_segments[0]
    full = np.zeros(ct.bundle().series.shape, bool)
    full[2, 3:6, 4:9] = True
    ct.store.save_segment(row.id, steps=row.steps, undone=(), mask=Mask.from_full(full), confidence=1.0)
    bundle = ct.bundle()
    back = hd.seg.segread(io.BytesIO(EXPORTS["seg"].write(bundle)))
    uids = [i.SOPInstanceUID for i in sources(bundle)]
    got = back.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert back.NumberOfFrames < 2 * len(uids)
    assert np.array_equal(got.astype(bool), source_masks(bundle))


@pytest.mark.parametrize("name", ["seg", "sr"])
def test_an_empty_mask_is_refused(ct, name):
    ct.segment("spleen", np.zeros(ct.bundle().series.shape, bool))
    with pytest.raises(Refused, match=r"spleen.*empty"):
        EXPORTS[name].write(ct.bundle())


@pytest.mark.parametrize("name", ["seg", "sr"])
def test_without_segments_or_originals_there_is_a_reason(scene_of, voxels, name):
    from tests.exports.dicom_files import ct_files

    bare = scene_of(ct_files(voxels), filled=False).bundle()
    with pytest.raises(Refused, match="click a structure first"):
        EXPORTS[name].write(bare)
    with pytest.raises(Refused, match="did not come as DICOM"):
        EXPORTS[name].write(replace(bare, sources=()))


def test_originals_that_do_not_match_the_volume_are_refused(ct):
    bundle = ct.bundle()
    with pytest.raises(Refused, match="do not match"):
        EXPORTS["seg"].write(replace(bundle, sources=bundle.sources[:-1]))


def test_hostile_labels_become_plain_text(ct, tmp_path):
    row = ct.bundle().own_segments[0]
    ct.store.edit_segment(row.id, label="A\\B\n<script>" + "x" * 100 + "ü")
    data = EXPORTS["seg"].write(ct.bundle())
    label = read(data).SegmentSequence[0].SegmentLabel
    assert label.startswith("A B <script>x")
    assert len(label) == 64
    validate(data, tmp_path)
    validate(EXPORTS["sr"].write(ct.bundle()), tmp_path)
