"""The rule-based labeller: denial, doubt, lists, clauses, and the real reports."""

from __future__ import annotations

import csv
import json
import time

import pytest

from latentcap.data.readers.medical.chexpert import OBSERVATIONS, Status, explain, label_report, label_sentence
from tests.helpers import real_data

P, N, U, A = Status.POSITIVE, Status.NEGATIVE, Status.UNCERTAIN, Status.ABSENT


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("No evidence of pneumothorax.", {"Pneumothorax": N}),
        ("No pleural effusion or pneumothorax.", {"Pleural Effusion": N, "Pneumothorax": N}),
        ("There is no focal consolidation, pneumothorax, or large pleural effusion.",
         {"Consolidation": N, "Pneumothorax": N, "Pleural Effusion": N}),
        ("Lungs are clear without consolidation.", {"Consolidation": N, "Lung Opacity": N}),
        ("The lungs are clear of infiltrates.", {"Lung Opacity": N}),
        ("The lungs are free of focal airspace disease.", {"Lung Opacity": N}),
        ("Cannot exclude pneumonia.", {"Pneumonia": U}),
        ("Pneumonia cannot be excluded.", {"Pneumonia": U}),
        ("Effusion is not seen.", {"Pleural Effusion": N}),
        ("Pneumothorax and effusion are not identified.", {"Pneumothorax": N, "Pleural Effusion": N}),
        ("The pneumonia has resolved.", {"Pneumonia": N}),
        ("Interval resolution of the right effusion.", {"Pleural Effusion": N}),
        ("Resolved edema. Effusion persists.", {"Edema": N, "Pleural Effusion": P}),
        ("The edema has resolved and effusion increased.", {"Edema": N, "Pleural Effusion": P}),
        ("No pneumothorax but a small left effusion.", {"Pneumothorax": N, "Pleural Effusion": P}),
        ("No pneumothorax, but there is left lower lobe atelectasis.", {"Pneumothorax": N, "Atelectasis": P}),
        ("Cardiomegaly without edema.", {"Cardiomegaly": P, "Edema": N}),
        ("There is cardiomegaly and pneumothorax is not seen.", {"Cardiomegaly": P, "Pneumothorax": N}),
        ("No pneumothorax, the heart is enlarged.", {"Pneumothorax": N, "Cardiomegaly": P}),
        ("Heart is not enlarged.", {"Cardiomegaly": N}),
        ("Heart size normal.", {"Cardiomegaly": N}),
        ("The cardiac silhouette and mediastinum size are within normal limits.",
         {"Cardiomegaly": N, "Enlarged Cardiomediastinum": N}),
        ("Heart size is at the upper limits of normal.", {"Cardiomegaly": U}),
        ("Borderline cardiomegaly.", {"Cardiomegaly": U}),
        ("No change in the large effusion.", {"Pleural Effusion": P}),
        ("No significant interval change in right pneumothorax.", {"Pneumothorax": P}),
        ("Left basilar opacity may represent atelectasis versus pneumonia.",
         {"Lung Opacity": P, "Atelectasis": U, "Pneumonia": U}),
        ("Opacity suspicious for pneumonia.", {"Lung Opacity": P, "Pneumonia": U}),
        ("Nodule measuring 1.5 cm. No effusion.", {"Lung Lesion": P, "Pleural Effusion": N}),
        ("No displaced rib fractures.", {"Fracture": N}),
        ("Endotracheal tube in place; no pneumothorax.", {"Support Devices": P, "Pneumothorax": N}),
        ("Blunting of the left costophrenic angle.", {"Pleural Effusion": P}),
        ("There is no focal opacity to suggest pneumonia.", {"Pneumonia": N, "Lung Opacity": N}),
        ("Possible small effusion, without focal consolidation.", {"Pleural Effusion": U, "Consolidation": N}),
        ("History of pneumonia.", {"Pneumonia": A}),
        ("Negative for pneumothorax or pleural effusion.", {"Pneumothorax": N, "Pleural Effusion": N}),
        ("Degenerative changes of the spine.", {"No Finding": P, "Lung Opacity": A}),
        ("A right-sided PICC is seen.", {"Support Devices": P, "No Finding": P}),
        ("Possible small effusion.", {"Pleural Effusion": U, "No Finding": A}),
        ("", {"No Finding": P, "Edema": A}),
        ("XXXX opacity in the lung-bases , stable", {"Lung Opacity": P}),
        ("No acute fracture or significant degenerative changes.", {"Fracture": N}),
        ("No infiltrate or acute change.", {"Lung Opacity": N}),
        ("No consolidation or increased interstitial markings.", {"Consolidation": N, "Lung Opacity": N}),
        ("No effusion and no change in the opacity.", {"Pleural Effusion": N, "Lung Opacity": P}),
        ("Without change in the left effusion.", {"Pleural Effusion": P}),
        ("No worsening of the edema.", {"Edema": P}),
        ("The pneumothorax has not completely resolved.", {"Pneumothorax": P}),
        ("Near complete resolution of the effusion.", {"Pleural Effusion": P}),
        ("Left effusion resolved.", {"Pleural Effusion": N}),
        ("Edema increased and effusion resolved.", {"Edema": P, "Pleural Effusion": N}),
        ("Opacity, not seen on the prior study.", {"Lung Opacity": P}),
        ("Opacity is not seen.", {"Lung Opacity": N}),
        ("The endotracheal tube has been removed.", {"Support Devices": N}),
        ("Interval removal of the right PICC.", {"Support Devices": A}),
        ("Atelectasis versus pneumonia.", {"Atelectasis": U, "Pneumonia": U}),
        ("No atelectasis, but pneumonia is likely.", {"Atelectasis": N, "Pneumonia": U}),
        ("The opacity is likely atelectasis.", {"Lung Opacity": P, "Atelectasis": U}),
        ("Pneumonia is felt to be unlikely.", {"Pneumonia": N}),
        ("Lungs are not entirely clear. The heart is not enlarged.", {"Lung Opacity": U, "Cardiomegaly": N}),
        ("Question small effusion.", {"Pleural Effusion": U}),
        ("R/O pneumonia.", {"Pneumonia": U}),
    ],
)  # fmt: skip
def test_what_a_report_says(report: str, expected: dict[str, Status]) -> None:
    found = label_report(report)
    assert set(found) == set(OBSERVATIONS)
    assert len(found) == 14
    assert {name: found[name] for name in expected} == expected, explain(report)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("No pneumothorax, small left effusion is present.", {"Pneumothorax": N, "Pleural Effusion": P}),
        ("No evidence of pneumothorax, right pleural effusion is unchanged.", {"Pleural Effusion": P}),
        ("No pneumothorax, effusion is unchanged.", {"Pneumothorax": N, "Pleural Effusion": P}),
        ("No pneumothorax, effusion is present.", {"Pneumothorax": N, "Pleural Effusion": P}),
        ("No pneumothorax, left lower lobe opacity.", {"Pneumothorax": N, "Lung Opacity": P}),
        ("No focal consolidation, bibasilar atelectasis.", {"Consolidation": N, "Atelectasis": P}),
        ("No acute abnormality, old rib fractures.", {"Fracture": P}),
        ("No acute disease, cardiomegaly.", {"Cardiomegaly": P}),
        ("Negative for pneumothorax, trace effusion, no edema or mass.",
         {"Pneumothorax": N, "Pleural Effusion": P, "Edema": N, "Lung Lesion": N}),
        ("Without evidence for effusion, right basilar airspace disease is again noted.",
         {"Pleural Effusion": N, "Lung Opacity": P}),
        ("There is mild edema, no effusion, atelectasis at the bases.",
         {"Edema": P, "Pleural Effusion": N, "Atelectasis": P}),
        ("No pneumothorax, small left effusion, the heart is normal or mildly enlarged.", {"Pleural Effusion": P}),
        ("No pneumothorax, small effusion, mild edema, or consolidation.", {"Pleural Effusion": N}),
    ],
)  # fmt: skip
def test_a_denial_ends_at_a_comma_before_a_finding_that_is_there(report: str, expected: dict[str, Status]) -> None:
    found = label_report(report)
    assert {name: found[name] for name in expected} == expected, explain(report)


@pytest.mark.parametrize(
    "report",
    [
        "No effusion, left or right.",
        "No pneumothorax, pleural effusion, or focal consolidation.",
        "No pneumothorax, small effusion, or consolidation.",
        "No pneumothorax, left or right effusion.",
        "No pneumothorax, small effusion and/or consolidation.",
        "No pneumothorax, small effusion, and consolidation.",
        "No acute, displaced fracture, effusion, or mass is present.",
        "No acute, small effusion is noted.",
        "No pneumothorax, consolidation, effusion is seen.",
        "No pneumothorax, effusion and consolidation are seen.",
        "No pneumothorax, effusion is identified.",
        "No pneumothorax, small effusion is not seen.",
        "No infiltrates, effusions.",
        "No edema, effusion, cardiomegaly.",
        "No acute disease, cardiomegaly, or effusion.",
        "Neither a mass, a nodule, nor an effusion.",
        "Effusions, left greater than right, have resolved.",
        "Nil pleural effusion.",
        "Doubt pleural effusion.",
        "Low likelihood of effusion.",
        "The effusion was large, and has resolved.",
        "The effusion after chest tube placement has resolved.",
        "No pneumothorax after biopsy or pleural effusion.",
    ],
)
def test_a_denial_covers_its_list(report: str) -> None:
    denied = {mention.observation: mention.status for mention in explain(report)}
    denied.pop("Support Devices", None)
    assert set(denied.values()) == {N}, explain(report)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ("No pneumothorax after catheter placement.", P),
        ("No pneumothorax, effusion, or edema following catheter placement.", P),
        ("No pneumothorax status post chest tube placement", P),
        ("No hardware complication.", P),
        ("No hardware-related complication.", P),
        ("No evidence of hardware failure.", P),
        ("No kinking of the catheter.", P),
        ("Tip of the PICC is not visualized.", P),
        ("The tip of the endotracheal tube is not well seen.", P),
        ("The tip of the right internal jugular central venous catheter is not seen.", P),
        ("Right internal jugular central line", P),
        ("Right subclavian line", P),
        ("Left-sided XXXX central line", P),
        ("Central linear opacity.", A),
        ("No central line.", N),
        ("No chest tube after surgery.", N),
        ("No hardware or complication.", N),
        ("No pacemaker or heart failure.", N),
        ("Catheter is not seen.", N),
    ],
)
def test_what_is_denied_of_a_device_does_not_deny_it(report: str, status: Status) -> None:
    assert label_report(report)["Support Devices"] == status, explain(report)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("No radiographic evidence of pneumonia, though early pneumonia could be missed.", {"Pneumonia": U}),
        ("Pneumonia is a consideration.", {"Pneumonia": U}),
        ("Effusion is less likely.", {"Pleural Effusion": U}),
        ("Opacity is present and pneumonia is a consideration.", {"Lung Opacity": P, "Pneumonia": U}),
        ("Opacity is present, pneumonia is possible.", {"Lung Opacity": P, "Pneumonia": U}),
        ("Right base opacity obscures the hemidiaphragm, suspicious for pneumonia versus atelectasis.",
         {"Lung Opacity": P, "Pneumonia": U, "Atelectasis": U}),
        ("Left basilar opacity, atelectasis vs infection.", {"Lung Opacity": P, "Atelectasis": U, "Pneumonia": U}),
        ("Edema, atelectasis, versus pneumonia.", {"Edema": U, "Atelectasis": U, "Pneumonia": U}),
        ("There is no doubt pneumonia.", {"Pneumonia": P}),
    ],
)  # fmt: skip
def test_a_doubt_is_about_its_own_finding(report: str, expected: dict[str, Status]) -> None:
    found = label_report(report)
    assert {name: found[name] for name in expected} == expected, explain(report)


def test_what_marks_say() -> None:
    report = "Effusion: none. Pneumothorax - absent.\nEdema: No\nNodule: right base. ?pneumonia Atelectasis?"
    assert [(mention.observation, mention.status) for mention in explain(report)] == [
        ("Pleural Effusion", N),
        ("Pneumothorax", N),
        ("Edema", N),
        ("Lung Lesion", P),
        ("Pneumonia", U),
        ("Atelectasis", U),
    ]


def test_of_several_mentions_the_strongest_counts() -> None:
    assert label_report("No effusion on the right. Small left effusion.")["Pleural Effusion"] == P
    assert label_report("Effusion is possible. No effusion seen laterally.")["Pleural Effusion"] == U


def test_explain_names_the_words_that_decided() -> None:
    mentions = explain("Cannot exclude pneumonia. Heart size normal.")
    assert [(m.observation, m.words, m.cue) for m in mentions] == [
        ("Pneumonia", "pneumonia", "cannot exclude"),
        ("Cardiomegaly", "heart size normal", "heart size normal"),
    ]


def test_real_reports_are_labelled_fast_and_as_their_indexers_saw_them() -> None:
    """Open-i's reports: counts are those one expects of a chest clinic, and agree with the human MeSH index."""
    folder = real_data("iu_xray")
    studies = json.loads((folder / "annotation.json").read_text(encoding="utf-8"))
    reports = [study["report"] for split in studies.values() for study in split]
    label_sentence.cache_clear()
    start = time.process_time()
    found = [label_report(report) for report in reports]
    assert len(reports) / (time.process_time() - start) > 2000
    positive = {name: sum(labels[name] == P for labels in found) / len(found) for name in OBSERVATIONS}
    assert 0.3 < positive["No Finding"] < 0.8
    assert positive["Pneumothorax"] < 0.03
    assert sum(labels["Pneumothorax"] == N for labels in found) / len(found) > 0.6
    assert 0.02 < positive["Cardiomegaly"] < 0.2
    with open(folder / "indiana_reports.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["findings"]]
    for name, term in (
        ("Cardiomegaly", "Cardiomegaly"),
        ("Pleural Effusion", "Pleural Effusion"),
        ("Pneumothorax", "Pneumothorax"),
        ("Fracture", "Fractures"),
        ("Atelectasis", "Atelectasis"),
    ):
        wanted = [term in row["Problems"] for row in rows]
        given = [label_report(f"{row['findings']} {row['impression']}")[name] >= U for row in rows]
        hits = sum(a and b for a, b in zip(wanted, given, strict=True))
        assert 2 * hits / (sum(wanted) + sum(given)) > 0.7, name
