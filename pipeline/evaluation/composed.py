"""Reports put together from a label head's findings: what a decoder has to beat that claims to read an image.

A typical normal report, less what its sentences deny of the findings, after one typical sentence for each finding.
Nothing is generated, and no word is learned.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from latentcap.data.readers.medical.chexpert import Status, explain


def finding_sentences(reports: Sequence[str]) -> dict[str, str]:
    """For each CheXpert observation the most frequent sentence that states it and no other; of several the shortest."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        for sentence in _sentences(report):
            stated = {mention.observation: mention.status for mention in explain(sentence)}
            said = [name for name, status in stated.items() if status >= Status.UNCERTAIN]
            if len(said) == 1 and stated[said[0]] == Status.POSITIVE:
                counts[said[0]][sentence] += 1
    return {
        name: min(found, key=lambda sentence: (-found[sentence], len(sentence), sentence))
        for name, found in counts.items()
    }


def compose(normal: str, findings: Collection[str], sentences: Mapping[str, str]) -> str:
    """One report: a sentence for each of ``findings`` that ``sentences`` has, then the rest of the ``normal`` report.

    Of the normal report those sentences stay that say nothing about any of the findings.
    """
    said = [name for name in sentences if name in findings]
    kept = [
        sentence
        for sentence in _sentences(normal)
        if not any(mention.observation in said for mention in explain(sentence))
    ]
    return " ".join([*(sentences[name] for name in said), *kept])


def _sentences(report: str) -> list[str]:
    """Sentences with their full stops, of a report as written or in R2Gen's cleaning (lower case)."""
    return re.split(r"(?<=\.)\s+", report.strip())
