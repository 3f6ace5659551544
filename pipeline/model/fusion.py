"""The fusion layer: visual heads, text heads, one gate per head, one projection into the decoder.

Dimension letters: see ``latent_attention.py``; N regions, M context positions, E size of the fused vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from latentcap.model.head_sets import HeadGroups
from latentcap.model.latent_attention import LatentAttention, grid_sinusoids, sinusoids
from latentcap.model.routing import HeadRouter

CONTEXT, WORD = 0, 1


@dataclass
class Memory:
    """All that the decoder needs of an image and its context: computed once, shared by all captions and beams.

    ``visual`` (B, N, D), ``visual_mask`` (B, N) or None, ``context`` (B, M, D), ``context_mask`` (B, M) or None,
    ``summary`` (B, E), ``pooled`` (B, C) the mean region.
    """

    visual: Tensor
    visual_mask: Tensor | None
    context: Tensor
    context_mask: Tensor | None
    summary: Tensor
    pooled: Tensor | None = None

    def select(self, rows: Tensor) -> Self:
        """The memory of some of the examples."""
        values = (getattr(self, entry.name) for entry in fields(self))
        return type(self)(*(None if value is None else value[rows] for value in values))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The memories of several batches, of as many regions and context positions each, as one."""
        if len(parts) == 1:
            return parts[0]
        values = ([getattr(part, entry.name) for part in parts] for entry in fields(cls))
        return cls(*(None if value[0] is None else torch.cat(value) for value in values))  # type: ignore[arg-type]


class Attention:
    """Where each head looked, and how much each head was heard.

    Heads that a router left out have zeros. Those are filled in when an attribute is read, so that who reads none, as
    training does, pays nothing.

    Attributes:
        visual: (B, G, T, H_v, N), or None without visual heads.
        text: (B, G, T, H_t, M + W), or None without text heads.
        gate: what the router multiplied each head's output by, (B, G, T, H), visual heads first; ones where a kind has
            no router, None where neither has.
        balance_loss: the routers' auxiliary loss, weighed, to be added to the training's; None without one.
    """

    def __init__(
        self,
        visual: Tensor | None,
        text: Tensor | None,
        *,
        groups: tuple[HeadGroups | None, HeadGroups | None] = (None, None),
        balance_loss: Tensor | None = None,
    ) -> None:
        self._maps, self._groups, self.balance_loss = (visual, text), groups, balance_loss

    @cached_property
    def visual(self) -> Tensor | None:
        return self._full(0)

    @cached_property
    def text(self) -> Tensor | None:
        return self._full(1)

    @cached_property
    def gate(self) -> Tensor | None:
        if self._groups == (None, None):
            return None
        gates = []
        for maps, groups in zip(self._maps, self._groups, strict=True):
            if maps is not None and groups is None:
                gates.append(torch.ones_like(maps[..., 0]))
            elif maps is not None and groups is not None:
                gates.append(groups.spread(groups.weights.expand(*maps.shape[:3], -1)))
        return torch.cat(gates, -1)

    def _full(self, kind: int) -> Tensor | None:
        maps, groups = self._maps[kind], self._groups[kind]
        return maps if maps is None or groups is None else groups.spread(maps)


class Fusion(nn.Module):
    r"""Heads of both kinds, concatenated, projected and gated into the decoder.

    .. math:: f = \sigma(W^g s) \odot W^o [g_1 o_1; \ldots; g_H o_H]

    ``head_gate`` (H,), visual heads first, is the one place where heads are switched, weighed and scored: 1 is on, 0 is
    off. Pass ``gate`` to :meth:`attend` to override it, with any shape that broadcasts to (B, G, T, H). Where heads are
    routed, the router's weight of a head is a second factor of its gate, and a head with the factor 0 is not computed.
    """

    head_gate: Tensor

    def __init__(
        self,
        *,
        query_dim: int,
        region_dim: int,
        text_dim: int,
        output_dim: int,
        visual_heads: int,
        text_heads: int,
        head_dim: int,
        latent_dim: int,
        latent_dropout: float,
        max_views: int,
        routed_top_k: int = 0,
        shared_heads: int = 1,
        route_by: str = "example",
        balance: str = "bias",
    ) -> None:
        super().__init__()
        sizes = {"head_dim": head_dim, "latent_dim": latent_dim, "latent_dropout": latent_dropout}
        self.visual = LatentAttention(query_dim, region_dim, num_heads=visual_heads, **sizes) if visual_heads else None  # type: ignore[arg-type]
        self.text = LatentAttention(query_dim, text_dim, num_heads=text_heads, **sizes) if text_heads else None  # type: ignore[arg-type]
        self.latent_dim = latent_dim
        self.view = nn.Parameter(torch.zeros(max_views, latent_dim))
        self.kind = nn.Parameter(torch.randn(2, latent_dim) * 0.1)
        heads = visual_heads + text_heads
        self.register_buffer("head_gate", torch.ones(heads))
        self.output = nn.Linear(heads * head_dim, output_dim)
        self.modulate = nn.Linear(query_dim, output_dim)
        self.head_dim, self.route_by = head_dim, route_by

        def router(count: int) -> HeadRouter | None:
            if not routed_top_k or count <= shared_heads + routed_top_k:
                return None
            size = output_dim if route_by == "example" else query_dim
            return HeadRouter(size, num_heads=count, shared_heads=shared_heads, top_k=routed_top_k, balance=balance)

        self.visual_router, self.text_router = router(visual_heads), router(text_heads)

    def compress_regions(self, regions: Tensor, grid: tuple[int, int]) -> Tensor:
        """Regions (B, V * h * w, C) of V views with an h x w grid to visual latents (B, V * h * w, D)."""
        if self.visual is None:
            return regions.new_zeros(regions.shape[0], 0, self.latent_dim)
        cells = grid_sinusoids(*grid, self.latent_dim, regions.device)
        views = regions.shape[1] // cells.shape[0]
        position = (self.view[:views, None] + cells).flatten(0, 1)
        return self.visual.compress(regions, position)

    def compress_context(self, context: Tensor) -> Tensor:
        """Context (B, M, E) to text latents (B, M, D)."""
        return self._compress_text(context, CONTEXT, 0)

    def compress_words(self, words: Tensor, start: int = 0) -> Tensor:
        """Embeddings (B, G, W, E) of the words from position ``start`` on to text latents (B, G, W, D)."""
        return self._compress_text(words, WORD, start)

    def _compress_text(self, text: Tensor, kind: int, start: int) -> Tensor:
        if self.text is None:
            return text.new_zeros(*text.shape[:-1], self.latent_dim)
        position = sinusoids(torch.arange(start, start + text.shape[-2], device=text.device), self.latent_dim)
        return self.text.compress(text, position + self.kind[kind])

    def attend(
        self,
        state: Tensor,
        memory: Memory,
        words: Tensor,
        *,
        causal: bool,
        written: Tensor | None = None,
        gate: Tensor | None = None,
        naive: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Read both memories for every query.

        Args:
            state: query LSTM states, (B, G, T, query_dim).
            memory: the example's latents.
            words: latents of the words written, (B, G, W, D), the newest being the one just read.
            causal: W = T and query t reads words 0..t (training); else each query reads all of them (a step).
            written: True for queries of words, False for padding, which no router counts, (B, G, T). None: all True.
            gate: instead of ``head_gate``, broadcasts to (B, G, T, H).
            naive: expand all keys and values, and compute heads that are not chosen too: the reference.

        Returns:
            The fused vector (B, G, T, E) and where each head looked.
        """
        gate = self.head_gate if gate is None else gate
        (visual_groups, text_groups), loss = self._route(state, memory, written)
        outputs, visual, text = [], None, None
        if self.visual is not None:
            groups = None if naive else visual_groups
            output, visual = self.visual(
                state, memory.visual, shared_mask=memory.visual_mask, groups=groups, naive=naive
            )
            outputs.append(output)
        if self.text is not None:
            size = words.shape[2]
            mask = torch.ones(size, size, dtype=torch.bool, device=words.device).tril() if causal else None
            groups = None if naive else text_groups
            output, text = self.text(
                state,
                memory.context,
                shared_mask=memory.context_mask,
                own=words,
                own_mask=mask,
                groups=groups,
                naive=naive,
            )
            outputs.append(output)
        maps = Attention(
            visual, text, groups=(None, None) if naive else (visual_groups, text_groups), balance_loss=loss
        )
        if visual_groups is None and text_groups is None:
            heads = torch.cat(outputs, -2) * gate.unsqueeze(-1)  # (B, G, T, H, K)
            joined = self.output(heads.flatten(-2).to(state.dtype))
        else:
            joined = self._join_routed(outputs, (visual_groups, text_groups), gate, state, skipped=not naive)
        return self.modulate(state).sigmoid() * joined, maps

    def _route(
        self, state: Tensor, memory: Memory, written: Tensor | None
    ) -> tuple[tuple[HeadGroups | None, HeadGroups | None], Tensor | None]:
        """The visual and the text heads that are on, None where all are; and the sum of the balance losses."""
        by_query = self.route_by == "query"
        inputs = state if by_query else memory.summary[:, None, None]
        chosen: list[HeadGroups | None] = []
        losses = []
        for router in (self.visual_router, self.text_router):
            groups, loss = (None, None) if router is None else router(inputs, written if by_query else None)
            chosen.append(groups)
            losses += [] if loss is None else [loss]
        return (chosen[0], chosen[1]), torch.stack(losses).sum() if losses else None

    def _join_routed(
        self,
        outputs: list[Tensor],
        groups: tuple[HeadGroups | None, HeadGroups | None],
        gate: Tensor,
        state: Tensor,
        *,
        skipped: bool,
    ) -> Tensor:
        """Gate and project the heads of each kind; ``skipped`` says that outputs are what the chosen heads read."""
        kinds = [(kind, own) for kind, own in ((self.visual, groups[0]), (self.text, groups[1])) if kind is not None]
        counts = [kind.num_heads for kind, _ in kinds]
        weights = self.output.weight.T.unflatten(0, (-1, self.head_dim)).split(counts)  # (H_m, K, E)
        gates = gate.expand(*gate.shape[:-1], sum(counts)).split(counts, -1)
        joined = self.output.bias.to(state.dtype)
        for (kind, own), heads, weight, factor in zip(kinds, outputs, weights, gates, strict=True):
            if own is not None:
                factor = own.pick(factor, heads) * own.weights
                factor = factor if skipped else own.spread(factor)
            heads = heads * factor.unsqueeze(-1)
            if own is not None and skipped:
                part = kind.project(heads, weight, own, dtype=state.dtype)
            else:
                part = heads.flatten(-2).to(state.dtype) @ weight.flatten(0, 1)
            joined = joined + part
        return joined
