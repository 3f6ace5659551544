"""Draws that can be repeated, share the work among ranks, and waste little padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from latentcap.data.batches.sampler import CaptionBatchSampler, TextPool, balanced_weights


def pools(count: int = 200) -> list[TextPool]:
    random = np.random.default_rng(0)
    return [
        TextPool(tuple(int(n) for n in random.integers(5, 40, 5)), tuple(int(n) for n in random.integers(5, 40, 4)))
        for _ in range(count)
    ]


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    one, two = (CaptionBatchSampler(pools(), batch_size=8, captions_per_image=2, seed=3) for _ in range(2))
    assert one.plan(4) == two.plan(4)
    assert one.plan(4) != one.plan(5)
    assert one.plan(4) != CaptionBatchSampler(pools(), batch_size=8, captions_per_image=2, seed=4).plan(4)


def test_every_example_once() -> None:
    plan = CaptionBatchSampler(pools(), batch_size=8, captions_per_image=2).plan(0)
    counts = Counter(draw.example for batch in plan for draw in batch)
    assert len(plan) == 25
    assert counts == Counter(range(200))
    assert all(len(set(draw.texts)) == 2 for batch in plan for draw in batch)


def test_resuming_skips_what_was_done() -> None:
    whole = list(CaptionBatchSampler(pools(), batch_size=8))
    assert list(CaptionBatchSampler(pools(), batch_size=8, completed=lambda: 10)) == whole[10:]
    assert list(CaptionBatchSampler(pools(), batch_size=8, completed=lambda: 25)) == whole  # a whole epoch: the next


def test_ranks_share_each_epoch() -> None:
    ranks = [CaptionBatchSampler(pools(), batch_size=8, rank=rank, world=3).plan(1) for rank in range(3)]
    assert {len(plan) for plan in ranks} == {8}
    seen = [draw.example for plan in ranks for batch in plan for draw in batch]
    assert len(seen) == len(set(seen)) == 8 * 3 * 8


def test_batches_hold_captions_of_like_length() -> None:
    def padding(window: int) -> float:
        sampler = CaptionBatchSampler(pools(2000), batch_size=16, window=window)
        waste = [
            1 - np.mean(lengths) / np.max(lengths)
            for batch in sampler.plan(0)
            for lengths in [[sampler.pools[draw.example].captions[draw.texts[0]] for draw in batch]]
        ]
        return float(np.mean(waste))

    assert padding(32) < 0.1 < 0.3 < padding(1)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 1, 1)])
def test_paraphrases_are_drawn_as_often_as_asked(probability: float, low: float, high: float) -> None:
    sampler = CaptionBatchSampler(pools(), batch_size=8, captions_per_image=3, paraphrases=probability)
    texts = [text for batch in sampler.plan(0) for draw in batch for text in draw.texts]
    assert low <= np.mean([text >= 5 for text in texts]) <= high


def test_few_examples_still_make_a_batch_for_every_rank() -> None:
    few = [TextPool((4,)), TextPool((6,)), TextPool((5,))]
    assert len(CaptionBatchSampler(few, batch_size=64, captions_per_image=2).plan(0)[0]) == 3
    for rank in range(2):
        assert len(CaptionBatchSampler(few, batch_size=4, rank=rank, world=2).plan(0)[0]) == 4


def test_rare_classes_are_drawn_more_often_but_not_as_often() -> None:
    classes = ["common"] * 180 + ["rare"] * 20
    sampler = CaptionBatchSampler(pools(), batch_size=8, weights=balanced_weights(classes))
    drawn = [classes[draw.example] for epoch in range(20) for batch in sampler.plan(epoch) for draw in batch]
    assert len(drawn) == 20 * 200
    assert np.mean([entry == "rare" for entry in drawn]) == pytest.approx(0.25, abs=0.03)  # sqrt(20) / (sqrt(20) + ...)
    assert sampler.plan(3) == CaptionBatchSampler(pools(), batch_size=8, weights=balanced_weights(classes)).plan(3)
