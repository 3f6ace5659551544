"""Measure a model's heads: one forward and one backward pass over each batch, summed up.

Dimension letters: see ``latent_attention.py``; N regions, M context positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.heads.importance import gate_gradients
from latentcap.heads.lexicon import Lexicon
from latentcap.heads.statistics import Readings, TextStatistics, VisualStatistics
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Attention, Memory


class HeadMeter:
    """Statistics of all heads of a model over teacher-forced captions.

    Args:
        model: whose heads; it is put into evaluation mode for each update and back.
        tokenizer: of captions.
        context_tokenizer: of the context where it has one of its own.
    """

    def __init__(self, model: CaptionModel, *, tokenizer: CaptionTokenizer, context_tokenizer: Any = None) -> None:
        self.model = model
        fields = None if model.context is None else model.context.fields
        self.lexicon = Lexicon(tokenizer, context_tokenizer=context_tokenizer, fields=fields)
        device, heads = model.decoder.bias.device, model.config.fusion
        self.visual = VisualStatistics(
            heads.visual_heads, views=model.config.max_views, grid=model.backbone.grid, device=device
        )
        self.text = TextStatistics(heads.text_heads, word_kinds=self.lexicon.kinds, device=device)
        self.gradient = torch.zeros(model.config.num_heads, dtype=self.text.dtype, device=device)
        self.examples = torch.zeros((), dtype=self.text.dtype, device=device)
        self.query_gate = torch.zeros_like(self.gradient)  # of queries' own gates, 1 where there are none
        self.steps = torch.zeros_like(self.examples)

    def update(self, memory: Memory, tokens: Tensor, context: ContextBatch) -> None:
        """Add a batch: its memory, its captions (B, G, T + 1) from ``<bos>`` to ``<eos>``, padded with 0, its context.

        Importance is nothing but the mean magnitude of the examples' gate gradients.
        """
        training = self.model.training
        self.model.eval()
        gradients, attention = gate_gradients(self.model, memory, tokens)
        self.model.train(training)
        self.gradient += gradients.abs().sum(0).to(self.gradient.dtype)
        self.examples += len(tokens)
        self._add(attention, memory, tokens, context)

    def _add(self, attention: Attention, memory: Memory, tokens: Tensor, context: ContextBatch) -> None:
        words, steps = tokens[..., :-1], tokens[..., 1:] != 0
        batch, groups, count = words.shape
        self.steps += steps.sum()
        own = attention.query_gate
        self.query_gate += steps.sum() if own is None else own.detach()[steps].to(self.query_gate.dtype).sum(0)
        if attention.visual is not None:
            size = attention.visual.shape[-1]
            mask = memory.visual_mask if memory.visual_mask is not None else words.new_ones(batch, size).bool()
            self.visual.update(Readings(attention.visual.detach(), steps, mask[:, None, None]))
        if attention.text is not None:
            known = memory.context_mask
            known = words.new_ones(batch, memory.context.shape[1]).bool() if known is None else known
            own = torch.ones(count, count, dtype=torch.bool, device=words.device).tril()
            readable = torch.cat(
                (known[:, None, None].expand(-1, groups, count, -1), own.expand(batch, groups, -1, -1)), -1
            )
            entries = self.lexicon.entries(context, words)
            self.text.update_words(Readings(attention.text.detach(), steps, readable), entries, known.shape[1])

    def all_reduce(self) -> None:
        """Add up over all processes of a distributed run, after which each holds the whole."""
        for value in (
            *self.visual.sums(),
            *self.text.sums(),
            self.gradient,
            self.examples,
            self.query_gate,
            self.steps,
        ):
            torch.distributed.all_reduce(value)
