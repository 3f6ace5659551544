"""What is scored: the captions, those they are compared with, and the examples that they are of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentcap.data.example import Example
from latentcap.evaluation.matching import Matches, match
from latentcap.evaluation.predictions import read_predictions


@dataclass
class Scored:
    """B examples and what each system wrote about them.

    Attributes:
        name: of the captions in question: ``captions`` of a file, ``model``.
        texts: those captions (B,).
        beside: what they are compared with, by name, (B,) each.
        ablation: the same model with its context changed, by name, (B,) each.
        labels: of a label head: the share that is right, that of the most frequent class, and the number of examples.
        findings: the CheXpert observations that a label head names, (B,) of them; empty without one.
        worth: what the image, and the context, are worth to the model, in nats a word.
        notes: what was left out, and how the captions were made, in words.
        matches: how the captions of a file were matched.
    """

    name: str
    examples: list[Example]
    texts: list[str]
    beside: dict[str, list[str]] = field(default_factory=dict)
    ablation: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    findings: list[list[str]] = field(default_factory=list)
    worth: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    matches: Matches | None = None

    @property
    def references(self) -> list[tuple[str, ...]]:
        """What people wrote about each example, (B, any number)."""
        return [example.captions for example in self.examples]

    @property
    def patients(self) -> list[Hashable]:
        """What examples of one patient share: no independent observations."""
        return [patient_of(example) for example in self.examples]

    @property
    def splits(self) -> list[str]:
        return sorted({example.split for example in self.examples})


def captions_of_file(source: str | Path, examples: Sequence[Example]) -> Scored:
    """The captions of a file or folder with the examples that they are of. Raises UserError where they do not fit."""
    predictions = read_predictions(source)
    matches = match(predictions.captions, examples, source)
    return Scored(
        "captions",
        [example for _, example in matches.pairs],
        [caption.text for caption, _ in matches.pairs],
        notes=predictions.notes + matches.notes(),
        matches=matches,
    )


def patient_of(example: Example) -> Hashable:
    """What examples of one patient share: the reader's group, else the context, else nothing but themselves."""
    return example.group or example.context or example.id
