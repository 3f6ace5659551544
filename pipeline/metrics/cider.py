"""CIDEr and CIDEr-D (Vedantam et al., CVPR 2015): agreement of n-grams, weighted by how few images share them.

COCO's evaluation prints CIDEr-D, under the name of CIDEr.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentcap.metrics.bleu import MAX_ORDER, ngrams

SIGMA = 6.0  # width, in words, of the penalty on a length that differs from the reference's


@dataclass(frozen=True, slots=True)
class _Vector:
    weights: Mapping[tuple[str, ...], float]
    norms: Sequence[float]
    bigrams: int


class CiderScorer:
    """CIDEr-D, or CIDEr, of single captions against a corpus whose statistics are computed once.

    ``references`` (B, any number) hold words separated by spaces.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        counts = {text: Counter(ngrams(text.split())) for group in references for text in group}
        documents = Counter(ngram for group in references for ngram in set().union(*(counts[text] for text in group)))
        self._total = math.log(len(references))
        self._idf = {ngram: self._total - math.log(frequency) for ngram, frequency in documents.items()}
        self._vectors = {text: self._vector(count) for text, count in counts.items()}
        self._groups = [list(Counter(group).items()) for group in references]

    def score(self, text: str, example: int, *, defended: bool = True) -> float:
        """0 to 10: ten times the mean over orders 1 to 4 and the example's references of the tf-idf cosine.

        ``defended``: the D of CIDEr-D: repeated words are clipped to the reference's, and other lengths cost.
        """
        guess = self._vectors.get(text) or self._vector(Counter(ngrams(text.split())))
        group = self._groups[example]
        return 10 * sum(n * _similarity(guess, self._vectors[t], defended) for t, n in group) / sum(n for _, n in group)

    def _vector(self, count: Counter[tuple[str, ...]]) -> _Vector:
        weights, squares, bigrams = {}, [0.0] * MAX_ORDER, 0
        for ngram, frequency in count.items():
            weight = weights[ngram] = frequency * self._idf.get(ngram, self._total)
            squares[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:
                bigrams += frequency
        return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)


def cider_d(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over examples of :meth:`CiderScorer.score`.

    ``hypotheses`` (B,) and ``references`` (B, any number) hold words separated by spaces. Document frequencies are
    those of all B examples' references, so the score belongs to the whole corpus: it is no mean of parts, and one
    example alone scores zero. Lengths are compared in bigrams, as in COCO's evaluation.
    """
    scorer = CiderScorer(references)
    return sum(scorer.score(text, example) for example, text in enumerate(hypotheses)) / len(hypotheses)


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr as :func:`cider_d`, but without clipping and without the penalty on lengths; words are not stemmed."""
    scorer = CiderScorer(references)
    scores = (scorer.score(text, example, defended=False) for example, text in enumerate(hypotheses))
    return sum(scores) / len(hypotheses)


def _similarity(guess: _Vector, wanted: _Vector, defended: bool) -> float:
    """Mean over the orders of the cosine; ``defended``: with weights clipped and the penalty on lengths."""
    products = [0.0] * MAX_ORDER
    for ngram, weight in guess.weights.items():
        other = wanted.weights.get(ngram)
        if other is not None:
            products[len(ngram) - 1] += (min(weight, other) if defended else weight) * other
    penalty = math.exp(-((guess.bigrams - wanted.bigrams) ** 2) / (2 * SIGMA**2)) if defended else 1.0
    norms = zip(products, guess.norms, wanted.norms, strict=True)
    return penalty * sum(product / (a * b) for product, a, b in norms if a and b) / MAX_ORDER
