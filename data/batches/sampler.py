"""Which captions an epoch trains on, in which batches: drawn from (seed, epoch) alone, so any epoch can be resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from latentcap.data.columns import each
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example


class Draw(NamedTuple):
    """One example of a batch: its index, which of its texts are trained on, and which variant of its images.

    Variant 0 is the plain image. Every other number stands for one random change of it, always the same.
    """

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
    shuffles, sorts by length within windows of ``window`` batches, and shuffles the batches.

    No example is left out of an epoch. Its batches are of one size, or differ by one example for each rank: as few as
    hold all examples with at most ``batch_size`` in each. All ranks have equally many batches of equal sizes, for which
    up to ``world - 1`` examples, drawn anew each epoch, are trained on twice.

    Args:
        least_steps: an epoch of fewer batches goes over the examples again, as often as it takes.
        weights: how often each example is drawn, relative to the others: an epoch then draws as many as without, with
            repetition. None: all equally often.
        variants: how many variants of each image there are, the plain one included; one is drawn for each example.
        completed: how many batches of the epoch were trained on before the run was interrupted; they are skipped.
    """

    def __init__(
        self,
        pools: Sequence[TextPool],
        *,
        batch_size: int,
        captions_per_image: int = 1,
        least_steps: int = 0,
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
        self.passes = 1 + max(0, least_steps - 1) * world * batch_size // len(pools)
        self.shares = None if weights is None else np.asarray(weights, dtype=float) / sum(weights)
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self._of_each_rank // self.batch_size)

    @property
    def _of_each_rank(self) -> int:
        """How many examples every rank has in an epoch."""
        return -(-len(self.pools) * self.passes // self.world)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next pass is of."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        done = self.completed()
        return self._batches(self.epoch, done if done < len(self) else 0)

    def plan(self, epoch: int) -> list[list[Draw]]:
        """This rank's batches of an epoch."""
        return list(self._batches(epoch, 0))

    def _batches(self, epoch: int, first: int) -> Iterator[list[Draw]]:
        """Those from ``first`` on. What is drawn is held as numbers, for there may be millions of examples."""
        random = np.random.default_rng((self.seed, epoch))
        once = len(self.pools)
        count = once * self.passes
        if self.shares is None:
            examples = np.concatenate([random.permutation(once) for _ in range(self.passes)])
        else:
            examples = random.choice(once, count, p=self.shares)
        texts = np.empty((count, self.captions_per_image), np.int32)
        variants, lengths = np.empty(count, np.int64), np.empty(count, np.int32)
        for at, index in enumerate(examples):
            pool = self.pools[index]
            texts[at] = chosen = self._texts(pool, random)
            variants[at] = random.integers(self.variants)
            both = pool.captions + pool.paraphrases
            lengths[at] = max(both[text] for text in chosen)
        again = random.integers(count, size=self._of_each_rank * self.world - count)
        places = np.append(np.arange(count), again)
        lengths = lengths[places]
        size, larger = divmod(self._of_each_rank, len(self))
        sizes = [(size + (number < larger)) * self.world for number in range(len(self))]
        groups: list[np.ndarray] = []
        start = 0
        for at in range(0, len(sizes), self.window):
            window = sizes[at : at + self.window]
            order = start + np.argsort(lengths[start : start + sum(window)], kind="stable")
            ends = list(accumulate(window))
            groups += [order[end - size : end] for end, size in zip(ends, window, strict=True)]
            start += ends[-1]
        random.shuffle(groups)
        for group in groups[first:]:
            mine = places[group[self.rank :: self.world]]
            rows = zip(examples[mine].tolist(), texts[mine].tolist(), variants[mine].tolist(), strict=True)
            yield [Draw(example, tuple(chosen), variant) for example, chosen, variant in rows]

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


def label_weights(examples: Sequence[Example], names: Sequence[str]) -> list[float]:
    """:func:`balanced_weights` of the combinations of some labels. Raises UserError for one that no example has."""
    known = sorted({name for labels in each(examples, "labels") for name in labels})
    for name in names:
        if name not in known:
            raise UserError(
                f"data.balance names '{name}', which no training example has.{did_you_mean(name, known)} "
                f"Labels: {', '.join(known) or 'none'}."
            )
    return balanced_weights([tuple(map(labels.get, names)) for labels in each(examples, "labels")])
