"""What a well-formed DICOM file says must come through: values, spacing, window, inversion, grouping, notes."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from core_models.errors import Cancelled, Conflict, Refused
from core_models.study.intake import read_scan
from tests import builders


def texts(series) -> str:
    return " ".join(note.text for note in series.receipt.notes)


def test_study_fields_and_receipt(tmp_path):
    builders.ct_series(tmp_path, geometry=builders.affine((0.7, 0.8, 2.5)))
    (study,) = read_scan(tmp_path)
    (series,) = study.series
    assert (study.patient.id, study.patient.name, study.patient.sex) == ("RR-0001", "Phantom^Anna", "F")
    assert (study.date, study.description, study.accession, study.body_part) == (
        "20240131",
        "CT chest",
        "A100",
        "CHEST",
    )
    assert (study.uid, series.uid) == (builders.uid("study"), builders.uid("series"))
    assert series.receipt.dimensions == (32, 24, 8)
    assert series.receipt.spacing == pytest.approx((0.7, 0.8, 2.5))
    assert (series.receipt.format, series.receipt.expected, series.receipt.loaded) == ("DICOM", 8, 8)
    assert series.receipt.notes == study.notes == ()
    assert series.volume.window == (40.0, 400.0)
    assert (series.volume.unit, series.volume.array.dtype) == ("HU", np.int16)


@pytest.mark.parametrize(
    ("slope", "kind"),
    [("1", np.int16), ("2", np.int16), ("0.5", np.float32), ("30", np.float32)],
)
def test_rescale_gives_modality_values_in_a_type_that_holds_them(tmp_path, slope, kind):
    stored = np.arange(0, 4096, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / "a"
    data = builders.dataset(stored, RescaleSlope=slope, RescaleIntercept="-1000", PixelSpacing=["1", "1"])
    path.write_bytes(builders.encoded(data))
    array = read_scan(path)[0].series[0].volume.array
    assert array.dtype == kind
    np.testing.assert_allclose(array[0], stored.astype(float) * float(slope) - 1000)


def test_bits_above_bits_stored_are_not_values(tmp_path):
    clean = np.arange(-8, 8, dtype=np.int16).reshape(4, 4) * 200
    dirty = (clean.view(np.uint16) & 0x0FFF) | 0x3000  # an old overlay in the high bits
    path = tmp_path / "a"
    path.write_bytes(builders.encoded(builders.dataset(dirty.view(np.int16), BitsStored=12, HighBit=11)))
    np.testing.assert_array_equal(read_scan(path)[0].series[0].volume.array[0], clean)


def test_monochrome1_is_inverted_once_with_its_window(tmp_path):
    plain = builders.radiograph(tmp_path / "plain.dcm")
    bright = read_scan(plain)[0].series[0].volume
    stored = bright.array[0].astype(np.uint16)
    low, high = int(stored.min()), int(stored.max())
    turned = builders.radiograph(
        tmp_path / "mono1.dcm",
        (low + high - stored).astype(np.uint16),
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter=str(low + high - 1800),
    )
    series = read_scan(turned)[0].series[0]
    np.testing.assert_array_equal(series.volume.array, bright.array)
    assert series.volume.window == bright.window == (1800.0, 3000.0)
    assert "inverted once" in texts(series)
    assert "inverted" not in texts(read_scan(plain)[0].series[0])


def test_detector_spacing_is_used_and_said(tmp_path):
    series = read_scan(builders.radiograph(tmp_path / "a"))[0].series[0]
    assert series.volume.spacing[1:] == (0.2, 0.2)
    assert "at the detector" in texts(series)
    corrected = builders.radiograph(tmp_path / "b", EstimatedRadiographicMagnificationFactor="1.25")
    assert read_scan(corrected)[0].series[0].volume.spacing[1:] == pytest.approx((0.16, 0.16))


@pytest.mark.parametrize("spacing", [None, ["0", "0"], ["nan", "nan"], ["-1", "1"]])
def test_unusable_spacing_is_accepted_but_not_measured(tmp_path, spacing):
    path = builders.radiograph(tmp_path / "a", ImagerPixelSpacing=None, PixelSpacing=spacing)
    series = read_scan(path)[0].series[0]
    assert series.receipt.spacing is None
    assert not series.receipt.measurable
    assert "spacing" in texts(series)


def test_two_projections_of_one_series_are_not_stacked(tmp_path):
    builders.radiograph(tmp_path / "pa.dcm", InstanceNumber=1)
    builders.radiograph(tmp_path / "lateral.dcm", InstanceNumber=2)
    (study,) = read_scan(tmp_path)
    assert [s.volume.shape[0] for s in study.series] == [1, 1]


def test_a_projection_stored_towards_the_right_is_said(tmp_path):
    path = builders.radiograph(tmp_path / "a", PatientOrientation=["R", "F"])
    assert "patient's right" in texts(read_scan(path)[0].series[0])


def test_colour_becomes_luminance_with_a_note(tmp_path):
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[..., 0], colour[:2, :, 1] = 200, 100
    path = tmp_path / "a"
    ds = builders.dataset(
        colour, modality="US", SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    path.write_bytes(builders.encoded(ds))
    series = read_scan(path)[0].series[0]
    np.testing.assert_array_equal(series.volume.array[0, :, 0], [118, 118, 60, 60])
    assert "luminance" in texts(series)


def test_window_falls_back_to_percentiles(tmp_path):
    pixels = np.full((64, 64), 1000, np.uint16)
    pixels[16:48] = 3000
    path = builders.radiograph(tmp_path / "a", pixels, WindowCenter=None, WindowWidth=None)
    assert read_scan(path)[0].series[0].volume.window == (2000.0, 2000.0)


def test_without_a_window_the_range_of_a_voi_table_is_one(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [512, 1000, 16], [0] * 512
    path = builders.radiograph(tmp_path / "a", WindowCenter=None, WindowWidth=None)
    ds = pydicom.dcmread(path)
    ds.VOILUTSequence = [table]
    ds.VOILUTSequence[0]["LUTDescriptor"].VR = ds.VOILUTSequence[0]["LUTData"].VR = "US"
    ds.save_as(path)
    assert read_scan(path)[0].series[0].volume.window == (1256.0, 512.0)


def test_two_studies_in_one_upload(tmp_path):
    builders.ct_series(tmp_path / "a")
    builders.ct_series(tmp_path / "b", patient="RR-0002", StudyInstanceUID=builders.uid("other"))
    studies = read_scan([tmp_path / "a", tmp_path / "b"])
    assert [s.patient.id for s in studies] == ["RR-0001", "RR-0002"]


def test_mixed_patients_are_refused_without_naming_them(tmp_path):
    builders.ct_series(tmp_path / "a")
    builders.ct_series(tmp_path / "b", patient="RR-0002", SeriesInstanceUID=builders.uid("x"))
    with pytest.raises(Refused, match="mixes patients") as refusal:
        read_scan(tmp_path)
    assert "RR-000" not in str(refusal.value)


def test_duplicates_are_ignored_and_said(tmp_path):
    paths = builders.ct_series(tmp_path)
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    (study,) = read_scan(tmp_path)
    assert study.series[0].receipt.loaded == 8
    assert [n.text for n in study.notes] == ["1 duplicate image ignored."]


def test_one_uid_with_other_pixels_is_a_conflict(tmp_path):
    first, second = builders.ct_files(n=2)
    uid = builders.uid("same")
    (tmp_path / "a").write_bytes(builders.edited(first, SOPInstanceUID=uid))
    (tmp_path / "b").write_bytes(builders.edited(second, SOPInstanceUID=uid, PixelData=bytes(24 * 32 * 2)))
    with pytest.raises(Conflict):
        read_scan(tmp_path)


def test_companions_are_skipped_with_a_note(tmp_path):
    builders.ct_series(tmp_path)
    for name in ("readme.txt", ".DS_Store", "empty.dcm"):
        (tmp_path / name).write_bytes(b"hello" if name == "readme.txt" else b"")
    report = builders.dataset(np.zeros((2, 2), np.uint8), modality="SR", PixelData=b"")
    (tmp_path / "report.dcm").write_bytes(builders.encoded(report))
    (study,) = read_scan(tmp_path)
    assert len(study.series) == 1
    assert any("4 files without a scan skipped" in note.text for note in study.notes)


def test_broken_character_set_is_replaced_and_said(tmp_path):
    data = builders.radiograph(tmp_path / "a", SpecificCharacterSet="ISO_IR 192").read_bytes()
    (tmp_path / "a").write_bytes(data.replace(b"Phantom^Anna", b"Ph\xffntom^\xfe\xfdna"))
    (study,) = read_scan(tmp_path / "a")
    assert "\ufffd" in study.patient.name
    assert "character set" in texts(study.series[0])


def test_header_text_loses_invisible_characters_and_length(tmp_path):
    name = "A\u202ene\u200b^<script>" + "x" * 300
    (study,) = read_scan(builders.radiograph(tmp_path / "a", PatientName=name, StudyDescription="a\x07b"))
    assert study.patient.name.startswith("Ane^<script>x")  # shown as text, never run
    assert len(study.patient.name) <= 128
    assert study.description == "ab"


def test_preamble_with_an_executable_is_zeroed_for_exports(tmp_path):
    path = builders.radiograph(tmp_path / "a")
    path.write_bytes(b"MZ\x90".ljust(128, b"\1") + path.read_bytes()[128:])
    (source,) = read_scan(path)[0].series[0].sources
    assert source[:132] == bytes(128) + b"DICM"
    assert source[132:] == path.read_bytes()[132:]


def test_deflated_file_reads_as_the_plain_one(tmp_path):
    path = builders.radiograph(tmp_path / "a")
    plain = read_scan(path)[0].series[0]
    path.write_bytes(builders.deflated(path.read_bytes()))
    packed = read_scan(path)[0].series[0]
    np.testing.assert_array_equal(packed.volume.array, plain.volume.array)
    assert packed.sources == (path.read_bytes(),)


def test_progress_and_cancel(tmp_path):
    builders.ct_series(tmp_path)
    seen = []
    read_scan(tmp_path, progress=lambda done, total, text: seen.append((done, total, text)))
    assert seen[7] == (8, 8, "Reading files")
    assert seen[-1] == (8, 8, "Building volumes")
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        read_scan(tmp_path, cancelled=lambda: next(asked))


def test_the_demo_ct_and_its_dicom_zip_are_one_volume(tmp_path, demo_ct):
    (direct,) = read_scan(demo_ct)
    (through,) = read_scan(builders.ct_zip(tmp_path / "ct.zip", demo_ct))
    a, b = direct.series[0], through.series[0]
    assert a.volume.shape == (133, 512, 512)
    assert (a.modality, a.volume.unit) == (b.modality, b.volume.unit) == ("CT", "HU")
    np.testing.assert_array_equal(a.volume.array, b.volume.array)
    np.testing.assert_allclose(a.volume.affine, b.volume.affine, atol=1e-5)
    assert len(b.sources) == 133
