"""Which beams go on and which end: one function per kind of search, all on log-probabilities alone.

Dimension letters: B examples, G beams, V vocabulary, K candidates. A lane is a search of its own inside an example: a
group of diverse beams, or one sample; plain beam search has one lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.constraints import Required


@dataclass
class Choice:
    """What one step decides.

    ``ends`` (B, G): beams whose caption ends here. The next beams, (B, G'): ``source``, the beam that each continues;
    ``token``, its new word; ``totals``, its log-probability so far, -inf where there is no such beam; ``lane``.
    """

    ends: Tensor
    source: Tensor
    token: Tensor
    totals: Tensor
    lane: Tensor


@dataclass
class Beams:
    """The running search: ``ids`` (B,) of the examples, ``totals`` and ``lane`` (B, G).

    ``prefix`` (B, G, L) holds the words so far from ``<bos>`` on where a constraint reads them; else only the last.
    """

    ids: Tensor
    totals: Tensor
    lane: Tensor
    prefix: Tensor

    def select(self, rows: Tensor) -> Beams:
        return Beams(self.ids[rows], self.totals[rows], self.lane[rows], self.prefix[rows])


class Chooser(Protocol):
    """How beams are chosen. ``log_probs`` (B, G, V) has -inf for every word that may not come next."""

    def __call__(self, beams: Beams, log_probs: Tensor, length: int) -> Choice: ...


class BestBeams:
    """Plain beam search: of all continuations of all beams the best ``size``; greedy with one.

    A beam ends where that is among the best ``ends`` continuations, at most twice ``size``.
    """

    def __init__(self, size: int, eos: int, *, ends: int | None = None) -> None:
        self.size, self.eos, self.ends = size, eos, ends or size

    def __call__(self, beams: Beams, log_probs: Tensor, length: int) -> Choice:
        return self.choose(beams.totals, log_probs)

    def choose(self, totals: Tensor, ranked: Tensor) -> Choice:
        """``ranked`` (B, G, V): what a word is worth to each beam, on top of the beam's own ``totals`` (B, G)."""
        width = min(2 * self.size, ranked.shape[-1])  # of a beam: enough where every beam ends
        best, words = ranked.topk(width, dim=-1)
        scores, flat = (best + totals.unsqueeze(-1)).flatten(1).topk(min(2 * self.size, best[0].numel()), dim=1)
        source, token = flat // width, words.flatten(1).gather(1, flat)
        is_end = token == self.eos
        first = slice(self.ends)
        ends = _mark(totals, source[:, first], is_end[:, first] & scores[:, first].isfinite())
        order = is_end.long().argsort(dim=1, stable=True)[:, : self.size]  # those that go on, in order of score
        scores = scores.masked_fill(is_end, -torch.inf).gather(1, order)
        source, token = source.gather(1, order), token.gather(1, order)
        return Choice(ends, source, token, scores, torch.zeros_like(source))


class DiverseBeams:
    r"""Diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424), with the Hamming diversity of their section 4.

    Groups choose one after the other; group g ranks the candidates of its own beams by

    .. math:: \log p(y_{\le t}) - \lambda \, |\{\text{beams of groups before } g \text{ that take } y_t \text{ now}\}|

    and carries on :math:`\log p` alone.
    """

    def __init__(self, groups: int, size: int, penalty: float, eos: int) -> None:
        self.groups, self.penalty = groups, penalty
        self.best = BestBeams(size, eos)

    def __call__(self, beams: Beams, log_probs: Tensor, length: int) -> Choice:
        batch, count, vocab = log_probs.shape
        rows = torch.arange(batch, device=log_probs.device).unsqueeze(1)
        used = log_probs.new_zeros(batch, vocab)
        choices: list[Choice] = []
        for start in range(0, count, count // self.groups):
            totals = beams.totals[:, start : start + count // self.groups]
            own = totals.unsqueeze(-1) + log_probs[:, start : start + count // self.groups]
            ranked = log_probs[:, start : start + count // self.groups] - self.penalty * used.unsqueeze(1)
            choice = self.best.choose(totals, ranked)
            alive = choice.totals.isfinite()
            choice.totals = own[rows, choice.source, choice.token].masked_fill(~alive, -torch.inf)
            used.scatter_add_(1, choice.token, alive.to(used.dtype))
            choice.source += start
            choice.lane += len(choices)
            choices.append(choice)
        return Choice(**{name: torch.cat([vars(choice)[name] for choice in choices], 1) for name in vars(choices[0])})


class RequiredBeams:
    """Dynamic beam allocation (Post & Vilar 2018, arXiv 1804.06609): beams are shared out by how much is still missing.

    Candidates are the best continuations, each beam's best one, its end, and the next word of every requirement that it
    lacks. They are put into banks by the number of tokens still missing; the best of every bank goes on, then the
    second best, until there are ``size``, banks with little missing first. A candidate that could not meet its
    requirements within ``max_length`` is dropped.
    """

    def __init__(self, size: int, required: Required, max_length: int, eos: int) -> None:
        self.size, self.required, self.max_length, self.eos = size, required, max_length, eos

    def __call__(self, beams: Beams, log_probs: Tensor, length: int) -> Choice:
        scores, source, token = self._candidates(beams, log_probs)
        rows = torch.arange(len(scores), device=scores.device).unsqueeze(1)
        after = torch.cat((beams.prefix[rows, source], token.unsqueeze(-1)), -1)
        is_end = token == self.eos  # allowed only where nothing is missing
        missing = self.required.missing(after).masked_fill(is_end, 0)
        scores = scores.masked_fill(missing > self.max_length - length - 1 + is_end.long(), -torch.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)
        scores, source, token, missing, is_end = (
            value.gather(1, order) for value in (scores, source, token, missing, is_end)
        )
        place = _place(missing)
        ends = _mark(beams.totals, source, is_end & (place < self.size) & scores.isfinite())
        scores = scores.masked_fill(is_end, -torch.inf)
        turn = _place(missing.masked_fill(scores.isinf(), -1)) * (self.required.size + 1) + missing
        order = turn.masked_fill(scores.isinf(), torch.iinfo(turn.dtype).max).argsort(dim=1)[:, : self.size]
        source, token, scores = source.gather(1, order), token.gather(1, order), scores.gather(1, order)
        return Choice(ends, source, token, scores, torch.zeros_like(source))

    def _candidates(self, beams: Beams, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, beams and words (B, K) of the candidates; one that occurs twice counts once."""
        vocab = log_probs.shape[-1]
        totals = (beams.totals.unsqueeze(-1) + log_probs).flatten(1)
        start = torch.arange(log_probs.shape[1], device=totals.device).unsqueeze(1) * vocab
        best = log_probs.argmax(-1, keepdim=True)
        forced = self.required.next_tokens(beams.prefix)
        extra = torch.cat((best, torch.full_like(best, self.eos), forced), -1)
        flat = torch.cat(
            (totals.topk(min(2 * self.size, totals.shape[1]), dim=1).indices, (start + extra).flatten(1)), 1
        )
        flat = flat.sort(dim=1).values
        scores = totals.gather(1, flat)
        scores[:, 1:] = scores[:, 1:].masked_fill(flat[:, 1:] == flat[:, :-1], -torch.inf)
        return scores, flat // vocab, flat % vocab


class Sampler:
    """Ancestral sampling: every beam is a caption of its own, and draws its next word from what ``warp`` leaves.

    ``noise`` (examples, captions, steps) holds the uniform numbers that draws are made with: they belong to an example
    and not to its place in the batch.
    """

    def __init__(self, config: SearchConfig, noise: Tensor, eos: int) -> None:
        self.config, self.noise, self.eos = config, noise, eos

    def __call__(self, beams: Beams, log_probs: Tensor, length: int) -> Choice:
        config = self.config
        reached = warp(log_probs, config.temperature, config.top_k, config.top_p).softmax(-1).cumsum(-1)
        noise = self.noise[beams.ids.unsqueeze(1), beams.lane, length].unsqueeze(-1)
        # The first word whose cumulated probability exceeds the number: `right`, so never one of probability 0.
        level = noise.clamp_max(1 - 1e-6) * reached[..., -1:]
        token = torch.searchsorted(reached, level, right=True).squeeze(-1).clamp_max(log_probs.shape[-1] - 1)
        scores = beams.totals + log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        ends = (token == self.eos) & scores.isfinite()
        dead = ends | ~scores.isfinite()
        order = dead.long().argsort(dim=1, stable=True)  # captions that have ended cost nothing more
        order = order[:, : max(1, int((~dead).sum(1).max()))]
        totals = scores.masked_fill(dead, -torch.inf).gather(1, order)
        return Choice(ends, order, token.gather(1, order), totals, beams.lane.gather(1, order))


def warp(log_probs: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Scores (..., V) divided by the temperature, -inf outside the ``top_k`` best and the nucleus of ``top_p``.

    The nucleus (Holtzman et al. 2020, arXiv 1904.09751) is the smallest set of words that reaches ``top_p``.
    """
    scores = log_probs / temperature
    if 0 < top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(top_k, dim=-1).values[..., -1:], -torch.inf)
    if top_p < 1:
        ordered, index = scores.sort(dim=-1, descending=True)
        chances = ordered.softmax(-1)
        outside = chances.cumsum(-1) - chances >= top_p
        scores = scores.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), -torch.inf)
    return scores


def _mark(totals: Tensor, source: Tensor, flag: Tensor) -> Tensor:
    """(B, G): True for beams that a flagged candidate (B, K) comes from."""
    return torch.zeros_like(totals).scatter_add_(1, source, flag.to(totals.dtype)) > 0


def _place(bank: Tensor) -> Tensor:
    """For candidates (B, K) in order of score: how many before each are in the same bank."""
    same = bank.unsqueeze(1) == bank.unsqueeze(2)
    return same.tril(-1).sum(-1)
