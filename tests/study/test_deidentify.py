"""De-identification: nothing of the patient is left at any depth, what belonged together still does, pixels stay."""

from __future__ import annotations

import io
import shutil
import subprocess
from datetime import date, datetime, timedelta

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from core_models.errors import Refused
from core_models.study import deidentify
from core_models.study.deidentify import Deidentifier, action_of, table
from core_models.study.dicom import NotAScan
from core_models.study.intake import read_scan
from core_models.study.limits import DEFAULT
from tests import builders
from tests.study.attached_files import box_contour, structure_set

KEY = b"k" * 32
SECRETS = ("Phantom", "Anna", "RR-0001", "A100", "19600229", "20240131", "Oncology", "Dr Mabuse", "Station7", "SN-4711")


def nested(depth: int, **attributes: object) -> Sequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    if depth:
        item.ReferencedImageSequence = nested(depth - 1, **attributes)
    return Sequence([item])


def identified(**attributes: object) -> bytes:
    """A CT slice that says who the patient is at the top, in sequences, in private elements and in a comment."""
    own = {
        "InstitutionName": "Oncology",
        "ReferringPhysicianName": "Dr Mabuse",
        "StationName": "Station7",
        "DeviceSerialNumber": "SN-4711",
        "SeriesDescription": "Thorax Anna",
        "ImageComments": "for Phantom",
        "ContentLabel": "ANNA",
        "ConvolutionKernel": "B30f",
        "ManufacturerModelName": "Scan for Phantom",
        "PatientAge": "063Y",
        "RequestAttributesSequence": nested(0, RequestedProcedureDescription="CT of Anna Phantom"),
        "SourceImageSequence": nested(
            2, ReferencedSOPInstanceUID=builders.uid("source"), ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            PatientName="Phantom^Anna", AcquisitionDateTime="20240131101500",
        ),
    }  # fmt: skip
    ds = pydicom.dcmread(io.BytesIO(builders.ct_files(n=1, **{**own, **attributes})[0]))
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "LO", "Phantom^Anna")
    ds.SourceImageSequence[0].private_block(0x0011, "X", create=True).add_new(1, "LO", "Anna")
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def cleaned(data: bytes, worker: Deidentifier | None = None) -> tuple[Dataset, bytes, deidentify.Record]:
    worker = worker or Deidentifier(KEY)
    out = worker.clean("a", data, DEFAULT)
    return pydicom.dcmread(io.BytesIO(out)), out, worker.records[-1]


def test_nothing_of_the_patient_is_left_in_the_file():
    before = identified()
    assert all(secret.encode() in before for secret in SECRETS)
    ds, after, record = cleaned(before)
    for secret in SECRETS:
        assert secret.lower().encode() not in after.lower(), secret
    assert not any(e.tag.is_private for e in ds.iterall())
    assert record.private == 4
    assert record.actions["InstitutionName", "replaced"] == 1
    assert record.actions["SeriesDescription", "removed"] == 1
    assert set(record.named) == {"ContentLabel", "ManufacturerModelName"}
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    assert [c.CodeValue for c in ds.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert ds.ConvolutionKernel == "B30f"


def test_pixels_and_geometry_stay(tmp_path):
    files = [identified(InstanceNumber=1)]
    (tmp_path / "a").write_bytes(files[0])
    (tmp_path / "b").write_bytes(cleaned(files[0])[1])
    before, after = (read_scan(tmp_path / n)[0].series[0].volume for n in "ab")
    np.testing.assert_array_equal(before.array, after.array)
    np.testing.assert_allclose(before.affine, after.affine)
    assert before.unit == after.unit == "HU"


def test_uids_are_replaced_everywhere_alike_and_class_uids_stay():
    ds, _, record = cleaned(identified())
    other, _, _ = cleaned(identified(InstanceNumber=9))
    worker = Deidentifier(KEY)
    assert ds.StudyInstanceUID == other.StudyInstanceUID == worker.uid(builders.uid("study"))
    assert ds.SOPInstanceUID != other.SOPInstanceUID
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == record.name
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    deepest = ds.SourceImageSequence[0].ReferencedImageSequence[0].ReferencedImageSequence[0]
    assert deepest.ReferencedSOPInstanceUID == worker.uid(builders.uid("source"))
    assert deepest.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert Deidentifier(b"other").uid("1.2.3") != worker.uid("1.2.3")


def test_dates_of_one_patient_move_together_and_hours_stay():
    first, _, _ = cleaned(identified())
    later, _, _ = cleaned(identified(StudyDate="20240210"))
    other, _, _ = cleaned(identified(PatientID="RR-0002"))

    def day(ds: Dataset) -> np.datetime64:
        return np.datetime64(f"{ds.StudyDate[:4]}-{ds.StudyDate[4:6]}-{ds.StudyDate[6:]}")

    assert day(later) - day(first) == 10
    assert day(first) < np.datetime64("2024-01-31")
    assert day(other) != day(first)
    assert first.StudyTime == "101500"
    nested_date = first.SourceImageSequence[0].AcquisitionDateTime
    assert nested_date == f"{first.StudyDate}101500"
    assert first.PatientBirthDate == ""


def test_the_pseudonym_tells_patients_apart_and_does_not_name_them():
    a, b, c = (cleaned(identified(PatientID=i))[0].PatientID for i in ("1001", "1001", "1002"))
    assert a == b != c
    assert "1001" not in a


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned into its pixels"),
        ({"Modality": "US"}, "an ultrasound image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a saved screen"),
        ({"BodyPartExamined": "HEAD"}, "a face can be rendered"),
    ],
)
def test_pixels_that_may_tell_are_flagged(attributes, said):
    _, _, record = cleaned(builders.edited(identified(), **attributes))
    assert any(said in flag for flag in record.flags)
    assert cleaned(identified())[2].flags == ()


def test_a_report_is_refused_and_a_damaged_file_too():
    report = builders.dataset(np.zeros((2, 2), np.uint8), modality="SR")
    del report.PixelData
    with pytest.raises(NotAScan):
        cleaned(builders.encoded(report))
    with pytest.raises(Refused):
        cleaned(bytes(128) + b"DICM" + b"\xff" * 300)


def test_compressed_and_implicit_files_keep_their_pixels():
    for name in ("MR_small_RLE.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "JPEG2000.dcm"):
        with open(pydicom.data.get_testdata_file(name), "rb") as stream:
            data = stream.read()
        ds, _, _ = cleaned(data)
        before = pydicom.dcmread(io.BytesIO(data))
        np.testing.assert_array_equal(ds.pixel_array, before.pixel_array, err_msg=name)
        assert ds.PatientName != before.PatientName


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        # As the standard prints them (PS3.15 Table E.1-1).
        ("AccessionNumber", "Z"),
        ("Allergies", "X"),
        ("BarcodeValue", "X/Z"),
        ("ClinicalTrialCoordinatingCenterName", "Z"),
        ("ClinicalTrialProtocolID", "D"),
        ("AcquisitionDate", "X/Z"),
        ("AcquisitionDeviceProcessingDescription", "X/D"),
        ("PatientID", "Z/D"),
        ("StudyInstanceUID", "U"),
        ("SourceImageSequence", "X/Z/U*"),
        ("Rows", ""),
    ],
)
def test_the_table_says_what_the_standard_says(keyword, action):
    assert action_of(pydicom.tag.Tag(keyword)) == action
    assert len(table()) == 654


def test_repeating_groups_are_in_the_table():
    assert [action_of(pydicom.tag.Tag(t)) for t in (0x60023000, 0x601E4000, 0x50100010)] == ["X"] * 3
    assert action_of(pydicom.tag.Tag(0x60020010)) == ""


@given(st.dates(min_value=date(1900, 1, 1)), st.integers(1, 3650))
def test_moved_dates_keep_their_distance(day, days):
    moved = deidentify._earlier(f"{day:%Y%m%d}", timedelta(days))
    assert datetime.strptime(moved, "%Y%m%d").date() == day - timedelta(days)


def test_odd_dates_are_moved_at_their_precision_or_emptied():
    day = timedelta(1)
    assert deidentify._earlier("2024", day) == "2023"
    assert deidentify._earlier("202403", day) == "202402"
    assert deidentify._earlier("2024.03.01", day) == "20240229"
    assert deidentify._earlier("20240301101112.5+0100", day) == "20240229101112.5+0100"
    assert deidentify._earlier("20241399", day) == ""
    assert deidentify._earlier("yesterday", day) == ""


def test_the_report_counts_and_names_nobody():
    worker = Deidentifier(KEY)
    cleaned(identified(), worker)
    cleaned(builders.edited(identified(InstanceNumber=2), Modality="US"), worker)
    told = deidentify.report(worker.records, {"no image": 1})
    assert (told["files"], told["private_elements_removed"]) == (2, 8)
    assert {"keyword": "InstitutionName", "action": "replaced", "times": 2} in told["attributes"]
    assert [(p["instance"], p["written"]) for p in told["pixels"]] == [(worker.records[1].name, True)]
    text = str(told)
    assert not any(secret in text for secret in SECRETS)


def regions(names: tuple[str, ...], **attributes: object) -> tuple[list[str], deidentify.Record, Deidentifier]:
    square = np.array([[0, 0, 0], [9, 0, 0], [9, 9, 0]])
    data = structure_set({name: [square] for name in names}, study=builders.uid("study"), series=builders.uid("series"))
    worker = Deidentifier(KEY)
    dataset, _, record = cleaned(builders.edited(data, **attributes) if attributes else data, worker)
    return [r.ROIName for r in dataset.StructureSetROISequence], record, worker


def test_of_regions_of_interest_organs_keep_their_names_and_others_get_their_number():
    names = ("Liver", "Lung_L", "SpinalCord", "Esophagus", "kidneys", "Phantom GTV", "Anna's tumour", "")
    kept, record, worker = regions(names)
    assert kept == ["Liver", "Lung_L", "SpinalCord", "Esophagus", "kidneys", "ROI 6", "ROI 7", "ROI 8"]
    assert (record.regions, record.renamed) == (names[:5], 3)
    told = deidentify.report(worker.records, {})
    assert told["regions_of_interest"] == {"kept": sorted(names[:5]), "renamed": 3}
    assert not any(secret in str(told) for secret in SECRETS)


def test_an_organs_name_does_not_stay_where_the_patient_is_called_so():
    assert regions(("heart", "liver"), PatientName="Heart^Anna")[0] == ["ROI 1", "liver"]


def test_a_structure_set_comes_back_under_the_names_it_was_left(tmp_path):
    paths = builders.ct_series(tmp_path / "ct")
    volume = read_scan(tmp_path / "ct")[0].series[0].volume
    drawn = {name: [box_contour(volume, 3, (4, 9), (6, 12))] for name in ("liver", "GTV Anna")}
    first = pydicom.dcmread(paths[0])
    drawing = structure_set(drawn, study=first.StudyInstanceUID, series=first.SeriesInstanceUID)
    (tmp_path / "ct" / "rt.dcm").write_bytes(drawing)
    (study,) = read_scan(tmp_path / "ct", deidentifier=Deidentifier(KEY))
    assert [d.label for d in study.attachments[0].drawings] == ["liver", "ROI 2"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_a_valid_object_stays_valid(tmp_path):
    files = {"ct": builders.ct_files(n=1)[0], "dx": builders.radiograph(tmp_path / "r").read_bytes()}
    for name, data in files.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(Deidentifier(KEY).clean(name, data, DEFAULT))
        found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
