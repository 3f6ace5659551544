"""Sentence pairs that differ in a denial or a doubt alone: the labeller tells all 200 apart."""

from __future__ import annotations

import pytest

from latentcap.data.readers.medical.chexpert import Status, explain, label_report

FINDINGS = {
    "pleural effusion": "Pleural Effusion",
    "pneumothorax": "Pneumothorax",
    "consolidation": "Consolidation",
    "pulmonary edema": "Edema",
    "cardiomegaly": "Cardiomegaly",
    "pneumonia": "Pneumonia",
    "basilar atelectasis": "Atelectasis",
    "displaced rib fracture": "Fracture",
    "pulmonary nodule": "Lung Lesion",
    "airspace opacity": "Lung Opacity",
}
DENIED = [
    ("{x}.", "no {x}."),
    ("There is {x}.", "There is no {x}."),
    ("{x} is present.", "{x} is not present."),
    ("Evidence of {x}.", "No evidence of {x}."),
    ("{x} is seen on the left.", "{x} is not seen on the left."),
    ("The mediastinum is unremarkable and there is {x}.", "The mediastinum is unremarkable and there is no {x}."),
    ("Stable appearance with {x}.", "Stable appearance without {x}."),
    ("The examination is positive for {x}.", "The examination is negative for {x}."),
    ("The {x} has increased.", "The {x} has resolved."),
    ("Interval development of {x}.", "Interval resolution of {x}."),
    ("{x} is again demonstrated.", "{x} is no longer demonstrated."),
    ("The patient has {x} today.", "The patient has neither a catheter nor {x} today."),
]
DOUBTED = [
    ("There is {x}.", "There may be {x}."),
    ("{x} is present.", "{x} is possible."),
    ("{x} is confirmed.", "{x} cannot be excluded."),
    ("Known {x}.", "Suspected {x}."),
    ("Definite {x}.", "Questionable {x}."),
    ("Findings of {x}.", "Findings suspicious for {x}."),
    ("There is {x} at the base.", "Cannot rule out {x} at the base."),
    ("This represents {x}.", "This could represent {x}."),
]
PAIRS = [
    (plain.format(x=words), other.format(x=words), name, status)
    for words, name in FINDINGS.items()
    for pairs, status in ((DENIED, Status.NEGATIVE), (DOUBTED, Status.UNCERTAIN))
    for plain, other in pairs
]


def test_there_are_200() -> None:
    assert len(PAIRS) == len({pair[:2] for pair in PAIRS}) == 200


@pytest.mark.parametrize("name", FINDINGS.values())
def test_denial_and_doubt_are_told_apart(name: str) -> None:
    for plain, other, observation, status in PAIRS:
        if observation == name:
            assert label_report(plain)[name] == Status.POSITIVE, explain(plain)
            assert label_report(other)[name] == status, explain(other)
