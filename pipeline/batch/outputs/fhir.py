"""FHIR: a DiagnosticReport for each study, valid in R4 and R5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from html import escape
from typing import Any

from latentcap.batch.journal import Record
from latentcap.batch.outputs.base import as_text, paragraphs
from latentcap.batch.outputs.finding_codes import findings_of
from latentcap.batch.outputs.reports import IDENTIFIERS, UID, Reports
from latentcap.data.dicom_header import Header
from latentcap.data.example import ImageRef

STUDY = {"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}
RADIOLOGY = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}
ACCESSION = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN", "display": "Accession ID"}
OURS = "urn:latentcap:label:"


class FhirReports(Reports):
    """Status ``preliminary``; the study is named by its UID as an identifier, where it has a valid one."""

    suffix = ".json"

    def document(self, record: Record, sources: list[tuple[ImageRef, Header | None]], known: Any | None) -> bytes:
        text = paragraphs(record)
        report: dict[str, Any] = {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "category": [{"coding": [RADIOLOGY]}],
            "code": {"coding": [STUDY], "text": "Draft by software that nobody has read"},
            "issued": record["_issued"],
            "performer": [{"display": "latentcap"}],
        }
        studies = dict.fromkeys(header.study for _, header in sources if header and UID.fullmatch(header.study))
        identifiers: list[dict[str, Any]] = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"} for uid in studies]
        if known is not None:
            report |= _patient({name: self._identifier(known, name) for name in IDENTIFIERS})
            if accession := self._identifier(known, "AccessionNumber"):
                identifiers.append({"type": {"coding": [ACCESSION]}, "value": accession})
        if identifiers:
            report["identifier"] = identifiers
        if text:
            report["text"] = {"status": "generated", "div": _narrative(text)}
            report["conclusion"] = as_text(record)
        if codes := list(map(_concept, findings_of(record.get("labels", {})))):
            report["conclusionCode"] = codes
        return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _narrative(text: list[tuple[str, str]]) -> str:
    lines = (f"<p>{f'<b>{escape(name)}</b> ' if name else ''}{escape(part)}</p>" for name, part in text)
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{"".join(lines)}</div>'


def _concept(finding: Any) -> dict[str, Any]:
    coding = [{"system": OURS + finding.label, "code": finding.code, "display": finding.value}]
    if finding.snomed:
        code, meaning = finding.snomed
        coding.insert(0, {"system": "http://snomed.info/sct", "code": code, "display": meaning})
    return {"coding": coding, "text": finding.value}


def _patient(known: Mapping[str, str]) -> dict[str, Any]:
    """Whom a report is about, and when the images were taken, as far as the header says."""
    told: dict[str, Any] = {}
    subject: dict[str, Any] = {}
    if id := known["PatientID"]:
        subject["identifier"] = {"value": id}
        if issuer := known["IssuerOfPatientID"]:
            subject["identifier"]["assigner"] = {"display": issuer}
    if name := known["PatientName"]:
        subject["display"] = name
    if subject:
        told["subject"] = subject
    with suppress(ValueError):  # such as "00000000"
        told["effectiveDateTime"] = datetime.strptime(known["StudyDate"], "%Y%m%d").date().isoformat()
    return told
