"""Words one by one: batched beam search over any step function; greedy search is a beam of one.

Dimension letters: B examples, G beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from data.errors import UserError


class State(Protocol):
    """What a step function carries: it can be rearranged by beam and narrowed by example."""

    def reorder(self, parents: Tensor) -> Self: ...
    def select(self, rows: Tensor) -> Self: ...


StepFunction = Callable[[Tensor, Any, Tensor], tuple[Tensor, Any, Any]]


@dataclass(frozen=True)
class SearchConfig:
    """How captions are searched for.

    Attributes:
        beam_size: beams per image; 1 is greedy.
        max_length: longest caption in tokens, ``<eos>`` not counted.
        min_length: shortest caption in tokens.
        length_penalty: hypotheses are ranked by log p / length ** length_penalty; above 0 favours longer ones.
        num_captions: how many of the best are returned, at most beam_size.
    """

    beam_size: int = 3
    max_length: int = 40
    min_length: int = 1
    length_penalty: float = 0.7
    num_captions: int = 1

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise UserError(f"beam_size is {self.beam_size}: it must be 1 (greedy) or more.")
        if not 1 <= self.num_captions <= self.beam_size:
            raise UserError(
                f"num_captions is {self.num_captions}: it must be from 1 to beam_size, which is {self.beam_size}."
            )
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise UserError(
                f"min_length is {self.min_length} and max_length {self.max_length}: 0 <= min <= max, 1 <= max."
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Hypothesis:
    """One caption: its tokens without ``<bos>`` and ``<eos>``, ranking score, and log-probability of each token.

    ``token_scores`` has one entry more than ``tokens`` where the caption ended by itself: that of ``<eos>``.
    ``attention`` holds, per entry of ``token_scores``, what the step function gave besides (when asked for).
    """

    tokens: list[int]
    score: float
    token_scores: list[float]
    ended: bool
    attention: list[Any] = field(default_factory=list)


@dataclass
class _Beams:
    """The running search of the examples that are not done yet: rows 0..B-1 are examples ``ids``."""

    ids: Tensor  # (B,)
    tokens: Tensor  # (B, G, length)
    token_scores: Tensor  # (B, G, length)
    parents: list[Tensor]  # per step (B, G): which beam of the step before each beam continues

    def select(self, rows: Tensor) -> _Beams:
        return _Beams(
            self.ids[rows], self.tokens[rows], self.token_scores[rows], [parents[rows] for parents in self.parents]
        )


@torch.inference_mode()
def beam_search(
    step: StepFunction,
    state: State,
    *,
    batch: int,
    config: SearchConfig,
    bos: int,
    eos: int,
    suppress: tuple[int, ...] = (),
    device: torch.device | str = "cpu",
    keep_attention: bool = False,
) -> list[list[Hypothesis]]:
    """The best captions of each example.

    At every step each example keeps the ``beam_size`` best unfinished beams; a beam that takes ``<eos>`` while among
    the best ``beam_size`` candidates is finished. An example is done when it has ``beam_size`` finished hypotheses
    and its best unfinished beam ranks below all of them; it then leaves the batch and costs nothing more. A search
    that reaches ``max_length`` returns its best unfinished beams where it has too few finished ones.

    Args:
        step: (tokens (B, G), state, example ids (B,)) to (logits (B, G, V), state, extra). The first call has G = 1.
        state: for ``batch`` examples with one beam each.
        suppress: tokens that are never generated.
        keep_attention: keep ``extra``, indexed as ``extra[row, beam]``, along every hypothesis.

    Returns:
        For each example, ``num_captions`` hypotheses, best first.
    """
    size, penalty = config.beam_size, config.length_penalty
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    beams = _Beams(
        torch.arange(batch, device=device),
        torch.full((batch, 1, 1), bos, device=device),
        torch.zeros(batch, 1, 0, device=device),
        [],
    )
    extras: list[Any] = []  # per step, with the example ids of that step's rows
    for length in range(config.max_length + 1):  # `length` words are written
        logits, state, extra = step(beams.tokens[:, :, -1], state, beams.ids)
        if keep_attention:
            extras.append((beams.ids, extra))
        log_probs = logits.float().log_softmax(-1)  # (B, G, V)
        last = length == config.max_length
        log_probs[..., list(suppress)] = -torch.inf
        if length < config.min_length:
            log_probs[..., eos] = -torch.inf
        totals = beams.token_scores.sum(-1, keepdim=True) + log_probs
        vocab = totals.shape[-1]
        width = min(2 * size, totals[0].numel())
        scores, flat = totals.flatten(1).topk(width, dim=1)  # (B, 2 * size): enough when every beam ends
        source, token = flat // vocab, flat % vocab
        ends = token == eos
        rows = torch.arange(len(beams.ids), device=device)[:, None]
        _collect(finished, beams, extras, ends, scores, source, rows, log_probs, eos, size, penalty, keep_attention)
        if last:
            break
        # The best `size` candidates that go on, in order of score.
        order = ends.long().argsort(dim=1, stable=True)[:, :size]
        source, token, scores = source.gather(1, order), token.gather(1, order), scores.gather(1, order)
        dead = ends.gather(1, order)
        beams = _Beams(
            beams.ids,
            torch.cat((beams.tokens[rows, source], token.unsqueeze(-1)), -1),
            torch.cat(
                (
                    beams.token_scores[rows, source],
                    log_probs[rows, source, token].masked_fill(dead, -torch.inf).unsqueeze(-1),
                ),
                -1,
            ),
            [parents[rows, source] for parents in beams.parents] + [source],
        )
        state = state.reorder(source)
        best = scores.masked_fill(dead, -torch.inf)[:, 0].tolist()
        going = [
            row
            for row, (example, total) in enumerate(zip(beams.ids.tolist(), best, strict=True))
            if len(finished[example]) < size or finished[example][-1].score < _rank(total, length + 1, penalty)
        ]
        if not going:
            break
        if len(going) < len(beams.ids):
            keep = torch.tensor(going, device=device)
            beams, state = beams.select(keep), state.select(keep)
    _add_partial(finished, beams, extras, config, keep_attention)
    return [sorted(done, key=lambda h: -h.score)[: config.num_captions] for done in finished]


def _rank(total: float, length: int, penalty: float) -> float:
    return total / max(length, 1) ** penalty


def _collect(
    finished: list[list[Hypothesis]],
    beams: _Beams,
    extras: list[Any],
    ends: Tensor,
    scores: Tensor,
    source: Tensor,
    rows: Tensor,
    log_probs: Tensor,
    eos: int,
    size: int,
    penalty: float,
    keep_attention: bool,
) -> None:
    """Move the candidates among the best ``size`` that end to the finished ones, which stay the best ``size``."""
    take = ends[:, :size] & scores[:, :size].isfinite()
    for row, slot in take.nonzero().tolist():
        example, beam = int(beams.ids[row]), int(source[row, slot])
        length = beams.token_scores.shape[-1]
        score = _rank(float(scores[row, slot]), length + 1, penalty)
        done = finished[example]
        if len(done) == size and score <= done[-1].score:
            continue
        done.append(
            Hypothesis(
                beams.tokens[row, beam, 1:].tolist(),
                score,
                beams.token_scores[row, beam].tolist() + [float(log_probs[row, beam, eos])],
                ended=True,
                attention=_trace(beams, extras, row, beam) if keep_attention else [],
            )
        )
        done.sort(key=lambda hypothesis: -hypothesis.score)
        del done[size:]


def _add_partial(
    finished: list[list[Hypothesis]], beams: _Beams, extras: list[Any], config: SearchConfig, keep_attention: bool
) -> None:
    """Give examples with too few finished hypotheses their best unfinished ones, at the full length."""
    length = beams.token_scores.shape[-1]
    totals = beams.token_scores.sum(-1)
    for row, example in enumerate(beams.ids.tolist()):
        missing = config.num_captions - len(finished[example])
        partial = [
            Hypothesis(
                beams.tokens[row, beam, 1:].tolist(),
                _rank(float(totals[row, beam]), length, config.length_penalty),
                beams.token_scores[row, beam].tolist(),
                ended=False,
                attention=_trace(beams, extras, row, beam)[:length] if keep_attention else [],
            )
            for beam in range(totals.shape[1])
            if totals[row, beam].isfinite()
        ]
        finished[example] += partial[: max(missing, 0)]


def _trace(beams: _Beams, extras: list[Any], row: int, beam: int) -> list[Any]:
    """What the step function gave besides, along the path of one beam: one entry per step."""
    example = int(beams.ids[row])
    history = []
    # parents[i] of the current rows is already rearranged to the current beams: parents[i][row, beam] is the beam that
    # step i read on this path.
    path = [int(parents[row, beam]) for parents in beams.parents] + [beam]
    for (ids, extra), slot in zip(extras, path, strict=False):
        position = int((ids == example).nonzero()[0])
        history.append(extra[position, slot])
    return history
