"""The report as a FHIR R4B Bundle: DiagnosticReport, Patient, ImagingStudy, and an Observation per measurement."""

from __future__ import annotations

import base64
import re
import uuid
from datetime import datetime
from typing import Any

from fhir.resources.R4B.bundle import Bundle
from pydicom.uid import UID

from core_models.drafting.evidence import Evidence
from core_models.errors import Refused
from webapp.exports import pdf
from webapp.exports.bundle import ReportBundle
from webapp.store import Version, report_text

Json = dict[str, Any]
UCUM = {"ml": "mL", "HU": "[hnsf'U]", "cm": "cm", "mm": "mm", "mm²": "mm2", "mm2": "mm2", "cm²": "cm2", "%": "%"}
GENDER = {"M": "male", "F": "female", "O": "other"}
DIAGNOSTIC_IMAGING = {"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}


def available(bundle: ReportBundle) -> str:
    """Why there can be no FHIR report, in a sentence; "" when there can be."""
    if not report_text(bundle.meant().report).strip():
        return "The report is still empty: draft or write it before exporting."
    return ""


def write(bundle: ReportBundle) -> bytes:
    """FHIR JSON, validated by the resource models.  Raises Refused."""
    if reason := available(bundle):
        raise Refused(reason)
    return build(bundle).model_dump_json(exclude_none=True, indent=2).encode()


def build(bundle: ReportBundle) -> Bundle:
    """A collection; struck statements and rejected cards are left out, priors are other patients' and are too."""
    bundle = bundle.meant()
    study = bundle.study
    cards = [e for e in bundle.evidence if e.kind == "measurement" and e.value is not None and e.status != "rejected"]
    url = {name: _url(study.id, name) for name in ("patient", "imaging", "report", *(e.id for e in cards))}
    subject = {"reference": url["patient"]}
    observations = [(e.id, _observation(bundle, e, subject, url["imaging"])) for e in cards]
    report = _report(bundle, subject, url["imaging"], [url[i] for i, _ in observations])
    resources = [
        ("report", report),
        ("patient", _patient(bundle)),
        ("imaging", _imaging(bundle, subject)),
        *observations,
    ]
    return Bundle.model_validate(
        {
            "resourceType": "Bundle",
            "type": "collection",
            "timestamp": _time(bundle),
            "entry": [{"fullUrl": url[name], "resource": resource} for name, resource in resources],
        }
    )


def _url(study_id: str, name: str) -> str:
    return uuid.uuid5(uuid.UUID(study_id), name).urn


def _time(bundle: ReportBundle) -> str:
    report = bundle.report
    return report.created_at if isinstance(report, Version) else bundle.study.created_at


def _status(bundle: ReportBundle) -> str:
    if not bundle.signed or not isinstance(bundle.report, Version):
        return "preliminary"
    return "appended" if bundle.report.addenda else "final"  # added to; what was signed stands


def _plain(text: str) -> str:
    """FHIR strings hold no control characters but white space, and are not empty."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text).encode("utf-8", "replace").decode().strip()


def _patient(bundle: ReportBundle) -> Json:
    s, out = bundle.study, {"resourceType": "Patient"}
    if identifier := _plain(s.patient_id):
        out["identifier"] = [{"value": identifier}]
    if name := _plain(s.patient_name):
        family, _, given = name.split("=")[0].partition("^")
        parts = {"text": " ".join(name.replace("^", " ").split()) or "unnamed"}
        if family.strip():
            parts["family"] = family.strip()
        if names := [g for g in given.split("^")[:2] if g.strip()]:
            parts["given"] = [g.strip() for g in names]
        out["name"] = [parts]
    if s.patient_sex.strip():
        out["gender"] = GENDER.get(s.patient_sex.strip().upper(), "unknown")
    if born := _date(s.birth_date):
        out["birthDate"] = born
    return out


def _date(value: str) -> str:
    """YYYYMMDD → YYYY-MM-DD, or "" for what is no date."""
    try:
        return datetime.strptime(value.strip(), "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _coding(modality: str) -> Json:
    return {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": modality}


def _imaging(bundle: ReportBundle, subject: Json) -> Json:
    s = bundle.study
    out: Json = {
        "resourceType": "ImagingStudy",
        "status": "available",
        "subject": subject,
        "numberOfSeries": len(s.series),
        "numberOfInstances": sum(r.receipt.loaded for r in s.series),
        "series": [],
    }
    if UID(s.uid).is_valid and s.uid:
        out["identifier"] = [{"system": "urn:dicom:uid", "value": f"urn:oid:{s.uid}"}]
    if started := _date(s.date):
        out["started"] = started
    if description := _plain(s.description):
        out["description"] = description
    for n, r in enumerate(s.series):
        modality = r.modality if re.fullmatch(r"[A-Z]{2,16}", r.modality) else "OT"
        row: Json = {
            "uid": r.uid if r.uid and UID(r.uid).is_valid else f"2.25.{uuid.UUID(r.id).int}",
            "number": max(0, r.number),
            "modality": _coding(modality),
            "numberOfInstances": r.receipt.loaded,
        }
        if text := _plain(r.description):
            row["description"] = text
        out["series"].append(row)
        if n == 0:
            out["modality"] = [_coding(modality)]
    return out


def _observation(bundle: ReportBundle, card: Evidence, subject: Json, imaging: str) -> Json:
    unit = UCUM.get(card.unit, "1" if card.unit in ("", "1") else "")
    quantity: Json = {"value": round(float(card.value or 0.0), 4), "unit": card.unit or "1"}
    if unit:
        quantity |= {"system": "http://unitsofmeasure.org", "code": unit}
    out: Json = {
        "resourceType": "Observation",
        "identifier": [{"value": f"{bundle.study.id}/{card.id}"}],
        "status": "final" if bundle.signed else "preliminary",
        "category": [
            {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"},
                ]
            }
        ],
        "code": {"text": _plain(card.statement) or card.id},
        "subject": subject,
        "derivedFrom": [{"reference": imaging}],
        "valueQuantity": quantity,
    }
    if source := _plain(card.source):
        out["method"] = {"text": source}
    return out


def _report(bundle: ReportBundle, subject: Json, imaging: str, results: list[str]) -> Json:
    report, text = bundle.report, report_text(bundle.report)
    conclusion = " ".join(s.text for s in bundle.section("impression")) or text
    out: Json = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"value": bundle.study.id}],
        "status": _status(bundle),
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/v2-0074",
                        "code": "RAD",
                        "display": "Radiology",
                    }
                ]
            }
        ],
        "code": {"coding": [DIAGNOSTIC_IMAGING], "text": _plain(bundle.study.description) or "Imaging report"},
        "subject": subject,
        "imagingStudy": [{"reference": imaging}],
        "result": [{"reference": r} for r in results],
        "conclusion": _plain(conclusion),
        "presentedForm": [
            _attachment("text/plain; charset=utf-8", f"{text}\n\n{bundle.notice}\n".encode("utf-8", "replace")),
            _attachment("application/pdf", pdf.write(bundle)),
        ],
    }
    if not results:
        del out["result"]
    if taken := _date(bundle.study.date):
        out["effectiveDateTime"] = taken
    if bundle.signature is not None and isinstance(report, Version):
        out["issued"] = report.created_at
        out["resultsInterpreter"] = [{"display": _plain(bundle.signature.author)}]
    return out


def _attachment(kind: str, data: bytes) -> Json:
    return {"contentType": kind, "data": base64.b64encode(data).decode()}
