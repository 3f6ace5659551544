"""How far the rules for findings agree with people: with the MeSH terms that Open-i's reports were indexed by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentcap.data.errors import UserError
from latentcap.data.example import SEVERAL, Example
from latentcap.metrics.clinical.scores import Agreement

MESH = {
    "Cardiomegaly": ("cardiomegaly",),
    "Lung Opacity": ("opacity", "infiltrate", "airspace disease", "density"),
    "Lung Lesion": ("nodule", "mass"),
    "Edema": ("pulmonary edema", "pulmonary congestion"),
    "Consolidation": ("consolidation",),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("pulmonary atelectasis",),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Pleural Effusion": ("pleural effusion",),
    "Fracture": ("fractures, bone",),
    "Support Devices": ("catheters, indwelling", "implanted medical device", "tube, inserted", "stents"),
    "No Finding": ("normal",),
}
"""Which terms mean an observation, any of them. Enlarged Cardiomediastinum and Pleural Other have none of their own."""


def mesh_agreement(examples: Sequence[Example]) -> Agreement:
    """Agreement of the label ``findings`` (by rule; doubt counts) with the label ``problems`` (by people).

    Raises UserError where no example has both.
    """
    both = [example.labels for example in examples if "findings" in example.labels and "problems" in example.labels]
    if not both:
        raise UserError(
            "no study has both findings by rule and terms by people (the labels findings and problems): give Open-i's "
            "index_*.jsonl."
        )
    named = [set(labels["findings"].split(SEVERAL)) for labels in both]
    indexed = [set(labels["problems"].split(SEVERAL)) for labels in both]
    given = np.array([[name in row for name in MESH] for row in named])
    wanted = np.array([[bool(row.intersection(terms)) for terms in MESH.values()] for row in indexed])
    hits, wrong, missed = (values.astype(float) for values in (given & wanted, given & ~wanted, ~given & wanted))
    return Agreement(tuple(MESH), hits, wrong, missed, np.ones(len(both), dtype=bool))
