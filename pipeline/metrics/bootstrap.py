"""Bootstrap intervals and paired tests (Koehn, 2004) of corpus scores, from sums of per-example counts.

A score is a function of sums over the examples, so a resampled corpus costs one row of a matrix product: exact, and a
thousand of them take a moment. Dimension letters: R resamples, B examples, K counts of each example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentcap.metrics.bleu import MAX_ORDER, ngrams
from latentcap.metrics.cider import CiderScorer
from latentcap.metrics.meteor import meteor_exact
from latentcap.metrics.rouge import rouge_l_of

Array = NDArray[np.float64]
LEAST = 1e-4  # a smaller difference is none: BLEU without a match is not zero, by its smoothing constants


@dataclass(frozen=True)
class Counts:
    """What a score needs of each example: ``values`` (B, K); ``combine`` turns sums (R, K) into scores (R,)."""

    values: Array
    combine: Callable[[Array], Array]

    def score(self) -> float:
        """The score of the whole corpus."""
        return float(self.combine(self.values.sum(0, keepdims=True))[0])

    def resampled(self, weights: Array) -> Array:
        """Scores (R,) of resampled corpora; ``weights`` (R, B) from :func:`draw`."""
        return self.combine(weights @ self.values)


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One system's score minus another's on the same examples: ``p`` is the share of resamples where it is not above
    :data:`LEAST`, counting one more."""

    value: float
    low: float
    high: float
    p: float

    @property
    def beats(self) -> bool:
        """Whether the 95 % interval lies above :data:`LEAST`."""
        return self.low > LEAST


def draw(groups: Sequence[Hashable], *, samples: int, seed: int) -> Array:
    """How often each of B examples is in each of R resamples, (R, B): whole groups are drawn, with replacement.

    A patient's images are no independent observations: they belong into one group.
    """
    index = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    of = np.array([index[name] for name in groups])
    random = np.random.default_rng(seed)
    picks = random.multinomial(len(index), np.full(len(index), 1 / len(index)), size=samples)
    return picks[:, of].astype(float)


def interval(counts: Counts, weights: Array) -> Interval:
    """The score and its percentile interval."""
    low, high = np.percentile(counts.resampled(weights), [2.5, 97.5])
    return Interval(counts.score(), float(low), float(high))


def difference(first: Counts, second: Counts, weights: Array) -> Difference:
    """``first`` minus ``second`` on the same resamples."""
    values = first.resampled(weights) - second.resampled(weights)
    low, high = np.percentile(values, [2.5, 97.5])
    p = (1 + int((values <= LEAST).sum())) / (1 + len(values))
    return Difference(first.score() - second.score(), float(low), float(high), p)


def mean_counts(values: Sequence[float], counted: Sequence[bool] | None = None) -> Counts:
    """A score that is the mean of the examples' scores, or of those that are ``counted``."""
    weights = np.ones(len(values)) if counted is None else np.asarray(counted, dtype=float)
    return Counts(np.stack((values * weights, weights), 1), lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-12))


def text_counts(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], cider: CiderScorer
) -> dict[str, Counts]:
    """BLEU-1 to BLEU-4, METEOR's exact matches, ROUGE-L and CIDEr-D as counts.

    The document frequencies of CIDEr-D stay those of ``cider``. The full METEOR is a Java program that scores a whole
    corpus at once, so the part of it that is ours stands in for it, under its own name.

    ``hypotheses`` (B,) and ``references`` (B, any number) hold words separated by spaces.
    """
    pairs = list(zip(hypotheses, references, strict=True))
    bleu = np.array([_bleu_counts(text.split(), [other.split() for other in set(group)]) for text, group in pairs])
    scores = {f"BLEU-{order}": Counts(bleu, _bleu_of(order)) for order in range(1, MAX_ORDER + 1)}
    scores["METEOR exact"] = mean_counts([meteor_exact(text, set(group)) for text, group in pairs])
    scores["ROUGE-L"] = mean_counts([rouge_l_of(text, frozenset(group)) for text, group in pairs])
    scores["CIDEr-D"] = mean_counts([cider.score(text, index) for index, text in enumerate(hypotheses)])
    return scores


def _bleu_counts(words: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[float]:
    """n-grams that are right (4) and written (4), the length, and the closest reference's length."""
    allowed: Counter[tuple[str, ...]] = Counter()
    for reference in wanted:
        allowed |= Counter(ngrams(reference))
    right, written = [0.0] * MAX_ORDER, [0.0] * MAX_ORDER
    for ngram, count in Counter(ngrams(words)).items():
        written[len(ngram) - 1] += count
        right[len(ngram) - 1] += min(count, allowed[ngram])
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in wanted)[1]
    return [*right, *written, len(words), closest]


def _bleu_of(order: int) -> Callable[[Array], Array]:
    def combine(sums: Array) -> Array:
        right, written = sums[:, :order], sums[:, MAX_ORDER : MAX_ORDER + order]
        ratio = (sums[:, -2] + 1e-15) / (sums[:, -1] + 1e-9)
        penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
        return penalty * np.prod((right + 1e-15) / (written + 1e-9), 1) ** (1 / order)

    return combine
