"""The fusion layer: visual heads, text heads, one gate per head, one projection into the decoder.

Dimension letters: see ``latent_attention.py``; N regions, M context positions, E size of the fused vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor, nn

from latentcap.model.latent_attention import LatentAttention
from latentcap.model.position_codes import grid_sinusoids, sinusoids

CONTEXT, WORD = 0, 1  # rows of ``Fusion.kind``


@dataclass
class Memory:
    """All that the decoder needs of an image and its context: computed once, shared by all captions and beams.

    Attributes:
        visual: latents of the regions, (B, N, D).
        visual_mask: True for regions that exist, (B, N), or None where all do.
        context: latents of the context, (B, M, D).
        context_mask: True for context that exists, (B, M), or None where all does.
        summary: image and context as one vector, (B, E).
        pooled: the mean region, (B, C).
        labels: logits of the label head's classes, (B, L), where there is one.
        visual_keys: what queries are compared with in place of ``visual``, (B, N, D), or None where it is that.
        context_keys: likewise of ``context``, (B, M, D).
    """

    visual: Tensor
    visual_mask: Tensor | None
    context: Tensor
    context_mask: Tensor | None
    summary: Tensor
    pooled: Tensor | None = None
    labels: Tensor | None = None
    visual_keys: Tensor | None = None
    context_keys: Tensor | None = None

    def select(self, rows: Tensor) -> Self:
        """The memory of some of the examples."""
        values = (getattr(self, entry.name) for entry in fields(self))
        return type(self)(*(None if value is None else value[rows] for value in values))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """The memories of several batches, of as many regions and context positions each, as one."""
        if len(batches) == 1:
            return batches[0]
        values = ([getattr(batch, entry.name) for batch in batches] for entry in fields(cls))
        return cls(*(None if value[0] is None else torch.cat(value) for value in values))  # type: ignore[arg-type]


@dataclass
class Attention:
    """Where each head looked.

    Attributes:
        visual: (B, G, T, H_v, N), or None without visual heads, or where no maps were asked for.
        text: (B, G, T, H_t, M + W), or None without text heads, or where no maps were asked for.
        gate: what a router multiplied each head's output by, (B, G, T, H), visual heads first; None without routers.
        query_gate: what the query's own gate multiplied each head's output by, (B, G, T, H); None without one.
        balance_loss: the routers' auxiliary loss, weighed, to be added to the training's; None without one.
    """

    visual: Tensor | None
    text: Tensor | None
    gate: Tensor | None = None
    query_gate: Tensor | None = None
    balance_loss: Tensor | None = None


class Fusion(nn.Module):
    r"""Heads of both kinds, gated, concatenated and projected into the decoder.

    .. math:: f = W^o [g_1 o_1; \ldots; g_H o_H] \qquad g_h = 2 \sigma(w_h \cdot s) \, \gamma_h

    :math:`\gamma` is ``head_gate`` (H,), visual heads first, the one place where heads are switched, weighed and
    scored: 1 is on, 0 is off. Pass ``gate`` to :meth:`attend` to override it, with any shape that broadcasts to
    (B, G, T, H). The other factor is the query's own say on each head (Qiu et al. 2025, arXiv 2505.06708); the 2
    makes a gate that knows nothing 1.

    Args:
        query_dim: Z, the size of the states that ask.
        region_dim: channels of a region.
        text_dim: size of a context position and of a word's embedding.
        output_dim: E.
        latent_dropout: of the latents.
        max_views: the largest number of images of one example.
        gates: what the query's own gate weighs: ``heads``, as above; ``output``, the fused vector in their place,
            :math:`\sigma(W^m s) \odot f`; or ``both``.
        position: where the code of a position is added: to the ``keys``, which are compared with queries alone, or to
            the ``latents``, which are compared with them and read out. Which of several views it is in is always read
            out.
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
        gates: str = "heads",
        position: str = "keys",
    ) -> None:
        super().__init__()

        def attention(memory_dim: int, num_heads: int) -> LatentAttention | None:
            if not num_heads:
                return None
            return LatentAttention(
                query_dim,
                memory_dim,
                num_heads=num_heads,
                head_dim=head_dim,
                latent_dim=latent_dim,
                latent_dropout=latent_dropout,
            )

        self.visual, self.text = attention(region_dim, visual_heads), attention(text_dim, text_heads)
        self.head_dim, self.latent_dim, self.position = head_dim, latent_dim, position
        # Which of several views a region is of is read out, wherever its place in the view is.
        self.reads_views = position == "latents" or max_views > 1
        self.view = nn.Parameter(torch.zeros(max_views, latent_dim), requires_grad=self.reads_views)
        self.kind = nn.Parameter(torch.randn(2, latent_dim) * 0.1)
        heads = visual_heads + text_heads
        self.register_buffer("head_gate", torch.ones(heads))
        self.output = nn.Linear(heads * head_dim, output_dim)
        self.query_gate = nn.Linear(query_dim, heads, bias=False) if gates != "output" else None
        self.modulate = nn.Linear(query_dim, output_dim) if gates != "heads" else None

    def compress_regions(self, regions: Tensor, grid: tuple[int, int]) -> Tensor:
        """Regions (B, V * h * w, C) of V views with an h x w grid to visual latents (B, V * h * w, D)."""
        if self.visual is None:
            return regions.new_zeros(regions.shape[0], 0, self.latent_dim)
        if not self.reads_views:
            return self.visual.compress(regions)
        code = self._views(regions.shape[1], grid)
        if self.position == "latents":
            code = code + self._cells(regions.shape[1], grid)
        return self.visual.compress(regions, code)

    def compress_context(self, context: Tensor) -> Tensor:
        """Context (B, M, E) to text latents (B, M, D)."""
        return self._compress_text(context, CONTEXT, 0)

    def compress_words(self, words: Tensor, start: int = 0) -> Tensor:
        """Embeddings (B, G, W, E) of the words from position ``start`` on to text latents (B, G, W, D)."""
        return self._compress_text(words, WORD, start)

    def _compress_text(self, text: Tensor, kind: int, start: int) -> Tensor:
        if self.text is None:
            return text.new_zeros(*text.shape[:-1], self.latent_dim)
        if self.position == "keys":
            return self.text.compress(text)
        return self.text.compress(text, self._places_of_text(text.shape[-2], kind, start))

    def region_keys(self, visual: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """What queries are compared with in place of visual latents (B, V * h * w, D), or None where it is those."""
        if self.position != "keys" or self.visual is None:
            return None
        return visual + self._cells(visual.shape[1], grid)

    def context_keys(self, context: Tensor) -> Tensor | None:
        """Likewise of the context's latents (B, M, D)."""
        return context + self._places_of_text(context.shape[1], CONTEXT, 0) if self.position == "keys" else None

    def word_keys(self, words: Tensor) -> Tensor | None:
        """Likewise of the latents of all words written (B, G, W, D), the first being at position 0."""
        return words + self._places_of_text(words.shape[2], WORD, 0) if self.position == "keys" else None

    def _views(self, count: int, grid: tuple[int, int]) -> Tensor:
        """Which view each of ``count`` = V * h * w regions is of, as codes (V * h * w, D)."""
        cells = grid[0] * grid[1]
        return self.view[: count // cells, None].expand(-1, cells, -1).flatten(0, 1)

    def _cells(self, count: int, grid: tuple[int, int]) -> Tensor:
        """Where in its view each of ``count`` = V * h * w regions is, as position codes (V * h * w, D)."""
        cells = grid_sinusoids(*grid, self.latent_dim, self.view.device)
        return cells.expand(count // cells.shape[0], -1, -1).flatten(0, 1)

    def _places_of_text(self, count: int, kind: int, start: int) -> Tensor:
        """The position codes of ``count`` context positions or words from ``start`` on, (count, D)."""
        return sinusoids(torch.arange(start, start + count, device=self.kind.device), self.latent_dim) + self.kind[kind]

    def attend(
        self,
        state: Tensor,
        memory: Memory,
        words: Tensor,
        *,
        causal: bool,
        written: Tensor | None = None,
        gate: Tensor | None = None,
        maps: bool = True,
    ) -> tuple[Tensor, Attention]:
        """Read both memories for every query.

        Args:
            state: query LSTM states, (B, G, T, Z).
            memory: the example's latents.
            words: latents of the words written, (B, G, W, D), the newest being the one just read.
            causal: W = T and query t reads words 0..t (training); else each query reads all of them (a step).
            written: True for queries of words, False for padding, (B, G, T), which only a router wants to know.
                None: all True.
            gate: instead of ``head_gate``, broadcasts to (B, G, T, H).
            maps: say where each head looked, which costs time.

        Returns:
            The fused vector (B, G, T, E) and where each head looked.
        """
        gate, query_gate = self.weigh_heads(state, gate)
        heads, visual, text = [], None, None
        if self.visual is not None:
            outputs, visual = self.visual(
                state, memory.visual, shared_keys=memory.visual_keys, shared_mask=memory.visual_mask, maps=maps
            )
            heads.append(outputs)
        if self.text is not None:
            outputs, text = self.text(
                state,
                memory.context,
                shared_keys=memory.context_keys,
                shared_mask=memory.context_mask,
                own=words,
                own_keys=self.word_keys(words),
                own_mask=words_so_far(words) if causal else None,
                maps=maps,
            )
            heads.append(outputs)
        gated = torch.cat(heads, -2) * gate.unsqueeze(-1)  # (B, G, T, H, K)
        fused = self.output(gated.flatten(-2).to(state.dtype))
        return self.weigh_output(state, fused), Attention(visual, text, query_gate=query_gate)

    def weigh_heads(self, state: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The gate of each head, that of ``gate`` or ``head_gate`` times the query's own, and the query's own."""
        gate = self.head_gate if gate is None else gate
        if self.query_gate is None:
            return gate, None
        own = 2 * self.query_gate(state).float().sigmoid()  # (B, G, T, H)
        return gate * own, own

    def weigh_output(self, state: Tensor, fused: Tensor) -> Tensor:
        """The fused vector (B, G, T, E) as the decoder gets it."""
        return fused if self.modulate is None else self.modulate(state).sigmoid() * fused


def words_so_far(words: Tensor) -> Tensor:
    """Which of the words (B, G, W, D) each step of a known caption may read: (W, W), True up to its own."""
    size = words.shape[2]
    return torch.ones(size, size, dtype=torch.bool, device=words.device).tril()
