"""Our beam search against an exhaustive one, a plain one, and its promises."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from data.errors import UserError
from pipeline.generation import SearchConfig, beam_search

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

    def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
        number = hash((self.seed, example, prefix)) % 2**31
        return torch.randn(VOCAB, generator=torch.Generator().manual_seed(number)) * self.sharpness

    def __call__(self, tokens: Tensor, state: Prefixes, ids: Tensor) -> tuple[Tensor, Prefixes, Any]:
        state = Prefixes(torch.cat((state.words, tokens.unsqueeze(-1)), -1))
        self.calls.append(len(ids))
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


def search(scores: Scores, config: SearchConfig, **settings: Any) -> Any:
    return beam_search(
        scores, scores.start(), batch=scores.batch, config=config, bos=BOS, eos=EOS, suppress=(BOS,), **settings
    )


def exhaustive(scores: Scores, example: int, config: SearchConfig) -> list[tuple[float, tuple[int, ...]]]:
    """Every caption that ends by itself, ranked."""
    found = []
    for length in range(config.min_length, config.max_length + 1):
        for words in itertools.product(range(2, VOCAB), repeat=length):
            total = scores.total(example, (*words, EOS))
            found.append((total / (length + 1) ** config.length_penalty, words))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("min_length", [0, 2])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(length_penalty: float, min_length: int) -> None:
    scores = Scores(3)
    config = SearchConfig(
        beam_size=200, max_length=4, min_length=min_length, length_penalty=length_penalty, num_captions=5
    )
    for example, found in enumerate(search(scores, config)):
        expected = exhaustive(scores, example, config)[:5]
        assert [tuple(hypothesis.tokens) for hypothesis in found] == [words for _, words in expected]
        for hypothesis, (score, _) in zip(found, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            assert sum(hypothesis.token_scores) == pytest.approx(
                scores.total(example, (*hypothesis.tokens, EOS)), abs=1e-4
            )


def test_greedy_takes_the_best_word_each_time() -> None:
    scores = Scores(4, seed=1)
    found = search(scores, SearchConfig(beam_size=1, max_length=6, min_length=0))
    for example, (hypothesis,) in enumerate(found):
        prefix: tuple[int, ...] = (BOS,)
        while len(prefix) <= 6:
            logits = scores.logits(example, prefix)
            logits[BOS] = -torch.inf
            token = int(logits.argmax())
            if token == EOS:
                break
            prefix += (token,)
        assert tuple(hypothesis.tokens) == prefix[1:]


@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_batched_equals_one_by_one(beam_size: int) -> None:
    """Examples that finish early leave the batch and change nothing for the others."""
    scores = Scores(6, seed=2, sharpness=3.0)
    config = SearchConfig(beam_size=beam_size, max_length=12, num_captions=beam_size)
    together = search(scores, config)
    assert min(scores.calls) < 6  # finished examples left the batch
    for example in range(6):

        class One(Scores):
            def logits(self, _: int, prefix: tuple[int, ...], example: int = example) -> Tensor:
                return scores.logits(example, prefix)

        alone = search(One(1), config)[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[example]]


def test_a_search_that_never_ends_yields_its_best_partial() -> None:
    class Endless(Scores):
        def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
            logits = super().logits(example, prefix)
            logits[EOS] = -torch.inf
            return logits

    found = search(Endless(2), SearchConfig(beam_size=3, max_length=5, num_captions=2))
    for hypotheses in found:
        assert [len(hypothesis.tokens) for hypothesis in hypotheses] == [5, 5]
        assert not hypotheses[0].ended
        assert hypotheses[0].score >= hypotheses[1].score


def test_extras_follow_the_path_of_each_caption() -> None:
    scores = Scores(4, seed=5)
    config = SearchConfig(beam_size=3, max_length=6, num_captions=3)
    for hypotheses in search(scores, config, keep_attention=True):
        for hypothesis in hypotheses:
            assert len(hypothesis.attention) == len(hypothesis.token_scores)
            for step, prefix in enumerate(hypothesis.attention):
                assert prefix.tolist() == [BOS, *hypothesis.tokens[:step]]


@pytest.mark.parametrize(
    "changes", [{"beam_size": 0}, {"num_captions": 4}, {"num_captions": 0}, {"min_length": 50}, {"max_length": 0}]
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError):
        replace(SearchConfig(), **changes)
