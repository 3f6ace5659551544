"""CIDEr-D (Vedantam et al., CVPR 2015): agreement of n-grams, weighted by how few images share them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .bleu import MAX_ORDER, ngrams

SIGMA = 6.0  # width, in words, of the penalty on a length that differs from the reference's


@dataclass(frozen=True, slots=True)
class _Vector:
    weights: Mapping[tuple[str, ...], float]
    norms: Sequence[float]
    bigrams: int


def cider_d(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over examples of ten times the mean over orders 1 to 4 and references of the clipped cosine of tf-idf.

    ``hypotheses`` (B,) and ``references`` (B, any number) hold words separated by spaces. Document frequencies are
    those of all B examples' references, so the score belongs to the whole corpus: it is no mean of parts, and one
    example alone scores zero. Lengths are compared in bigrams, as in COCO's evaluation.
    """
    counts = {text: Counter(ngrams(text.split())) for group in references for text in group}
    documents = Counter(ngram for group in references for ngram in set().union(*(counts[text] for text in group)))
    total = math.log(len(hypotheses))
    idf = {ngram: total - math.log(frequency) for ngram, frequency in documents.items()}

    def vector(count: Counter[tuple[str, ...]]) -> _Vector:
        weights, squares, bigrams = {}, [0.0] * MAX_ORDER, 0
        for ngram, frequency in count.items():
            weight = weights[ngram] = frequency * idf.get(ngram, total)
            squares[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:
                bigrams += frequency
        return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)

    vectors = {text: vector(count) for text, count in counts.items()}
    texts = set(hypotheses)
    guesses = {text: vectors.get(text) or vector(Counter(ngrams(text.split()))) for text in texts}
    score = 0.0
    for hypothesis, group in zip(hypotheses, references, strict=True):
        guess = guesses[hypothesis]
        score += sum(times * _similarity(guess, vectors[text]) for text, times in Counter(group).items()) / len(group)
    return 10 * score / len(hypotheses)


def _similarity(guess: _Vector, wanted: _Vector) -> float:
    """Mean over the orders of the cosine, with the guess's weights clipped to the reference's."""
    products = [0.0] * MAX_ORDER
    for ngram, weight in guess.weights.items():
        other = wanted.weights.get(ngram)
        if other is not None:
            products[len(ngram) - 1] += min(weight, other) * other
    penalty = math.exp(-((guess.bigrams - wanted.bigrams) ** 2) / (2 * SIGMA**2))
    norms = zip(products, guess.norms, wanted.norms, strict=True)
    return penalty * sum(product / (a * b) for product, a, b in norms if a and b) / MAX_ORDER
