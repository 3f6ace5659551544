"""Cleaning, sections and sentences of reports."""

from __future__ import annotations

import csv

import pytest

from latentcap.data.report_text import clean, clean_r2gen, split_sections
from tests.helpers import real_data

REPORT = """                                 FINAL REPORT
 NAME: Rosalind Quimby   MRN: 777-31-4159
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old woman with cough.  // r/o pneumonia

 COMPARISON:  ___.

 FINDINGS:

 1. Lungs are clear
 2. No effusion.
 Note: stable.

 IMPRESSION:
 No acute process.

 DICTATED BY: Rosalind Quimby
"""


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("1. Clear lungs. 2. No effusion.", "Clear lungs. No effusion."),
        ("1. Clear lungs 2. No effusion", "Clear lungs. No effusion."),
        ("1.Clear lungs\n2) No effusion", "Clear lungs. No effusion."),
        ("Chest: 1. Clear. 2. Full. 3. Large. 4. Old. 5. New. 6. Last.", "Chest: Clear. Full. Large. Old. New. Last."),
        ("Fracture at T1. No other.", "Fracture at T1. No other."),
        ("1. Fracture of rib 2. Heart normal. 2. Clear.", "Fracture of rib 2. Heart normal. Clear."),
        ("Nodule of 2.5 cm. 3. Lines.", "Nodule of 2.5 cm. 3. Lines."),
        ("Fig. 1. Axial CT.", "Fig. 1. Axial CT."),
        ("Seen in XXXX, XXXX XXXX and ____ .", "Seen in <deid> and <deid>."),
        ("[**Name 12**] was seen", "<deid> was seen."),
        ("  Clear..  The apex.There is  more ,", "Clear. The apex. There is more."),
        ("XXXX.", ""),
        ("", ""),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Heart is normal. Lungs, clear.", "heart is normal . lungs clear ."),
        ("1. Clear. 2. No effusion. 6. Old", "clear . no effusion . 6 . old ."),
        ("Fracture of T11. Measures 2.1. Next", "fracture of t1measures 2next ."),
        ("Rib 2. Heart", "rib . heart ."),
        ("x-ray left/right isn't 2.5 <= 3", "x-ray leftright isnt 25  3 ."),
        ("XXXX and ___ seen.", "xxxx and  seen ."),
        ("Clear. . Old", "clear .  . old ."),
        ("", " ."),
    ],
)
def test_r2gen_with_its_quirks(raw: str, cleaned: str) -> None:
    assert clean_r2gen(raw) == cleaned


def test_sections_leave_names_and_signatures_out() -> None:
    sections = split_sections(REPORT)
    assert list(sections) == ["examination", "indication", "comparison", "findings", "impression"]
    assert clean(sections["findings"]) == "Lungs are clear. No effusion. Note: stable."
    assert sections["impression"] == "No acute process."
    assert "Quimby" not in str(sections)
    assert "4159" not in str(sections)


def test_sections_by_other_headers() -> None:
    text = "CHEST, TWO VIEWS: Clear.\n\nCONCLUSION: Normal.\nFINDINGS/IMPRESSION: Both.\nno header: x"
    assert split_sections(text) == {"findings": "Clear.", "impression": "Normal.\nBoth.\nno header: x"}
    assert split_sections("no headers at all") == {}


def test_cleaning_real_reports_twice_changes_nothing() -> None:
    with open(real_data("iu_xray") / "indiana_reports.csv", newline="") as file:
        texts = [row[name] for row in csv.DictReader(file) for name in ("findings", "impression")]
    cleaned = [clean(text) for text in texts]
    assert [clean(text) for text in cleaned] == cleaned
    assert not any("XXXX" in text or ".." in text or "  " in text for text in cleaned)
    assert sum(map(bool, cleaned)) > 7000
