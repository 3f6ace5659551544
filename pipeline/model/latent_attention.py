"""Multi-head latent attention over one stream of memory.

Legend of dimension letters, used by every model file:

    B  examples in the batch          G  queries' groups per example: captions in training, beams in decoding
    T  query steps (words)            S  shared memory positions (regions, context tokens): one copy per example
    W  own memory positions (words)   H  heads      K  head size d_h      D  latent size d_c
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentcap.model.head_sets import HeadGroups


class LatentAttention(nn.Module):
    r"""Attention that reads a compressed memory directly (DeepSeek-V2, arXiv 2405.04434, equations 9-12).

    .. math::
        c = \mathrm{norm}(W^{down} x) \qquad q_h = W^q_h s \qquad k_h = W^{uk}_h c \qquad v_h = W^{uv}_h c

        o_h = \sum_i \mathrm{softmax}_i(q_h \cdot k_{h,i} / \sqrt{d_h}) \, v_{h,i}

    Because :math:`q_h \cdot W^{uk}_h c = (W^{uk\top}_h q_h) \cdot c`, keys and values need never be expanded: the query
    is moved into the latent space, attends to ``c``, and the attended latent is moved back ("absorbed"). ``naive``
    expands them and is the reference that the absorbed form is tested against.

    Where queries have chosen their heads (``groups``), the absorbed form computes those and no others: R heads in place
    of H from the query projection on. What they read stays in the latent space, so that the way back and the output
    projection are one pass over queries that chose alike (:meth:`project`).
    """

    def __init__(
        self, query_dim: int, memory_dim: int, *, num_heads: int, head_dim: int, latent_dim: int, latent_dropout: float
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.latent_dim = num_heads, head_dim, latent_dim
        self.query = nn.Linear(query_dim, num_heads * head_dim, bias=False)
        self.down = nn.Linear(memory_dim, latent_dim, bias=False)
        self.norm = nn.RMSNorm(latent_dim)
        self.up_key = nn.Parameter(torch.empty(num_heads, head_dim, latent_dim))
        self.up_value = nn.Parameter(torch.empty(num_heads, head_dim, latent_dim))
        self.dropout = nn.Dropout(latent_dropout)
        for weight in (self.query.weight, self.down.weight):
            nn.init.xavier_uniform_(weight)
        for weight in (self.up_key, self.up_value):
            nn.init.normal_(weight, std=latent_dim**-0.5)

    def compress(self, memory: Tensor, position: Tensor) -> Tensor:
        """Memory (..., C) and its position code (..., D) to latents (..., D): what is cached, and all that is."""
        return self.dropout(self.norm(self.down(memory).float()) + position)

    def forward(
        self,
        state: Tensor,
        shared: Tensor,
        *,
        shared_mask: Tensor | None = None,
        own: Tensor | None = None,
        own_mask: Tensor | None = None,
        groups: HeadGroups | None = None,
        naive: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Every head's output for every query.

        Args:
            state: what asks, (B, G, T, query_dim).
            shared: latents that all groups of an example read, (B, S, D); S may be 0.
            shared_mask: True where a shared position may be read, (B, S). None: everywhere.
            own: latents that only their own group reads, (B, G, W, D).
            own_mask: True where query t may read own position w, (T, W). None: everywhere.
            groups: which heads each query has chosen; not with ``naive``.
            naive: expand keys and values of every head; the same result, for tests.

        Returns:
            Head outputs (B, G, T, H, K) and probabilities (B, G, T, H, S + W), both float32. With ``groups``, what the
            chosen heads read, (B, G, T, R, D), for :meth:`project`, and their probabilities (B, G, T, R, S + W).
        """
        weight = self.query.weight.unflatten(0, (self.num_heads, self.head_dim))
        if groups is not None:
            queries = groups.apply(self._ask, state, weight, self.up_key)
        else:
            queries = self._query(state, weight) if naive else self._ask(state, weight, self.up_key)
        with _full_precision(state):
            if naive:
                shared, own = shared.float(), None if own is None else own.float()
                scores = self._naive_scores(queries.float(), shared, own)
                attention = self._probabilities(scores, shared, shared_mask, own_mask)
                return self._naive_values(attention, shared, own), attention
            latents, attention = self.read(queries, shared, shared_mask=shared_mask, own=own, own_mask=own_mask)
            return self._expand(latents, self.up_value) if groups is None else latents, attention

    def read(
        self,
        queries: Tensor,
        shared: Tensor,
        *,
        shared_mask: Tensor | None = None,
        own: Tensor | None = None,
        own_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scaled queries in the latent space (B, G, T, H, D), float32, to what they attend to there and where.

        Memory and masks are those of :meth:`forward`. Returns latents (B, G, T, H, D) and probabilities
        (B, G, T, H, S + W), both float32.
        """
        shared, own = shared.float(), None if own is None else own.float()
        scores = self._absorbed_scores(queries, shared, own)
        attention = self._probabilities(scores, shared, shared_mask, own_mask)
        return self._absorbed_values(attention, shared, own), attention

    def _probabilities(
        self, scores: Tensor, shared: Tensor, shared_mask: Tensor | None, own_mask: Tensor | None
    ) -> Tensor:
        mask = self._mask(scores, shared, shared_mask, own_mask)
        return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)

    def project(self, latents: Tensor, weight: Tensor, groups: HeadGroups, *, dtype: torch.dtype) -> Tensor:
        """What chosen heads read, (B, G, T, R, D), through the output matrix (H, K, E): (B, G, T, E) in ``dtype``."""

        def join(rows: Tensor, up_value: Tensor, part: Tensor) -> Tensor:
            with _full_precision(rows):
                outputs = self._expand(rows, up_value)
            return outputs.flatten(-2).to(dtype) @ part.flatten(0, 1)

        return groups.apply(join, latents, self.up_value, weight)

    def _query(self, state: Tensor, weight: Tensor) -> Tensor:
        """States (..., C) to queries (..., H, K), by the heads' part of the query projection (H, K, C)."""
        return nn.functional.linear(state, weight.flatten(0, 1)).unflatten(-1, weight.shape[:2])

    def _ask(self, state: Tensor, weight: Tensor, up_key: Tensor) -> Tensor:
        """States (..., C) to scaled queries in the latent space, (..., H, D)."""
        queries = self._query(state, weight)
        with _full_precision(state):
            return torch.einsum("...hk,hkd->...hd", queries.float() / math.sqrt(self.head_dim), up_key.float())

    @staticmethod
    def _expand(latents: Tensor, up_value: Tensor) -> Tensor:
        """Attended latents (..., H, D) to head outputs (..., H, K)."""
        return torch.einsum("...hd,hkd->...hk", latents, up_value.float())

    def _absorbed_scores(self, queries: Tensor, shared: Tensor, own: Tensor | None) -> Tensor:
        batch, groups, steps, heads, _ = queries.shape
        scores = (queries.flatten(1, 3) @ shared.mT).view(batch, groups, steps, heads, -1)
        if own is None:
            return scores
        own_scores = (queries.flatten(2, 3) @ own.mT).view(batch, groups, steps, heads, -1)
        return torch.cat((scores, own_scores), -1)

    def _absorbed_values(self, attention: Tensor, shared: Tensor, own: Tensor | None) -> Tensor:
        shape = attention.shape[:4]
        if own is None:
            return (attention.flatten(1, 3) @ shared).unflatten(1, shape[1:])
        to_shared, to_own = attention.split((shared.shape[1], own.shape[2]), -1)
        latents = (to_shared.flatten(1, 3) @ shared).unflatten(1, shape[1:])
        return latents + (to_own.flatten(2, 3) @ own).unflatten(2, shape[2:])

    def _naive_scores(self, queries: Tensor, shared: Tensor, own: Tensor | None) -> Tensor:
        up_key = self.up_key.float()
        keys = torch.einsum("bsd,hkd->bshk", shared, up_key)
        scores = torch.einsum("bgthk,bshk->bgths", queries, keys)
        if own is not None:
            own_keys = torch.einsum("bgwd,hkd->bgwhk", own, up_key)
            scores = torch.cat((scores, torch.einsum("bgthk,bgwhk->bgthw", queries, own_keys)), -1)
        return scores / math.sqrt(self.head_dim)

    def _naive_values(self, attention: Tensor, shared: Tensor, own: Tensor | None) -> Tensor:
        size, up_value = shared.shape[1], self.up_value.float()
        values = torch.einsum("bsd,hkd->bshk", shared, up_value)
        outputs = torch.einsum("bgths,bshk->bgthk", attention[..., :size], values)
        if own is not None:
            own_values = torch.einsum("bgwd,hkd->bgwhk", own, up_value)
            outputs = outputs + torch.einsum("bgthw,bgwhk->bgthk", attention[..., size:], own_values)
        return outputs

    @staticmethod
    def _mask(scores: Tensor, shared: Tensor, shared_mask: Tensor | None, own_mask: Tensor | None) -> Tensor | None:
        """One mask that broadcasts to the scores (B, G, T, H, S + W), or None where everything may be read."""
        if shared_mask is None and own_mask is None:
            return None
        batch, _, steps, _, size = scores.shape
        own_size = size - shared.shape[1]
        if shared_mask is None:
            shared_mask = scores.new_ones((batch, shared.shape[1]), dtype=torch.bool)
        if own_mask is None:
            own_mask = scores.new_ones((steps, own_size), dtype=torch.bool)
        return torch.cat(
            (
                shared_mask[:, None, None, None, :].expand(-1, -1, steps, -1, -1),
                own_mask[None, None, :, None, :].expand(batch, -1, -1, -1, -1),
            ),
            -1,
        )


def _full_precision(like: Tensor) -> torch.autocast:
    """Scores and probabilities are float32 under any precision."""
    return torch.autocast(like.device.type, enabled=False)


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """The position code of Vaswani et al. (2017): positions (...) to (..., size), ``size`` even."""
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device) * (-math.log(10_000.0) / size))
    angles = positions.float().unsqueeze(-1) * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


def grid_sinusoids(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """Half of the code for the row, half for the column: (height * width, size), ``size`` a multiple of 4."""
    rows = sinusoids(torch.arange(height, device=device) * (16 / height), size // 2)
    columns = sinusoids(torch.arange(width, device=device) * (16 / width), size // 2)
    grid = torch.cat(
        (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)),
        -1,
    )
    return grid.flatten(0, 1)
