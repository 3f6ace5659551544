"""Captions of examples as one tensor of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.example import Example


def caption_tokens(tokenizer: CaptionTokenizer, examples: Sequence[Example], max_length: int) -> Tensor:
    """All captions of B examples, (B, G, T) from ``<bos>`` to ``<eos>``, see :func:`padded`.

    ``max_length`` is of a caption without the two.
    """
    return padded([[tokenizer.encode_caption(text, max_length + 2) for text in item.captions] for item in examples])


def padded(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Ids by example and caption as (B, G, T), padded with 0: G is the most captions that an example has, at least 1,
    and T the length of the longest, at least 2."""
    groups = max(map(len, rows), default=1)
    longest = max((len(ids) for row in rows for ids in row), default=2)
    tokens = torch.zeros(len(rows), max(groups, 1), max(longest, 2), dtype=torch.long)
    for b, row in enumerate(rows):
        for g, ids in enumerate(row):
            tokens[b, g, : len(ids)] = torch.tensor(ids)
    return tokens
