"""Statistics of heads against loops that say the same in plain words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latentcap.heads.statistics import (
    BINS,
    CONTENT,
    SPECIAL,
    STOP,
    Readings,
    TextStatistics,
    VisualStatistics,
    spatial_spread,
)

VIEWS, GRID, HEADS = 2, (3, 4), 3


def readings(seed: int, batch: int = 2) -> Readings:
    """Random attention in which some queries are padding and the second example has one view."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, 2, 5, HEADS, VIEWS * 12, generator=generator) * 2
    readable = torch.ones(batch, 1, 1, VIEWS * 12, dtype=torch.bool)
    readable[-1, ..., 12:] = False
    attention = scores.masked_fill(~readable.unsqueeze(-2), -math.inf).softmax(-1)
    steps = torch.rand(batch, 2, 5, generator=generator) > 0.3
    return Readings(attention, steps, readable)


def rows(given: Readings) -> list[tuple[Tensor, int]]:
    """Every query that counts: its attention (H, P) and how many positions it may read."""
    found = []
    for index in given.steps.nonzero().tolist():
        readable = given.readable.expand(*given.steps.shape, -1)[tuple(index)]
        found.append((given.attention[tuple(index)].double(), int(readable.sum())))
    return found


def plain_entropy(row: Tensor) -> float:
    return -sum(p * math.log(p) for p in row.tolist() if p > 0)


def test_every_figure_is_the_mean_over_queries() -> None:
    given = readings(0)
    statistics = VisualStatistics(HEADS, views=VIEWS, grid=GRID)
    statistics.update(given)
    queries = rows(given)
    assert statistics.queries == len(queries)
    for head in range(HEADS):
        maps = [(row[head], size) for row, size in queries]
        nats = [plain_entropy(row) for row, _ in maps]
        shares = [value / math.log(size) for value, (_, size) in zip(nats, maps, strict=True)]
        assert float(statistics.entropy[head]) == pytest.approx(sum(nats), rel=1e-6)
        assert float(statistics.normalised[head]) == pytest.approx(sum(shares), rel=1e-6)
        assert float(statistics.peak[head]) == pytest.approx(sum(float(row.max()) for row, _ in maps))
        expected = [0] * BINS
        for share in shares:
            expected[min(BINS - 1, int(share * BINS))] += 1
        assert statistics.histogram[head].tolist() == expected
        total = sum(row for row, _ in maps)
        torch.testing.assert_close(statistics.map[head].flatten(), total)


def test_similarity_is_one_minus_jensen_shannon() -> None:
    given = readings(1)
    statistics = VisualStatistics(HEADS, views=VIEWS, grid=GRID)
    statistics.update(given)
    for first in range(HEADS):
        for second in range(HEADS):
            alike = 0.0
            for row, _ in rows(given):
                p, q = row[first].tolist(), row[second].tolist()
                middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
                to_middle = [
                    sum(a * math.log2(a / m) for a, m in zip(side, middle, strict=True) if a > 0) for side in (p, q)
                ]
                alike += 1 - sum(to_middle) / 2
            assert float(statistics.similarity[first, second]) == pytest.approx(alike, rel=1e-6)


def test_spread_is_the_distance_from_the_centre() -> None:
    maps = readings(2).attention[0, 0, 0].unflatten(-1, (VIEWS, *GRID))
    for head in range(HEADS):
        variance = 0.0
        for view in range(VIEWS):
            cells = [
                (float(maps[head, view, y, x]), (y + 0.5) / GRID[0], (x + 0.5) / GRID[1])
                for y in range(GRID[0])
                for x in range(GRID[1])
            ]
            mass = sum(p for p, _, _ in cells)
            centre_y, centre_x = (sum(cell[0] * cell[axis] for cell in cells) / mass for axis in (1, 2))
            variance += sum(p * ((y - centre_y) ** 2 + (x - centre_x) ** 2) for p, y, x in cells)
        assert float(spatial_spread(maps)[head]) == pytest.approx(math.sqrt(variance), rel=1e-5)
    single = torch.zeros(1, 8, 8)
    single[0, 3, 5] = 1
    assert float(spatial_spread(single)) == 0


def test_batches_add_up_to_one() -> None:
    parts = [readings(seed) for seed in (3, 4)]
    whole = Readings(*(torch.cat([getattr(p, name) for p in parts]) for name in ("attention", "steps", "readable")))
    streamed, once = (VisualStatistics(HEADS, views=VIEWS, grid=GRID) for _ in range(2))
    for part in parts:
        streamed.update(part)
    once.update(whole)
    for ours, theirs in zip(streamed.sums(), once.sums(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_head_that_was_not_computed_does_not_count() -> None:
    given = readings(5)
    given.attention[0, :, :, 1] = 0
    statistics = VisualStatistics(HEADS, views=VIEWS, grid=GRID)
    statistics.update(given)
    left = int(given.steps[1].sum())
    assert statistics.count.tolist() == [int(given.steps.sum()), left, int(given.steps.sum())]
    assert statistics.pairs[0, 1] == statistics.pairs[1, 1] == left
    assert float(statistics.histogram[1].sum()) == left


def test_shares_of_words() -> None:
    kinds = torch.tensor([CONTENT, STOP, SPECIAL, CONTENT])
    statistics = TextStatistics(1, word_kinds=kinds)
    attention = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.25, 0.25]]).view(1, 1, 3, 1, 3)
    readable = torch.tensor([[True, False, False], [True, True, False], [True, True, True]]).view(1, 1, 3, 3)
    entries = torch.tensor([2, 1, 3]).view(1, 1, 3)
    statistics.update_words(Readings(attention, torch.ones(1, 1, 3).bool(), readable), entries, context_size=1)
    shares, even = statistics.shares()
    assert shares[0].tolist() == pytest.approx([0.25 / 3, 1 / 3, 0, 1.75 / 3])
    assert even.tolist() == pytest.approx([1 / 9, (1 / 2 + 1 / 3) / 3, 0, (1 + 1 / 2 + 1 / 3) / 3])
    assert float(statistics.context[0]) == pytest.approx(1.75)
    assert statistics.words[0].tolist() == pytest.approx([0, 1, 1.75, 0.25])
