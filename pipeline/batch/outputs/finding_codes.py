"""What a label head predicts, as codes: SNOMED CT where a finding has one, and always our own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from latentcap.data.example import SEVERAL

SNOMED = {
    "Atelectasis": ("46621007", "Atelectasis"),
    "Cardiomegaly": ("8186001", "Cardiomegaly"),
    "Consolidation": ("95436008", "Lung consolidation"),
    "Edema": ("19242006", "Pulmonary edema"),
    "Fracture": ("125605004", "Fracture of bone"),
    "Pleural Effusion": ("60046008", "Pleural effusion"),
    "Pneumonia": ("233604007", "Pneumonia"),
    "Pneumothorax": ("36118008", "Pneumothorax"),
}


class Finding(NamedTuple):
    """One value of a label; ``snomed`` is its code and meaning, None where it has none here."""

    label: str
    value: str
    code: str
    snomed: tuple[str, str] | None


def findings_of(labels: Mapping[str, str]) -> list[Finding]:
    """Every value of a record's labels; one that may have several is taken apart."""
    return [
        Finding(label, value, re.sub(r"\W+", "-", value.lower()).strip("-"), SNOMED.get(value))
        for label, values in labels.items()
        for part in values.split(SEVERAL)
        if (value := part.strip())
    ]
