"""The values of labels in the examples: which a head can learn, and which labels have several at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from latentcap.data.columns import each
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import SEVERAL, Example
from latentcap.data.readers.fields import FROM_CAPTIONS, WORDS

MIN_COUNT = 5  # a class of fewer training examples cannot be learned: its examples have no label
WORD_SHARE = 0.003  # of the examples; a word of fewer is no class


def values_of(label: str) -> list[str]:
    """The values of a label that may have several, without blanks around them; none for an empty text."""
    return [value for part in label.split(SEVERAL) if (value := part.strip())]


def lists_of(examples: Sequence[Example], names: Sequence[str]) -> list[str]:
    """Those of ``names`` that have several values, or none at all (an empty text), in some example, and those that are
    read from captions."""
    return [
        name
        for name in names
        if name in FROM_CAPTIONS
        or any(
            SEVERAL in label or not label for held in each(examples, "labels") if (label := held.get(name)) is not None
        )
    ]


def list_shares(examples: Sequence[Example], classes: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """For each label with several values the share of examples with it that have each of its ``classes``."""
    found = {}
    for name in lists_of(examples, list(classes)):
        rows = [set(values_of(label)) for held in each(examples, "labels") if (label := held.get(name)) is not None]
        found[name] = [round(sum(value in row for row in rows) / len(rows), 6) for value in classes[name]]
    return found


def label_classes(examples: Sequence[Example], names: Sequence[str]) -> dict[str, list[str]]:
    """The classes of each label that at least :data:`MIN_COUNT` training examples have.

    Raises UserError for a label that no example has, or that has fewer than two such classes (one, where an example may
    have several values or none).
    """
    found = {}
    lists = lists_of(examples, names)
    for name in names:
        held = [label for labels in each(examples, "labels") if (label := labels.get(name))]
        counts = Counter(value for label in held for value in (set(values_of(label)) if name in lists else (label,)))
        if not counts:
            known = sorted({key for labels in each(examples, "labels") for key in labels})
            have = f" Labels there: {', '.join(known)}." if known else " The examples have no labels at all."
            raise UserError(f"no training example has a label '{name}'.{did_you_mean(name, known)}{have}")
        fewest: float = MIN_COUNT
        if name == WORDS:  # of very few examples the most frequent words have to do
            fewest = min(max(MIN_COUNT, len(held) * WORD_SHARE), max(counts.values()))
        found[name] = sorted(value for value, count in counts.items() if count >= fewest)
        least = 1 if name in lists else 2
        if len(found[name]) < least:
            raise UserError(
                f"the label '{name}' has {len(found[name])} classes with {MIN_COUNT} or more training examples: at "
                f"least {least} are needed to tell apart. Leave it out of data.fields.labels."
            )
    return found
