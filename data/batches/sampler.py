"""Which captions an epoch trains on, in which batches: drawn from (seed, epoch) alone, so any epoch can be resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """One example of a batch: its index, which of its texts are trained on, and which cached variant of its image."""

    example: int
    texts: tuple[int, ...]
    variant: int


@dataclass(frozen=True)
class TextPool:
    """Token lengths of one example's captions, in order, then of its paraphrases."""

    captions: tuple[int, ...]
    paraphrases: tuple[int, ...] = ()


class CaptionBatchSampler:
    """Batches of examples whose drawn captions are of like length, so that little is spent on padding.

    Every epoch draws ``captions_per_image`` texts of each example (a paraphrase with probability ``paraphrases``),
    shuffles, sorts by length within windows of ``window`` batches, and shuffles the batches. Every rank takes its share
    of each batch sequence: all ranks have equally many.

    Args:
        weights: how often each example is drawn, relative to the others: an epoch then draws as many examples as there
            are, with repetition. None: each once.
        variants: how many variants of each image there are; one is drawn for each example.
        completed: how many batches of the epoch were trained on before the run was interrupted; they are skipped.
    """

    def __init__(
        self,
        pools: Sequence[TextPool],
        *,
        batch_size: int,
        captions_per_image: int = 1,
        paraphrases: float = 0.0,
        weights: Sequence[float] | None = None,
        variants: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        window: int = 32,
        completed: Callable[[], int] = lambda: 0,
    ) -> None:
        self.pools, self.batch_size, self.captions_per_image = pools, batch_size, captions_per_image
        self.paraphrases, self.variants, self.seed = paraphrases, variants, seed
        self.rank, self.world, self.window = rank, world, window
        self.completed = completed
        self.shares = None if weights is None else np.asarray(weights, dtype=float) / sum(weights)
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, len(self.pools) // (self.batch_size * self.world))

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next pass is of."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.plan(self.epoch)
        done = self.completed()
        yield from batches[done if done < len(batches) else 0 :]

    def plan(self, epoch: int) -> list[list[Draw]]:
        """This rank's batches of an epoch."""
        random = np.random.default_rng((self.seed, epoch))
        draws, lengths = [], []
        count = len(self.pools)
        chosen = random.permutation(count) if self.shares is None else random.choice(count, count, p=self.shares)
        for index in chosen:
            pool = self.pools[index]
            texts = self._texts(pool, random)
            both = pool.captions + pool.paraphrases
            draws.append(Draw(int(index), texts, int(random.integers(self.variants))))
            lengths.append(max(both[text] for text in texts))
        if len(draws) < self.batch_size * self.world:  # a small set: repeat it to fill one batch for each rank
            copies = -(-self.batch_size * self.world // len(draws)) if self.world > 1 else 1
            draws, lengths = draws * copies, lengths * copies
        step = self.batch_size * self.world
        batches = max(1, len(draws) // step)
        span = step * self.window
        order: list[int] = []
        for start in range(0, len(draws), span):
            chunk = list(range(start, min(start + span, len(draws))))
            order += sorted(chunk, key=lambda at: lengths[at])
        groups = [order[at * step : (at + 1) * step] for at in range(batches)]
        random.shuffle(groups)
        return [[draws[at] for at in group[self.rank :: self.world]] for group in groups]

    def _texts(self, pool: TextPool, random: np.random.Generator) -> tuple[int, ...]:
        count, own = self.captions_per_image, len(pool.captions)
        chosen: list[int] = []
        from_paraphrases = sum(random.random() < self.paraphrases for _ in range(count)) if pool.paraphrases else 0
        for size, offset, wanted in (
            (own, 0, count - from_paraphrases),
            (len(pool.paraphrases), own, from_paraphrases),
        ):
            while wanted > 0:  # without repetition as long as there are enough
                take = random.permutation(size)[:wanted]
                chosen += [offset + int(at) for at in take]
                wanted -= len(take)
        return tuple(chosen)


def balanced_weights(classes: Sequence[Hashable]) -> list[float]:
    """Weights of examples by how rare their class is: one over the square root of its count.

    Between leaving the data as it is and making all classes equal, which would repeat the few examples of a rare one
    until they are known by heart (Mahajan et al., ECCV 2018).
    """
    counts = Counter(classes)
    return [counts[entry] ** -0.5 for entry in classes]
