"""A caption for people, of what a search has found.

Dimension letters: see ``model/latent_attention.py``; N regions, M context positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.search.generation import Hypothesis
from latentcap.search.wording import word_probabilities


@dataclass
class Caption:
    """One caption of one image.

    Attributes:
        text: what a person reads: the words, and the sentences for findings that the model folder adds.
        score: log-probability over length ** length_penalty, what the search ranked by where nothing guided it; 0 is
            best.
        tokens: the words or pieces.
        token_scores: log-probability of each token, with one more entry for the end where the caption ended by itself.
        visual_attention: on request, (len(tokens), visual heads, views, h, w): where each head looked for each token.
        text_attention: on request, for each token (text heads, context positions + words written).
        alternatives: the next best captions, when more than one was asked for.
        words: each word with its probability, given those before it; of pieces (BPE), the product of theirs.
    """

    text: str
    score: float
    tokens: list[str]
    token_scores: list[float]
    visual_attention: Tensor | None = None
    text_attention: list[Tensor] | None = None
    alternatives: list[Caption] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    label_scores: dict[str, float] = field(default_factory=dict)
    words: list[tuple[str, float]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the caption ended by itself; else the longest length cut it off."""
        return len(self.token_scores) > len(self.tokens)

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of all tokens, the end included: 0 to 1."""
        return math.exp(sum(self.token_scores) / max(len(self.token_scores), 1))


def caption_of(hypotheses: Sequence[Hypothesis], tokenizer: CaptionTokenizer, *, grid: tuple[int, int]) -> Caption:
    """The first of an image's hypotheses, the others as its alternatives. ``grid`` is (h, w) of one view's regions."""
    captions = [
        Caption(
            tokenizer.decode(hypothesis.tokens),
            hypothesis.score,
            tokenizer.tokens(hypothesis.tokens),
            hypothesis.token_scores,
            *_attention(hypothesis, grid),
            words=word_probabilities(tokenizer, hypothesis),
        )
        for hypothesis in hypotheses
    ]
    return replace(captions[0], alternatives=captions[1:])


def _attention(hypothesis: Hypothesis, grid: tuple[int, int]) -> tuple[Tensor | None, list[Tensor] | None]:
    """Visual maps of all steps (T, H_v, V, h, w), and each step's text map (H_t, M + W); None where there are none."""
    steps = hypothesis.attention
    visual = [entry[0] for entry in steps if entry[0] is not None]
    text = [entry[1] for entry in steps if entry[1] is not None]
    return torch.stack(visual).unflatten(-1, (-1, *grid)) if visual else None, text or None
