"""Open-i's XML reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">58-year-old male with chest pain</AbstractText>
<AbstractText Label="FINDINGS">Heart size normal. &lt;5 mm nodule</AbstractText>
<AbstractText Label="IMPRESSION">No acute XXXX.</AbstractText>
</Abstract><AuthorList><Author><LastName>Quimby</LastName></Author></AuthorList></Article></MedlineCitation>
<MeSH><major>normal</major></MeSH>
<parentImage id="CXR7_IM-2263-1001"><figureId>F1</figureId><caption>{0}</caption></parentImage>
<parentImage id="CXR7_IM-2263-2001"><figureId>F2</figureId><caption>{1}</caption></parentImage>
</eCitation>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    reports = tmp_path / "ecgen-radiology"
    reports.mkdir()
    (reports / "7.xml").write_text(REPORT.format("Lateral", "PA"))
    exam = "Xray Chest PA and Lateral"
    (reports / "10.xml").write_text(REPORT.replace("CXR7", "CXR10").format(exam, exam).replace("normal<", "Scar<"))
    (tmp_path / "NLMCXR_png").mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "NLMCXR_png" / "CXR7_IM-2263-2001.png")
    return tmp_path


def test_reports_with_sections_and_images(folder: Path) -> None:
    seven, ten = read_examples(folder)
    assert (seven.id, ten.id) == ("CXR7", "CXR10")
    assert seven.captions == ("Heart size normal. <5 mm nodule.",)
    assert seven.context == "indication: 58-year-old male with chest pain."
    assert (seven.numbers["age"], seven.categories["sex"]) == (58, "male")
    assert seven.views == ("pa", "lateral")
    assert seven.images[0].path == str(folder / "NLMCXR_png" / "CXR7_IM-2263-2001.png")
    assert (ten.views, len(ten.images)) == ((), 2)
    assert ten.context is not None
    assert "exam: xray chest pa and lateral." in ten.context
    assert seven.labels == {"normality": "normal", "problems": "normal"}
    assert ten.labels["normality"] == "abnormal"
    assert "Quimby" not in f"{seven}{ten}"


def test_the_impression(folder: Path) -> None:
    (seven, _) = read_examples(folder, fields=Fields(report="impression"))
    assert seven.captions == ("No acute <deid>.",)


def test_broken_xml_is_named_without_its_content(folder: Path) -> None:
    (folder / "ecgen-radiology" / "8.xml").write_text("<a>Quimby<b></a>")
    with pytest.raises(UserError, match=r"8\.xml, line 1: not valid XML \(column \d+\)\.$"):
        read_examples(folder)
