"""A chest report sentence by sentence under fixed headings, by what the labeller's phrases and a few words say.

Nothing is added, changed or left out: each sentence stands under one heading, as it is.
"""

from __future__ import annotations

import re

from latentcap.data.readers.medical import chexpert_phrases as table
from latentcap.data.readers.medical.chexpert import explain
from latentcap.data.sentences import split_sentences

OTHER = "other"
OBSERVED = {
    "lungs": ("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"),
    "pleura": ("Pneumothorax", "Pleural Effusion", "Pleural Other"),
    "heart": ("Cardiomegaly",),
    "mediastinum": ("Enlarged Cardiomediastinum",),
    "bones": ("Fracture",),
    "devices": (table.DEVICES,),
}
WORDS = {  # where no observation is mentioned: the part that is named first
    "lungs": r"lungs?|lobes?|pulmonary|airspaces?|bronch\w+|emphysema\w*|granulom\w+|inflat\w+|hyperinflat\w+",
    "pleura": r"pleura\w*|costophrenic|(?:hemi)?diaphragms?",
    "heart": r"heart|cardiac|ventric\w+|atri\w+|pericardi\w+",
    "mediastinum": r"mediastin\w+|cardiomediastin\w+|hil(?:ar|um|a)|aort\w+|trachea\w*|esophag\w+",
    "bones": r"bon(?:y|es?)|osseous|skelet\w+|spine|spinal|ribs?|vertebra\w*|thoracic spine|clavic\w+|scolio\w+"
    r"|degenerative|osteophyt\w+|shoulders?",
    "devices": r"tubes?|catheters?|lines?|leads?|wires?|clips?|picc|pacemakers?|drains?|stents?|hardware",
}
HEADINGS = (*OBSERVED, OTHER)
_HEADING_OF = {name: heading for heading, names in OBSERVED.items() for name in names}
_WORDS = {heading: re.compile(rf"\b(?:{words})\b") for heading, words in WORDS.items()}


def under_headings(report: str) -> dict[str, list[str]]:
    """The sentences of a report by heading, in the order of :data:`HEADINGS`; headings without one are left out.

    A sentence about several parts stands under the one that it mentions first.
    """
    found: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    for sentence in split_sentences(report):
        found[_heading(sentence)].append(sentence)
    return {heading: sentences for heading, sentences in found.items() if sentences}


def _heading(sentence: str) -> str:
    if mentions := explain(sentence):
        return _HEADING_OF[mentions[0].observation]
    places = {heading: match.start() for heading, words in _WORDS.items() if (match := words.search(sentence.lower()))}
    return min(places, key=lambda heading: places[heading]) if places else OTHER
