"""The FHIR bundle, parsed back by the resource models."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from fhir.resources.R4B.bundle import Bundle

from core_models.errors import Refused
from tests.store.samples import card
from webapp.exports import EXPORTS


def parsed(bundle) -> dict[str, list]:
    out: dict[str, list] = {}
    for entry in Bundle.model_validate_json(EXPORTS["fhir"].write(bundle)).entry:
        out.setdefault(entry.resource.get_resource_type(), []).append((entry.fullUrl, entry.resource))
    return out


def test_the_bundle_reads_back_with_the_stores_values(ct):
    ct.store.add_evidence(ct.study_id, card("liver: mean", value=54.0, unit="HU"))
    ct.store.add_evidence(ct.study_id, card("spleen: volume", value=99.0, status="rejected"))
    got = parsed(ct.bundle())
    ((_, report),) = got["DiagnosticReport"]
    ((patient_url, patient),) = got["Patient"]
    ((imaging_url, imaging),) = got["ImagingStudy"]
    assert (report.status, report.conclusion) == ("preliminary", "Lung nodule.")
    assert (patient.name[0].family, patient.name[0].given, patient.gender) == ("Müller", ["Anna"], "female")
    assert patient.birthDate.isoformat() == "1960-01-02"
    assert imaging.identifier[0].value == f"urn:oid:{ct.bundle().study.uid}"
    assert imaging.numberOfInstances == 6
    values = [(o.valueQuantity.value, o.valueQuantity.code) for _, o in got["Observation"]]
    assert [(float(v), c) for v, c in values] == [(1512.0, "mL"), (54.0, "[hnsf'U]")]
    assert {o.subject.reference for _, o in got["Observation"]} == {report.subject.reference} == {patient_url}
    assert [r.reference for r in report.result] == [url for url, _ in got["Observation"]]
    assert report.imagingStudy[0].reference == imaging_url
    raw = json.loads(EXPORTS["fhir"].write(ct.bundle()))["entry"][0]["resource"]
    plain, pdf = (base64.b64decode(f["data"], validate=True) for f in raw["presentedForm"])
    assert "The liver has a volume of 1512 ml." in plain.decode()
    assert pdf.startswith(b"%PDF")


def test_the_status_follows_signing(ct):
    def status():
        return parsed(ct.bundle())["DiagnosticReport"][0][1]

    ct.sign()
    assert status().status == "final"
    assert status().resultsInterpreter[0].display == "Dr A"
    ct.store.addendum(ct.study_id, author="Dr B", text="Seen again.")
    assert status().status == "appended"
    assert status().resultsInterpreter[0].display == "Dr A", "who added did not sign"


def test_what_stands_struck_out_is_not_said(ct):
    ct.doubt()
    raw = json.loads(EXPORTS["fhir"].write(ct.bundle()))["entry"][0]["resource"]
    assert "Pneumothorax" not in raw["conclusion"]
    assert "Old fracture." in raw["conclusion"], "the reader restored it"
    assert "Pneumothorax" not in base64.b64decode(raw["presentedForm"][0]["data"]).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"patient_name": "", "patient_id": "", "patient_sex": "", "birth_date": "", "date": ""},
        {"patient_name": "^^^", "patient_id": " ", "patient_sex": "??", "birth_date": "19991350", "uid": "../x"},
        {"patient_name": "<script>\x01", "description": "\x00\x02", "date": "today", "uid": ""},
    ],
)
def test_odd_headers_still_give_a_valid_bundle(ct, changes):
    bundle = ct.bundle()
    series = tuple(replace(s, uid="not a uid", modality="<x>", number=-3, description="") for s in bundle.study.series)
    got = parsed(replace(bundle, study=replace(bundle.study, series=series, **changes)))
    assert len(got["Patient"]) == len(got["ImagingStudy"]) == len(got["DiagnosticReport"]) == 1


def test_an_empty_report_is_refused(scene_of, voxels):
    from tests.exports.dicom_files import ct_files

    with pytest.raises(Refused, match="still empty"):
        EXPORTS["fhir"].write(scene_of(ct_files(voxels), filled=False).bundle())
