"""Reports changed by findings: one typical sentence for each, and no sentence that says otherwise.

Of a typical normal report this makes what a decoder has to beat that claims to read an image; of a draft, one that
holds what a label head found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from latentcap.data.example import SEVERAL
from latentcap.data.readers.medical.chexpert import Status, explain, observations_in
from latentcap.data.sentences import split_sentences

PLAIN = {  # as drafts are written: lower case
    "Enlarged Cardiomediastinum": "the mediastinum is widened.",
    "Cardiomegaly": "the heart is enlarged.",
    "Lung Opacity": "there is opacity in the lungs.",
    "Lung Lesion": "there is a lung nodule.",
    "Edema": "there is pulmonary vascular congestion.",
    "Consolidation": "there is consolidation.",
    "Pneumonia": "there may be pneumonia.",
    "Atelectasis": "there is atelectasis.",
    "Pneumothorax": "there is a pneumothorax.",
    "Pleural Effusion": "there is a pleural effusion.",
    "Pleural Other": "there is pleural thickening.",
    "Fracture": "there is a fracture.",
    "Support Devices": "a catheter is seen.",
}


def finding_sentences(reports: Sequence[str]) -> dict[str, str]:
    """For each CheXpert observation the most frequent sentence that states it and no other; of several the shortest."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        for sentence in split_sentences(report):
            stated = {mention.observation: mention.status for mention in explain(sentence)}
            said = [name for name, status in stated.items() if status >= Status.UNCERTAIN]
            if len(said) == 1 and stated[said[0]] == Status.POSITIVE:
                counts[said[0]][sentence] += 1
    return {
        name: min(found, key=lambda sentence: (-found[sentence], len(sentence), sentence))
        for name, found in counts.items()
    }


def compose(report: str, findings: Collection[str], sentences: Mapping[str, str]) -> str:
    """A sentence for each of ``findings`` that ``sentences`` has, then the rest of the ``report``.

    Of the report those sentences stay that say nothing about any of the findings.
    """
    said = [name for name in sentences if name in findings]
    kept = [
        sentence
        for sentence in split_sentences(report)
        if not any(mention.observation in said for mention in explain(sentence))
    ]
    return " ".join([*(sentences[name] for name in said), *kept])


def state(report: str, labels: Mapping[str, str]) -> str:
    """A draft that states each finding that a label head predicts: a plain sentence, without side or size.

    ``labels``: what it predicts of the image, values of one label joined as readers join them.
    """
    predicted = {value.strip() for label in labels.values() for value in label.split(SEVERAL)}
    return compose(report, predicted.difference(observations_in(report)), PLAIN)
