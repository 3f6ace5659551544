"""Drafts for other systems: FHIR and DICOM SR, valid, of the right images, with a patient only where that is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentcap.batch.journal import Record
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.finding_codes import findings_of
from latentcap.batch.outputs.reports import Reports
from latentcap.cli.caption import main as caption
from latentcap.data.errors import UserError
from tests.helpers import picture, tiny_captioner
from tests.test_dicom import SECRETS
from tests.test_dicom_studies import film

pydicom = pytest.importorskip("pydicom", reason="needs the extra 'medical'")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
FORMATS = ("fhir", "dicom-sr")
TEXT = "Clear lungs & no <large> effusion."
LABELS = {"findings": "Pleural Effusion;Enlarged Cardiomediastinum", "normality": "abnormal"}


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A study of two images, of a patient who has been planted."""
    (tmp_path / "in").mkdir()
    for number, view in ((1, "LL"), (2, "PA")):
        more = {"ViewPosition": view, "StudyDate": "20240229", "StudyID": "77"}
        (tmp_path / "in" / f"IM{number}").write_bytes(film("1.2.3", number, **more))
    return tmp_path / "in"


@pytest.fixture
def record(disc: Path) -> Record:
    images = [[str(disc / name), None, None, "", None] for name in ("IM2", "IM1")]
    return {"file": "IM2", "caption": TEXT, "score": 0.0, "labels": LABELS, "_images": images, "_study": "1.2.3"}


def written(folder: Path, kind: str, record: Record, **more: Any) -> Path:
    output = make_output(folder / kind, folder / f"{kind}.run", kind, **more)
    with output.journal:
        output.append([record])
    output.finish(quiet=True)
    (file,) = (path for path in (folder / kind).iterdir())
    return file


def run(source: Path, out: Path, kind: str, *more: str) -> int:
    if not (out.parent / "model").exists():
        tiny_captioner(max_views=2).save(out.parent / "model")
    settings = ["--model", str(out.parent / "model"), "--output", str(out), "--dtype", "float32", "--format", kind]
    return caption([str(source), *settings, *more])


def test_fhir_is_valid_in_both_versions(record: Record, tmp_path: Path) -> None:
    file = written(tmp_path, "fhir", record)
    assert file.name == "1.2.3.json"
    content = json.loads(file.read_bytes())
    assert content["status"] == "preliminary"
    assert content["conclusion"] == TEXT
    assert "Clear lungs &amp; no &lt;large&gt; effusion." in content["text"]["div"]
    assert content["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]
    effusion, other, normality = content["conclusionCode"]
    assert effusion["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "60046008",
        "display": "Pleural effusion",
    }
    assert [coding["code"] for coding in other["coding"]] == ["enlarged-cardiomediastinum"]
    assert normality["coding"][0]["system"] == "urn:latentcap:label:normality"
    resources = pytest.importorskip("fhir.resources", reason="needs fhir.resources")
    from fhir.resources.diagnosticreport import DiagnosticReport
    from fhir.resources.R4B.diagnosticreport import DiagnosticReport as OfR4

    assert resources is not None
    for version in (DiagnosticReport, OfR4):
        assert version.model_validate(content).status == "preliminary"
        kept = written(tmp_path / version.__module__, "fhir", record, keep_identifiers=True)
        version.model_validate(json.loads(kept.read_bytes()))
        empty = {"file": "x.png", "caption": "", "_images": [[str(tmp_path / "no"), None, None, "", None]]}
        bare = written(tmp_path / f"{version.__module__} bare", "fhir", empty)
        version.model_validate(json.loads(bare.read_bytes()))


def test_the_sr_is_a_draft_of_the_images(record: Record, tmp_path: Path) -> None:
    file = written(tmp_path, "dicom-sr", record)
    report = pydicom.dcmread(file)
    assert report.SOPClassUID == pydicom.uid.BasicTextSRStorage
    assert (report.CompletionFlag, report.VerificationFlag, report.Modality) == ("PARTIAL", "UNVERIFIED", "SR")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3", "1.2.3.1")
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["1.2.3.1.2", "1.2.3.1.1"]
    findings = report.ContentSequence[-1].ContentSequence
    assert [item.ValueType for item in findings] == ["TEXT", "CODE", "CODE", "CODE", "IMAGE", "IMAGE"]
    assert findings[0].TextValue == TEXT
    effusion, other = (item.ConceptCodeSequence[0] for item in findings[1:3])
    assert (effusion.CodeValue, effusion.CodingSchemeDesignator) == ("60046008", "SCT")
    assert (other.LongCodeValue, other.CodingSchemeDesignator) == ("enlarged-cardiomediastinum", "99LATENTCAP")
    assert findings[4].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1.2"
    assert (report.PatientName, report.PatientID, report.AccessionNumber) == ("", "", "")
    assert report.StudyInstanceUID not in ("", "1.2.3")
    for uid in (report.StudyInstanceUID, report.SeriesInstanceUID, report.SOPInstanceUID):
        assert pydicom.uid.UID(uid).is_valid
    highdicom = pytest.importorskip("highdicom", reason="needs highdicom")
    highdicom.sr.ContentSequence.from_sequence(report.ContentSequence, is_root=False, is_sr=True)


def test_identifiers_are_kept_only_where_that_is_asked_for(record: Record, tmp_path: Path) -> None:
    report = pydicom.dcmread(written(tmp_path, "dicom-sr", record, keep_identifiers=True))
    assert (report.PatientName, report.PatientID, report.PatientBirthDate) == SECRETS[:1] + SECRETS[2:4]
    assert (report.StudyInstanceUID, report.AccessionNumber, report.StudyID) == ("1.2.3", SECRETS[5], "77")
    assert "InstitutionName" not in report
    content = json.loads(written(tmp_path, "fhir", record, keep_identifiers=True).read_bytes())
    assert content["subject"] == {"identifier": {"value": SECRETS[2]}, "display": SECRETS[0]}
    assert content["identifier"][1]["value"] == SECRETS[5]
    assert content["effectiveDateTime"] == "2024-02-29"


def test_identifiers_that_are_none_or_several(tmp_path: Path) -> None:
    image = tmp_path / "IM1"
    image.write_bytes(film("1.2.3", 1, PatientID=["ward", "77"], StudyDate="00000000"))
    record = {"file": "IM1", "caption": TEXT, "_images": [[str(image), None, None, "", None]], "_study": "1.2.3"}
    content = json.loads(written(tmp_path, "fhir", record, keep_identifiers=True).read_bytes())
    assert content["subject"]["identifier"] == {"value": "ward\\77"}
    assert "effectiveDateTime" not in content
    assert list(pydicom.dcmread(written(tmp_path, "dicom-sr", record, keep_identifiers=True)).PatientID) == [
        "ward",
        "77",
    ]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "uid", ["../../evil", "1.2..evil", "..", "1." * 150 + "1"], ids=["path", "word", "dots", "long"]
)
def test_a_uid_that_is_none_names_nothing(tmp_path: Path, kind: str, uid: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "IM1").write_bytes(film(uid, 1))
    code = run(tmp_path / "in", tmp_path / "deep" / "out", kind, "--quiet")
    assert code == {"fhir": 0, "dicom-sr": 1}[kind]
    assert not list(tmp_path.rglob("*evil*"))
    made = [path.name for path in (tmp_path / "deep" / "out").rglob("*")]
    assert made == (["IM1.json"] if kind == "fhir" else [])
    if made:
        assert "identifier" not in json.loads((tmp_path / "deep" / "out" / "IM1.json").read_bytes())


@pytest.mark.parametrize("kind", FORMATS)
def test_no_identifier_gets_into_a_report(
    disc: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(disc, tmp_path / "out", kind) == 0
    said = "".join(capfd.readouterr())
    assert run(disc, tmp_path / "kept", kind, "--keep-identifiers", "--quiet") == 0
    warned = "".join(capfd.readouterr())
    assert warned.count("--keep-identifiers: names and numbers of patients are copied") == 1
    made = [path for name in ("out", "out.run") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert len([path for path in made if path.parent == tmp_path / "out"]) == 1
    content = b"".join(path.read_bytes() for path in made)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "kept").iterdir())
    for secret in SECRETS:
        assert secret not in said + warned
        assert secret.encode() not in content
    assert SECRETS[0].encode() in kept
    with pytest.raises(UserError, match="begun with other settings: keep_identifiers"):
        run(disc, tmp_path / "out", kind, "--keep-identifiers")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_report_that_was_not_written_any_more_is_written_again(record: Record, tmp_path: Path, kind: str) -> None:
    file = written(tmp_path, kind, record)
    before = file.read_bytes()
    file.unlink()
    (tmp_path / f"{kind}.run" / "written").unlink()
    output = make_output(tmp_path / kind, tmp_path / f"{kind}.run", kind)
    output.finish(quiet=True)
    assert file.read_bytes() == before
    output.clear()
    assert not file.exists()


def test_images_without_a_study(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture().save(tmp_path / "in" / "photo.png")
    assert run(tmp_path / "in", tmp_path / "fhir", "fhir", "--quiet") == 0
    assert "identifier" not in json.loads((tmp_path / "fhir" / "photo.png.json").read_bytes())
    assert run(tmp_path / "in", tmp_path / "sr", "dicom-sr", "--quiet") == 1
    (error,) = (json.loads(line) for line in (tmp_path / "sr.run" / "errors.jsonl").read_text().splitlines())
    assert "no DICOM image with UIDs" in error["error"]
    with pytest.raises(UserError, match="--keep-identifiers: is for --format fhir and dicom-sr"):
        run(tmp_path / "in", tmp_path / "x.csv", "csv", "--keep-identifiers")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds \.json files, and no other\.run"):
        run(tmp_path / "in", tmp_path / "other", "fhir", "--quiet")


def test_two_inputs_never_share_a_report(tmp_path: Path) -> None:
    output = make_output(tmp_path / "out", tmp_path / "out.run", "fhir")
    assert isinstance(output, Reports)
    assert output._name("../a/x.tar:b.png", "") == "a/x.tar/b.png.json"
    assert findings_of({"plane": "", "findings": "Edema; Fracture "})[1].value == "Fracture"
