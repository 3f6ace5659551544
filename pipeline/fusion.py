"""The fusion layer: visual heads, text heads, one gate per head, one projection into the decoder.

Dimension letters: see ``latent_attention.py``; N regions, M context positions, E size of the fused vector.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.latent_attention import LatentAttention, grid_sinusoids, sinusoids

CONTEXT, WORD = 0, 1


@dataclass
class Memory:
    """All that the decoder needs of an image and its context: computed once, shared by all captions and beams.

    ``visual`` (B, N, D), ``visual_mask`` (B, N) or None, ``context`` (B, M, D), ``context_mask`` (B, M) or None,
    ``summary`` (B, E).
    """

    visual: Tensor
    visual_mask: Tensor | None
    context: Tensor
    context_mask: Tensor | None
    summary: Tensor

    def select(self, rows: Tensor) -> Self:
        """The memory of some of the examples."""
        values = (getattr(self, entry.name) for entry in fields(self))
        return type(self)(*(None if value is None else value[rows] for value in values))  # type: ignore[arg-type]


@dataclass
class Attention:
    """Where each head looked: ``visual`` (B, G, T, H_v, N), ``text`` (B, G, T, H_t, M + W); None without such heads."""

    visual: Tensor | None
    text: Tensor | None


class Fusion(nn.Module):
    r"""Heads of both kinds, concatenated, projected and gated into the decoder.

    .. math:: f = \sigma(W^g s) \odot W^o [g_1 o_1; \ldots; g_H o_H]

    ``head_gate`` (H,), visual heads first, is the one place where heads are switched, weighed and scored: 1 is on, 0 is
    off. Pass ``gate`` to :meth:`attend` to override it, with any shape that broadcasts to (B, G, T, H).
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
        gate: Tensor | None = None,
        naive: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Read both memories for every query.

        Args:
            state: query LSTM states, (B, G, T, query_dim).
            memory: the example's latents.
            words: latents of the words written, (B, G, W, D), the newest being the one just read.
            causal: W = T and query t reads words 0..t (training); else each query reads all of them (a step).
            gate: instead of ``head_gate``, broadcasts to (B, G, T, H).

        Returns:
            The fused vector (B, G, T, E) and where each head looked.
        """
        outputs, visual, text = [], None, None
        if self.visual is not None:
            output, visual = self.visual(state, memory.visual, shared_mask=memory.visual_mask, naive=naive)
            outputs.append(output)
        if self.text is not None:
            size = words.shape[2]
            mask = torch.ones(size, size, dtype=torch.bool, device=words.device).tril() if causal else None
            output, text = self.text(
                state, memory.context, shared_mask=memory.context_mask, own=words, own_mask=mask, naive=naive
            )
            outputs.append(output)
        heads = torch.cat(outputs, -2)  # (B, G, T, H, K)
        heads = heads * (self.head_gate if gate is None else gate).unsqueeze(-1)
        fused = self.modulate(state).sigmoid() * self.output(heads.flatten(-2).to(state.dtype))
        return fused, Attention(visual, text)
