"""The search over a captioning model: memory in, hypotheses out; settings in words become rules in token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.inference.folded_decoder import FoldedDecoder
from latentcap.model.caption_model import CaptionModel
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Attention, Memory
from latentcap.search.config import SearchConfig
from latentcap.search.generation import Hypothesis, search
from latentcap.search.guidance import Guidance
from latentcap.search.wording import resolve


def search_captions(
    model: CaptionModel,
    memory: Memory,
    tokenizer: CaptionTokenizer,
    config: SearchConfig,
    *,
    decoder: Decoder | FoldedDecoder | None = None,
    seeds: Sequence[int] | None = None,
    keep_attention: bool = False,
) -> list[list[Hypothesis]]:
    """Search a memory: beams are extra queries, and the memory is narrowed only when examples are done.

    Args:
        decoder: the model's own, folded for speed; by default as it is trained.
        seeds: of each example, for sampling; by default its place in the batch.
        keep_attention: each hypothesis says where the heads looked.

    Raises:
        UserError: for required words that the vocabulary lacks.
    """
    decoder = decoder or model.decoder
    device = memory.summary.device
    rows = memory, torch.arange(len(memory.summary), device=device)
    wording = resolve(config, tokenizer)
    weight = 0.0 if config.sample else config.guidance
    guidance = Guidance.of(model.labels, memory.labels, tokenizer, weight)

    def step(tokens: Tensor, state: Any, ids: Tensor) -> tuple[Tensor, Any, Any]:
        nonlocal rows
        current, current_ids = rows
        if len(ids) < len(current_ids):
            kept = torch.isin(current_ids, ids).nonzero().squeeze(1)
            rows = current, current_ids = current.select(kept), ids
        logits, state, attention = decoder.step(tokens, current, state, maps=keep_attention)
        return logits, state, _AttentionOfStep(attention) if keep_attention else None

    found = search(
        step,
        decoder.start(memory),
        batch=len(memory.summary),
        config=config,
        bos=tokenizer.bos_id,
        eos=tokenizer.eos_id,
        suppress=(*tokenizer.never_generated, *wording.suppress),
        rules=wording.rules,
        required=wording.required,
        gain=None if guidance is None else guidance.gain,
        seeds=seeds,
        device=device,
        keep_attention=keep_attention,
    )
    if guidance is not None:
        # Diverse beams have an order of their own: the best of each group first.
        ranked = guidance.ranked(found) if config.beam_groups == 1 else found
        found = [hypotheses[: config.num_captions] for hypotheses in ranked]
    return found


class _AttentionOfStep:
    """Attention of one step, indexed by (row, beam): (visual (H_v, N), text (H_t, M + W))."""

    def __init__(self, attention: Attention) -> None:
        self.attention = attention

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        visual, text = self.attention.visual, self.attention.text
        return (
            None if visual is None else visual[index][0].cpu(),
            None if text is None else text[index][0].cpu(),
        )
