"""Removing attention heads for good: their weights are cut out, and what is left is an ordinary smaller model.

Dimension letters: see ``latent_attention.py``. Heads are numbered as the fusion layer's gate has them: visual heads
first, then text heads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from latentcap.config import FusionConfig
from latentcap.data.errors import UserError
from latentcap.model.caption_model import CaptionModel
from latentcap.model.latent_attention import LatentAttention


@torch.no_grad()
def prune_heads(model: CaptionModel, keep: Sequence[int]) -> None:
    """Cut all heads but ``keep`` out of the model, in place.

    The result computes what the model computed with the gates of the other heads at 0, to rounding. A kind of which
    no head is left is not computed at all, and its memory is not compressed; the image's summary stays. The sizes of a
    head and of the latents do not change and become explicit in ``model.config``.

    Raises:
        UserError: ``keep`` is empty or names a head that the model does not have, or the model routes its heads.
    """
    fusion, sizes = model.decoder.fusion, model.config.fusion
    _check_not_routed(sizes)
    heads = model.config.num_heads
    kept = sorted(set(keep))
    if not kept or kept[0] < 0 or kept[-1] >= heads:
        raise UserError(
            f"cannot keep the heads {list(keep)}: the model has the heads 0 to {heads - 1}; keep some of them."
        )
    visual = [head for head in kept if head < sizes.visual_heads]
    text = [head - sizes.visual_heads for head in kept if head >= sizes.visual_heads]
    head_dim = model.config.head_dim
    for attention, chosen in ((fusion.visual, visual), (fusion.text, text)):
        if attention is not None and chosen:
            _slice_attention(attention, chosen)
    fusion.visual = fusion.visual if visual else None
    fusion.text = fusion.text if text else None
    fusion.output.weight = _parameter(
        fusion.output.weight.unflatten(1, (heads, head_dim))[:, kept].flatten(1), like=fusion.output.weight
    )
    fusion.output.in_features = len(kept) * head_dim
    fusion.head_gate = fusion.head_gate[kept].clone()
    if fusion.query_gate is not None:
        fusion.query_gate.weight = _parameter(fusion.query_gate.weight[kept], like=fusion.query_gate.weight)
        fusion.query_gate.out_features = len(kept)
    model.config = replace(
        model.config,
        fusion=replace(
            sizes,
            visual_heads=len(visual),
            text_heads=len(text),
            head_dim=head_dim,
            latent_dim=model.config.latent_dim,
        ),
    )


def _check_not_routed(sizes: FusionConfig) -> None:
    if sizes.routed_top_k:
        raise UserError(
            "this model routes its heads: a router chooses among all of them, so none can be cut out. Take a model "
            "that was trained with fusion.routed_top_k 0."
        )


def _slice_attention(attention: LatentAttention, chosen: list[int]) -> None:
    """Leave only some heads of one kind in its query, key and value projections."""
    query = attention.query
    rows = query.weight.unflatten(0, (attention.num_heads, attention.head_dim))[chosen]
    query.weight = _parameter(rows.flatten(0, 1), like=query.weight)
    query.out_features = len(chosen) * attention.head_dim
    attention.up_key = _parameter(attention.up_key[chosen], like=attention.up_key)
    attention.up_value = _parameter(attention.up_value[chosen], like=attention.up_value)
    attention.num_heads = len(chosen)


def _parameter(values: Tensor, *, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone(), requires_grad=like.requires_grad)


# Budgets --------------------------------------------------------------------------------------------------------------


def parse_budget(text: str) -> tuple[int, int]:
    """``"2+1"`` to (2 visual heads, 1 text head). Raises UserError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*\+\s*(\d{1,6})\s*", text, re.ASCII)
    if match is None or int(match[1]) + int(match[2]) == 0:
        raise UserError(
            f"heads '{text[:40]}': give the number of visual and of text heads with a plus between, such as 1+1 or "
            "4+4; at least one head in all."
        )
    return int(match[1]), int(match[2])


def check_budget(sizes: FusionConfig, visual: int, text: int) -> None:
    """Raises UserError for a model that has fewer heads of a kind, or routes them."""
    if visual > sizes.visual_heads or text > sizes.text_heads:
        raise UserError(
            f"heads {visual}+{text} are asked for and the model has {sizes.visual_heads}+{sizes.text_heads} "
            "(visual + text): ask for no more of either kind."
        )
    _check_not_routed(sizes)


def set_budget(model: CaptionModel, visual: int, text: int) -> None:
    """Keep the first ``visual`` visual and the first ``text`` text heads and cut out the others, in place.

    Made for models whose first heads were trained to work alone (``RandomHeadBudget``).

    Raises:
        UserError: the model has fewer heads of a kind, or routes them.
    """
    sizes = model.config.fusion
    check_budget(sizes, visual, text)
    prune_heads(model, [*range(visual), *range(sizes.visual_heads, sizes.visual_heads + text)])
