"""Next-word scores that tests can search by hand, and the exhaustive search of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.generation import Hypothesis, search

BOS, EOS, VOCAB = 0, 1, 5


@dataclass
class Prefixes:
    """A state that is just the words so far, (B, G, length): scores can then depend on all of them."""

    words: Tensor

    def reorder(self, parents: Tensor) -> Prefixes:
        return Prefixes(self.words.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.words.shape[-1])))

    def select(self, rows: Tensor) -> Prefixes:
        return Prefixes(self.words[rows])


class Scores:
    """Random but fixed next-word scores for every prefix of every example."""

    def __init__(self, batch: int, *, seed: int = 0, sharpness: float = 2.0) -> None:
        self.batch, self.seed, self.sharpness = batch, seed, sharpness
        self.calls: list[int] = []
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
        number = hash((self.seed, example, prefix)) % 2**31
        return torch.randn(VOCAB, generator=torch.Generator().manual_seed(number)) * self.sharpness

    def __call__(self, tokens: Tensor, state: Prefixes, ids: Tensor) -> tuple[Tensor, Prefixes, Any]:
        state = Prefixes(torch.cat((state.words, tokens.unsqueeze(-1)), -1))
        self.calls.append(len(ids))
        self.shapes.append(tuple(tokens.shape))
        rows = [
            [self.logits(example, tuple(beam)) for beam in beams]
            for example, beams in zip(ids.tolist(), state.words.tolist(), strict=True)
        ]
        return torch.stack([torch.stack(row) for row in rows]), state, state.words.clone()

    def start(self) -> Prefixes:
        return Prefixes(torch.zeros(self.batch, 1, 0, dtype=torch.long))

    def total(self, example: int, tokens: tuple[int, ...]) -> float:
        prefix, total = (BOS,), 0.0
        for token in tokens:
            log_probs = self.logits(example, prefix)
            log_probs = log_probs.log_softmax(-1)
            total += float(log_probs[token])
            prefix += (token,)
        return total


def run(scores: Scores, config: SearchConfig, **settings: Any) -> list[list[Hypothesis]]:
    return search(
        scores, scores.start(), batch=scores.batch, config=config, bos=BOS, eos=EOS, suppress=(BOS,), **settings
    )


def exhaustive(
    scores: Scores, example: int, config: SearchConfig, allowed: Callable[[tuple[int, ...]], bool] = lambda words: True
) -> list[tuple[float, tuple[int, ...]]]:
    """Every allowed caption that ends by itself, ranked."""
    found = []
    for length in range(config.min_length, config.max_length + 1):
        for words in itertools.product(range(2, VOCAB), repeat=length):
            if not allowed(words):
                continue
            total = scores.total(example, (*words, EOS))
            found.append((total / (length + 1) ** config.length_penalty, words))
    return sorted(found, reverse=True)
