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
