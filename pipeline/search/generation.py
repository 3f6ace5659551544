"""Words one by one: one batched search over any step function; beam search, diverse beams and sampling are choosers.

Dimension letters: see ``selection.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.constraints import NoRepeat, Required, Rule
from latentcap.search.hypotheses import Hypothesis, Record, ranking_score
from latentcap.search.selection import Beams, BestBeams, Choice, Chooser, DiverseBeams, RequiredBeams, Sampler


class State(Protocol):
    """What a step function carries: it can be rearranged by beam and narrowed by example."""

    def reorder(self, parents: Tensor) -> Self: ...
    def select(self, rows: Tensor) -> Self: ...


StepFunction = Callable[[Tensor, Any, Tensor], tuple[Tensor, Any, Any]]
Gain = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probabilities (B, G, V), example ids (B,), words so far (B, G, L)) to what beams are ranked by, (B, G, V)."""


@torch.inference_mode()
def search(
    step: StepFunction,
    state: State,
    *,
    batch: int,
    config: SearchConfig,
    bos: int,
    eos: int,
    suppress: Sequence[int] = (),
    rules: Sequence[Rule] = (),
    required: Required | None = None,
    gain: Gain | None = None,
    seeds: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    keep_attention: bool = False,
) -> list[list[Hypothesis]]:
    """The best captions of each example, or samples.

    Beam search: at every step each example keeps the ``beam_size`` best unfinished beams; a beam that takes ``<eos>``
    while among the best ``beam_size`` candidates, twice as many with ``gain``, is finished. An example is done when it
    has ``beam_size`` finished hypotheses and its best unfinished beam ranks below all of them; it then leaves the batch
    and costs nothing more. A search that reaches ``max_length`` returns its best unfinished beams where it has too few
    finished ones, cut back to where a rule lets them end.

    Args:
        step: (tokens (B, G), state, example ids (B,)) to (logits (B, G, V), state, extra).
        state: for ``batch`` examples with one beam each.
        suppress: tokens that are never generated.
        rules: what may not come next, given the words so far.
        required: what each caption contains.
        gain: what beams are ranked by in place of log-probabilities; those of the words are kept all the same.
        seeds: for sampling, of each example; by default its place in the batch.
        keep_attention: keep ``extra``, indexed as ``extra[row, beam]``, along every hypothesis.

    Returns:
        For each example, ``num_captions`` hypotheses, best first; of diverse beams the best of each group first. With
        ``gain`` all that were found, in the order of what they were ranked by, which their scores are without.
    """
    rules = [*rules, *([NoRepeat(config.no_repeat_ngram)] if config.no_repeat_ngram else []), *filter(None, [required])]
    lanes = config.num_captions if config.sample else config.beam_groups
    lane = torch.arange(lanes, device=device).expand(batch, -1)
    prefix = torch.full((batch, lanes, 1), bos, device=device)
    beams = Beams(torch.arange(batch, device=device), torch.zeros(batch, lanes, device=device), lane, prefix)
    if lanes > 1:
        state = state.reorder(torch.zeros_like(lane))
    seeds = seeds if seeds is not None else range(batch)
    choose = _chooser(config, required, seeds, eos, device, ranked_again=gain is not None)
    record = Record(batch, config)
    never = torch.tensor(list(suppress), dtype=torch.long, device=device)
    for length in range(config.max_length + 1):  # `length` words are written
        logits, state, extra = step(beams.prefix[:, :, -1], state, beams.ids)
        log_probs = logits.float().log_softmax(-1)
        log_probs.index_fill_(-1, never, -torch.inf)
        if length < config.min_length:
            log_probs[..., eos] = -torch.inf
        for rule in rules:
            rule(log_probs, beams.prefix)
        choice = choose(beams, log_probs if gain is None else gain(log_probs, beams.ids, beams.prefix), length)
        if length == config.max_length:
            choice.totals = torch.full_like(choice.totals, -torch.inf)
        record.step(beams, choice, log_probs, eos, extra if keep_attention else None)
        going = record.going()
        if not going:
            break
        beams = _advance(beams, choice, eos, carry=bool(rules) or gain is not None)
        state = state.reorder(choice.source)
        if len(going) < len(beams.ids):
            rows = torch.tensor(going, device=device)
            beams, state = beams.select(rows), state.select(rows)
    if gain is None:
        return [record.results(example, config.num_captions, keep_attention) for example in range(batch)]
    found = [record.results(example, None, keep_attention) for example in range(batch)]
    for hypothesis in chain.from_iterable(found):
        scores = hypothesis.token_scores
        hypothesis.score = ranking_score(sum(scores), len(scores), config.length_penalty)
    return found


def _chooser(
    config: SearchConfig,
    required: Required | None,
    seeds: Sequence[int],
    eos: int,
    device: torch.device | str,
    *,
    ranked_again: bool,
) -> Chooser:
    if config.sample:
        shape = config.num_captions, config.max_length + 1
        noise = np.stack([np.random.default_rng([config.seed, seed]).random(shape, np.float32) for seed in seeds])
        return Sampler(config, torch.from_numpy(noise).to(device), eos)
    if required is not None:
        return RequiredBeams(config.beam_size, required, config.max_length, eos)
    if config.beam_groups > 1:
        groups = config.beam_groups
        return DiverseBeams(groups, config.beam_size // groups, config.diversity_penalty, eos)
    # Captions that are ranked again are worth having more of; a greedy one is what it is.
    several = ranked_again and config.beam_size > 1
    return BestBeams(config.beam_size, eos, ends=2 * config.beam_size if several else None)


def _advance(beams: Beams, choice: Choice, eos: int, *, carry: bool) -> Beams:
    """The beams with their new words. ``carry``: all words so far go along, for rules read them."""
    # Where there are fewer words to choose among than beams, the token of a dead one may be none of the vocabulary.
    prefix = choice.token.masked_fill(choice.totals.isinf(), eos).unsqueeze(-1)
    if carry:
        rows = torch.arange(len(beams.ids), device=prefix.device).unsqueeze(1)
        prefix = torch.cat((beams.prefix[rows, choice.source], prefix), -1)
    return Beams(beams.ids, choice.totals, choice.lane, prefix)
