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


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 64, 65, 200, 500])
def test_no_image_is_left_out_of_an_epoch(count: int, world: int) -> None:
    """Also where batches do not come out even; and all ranks have equally many batches of equal sizes."""
    drawn = pools(count)
    for epoch in range(3):
        samplers = [CaptionBatchSampler(drawn, batch_size=64, rank=rank, world=world) for rank in range(world)]
        ranks = [sampler.plan(epoch) for sampler in samplers]
        sizes = [[len(batch) for batch in plan] for plan in ranks]
        assert all(own == sizes[0] for own in sizes)
        assert len(sizes[0]) == len(samplers[0])
        assert max(sizes[0]) <= 64
        assert max(sizes[0]) - min(sizes[0]) <= 1  # no batch of a few, whose gradient would be mostly noise
        counts = Counter(draw.example for plan in ranks for batch in plan for draw in batch)
        assert set(counts) == set(range(count))
        assert sum(counts.values()) - count < world


def test_what_is_trained_on_twice_differs_from_epoch_to_epoch() -> None:
    ranks = [CaptionBatchSampler(pools(7), batch_size=2, rank=rank, world=3) for rank in range(3)]
    twice = set()
    for epoch in range(40):
        counts = Counter(draw.example for sampler in ranks for batch in sampler.plan(epoch) for draw in batch)
        twice |= {example for example, times in counts.items() if times > 1}
    assert twice == set(range(7))


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


def test_rare_classes_are_drawn_more_often_but_not_as_often() -> None:
    classes = ["common"] * 180 + ["rare"] * 20
    sampler = CaptionBatchSampler(pools(), batch_size=8, weights=balanced_weights(classes))
    drawn = [classes[draw.example] for epoch in range(20) for batch in sampler.plan(epoch) for draw in batch]
    assert len(drawn) == 20 * 200
    assert np.mean([entry == "rare" for entry in drawn]) == pytest.approx(0.25, abs=0.03)  # sqrt(20) / (sqrt(20) + ...)
    assert sampler.plan(3) == CaptionBatchSampler(pools(), batch_size=8, weights=balanced_weights(classes)).plan(3)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("weights", [None, [1.0] * 49 + [3.0]])
def test_an_epoch_of_few_images_goes_over_them_again(world: int, weights: list[float] | None) -> None:
    """50 images are 7 batches of 8 or fewer: three times over are the least that give 18."""
    samplers = [
        CaptionBatchSampler(
            pools(50), batch_size=8, least_steps=18, variants=9, weights=weights, rank=rank, world=world
        )
        for rank in range(world)
    ]
    plans = [sampler.plan(1) for sampler in samplers]
    assert [len(plan) for plan in plans] == [len(samplers[0])] * world
    assert len(samplers[0]) >= 18
    drawn = [draw for plan in plans for batch in plan for draw in batch]
    passes = samplers[0].passes
    assert len(drawn) == 50 * passes
    assert passes == (3 if world == 1 else 6)
    if weights is None:
        assert set(Counter(draw.example for draw in drawn).values()) == {passes}
        assert len({draw.variant for draw in drawn if draw.example == 0}) > 1
    assert plans[0] != samplers[0].plan(2)


def test_an_epoch_of_enough_steps_stays_as_it_is() -> None:
    assert CaptionBatchSampler(pools(), batch_size=8, least_steps=25).plan(3) == CaptionBatchSampler(
        pools(), batch_size=8
    ).plan(3)
