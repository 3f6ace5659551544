"""DICOM: a Basic Text SR (PS3.3, A.35.1) for each study, PARTIAL and UNVERIFIED, that refers to its images.

Its content follows TID 2000, "Basic Diagnostic Imaging Report". Needs pydicom (extra ``medical``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.outputs.base import paragraphs
from latentcap.batch.outputs.finding_codes import Finding, findings_of
from latentcap.batch.outputs.reports import IDENTIFIERS, UID, Reports
from latentcap.data.dicom import frame_place, import_pydicom
from latentcap.data.dicom_header import Header, read_header
from latentcap.data.example import ImageRef

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
Code = tuple[str, str, str]  # value, scheme, meaning
REPORT: Code = ("18748-4", "LN", "Diagnostic Imaging Report")
FINDINGS: Code = ("121070", "DCM", "Findings")
FINDING: Code = ("121071", "DCM", "Finding")
LANGUAGE: Code = ("121049", "DCM", "Language of Content Item and Descendants")
OBSERVER_TYPE: Code = ("121005", "DCM", "Observer Type")
OBSERVER_UID: Code = ("121012", "DCM", "Device Observer UID")
OBSERVER_NAME: Code = ("121013", "DCM", "Device Observer Name")
DEVICE: Code = ("121007", "DCM", "Device")
ENGLISH: Code = ("en", "RFC5646", "English")
OURS = "99LATENTCAP"
LONGEST_CODE = 16


class DicomReports(Reports):
    """Without ``keep_identifiers`` a report is in a study of its own, and its patient has no name and no number."""

    suffix = ".dcm"

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        wanted = super().prepare(item, known=known)
        if wanted is None or wanted.error or known or not wanted.images:
            return wanted
        headers = [read_header(image) for image in wanted.images]
        if not all(header is not None and all(map(UID.fullmatch, header.uids)) for header in headers):
            return replace(
                wanted,
                error="no DICOM image with UIDs, by which --format dicom-sr refers to it (--format fhir needs none)",
            )
        return wanted

    def document(self, record: Record, sources: list[tuple[ImageRef, Header | None]], known: Any | None) -> bytes:
        pydicom = import_pydicom()
        images = [(image, header) for image, header in sources if header is not None]
        if len(images) < len(sources):
            raise OSError("an image of it can no longer be read")
        made = _uid(record["_issued"], record["caption"], *(header.instance for _, header in images))
        study = images[0][1].study if known is not None else _uid("study", images[0][1].study)
        report = _report(pydicom, study=study, made=made, at=datetime.fromisoformat(record["_issued"]))
        for name in IDENTIFIERS:
            if known is not None and name != "StudyInstanceUID" and (value := self._identifier(known, name)):
                setattr(report, name, value)
        references = [_reference(image, header) for image, header in images]
        report.CurrentRequestedProcedureEvidenceSequence = _evidence([header for _, header in images])
        report.ContentSequence = _content(record, references, _uid("latentcap"))
        buffer = io.BytesIO()
        report.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def _report(pydicom: Any, *, study: str, made: str, at: datetime) -> Any:
    """A report without its content, of nobody."""
    report = pydicom.Dataset()
    report.SpecificCharacterSet = "ISO_IR 192"
    for name in IDENTIFIERS:
        if name != "IssuerOfPatientID":
            setattr(report, name, "")
    report.StudyInstanceUID = study
    report.SOPClassUID, report.SOPInstanceUID, report.SeriesInstanceUID = BASIC_TEXT_SR, made, _uid("series", made)
    report.Modality, report.SeriesNumber, report.InstanceNumber = "SR", 1, 1
    report.Manufacturer = "latentcap"
    report.ContentDate, report.ContentTime = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    report.TimezoneOffsetFromUTC = "+0000"
    report.ReferencedPerformedProcedureStepSequence, report.PerformedProcedureCodeSequence = [], []
    report.CompletionFlag, report.VerificationFlag = "PARTIAL", "UNVERIFIED"
    report.CompletionFlagDescription = "Draft by software that nobody has read"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.ConceptNameCodeSequence = [_code(REPORT)]
    template = pydicom.Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    report.ContentTemplateSequence = [template]
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return report


def _content(record: Record, references: Sequence[Any], device: str) -> list[Any]:
    """The items below the root: language, who observed, and the findings in words, in codes, and of which images."""
    texts = [
        _item("CONTAINS", "TEXT", FINDING, TextValue=f"{name}: {text}" if name else text)
        for name, text in paragraphs(record)
    ]
    codes = [
        _item("CONTAINS", "CODE", FINDING, ConceptCodeSequence=[_code(_code_of(finding))])
        for finding in findings_of(record.get("labels", {}))
    ]
    images = [_item("CONTAINS", "IMAGE", None, ReferencedSOPSequence=[reference]) for reference in references]
    findings = _item("CONTAINS", "CONTAINER", FINDINGS, ContinuityOfContent="SEPARATE")
    findings.ContentSequence = [*texts, *codes, *images]
    return [
        _item("HAS CONCEPT MOD", "CODE", LANGUAGE, ConceptCodeSequence=[_code(ENGLISH)]),
        _item("HAS OBS CONTEXT", "CODE", OBSERVER_TYPE, ConceptCodeSequence=[_code(DEVICE)]),
        _item("HAS OBS CONTEXT", "UIDREF", OBSERVER_UID, UID=device),
        _item("HAS OBS CONTEXT", "TEXT", OBSERVER_NAME, TextValue="latentcap"),
        findings,
    ]


def _item(relation: str, kind: str, concept: Code | None, **values: Any) -> Any:
    item = import_pydicom().Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    if concept:
        item.ConceptNameCodeSequence = [_code(concept)]
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _code(code: Code) -> Any:
    item = import_pydicom().Dataset()
    value, item.CodingSchemeDesignator, item.CodeMeaning = code
    setattr(item, "CodeValue" if len(value) <= LONGEST_CODE else "LongCodeValue", value)
    return item


def _code_of(finding: Finding) -> Code:
    return (finding.snomed[0], "SCT", finding.snomed[1]) if finding.snomed else (finding.code, OURS, finding.value[:64])


def _reference(image: ImageRef, header: Header) -> Any:
    """An image by its UIDs, and the frame of a film."""
    item = import_pydicom().Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.kind, header.instance
    if image.frame and header.frames > 1:
        item.ReferencedFrameNumber = frame_place(image.frame, header.frames) + 1
    return item


def _evidence(headers: Sequence[Header]) -> list[Any]:
    """The images by study and series."""
    dataset = import_pydicom().Dataset
    studies: dict[str, Any] = {}
    series: dict[tuple[str, str], Any] = {}
    for header in headers:
        if header.study not in studies:
            studies[header.study] = dataset()
            studies[header.study].StudyInstanceUID, studies[header.study].ReferencedSeriesSequence = header.study, []
        key = (header.study, header.series)
        if key not in series:
            series[key] = dataset()
            series[key].SeriesInstanceUID, series[key].ReferencedSOPSequence = header.series, []
            studies[header.study].ReferencedSeriesSequence.append(series[key])
        item = dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.kind, header.instance
        series[key].ReferencedSOPSequence.append(item)
    return list(studies.values())


def _uid(*parts: str) -> str:
    """A UID that depends on ``parts`` alone, below the root for UUIDs (2.25)."""
    return f"2.25.{int.from_bytes(sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).digest()[:16])}"
