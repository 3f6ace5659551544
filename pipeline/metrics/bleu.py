"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) over a corpus, with the closest reference length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

MAX_ORDER = 4


def ngrams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All n-grams of one to four words."""
    for order in range(1, MAX_ORDER + 1):
        yield from zip(*(words[start:] for start in range(order)), strict=False)


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """``[BLEU-1, ..., BLEU-4]`` in [0, 1], each the geometric mean of n-gram precisions times the brevity penalty.

    ``hypotheses`` (B,) and ``references`` (B, any number) hold words separated by spaces. The tiny constants that keep
    a corpus without matches from dividing by zero are those of COCO's evaluation.
    """
    correct, guessed = [0] * MAX_ORDER, [0] * MAX_ORDER
    hypothesis_length = reference_length = 0
    for hypothesis, group in zip(hypotheses, references, strict=True):
        words = hypothesis.split()
        wanted = [reference.split() for reference in set(group)]
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in wanted:
            allowed |= Counter(ngrams(reference))
        for ngram, count in Counter(ngrams(words)).items():
            guessed[len(ngram) - 1] += count
            correct[len(ngram) - 1] += min(count, allowed[ngram])
        hypothesis_length += len(words)
        reference_length += min((abs(len(reference) - len(words)), len(reference)) for reference in wanted)[1]
    ratio = (hypothesis_length + 1e-15) / (reference_length + 1e-9)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order in range(MAX_ORDER):
        product *= (correct[order] + 1e-15) / (guessed[order] + 1e-9)
        scores.append(penalty * product ** (1 / (order + 1)))
    return scores
