"""What captions may and must contain, in token ids: functions of the words so far, so beams carry nothing for them.

Dimension letters: B examples, G beams, V vocabulary, L words so far, ``<bos>`` first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor], None]
"""(log-probabilities (B, G, V), words so far (B, G, L)): sets those of words that may not come next to -inf."""


class NoRepeat:
    """No run of ``size`` tokens occurs twice."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        if prefix.shape[-1] < self.size:
            return
        runs = prefix.unfold(-1, self.size, 1)  # (B, G, L - size + 1, size)
        last = prefix[..., prefix.shape[-1] - self.size + 1 :]
        repeats = (runs[..., :-1] == last.unsqueeze(2)).all(-1)
        limit = torch.zeros_like(repeats, dtype=log_probs.dtype).masked_fill(repeats, -torch.inf)
        log_probs.scatter_add_(-1, runs[..., -1], limit)  # of any number of runs, without waiting for which they are


class NoPhrase:
    """A phrase of token ids does not occur."""

    def __init__(self, phrase: Sequence[int]) -> None:
        self.phrase = tuple(phrase)

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        *start, last = self.phrase
        log_probs[..., last].masked_fill_(_ends_with(prefix, start), -torch.inf)


class NoEnding:
    """None of these tokens comes right before one of ``ends``: ``<eos>``, and a full stop where there is one."""

    def __init__(self, tokens: Sequence[int], ends: Sequence[int]) -> None:
        self.tokens, self.ends = torch.tensor(tokens), ends

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        self.tokens = self.tokens.to(prefix.device)
        bad = torch.isin(prefix[..., -1], self.tokens)
        for end in self.ends:
            log_probs[..., end].masked_fill_(bad, -torch.inf)


@dataclass(frozen=True)
class Spelling:
    """One way to write a requirement. ``at_start``: only as the first words of the caption."""

    tokens: tuple[int, ...]
    at_start: bool = False


class Required:
    """Phrases that each caption contains, each with one spelling or more.

    Args:
        phrases: for each its spellings.
        eos: forbidden while a phrase is missing.
        joins: tokens that, right after a phrase, would make another word of it (BPE: "tree" + "s").
    """

    def __init__(self, phrases: Sequence[Sequence[Spelling]], eos: int, joins: Sequence[int] = ()) -> None:
        self.phrases, self.eos = phrases, eos
        self.joins = torch.tensor(joins, dtype=torch.long)
        self.size = sum(max(len(spelling.tokens) for spelling in spellings) for spellings in phrases)

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        log_probs[..., self.eos].masked_fill_(self.missing(prefix) > 0, -torch.inf)

    def missing(self, prefix: Tensor) -> Tensor:
        """How many tokens of all phrases are still to be written, (B, G): 0 where all are met."""
        return sum(
            (self._phrase_missing(spellings, prefix) for spellings in self.phrases),
            torch.zeros(prefix.shape[:-1], dtype=torch.long, device=prefix.device),
        )

    def next_tokens(self, prefix: Tensor) -> Tensor:
        """The next token of each spelling, given how far each beam is in it: (B, G, spellings)."""
        tokens = []
        for spelling in (spelling for spellings in self.phrases for spelling in spellings):
            written = _written(spelling, prefix)
            ids = torch.tensor(spelling.tokens, device=prefix.device)
            tokens.append(ids[written.clamp(0, len(ids) - 1)])
        return torch.stack(tokens, -1)

    def _phrase_missing(self, spellings: Sequence[Spelling], prefix: Tensor) -> Tensor:
        left = torch.stack([self._spelling_missing(spelling, prefix) for spelling in spellings])
        return left.amin(0)

    def _spelling_missing(self, spelling: Spelling, prefix: Tensor) -> Tensor:
        size = len(spelling.tokens)
        left = size - _written(spelling, prefix)
        if prefix.shape[-1] <= size:
            return left
        runs = prefix[..., 1:].unfold(-1, size, 1)  # (B, G, L - size, size)
        found = (runs == torch.tensor(spelling.tokens, device=prefix.device)).all(-1)
        found[..., :-1] &= ~torch.isin(prefix[..., size + 1 :], self.joins.to(prefix.device))
        if spelling.at_start:
            found = found[..., :1]
        return left.masked_fill(found.any(-1), 0)


def _ends_with(prefix: Tensor, tokens: Sequence[int]) -> Tensor:
    """(B, G): whether the words so far end with ``tokens``."""
    if len(tokens) >= prefix.shape[-1]:  # <bos> is no word
        return torch.zeros(prefix.shape[:-1], dtype=torch.bool, device=prefix.device)
    tail = prefix[..., prefix.shape[-1] - len(tokens) :]
    return (tail == torch.tensor(tokens, dtype=prefix.dtype, device=prefix.device)).all(-1)


def _written(spelling: Spelling, prefix: Tensor) -> Tensor:
    """(B, G): how many tokens of the spelling, short of all, the words so far end with.

    Far below 0 where it can no longer be written, for it must stand at the start.
    """
    size, length = len(spelling.tokens), prefix.shape[-1] - 1
    if spelling.at_start:
        if length >= size:
            return torch.full(prefix.shape[:-1], -(10**6), device=prefix.device)
        match = _ends_with(prefix, spelling.tokens[:length])
        return torch.where(match, length, -(10**6))
    written = torch.zeros(prefix.shape[:-1], dtype=torch.long, device=prefix.device)
    for count in range(1, size):
        written = written.masked_fill(_ends_with(prefix, spelling.tokens[:count]), count)
    return written
