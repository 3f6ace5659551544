"""What each head does, summed up over any number of batches in bounded memory.

Dimension letters: see ``latent_attention.py``; P positions that a head may read, L entries of the lexicon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 20
CONTENT, STOP, PUNCTUATION, SPECIAL = range(4)
WORD_KINDS = ("content", "stop", "punctuation", "special")


@dataclass
class Readings:
    """Attention of one batch to add: ``attention`` (B, G, T, H, P), ``steps`` (B, G, T) True on queries that count,
    ``readable`` (B, G, T, P) True where a query may read. All broadcast; probabilities elsewhere are 0."""

    attention: Tensor
    steps: Tensor
    readable: Tensor


class KindStatistics:
    """Sums over queries for the heads of one kind. A head that a query did not compute (its attention is 0) counts not.

    Args:
        heads: number of heads H; may be 0.
        device: where sums are kept, as float64 wherever the device has it.
    """

    def __init__(self, heads: int, device: torch.device | str = "cpu") -> None:
        self.heads = heads
        self.device = torch.device(device)
        self.dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.queries = self._zeros(())
        self.count = self._zeros((heads,))  # queries that computed the head
        self.spaced = self._zeros((heads,))  # of these, those with more than one position to choose from
        self.entropy, self.normalised, self.peak = self._zeros((heads,)), self._zeros((heads,)), self._zeros((heads,))
        self.histogram = self._zeros((heads, BINS))
        self.pairs, self.similarity = self._zeros((heads, heads)), self._zeros((heads, heads))

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def update(self, readings: Readings) -> None:
        """Add the queries of one batch."""
        attention = self._chosen(readings)  # (Q, H, P)
        steps = readings.steps.expand(readings.attention.shape[:3])
        sizes = readings.readable.expand(*steps.shape, -1)[steps].sum(-1)  # (Q,)
        used = attention.sum(-1) > 0  # (Q, H)
        nats = entropy(attention)
        spaced = used & (sizes > 1).unsqueeze(1)
        share = nats / sizes.clamp_min(2).to(self.dtype).log().unsqueeze(1)
        self.queries += len(attention)
        self.count += used.sum(0)
        self.spaced += spaced.sum(0)
        self.entropy += nats.sum(0)
        self.normalised += (share * spaced).sum(0)
        self.peak += attention.amax(-1).sum(0)
        bins = (share.clamp(0, 1) * BINS).long().clamp_max(BINS - 1)
        self.histogram += (torch.nn.functional.one_hot(bins, BINS) * spaced.unsqueeze(-1)).sum(0)
        self._compare(attention, nats, used)

    def _compare(self, attention: Tensor, nats: Tensor, used: Tensor) -> None:
        """Add 1 - the Jensen-Shannon divergence, in bits, of every pair of heads."""
        for first in range(self.heads):
            middle = entropy((attention[:, first, None] + attention[:, first:]) / 2)  # (Q, H - first)
            divergence = middle - (nats[:, first, None] + nats[:, first:]) / 2
            both = used[:, first, None] & used[:, first:]
            alike = ((1 - divergence / math.log(2)) * both).sum(0)
            for sums, added in ((self.similarity, alike), (self.pairs, both.sum(0))):
                sums[first, first:] += added
                sums[first + 1 :, first] += added[1:]

    def _chosen(self, readings: Readings) -> Tensor:
        """Attention of the queries that count, (Q, H, P)."""
        steps = readings.steps.expand(readings.attention.shape[:3])
        return readings.attention[steps].to(self.dtype)

    def sums(self) -> list[Tensor]:
        """Every sum, for adding up over processes."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]


class VisualStatistics(KindStatistics):
    """Besides: the mean map and the spatial spread of heads that read ``views`` grids of h x w cells."""

    def __init__(self, heads: int, *, views: int, grid: tuple[int, int], device: torch.device | str = "cpu") -> None:
        super().__init__(heads, device)
        self.views, self.grid = views, grid
        self.map = self._zeros((heads, views, *grid))
        self.spread = self._zeros((heads,))

    def update(self, readings: Readings) -> None:
        super().update(readings)
        maps = self._chosen(readings).unflatten(-1, (-1, *self.grid))  # (Q, H, V, h, w)
        self.map[:, : maps.shape[2]] += maps.sum(0)
        self.spread += spatial_spread(maps).sum(0)


class TextStatistics(KindStatistics):
    """Besides: attention by what is read. Each position holds an entry of a lexicon of L strings, each of one kind.

    Args:
        word_kinds: CONTENT, STOP, PUNCTUATION or SPECIAL for each entry of the lexicon, (L,).
    """

    def __init__(self, heads: int, *, word_kinds: Tensor, device: torch.device | str = "cpu") -> None:
        super().__init__(heads, device)
        self.word_kinds = word_kinds.to(self.device)
        self.words = self._zeros((heads, len(word_kinds)))
        self.even = self._zeros((len(word_kinds),))  # what a head that reads all positions alike would give
        self.context = self._zeros((heads,))
        self.even_context = self._zeros(())

    def sums(self) -> list[Tensor]:
        return [value for value in super().sums() if value is not self.word_kinds]

    def update_words(self, readings: Readings, entries: Tensor, context_size: int) -> None:
        """Add a batch whose positions hold lexicon ``entries`` (B, G, P); the first ``context_size`` are context."""
        self.update(readings)
        steps = readings.steps.unsqueeze(-1)
        attention = readings.attention.to(self.dtype) * steps.unsqueeze(-1)
        readable = (readings.readable & steps).to(self.dtype)
        even = readable / readable.sum(-1, keepdim=True).clamp_min(1)
        by_position, even = attention.sum(2), even.sum(2)  # (B, G, H, P), (B, G, P)
        entries = entries.expand(even.shape)
        self.words.index_add_(1, entries.flatten(), by_position.movedim(2, 0).flatten(1))
        self.even.index_add_(0, entries.flatten(), even.flatten())
        self.context += by_position[..., :context_size].sum((0, 1, 3))
        self.even_context += even[..., :context_size].sum()

    def shares(self) -> tuple[Tensor, Tensor]:
        """How much of the attention falls on each kind of word, (H, 4), and how much would if it were even, (4,)."""
        one_hot = torch.nn.functional.one_hot(self.word_kinds, len(WORD_KINDS)).to(self.dtype)
        count = self.count.clamp_min(1).unsqueeze(1)
        return self.words @ one_hot / count, self.even @ one_hot / self.queries.clamp_min(1)


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy over the last dimension, in nats; 0 log 0 is 0."""
    return torch.special.entr(probabilities).sum(-1)


def spatial_spread(maps: Tensor) -> Tensor:
    """How far attention is from its own centre: maps (..., V, h, w) to (...).

    The root of the mean squared distance, with the image's side as 1; centres are taken within each view, and views
    weigh what they are given. 0 is a single cell, 0.41 an even map of many cells.
    """
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device, dtype=maps.dtype) + 0.5) / height
    columns = (torch.arange(width, device=maps.device, dtype=maps.dtype) + 0.5) / width
    mass = maps.sum((-1, -2))  # (..., V)
    variance = torch.zeros_like(mass)
    for marginal, place in ((maps.sum(-1), rows), (maps.sum(-2), columns)):
        given = marginal / mass.unsqueeze(-1).clamp_min(1e-12)
        centre = (given * place).sum(-1, keepdim=True)
        variance += (given * (place - centre).square()).sum(-1)
    return (variance * mass).sum(-1).sqrt()
