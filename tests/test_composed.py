"""Reports put together from findings: typical sentences, and nothing that contradicts them."""

from __future__ import annotations

from latentcap.data.readers.medical.chexpert import label_report
from latentcap.evaluation.composed import compose, finding_sentences

REPORTS = [
    "Mild cardiomegaly. No effusion.",
    "Mild cardiomegaly. Small left pleural effusion.",
    "The heart is enlarged with effusion and edema. There is a small left pleural effusion seen.",
    "Small left pleural effusion. Possible pneumonia. A port is seen. Surgical clips.",
]
NORMAL = "The heart is normal in size. The lungs are clear. There is no pleural effusion."


def test_the_most_frequent_sentence_that_states_a_finding_and_no_other() -> None:
    assert finding_sentences(REPORTS) == {
        "Cardiomegaly": "Mild cardiomegaly.",
        "Pleural Effusion": "Small left pleural effusion.",
        "Support Devices": "Surgical clips.",
    }


def test_a_composed_report_says_its_findings_and_denies_none() -> None:
    sentences = finding_sentences(REPORTS)
    report = compose(NORMAL, ["Pleural Effusion", "Cardiomegaly", "Edema", "No Finding"], sentences)
    assert report == "Mild cardiomegaly. Small left pleural effusion. The lungs are clear."
    found = label_report(report)
    assert found["Cardiomegaly"] == found["Pleural Effusion"] == 3
    assert compose(NORMAL, [], sentences) == NORMAL


def test_reports_in_the_cleaning_of_r2gen_do_as_well() -> None:
    sentences = finding_sentences(["mild cardiomegaly . no effusion ."])
    assert sentences == {"Cardiomegaly": "mild cardiomegaly ."}
    assert compose("the heart is normal . the lungs are clear .", ["Cardiomegaly"], sentences) == (
        "mild cardiomegaly . the lungs are clear ."
    )
