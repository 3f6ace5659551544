"""Resampled scores are those of the resampled corpus; intervals cover; groups stay together."""

from __future__ import annotations

import numpy as np
import pytest

from latentcap.metrics.bleu import bleu
from latentcap.metrics.bootstrap import difference, draw, interval, mean_counts, text_counts
from latentcap.metrics.cider import CiderScorer
from latentcap.metrics.meteor import meteor_exact
from latentcap.metrics.scores import caption_scores

WORDS = ["no", "acute", "disease", "the", "heart", "is", "normal", "lungs", "are", "clear", "left", "effusion"]


def corpus(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    random = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(random.choice(WORDS, random.integers(3, 15)))

    return [text() for _ in range(count)], [[text() for _ in range(random.integers(1, 3))] for _ in range(count)]


def test_counts_give_the_scores_of_the_corpus() -> None:
    hypotheses, references = corpus(40)
    counts = text_counts(hypotheses, references, CiderScorer(references))
    meteor = sum(map(meteor_exact, hypotheses, references)) / 40
    assert {name: entry.score() for name, entry in counts.items()} == pytest.approx(
        {**caption_scores(hypotheses, references), "METEOR exact": meteor}, abs=1e-12
    )


def test_a_resample_scores_as_the_corpus_of_its_examples() -> None:
    hypotheses, references = corpus(30)
    weights = draw(range(30), samples=5, seed=1)
    counts = text_counts(hypotheses, references, CiderScorer(references))
    for row, *values in zip(weights, *(counts[f"BLEU-{n}"].resampled(weights) for n in range(1, 5)), strict=True):
        picked = [index for index, times in enumerate(row) for _ in range(int(times))]
        expected = bleu([hypotheses[index] for index in picked], [references[index] for index in picked])
        assert values == pytest.approx(expected, abs=1e-12)


def test_groups_are_drawn_whole() -> None:
    weights = draw(["a", "a", "b", "b", "b", "c"], samples=50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all()
    np.testing.assert_array_equal(weights, draw([1, 1, 2, 2, 2, 3], samples=50, seed=0))


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    found = interval(mean_counts(values.tolist()), draw(range(400), samples=4000, seed=0))
    error = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.03)


def test_a_difference_is_paired() -> None:
    """A small but constant advantage is certain though the examples vary far more."""
    random = np.random.default_rng(0)
    base = random.normal(0, 10, 200)
    weights = draw(range(200), samples=500, seed=0)
    better, worse = mean_counts((base + 0.1).tolist()), mean_counts(base.tolist())
    assert difference(better, worse, weights).beats
    assert difference(better, worse, weights).p < 0.01
    assert not difference(worse, better, weights).beats
    assert not difference(worse, worse, weights).beats
    assert not difference(mean_counts((base + 1e-6).tolist()), worse, weights).beats
