"""What a search has found: each caption is a place in the record of all steps, and its words are the path there.

Dimension letters: see ``selection.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.selection import Beams, Choice


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
class _Step:
    """What one step saw and chose, in lists. ``row`` is where each example was; a beam's row is its example's.

    Of the beams that it read: ``end`` (B, G), the log-probability of ``<eos>``. Of those that it made: ``source``,
    ``token``, ``lane``, ``score`` and ``total``, (B, G').
    """

    row: dict[int, int]
    end: list[list[float]]
    source: list[list[int]]
    token: list[list[int]]
    lane: list[list[int]]
    score: list[list[float]]
    total: list[list[float]]
    extra: Any


@dataclass
class _Found:
    """A caption as the place where it ended: its words are the path that leads there."""

    score: float
    length: int
    beam: int
    ended: bool


class Record:
    """All steps of a search and the captions found: paths are only followed for what is returned."""

    def __init__(self, batch: int, config: SearchConfig) -> None:
        self.config = config
        self.lanes = config.num_captions if config.sample else config.beam_groups
        self.size = 1 if config.sample else config.beam_size // config.beam_groups
        self.steps: list[_Step] = []
        self.found: list[list[list[_Found]]] = [[[] for _ in range(self.lanes)] for _ in range(batch)]

    def step(self, beams: Beams, choice: Choice, log_probs: Tensor, eos: int, extra: Any) -> None:
        """Note a step, the captions that end with it, and the unfinished ones of examples where nothing goes on."""
        length, end = len(self.steps), log_probs[..., eos]
        rows = torch.arange(len(end), device=end.device).unsqueeze(1)
        score = log_probs[rows, choice.source, choice.token]
        ids, ends, lanes, source, token, lane = _lists(
            beams.ids.unsqueeze(1), choice.ends.long(), beams.lane, choice.source, choice.token, choice.lane
        )
        end_list, before, ended, score_list, total = _lists(end, beams.totals, beams.totals + end, score, choice.totals)
        row = {example: index for index, (example,) in enumerate(ids)}
        self.steps.append(_Step(row, end_list, source, token, lane, score_list, total, extra))
        for example, index in row.items():
            for beam, ends_here in enumerate(ends[index]):
                if ends_here:
                    rank = self._rank(ended[index][beam], length + 1)
                    self._add(example, lanes[index][beam], _Found(rank, length, beam, True))
        for example, index in row.items():
            if not any(map(math.isfinite, total[index])):
                self._add_unfinished(example, before[index], lanes[index])

    def going(self) -> list[int]:
        """The rows whose search is not over: an unfinished beam could still be among the best of its lane."""
        length, rows, last = len(self.steps), [], self.steps[-1]
        for example, row in last.row.items():
            for total, lane in zip(last.total[row], last.lane[row], strict=True):
                found = self.found[example][lane]
                better = len(found) < self.size or found[-1].score < self._rank(total, length)
                if better and total > -torch.inf:
                    rows.append(row)
                    break
        return rows

    def results(self, example: int, most: int | None, keep_attention: bool) -> list[Hypothesis]:
        """The best first, ``most`` of them; of several lanes the best of each, then the second best. Diverse beams put
        repetitions last."""
        lanes = self.found[example]
        turns = [[lane[turn] for lane in lanes if turn < len(lane)] for turn in range(max(map(len, lanes)))]
        found = [entry for turn in turns for entry in sorted(turn, key=lambda entry: -entry.score)]
        if self.config.beam_groups == 1:
            return [self._follow(example, entry, keep_attention) for entry in found[:most]]
        hypotheses = [self._follow(example, entry, keep_attention) for entry in found]
        first = {tuple(hypothesis.tokens): place for place, hypothesis in reversed(list(enumerate(hypotheses)))}
        order = sorted(range(len(found)), key=lambda place: first[tuple(hypotheses[place].tokens)] != place)
        return [hypotheses[place] for place in order[:most]]

    def _add(self, example: int, lane: int, found: _Found) -> None:
        best = self.found[example][lane]
        if len(best) < self.size or found.score > best[-1].score:
            best.append(found)
            best.sort(key=lambda entry: -entry.score)
            del best[self.size :]

    def _add_unfinished(self, example: int, totals: list[float], lanes: list[int]) -> None:
        """The beams that the last step read, best first, where a lane has too few finished ones."""
        length = len(self.steps) - 1
        wanted = min(self.size, self.config.num_captions)
        for beam in sorted(range(len(totals)), key=lambda beam: -totals[beam]):
            found = self.found[example][lanes[beam]]
            if len(found) < wanted and totals[beam] > -torch.inf:
                entry = self._cut(example, _Found(self._rank(totals[beam], length), length, beam, False))
                self.found[example][lanes[beam]].append(entry)

    def _cut(self, example: int, entry: _Found) -> _Found:
        """The longest beginning of an unfinished caption that may end there; the whole one if there is none."""
        total, beam = None, entry.beam
        for length in range(entry.length, 0, -1):
            step, before = self.steps[length], self.steps[length - 1]
            if step.end[step.row[example]][beam] > -torch.inf:
                if length == entry.length:
                    return entry
                total = sum(self._path(example, length, beam)[1])
                return _Found(self._rank(total, length), length, beam, False)
            beam = before.source[before.row[example]][beam]
        return entry

    def _path(self, example: int, length: int, beam: int) -> tuple[list[int], list[float], list[int]]:
        """Words, their log-probabilities, and the beam that each step read, ``beam`` at ``length`` being the last."""
        tokens, scores, path = [], [], [beam]
        for step in reversed(self.steps[:length]):
            row = step.row[example]
            tokens.append(step.token[row][beam])
            scores.append(step.score[row][beam])
            beam = step.source[row][beam]
            path.append(beam)
        return tokens[::-1], scores[::-1], path[::-1]

    def _follow(self, example: int, entry: _Found, keep_attention: bool) -> Hypothesis:
        tokens, scores, path = self._path(example, entry.length, entry.beam)
        if entry.ended:
            last = self.steps[entry.length]
            scores.append(last.end[last.row[example]][entry.beam])
        attention = []
        if keep_attention:
            attention = [step.extra[step.row[example], beam] for step, beam in zip(self.steps, path, strict=False)]
        return Hypothesis(tokens, entry.score, scores, entry.ended, attention[: len(scores)])

    def _rank(self, total: float, length: int) -> float:
        return ranking_score(total, length, self.config.length_penalty)


def ranking_score(total: float, length: int, length_penalty: float) -> float:
    """What captions are ranked by: their log-probability, of ``length`` tokens with the end."""
    return total / max(length, 1) ** length_penalty


def _lists(*values: Tensor) -> list[list[Any]]:
    """Tensors (B, ...) of one type as lists, for all of which a GPU is waited for once."""
    rows = torch.cat(values, 1).tolist()
    sizes = [value.shape[1] for value in values]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [[row[start : start + size] for row in rows] for start, size in zip(starts, sizes, strict=True)]
