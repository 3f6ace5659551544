"""The sums of a :class:`HeadMeter` as figures for people: one summary for each head, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentcap.heads.measure import HeadMeter
from latentcap.heads.statistics import PUNCTUATION, SPECIAL, STOP, KindStatistics, entropy

TOP_WORDS = 8


@dataclass
class Share:
    """How much of a head's attention falls on something, and how much would if it read all positions alike."""

    value: float
    even: float


@dataclass
class HeadSummary:
    """One head, averaged over queries (word steps).

    Attributes:
        kind, number: ``visual`` or ``text``, counted from 1.
        entropy: in nats. ``normalised_entropy``: over log(positions), 1 for even attention.
        peak: the greatest probability.
        spread: (visual) root mean squared distance from its own centre, the image's side being 1.
        variation: (visual) how much maps depend on image and word: entropy of the mean map minus mean entropy, over
            log(positions); 0 for a head that never moves.
        stop, punctuation, special, context: (text) shares of attention.
        top_words: (text) what it reads most, with shares.
        importance: mean over examples of |dL/dgate|. ``relative_importance``: the mean of all heads being 1.
        gate: what its output is multiplied by, but for a router's weight. ``use``: share of queries for which it is
            computed and on.
        twin, twin_similarity: the most similar head of its kind, 1 - Jensen-Shannon divergence in bits.
    """

    kind: str
    number: int
    entropy: float
    normalised_entropy: float
    peak: float
    importance: float
    relative_importance: float
    gate: float
    use: float
    twin: int | None = None
    twin_similarity: float = 0.0
    spread: float | None = None
    variation: float | None = None
    stop: Share | None = None
    punctuation: Share | None = None
    special: Share | None = None
    context: Share | None = None
    top_words: list[tuple[str, float]] = field(default_factory=list)
    histogram: list[float] = field(default_factory=list)
    map: list[list[list[float]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.kind} head {self.number}"


@dataclass
class HeadReport:
    """All heads, visual ones first, and how alike those of one kind are (H, H)."""

    heads: list[HeadSummary]
    visual_similarity: list[list[float]]
    text_similarity: list[list[float]]
    examples: int
    queries: int

    def of(self, kind: str) -> list[HeadSummary]:
        return [head for head in self.heads if head.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(meter: HeadMeter) -> HeadReport:
    """The report of what a meter has seen."""
    examples = int(meter.examples)
    importance = (meter.gradient / max(examples, 1)).cpu()
    relative = importance / importance.mean().clamp_min(1e-12)
    gates = meter.model.decoder.fusion.head_gate.detach().float().cpu()
    gates = gates * (meter.query_gate / meter.steps.clamp_min(1)).float().cpu()
    heads: list[HeadSummary] = []
    for kind, statistics in (("visual", meter.visual), ("text", meter.text)):
        for index in range(statistics.heads):
            place = len(heads)
            head = _summary(kind, index, statistics, float(gates[place]))
            head.importance, head.relative_importance = float(importance[place]), float(relative[place])
            (_add_visual if kind == "visual" else _add_text)(head, index, meter)
            heads.append(head)
    return HeadReport(
        heads,
        _similarity(meter.visual).tolist(),
        _similarity(meter.text).tolist(),
        examples,
        int(max(meter.visual.queries, meter.text.queries)),
    )


def _summary(kind: str, index: int, statistics: KindStatistics, gate: float) -> HeadSummary:
    count, spaced = statistics.count.clamp_min(1)[index], statistics.spaced.clamp_min(1)[index]
    similarity = _similarity(statistics)[index].clone()
    similarity[index] = -1
    alone = statistics.heads < 2
    return HeadSummary(
        kind,
        index + 1,
        entropy=float(statistics.entropy[index] / count),
        normalised_entropy=float(statistics.normalised[index] / spaced),
        peak=float(statistics.peak[index] / count),
        importance=0.0,
        relative_importance=0.0,
        gate=gate,
        use=float(statistics.count[index] / statistics.queries.clamp_min(1)) if gate else 0.0,
        twin=None if alone else int(similarity.argmax()) + 1,
        twin_similarity=0.0 if alone else float(similarity.max()),
        histogram=(statistics.histogram[index] / spaced).tolist(),
    )


def _add_visual(head: HeadSummary, index: int, meter: HeadMeter) -> None:
    count = meter.visual.count.clamp_min(1)[index]
    mean = meter.visual.map[index] / count
    head.spread = float(meter.visual.spread[index] / count)
    head.variation = (float(entropy(mean.flatten())) - head.entropy) / math.log(max(mean.numel(), 2))
    head.map = mean.tolist()


def _add_text(head: HeadSummary, index: int, meter: HeadMeter) -> None:
    text = meter.text
    shares, even = text.shares()
    head.stop, head.punctuation, head.special = (
        Share(float(shares[index, kind]), float(even[kind])) for kind in (STOP, PUNCTUATION, SPECIAL)
    )
    count = text.count.clamp_min(1)[index]
    head.context = Share(float(text.context[index] / count), float(text.even_context / text.queries.clamp_min(1)))
    top = (text.words[index] / count).topk(min(TOP_WORDS, len(meter.lexicon)))
    head.top_words = [
        (meter.lexicon.names[entry], value)
        for value, entry in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if value > 0
    ]


def _similarity(statistics: KindStatistics) -> Tensor:
    return torch.where(
        statistics.pairs > 0, statistics.similarity / statistics.pairs.clamp_min(1), torch.zeros_like(statistics.pairs)
    ).cpu()
