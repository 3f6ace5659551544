"""MIMIC-CXR's layout, with made-up studies under the official names."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples

SPLIT = """dicom_id,study_id,subject_id,split
a1,50000001,10000001,train
a2,50000001,10000001,train
a3,50000002,10000001,train
a4,50000002,10000001,train
b1,50000003,10000002,validate
"""
METADATA = """dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,StudyDate,StudyTime
a1,10000001,50000001,CHEST,LATERAL,21800508,95959.5
a2,10000001,50000001,CHEST,PA,21800508,95959.5
a3,10000001,50000002,CHEST,AP,21800506,213014.531
a4,10000001,50000002,CHEST,PA,21800506,213014.531
b1,10000002,50000003,CHEST,,21500101,1.0
"""
CHEXPERT = "subject_id,study_id,Atelectasis,No Finding\n10000001,50000001,1.0,\n10000001,50000002,,1.0\n"
REPORT = """                                 FINAL REPORT
 Patient: Rosalind Quimby

 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  {0}

 FINDINGS:

 {1}

 IMPRESSION:

 {2}
"""


def build(root: Path, *, packed: bool) -> Path:
    tables = {"split": SPLIT, "metadata": METADATA, "chexpert": CHEXPERT}
    for name, text in tables.items():
        file = root / f"mimic-cxr-2.0.0-{name}.csv"
        if packed:
            (root / f"{file.name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            file.write_text(text)
    reports = {
        "files/p10/p10000001/s50000001.txt": REPORT.format("60 year old man with cough.", "1. Clear. 2. ___.", "Fine."),
        "files/p10/p10000001/s50000002.txt": REPORT.format("___", "Large effusion.", "Worse."),
        "files/p10/p10000002/s50000003.txt": " CHEST, PORTABLE:  Tube in place.\n",
    }
    if packed:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
            for name, text in reports.items():
                archive.writestr(name, text)
    for name, text in reports.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if not packed:
            (root / name).write_text(text)
    study = root / "files/p10/p10000001/s50000001"
    study.mkdir()
    Image.new("L", (8, 6)).save(study / "a2.jpg")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_studies_in_time_with_the_report_before(tmp_path: Path, packed: bool) -> None:
    first, second, other = read_examples(build(tmp_path, packed=packed))
    assert [example.id for example in (first, second, other)] == ["s50000002", "s50000001", "s50000003"]
    assert [example.split for example in (first, second, other)] == ["train", "train", "val"]
    assert (first.views, second.views, other.views) == (("pa",), ("pa", "lateral"), ("other",))
    assert second.images[0].open().size == (8, 6)
    assert second.captions == ("Clear. <deid>.",)
    assert first.context == "exam: CHEST (PA AND LAT)."
    assert second.context == (
        "indication: 60 year old man with cough. exam: CHEST (PA AND LAT). prior: Large effusion."
    )
    assert other.context is None
    assert other.captions == ("Tube in place.",)
    assert (second.numbers["age"], second.categories["sex"]) == (60, "male")
    assert [example.labels.get("normality") for example in (first, second, other)] == ["normal", "abnormal", None]
    assert second.group == "p10000001"
    assert "Quimby" not in f"{first}{second}{other}"


def test_impressions(tmp_path: Path) -> None:
    examples = read_examples(build(tmp_path, packed=False), fields=Fields(report="impression"))
    assert [example.captions for example in examples] == [("Worse.",), ("Fine.",), ()]


def test_dicom_images_are_found(tmp_path: Path) -> None:
    root = build(tmp_path, packed=False)
    (root / "files/p10/p10000001/s50000001/a2.dcm").write_bytes(b"")
    assert read_examples(root)[0].images[0].path.endswith("s50000002/a4.dcm")


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = build(tmp_path, packed=False)
    (root / "mimic-cxr-2.0.0-split.csv").write_text(
        SPLIT.replace("a3,50000002,10000001,train", "a3,50000002,10000001,test")
    )
    with pytest.raises(UserError, match=r"p10000001 \(test, train\)"):
        read_examples(root)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    root = build(tmp_path, packed=True)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"metadata.csv.gz: not a readable table"):
        read_examples(root)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    (root / "mimic-cxr-reports.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"reports.zip: not a complete zip"):
        read_examples(root)
