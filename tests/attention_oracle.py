"""The fusion layer as its equations say it: every head's keys and values expanded, every head computed.

The layer that runs never expands them, and skips heads that a router left out; both must give what this gives.
Dimension letters: see ``pipeline/model/latent_attention.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Attention, Fusion, Memory
from latentcap.model.latent_attention import LatentAttention
from latentcap.model.routed_fusion import RoutedFusion


def expanded_attention(
    layer: LatentAttention,
    state: Tensor,
    shared: Tensor,
    *,
    shared_keys: Tensor | None = None,
    shared_mask: Tensor | None = None,
    own: Tensor | None = None,
    own_keys: Tensor | None = None,
    own_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What ``LatentAttention.forward`` returns."""
    batch, captions, steps, _ = state.shape

    def joined(shared: Tensor, own: Tensor | None) -> Tensor:
        """A copy for each caption, (B, G, S + W, D)."""
        memory = shared[:, None].expand(-1, captions, -1, -1)
        return memory if own is None else torch.cat((memory, own), 2)

    memory = joined(shared, own)
    compared = joined(shared if shared_keys is None else shared_keys, own if own_keys is None else own_keys)
    readable = torch.ones(batch, 1, steps, memory.shape[2], dtype=torch.bool)
    if shared_mask is not None:
        readable[..., : shared.shape[1]] &= shared_mask[:, None, None]
    if own_mask is not None:
        readable[..., shared.shape[1] :] &= own_mask
    queries = layer.query(state).unflatten(-1, (layer.num_heads, layer.head_dim))
    keys = torch.einsum("bgsd,hkd->bgshk", compared, layer.up_key)
    values = torch.einsum("bgsd,hkd->bgshk", memory, layer.up_value)
    scores = torch.einsum("bgthk,bgshk->bgths", queries, keys) / math.sqrt(layer.head_dim)
    probabilities = scores.masked_fill(~readable.unsqueeze(3), -math.inf).softmax(-1)
    return torch.einsum("bgths,bgshk->bgthk", probabilities, values), probabilities


def attend(
    fusion: Fusion,
    state: Tensor,
    memory: Memory,
    words: Tensor,
    *,
    causal: bool,
    written: Tensor | None = None,
    gate: Tensor | None = None,
    maps: bool = True,
) -> tuple[Tensor, Attention]:
    """What ``Fusion.attend`` and ``RoutedFusion.attend`` return, but for the balance loss; always with maps."""
    gates = (fusion.head_gate if gate is None else gate).expand(*state.shape[:3], -1)
    if fusion.query_gate is not None:
        gates = gates * 2 * (state @ fusion.query_gate.weight.T).sigmoid()
    if isinstance(fusion, RoutedFusion):
        gates = gates * router_gates(fusion, state, memory, written)
    heads, visual, text = [], None, None
    if fusion.visual is not None:
        outputs, visual = expanded_attention(
            fusion.visual, state, memory.visual, shared_keys=memory.visual_keys, shared_mask=memory.visual_mask
        )
        heads.append(outputs)
    if fusion.text is not None:
        mask = torch.ones(words.shape[2], words.shape[2], dtype=torch.bool).tril() if causal else None
        outputs, text = expanded_attention(
            fusion.text,
            state,
            memory.context,
            shared_keys=memory.context_keys,
            shared_mask=memory.context_mask,
            own=words,
            own_keys=fusion.word_keys(words),
            own_mask=mask,
        )
        heads.append(outputs)
    fused = fusion.output((torch.cat(heads, 3) * gates.unsqueeze(-1)).flatten(3))
    if fusion.modulate is not None:
        fused = fusion.modulate(state).sigmoid() * fused
    return fused, Attention(visual, text)


def router_gates(fusion: RoutedFusion, state: Tensor, memory: Memory, written: Tensor | None) -> Tensor:
    """Each head's factor for each query, (B, G, T, H): 0 where the router left it out."""
    gates = []
    for kind, router in ((fusion.visual, fusion.visual_router), (fusion.text, fusion.text_router)):
        if kind is None:
            continue
        if router is None:
            gates.append(state.new_ones(*state.shape[:3], kind.num_heads))
            continue
        by_query = fusion.route_by == "query"
        chosen, _ = router(state if by_query else memory.summary[:, None, None], written if by_query else None)
        own = torch.zeros(*chosen.heads.shape[:3], kind.num_heads).scatter(-1, chosen.heads, chosen.weights)
        gates.append(own.expand(*state.shape[:3], -1))
    return torch.cat(gates, -1)


def teacher_forced(decoder: Decoder, tokens: Tensor, memory: Memory) -> tuple[Tensor, Attention]:
    """What ``Decoder.forward`` returns, with the fusion layer of this file."""
    fusion = decoder.fusion
    fusion.attend = lambda *args, **kwargs: attend(fusion, *args, **kwargs)  # type: ignore[method-assign]
    try:
        return decoder(tokens, memory)
    finally:
        del fusion.attend
