"""ROUGE-L (Lin, 2004): the longest common subsequence of a caption and its references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

BETA = 1.2  # recall counts this much more than precision, as in COCO's evaluation


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, one whole row of the table at a time in one integer's bits.

    The bit-parallel algorithm of Hyyrö (2004): zeros in ``row`` mark where the table's value steps up.
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << index
    everything = (1 << len(first)) - 1
    row = everything
    for word in second:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & everything
    return len(first) - row.bit_count()


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over examples of the F-score of the best precision and the best recall among an example's references.

    ``hypotheses`` (B,) and ``references`` (B, any number) hold words separated by spaces. An empty text counts as one
    empty word, as in COCO's evaluation.
    """
    score = lru_cache(maxsize=None)(rouge_l_of)
    pairs = zip(hypotheses, references, strict=True)
    return sum(score(hypothesis, frozenset(group)) for hypothesis, group in pairs) / len(hypotheses)


def rouge_l_of(hypothesis: str, group: frozenset[str]) -> float:
    """The F-score of one caption against one example's references, 0 to 1."""
    words = hypothesis.split() or [""]
    precision = recall = 0.0
    for reference in group:
        wanted = reference.split() or [""]
        common = common_subsequence(words, wanted)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(wanted))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
