"""Multi-head latent attention over one stream of memory.

Legend of dimension letters, used by every model file:

    B  examples in the batch          G  captions of each example: references in training, beams in decoding
    T  query steps (words)            S  shared memory positions (regions, context tokens): one copy per example
    W  own memory positions (words)   H  heads      K  head size d_h      D  latent size d_c
    Z  state size of the LSTMs, which ask             C  channels of what is compressed
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LatentAttention(nn.Module):
    r"""Attention that reads a compressed memory directly (DeepSeek-V2, arXiv 2405.04434, equations 9-12).

    .. math::
        c = \mathrm{norm}(W^{down} x) \qquad q_h = W^q_h s \qquad k_h = W^{uk}_h c \qquad v_h = W^{uv}_h c

        o_h = \sum_i \mathrm{softmax}_i(q_h \cdot k_{h,i} / \sqrt{d_h}) \, v_{h,i}

    Because :math:`q_h \cdot W^{uk}_h c = (W^{uk\top}_h q_h) \cdot c`, keys and values are never expanded: the query is
    moved into the latent space, attends to ``c``, and the attended latent is moved back ("absorbed").
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
    ) -> tuple[Tensor, Tensor]:
        """Every head's output for every query.

        Args:
            state: what asks, (B, G, T, Z).
            shared: latents that all captions of an example read, (B, S, D); S may be 0.
            shared_mask: True where a shared position may be read, (B, S). None: everywhere.
            own: latents that only their own caption reads, (B, G, W, D).
            own_mask: True where query t may read own position w, (T, W). None: everywhere.

        Returns:
            Head outputs (B, G, T, H, K) and probabilities (B, G, T, H, S + W), both float32.
        """
        queries = into_latent_space(self.query(state).unflatten(-1, (self.num_heads, self.head_dim)), self.up_key)
        latents, probabilities = self.read(
            queries, shared, shared_mask=shared_mask, own=own, own_mask=own_mask
        )  # (B, G, T, H, D)
        return out_of_latent_space(latents, self.up_value), probabilities

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

        Memory and masks are those of :meth:`forward`; H may be some of the heads alone. Returns latents
        (B, G, T, H, D) and probabilities (B, G, T, H, S + W), both float32.
        """
        captions = queries.shape[:4]  # B, G, T, H
        with full_precision(queries):
            shared = shared.float()
            scores = (queries.flatten(1, 3) @ shared.mT).view(*captions, -1)
            if shared_mask is not None:
                scores = scores.masked_fill(~shared_mask[:, None, None, None], -math.inf)
            if own is None:
                probabilities = scores.softmax(-1)
                return (probabilities.flatten(1, 3) @ shared).view(*captions, -1), probabilities
            own = own.float()
            own_scores = (queries.flatten(2, 3) @ own.mT).view(*captions, -1)
            if own_mask is not None:
                own_scores = own_scores.masked_fill(~own_mask[:, None], -math.inf)
            probabilities = torch.cat((scores, own_scores), -1).softmax(-1)
            to_shared, to_own = probabilities.split((shared.shape[1], own.shape[2]), -1)
            latents = (to_shared.flatten(1, 3) @ shared).view(*captions, -1)
            return latents + (to_own.flatten(2, 3) @ own).view(*captions, -1), probabilities


def into_latent_space(queries: Tensor, up_key: Tensor) -> Tensor:
    """Queries (..., H, K) by the keys' weights (H, K, D) to scaled queries in the latent space (..., H, D), float32."""
    with full_precision(queries):
        scaled = queries.float() / math.sqrt(up_key.shape[1])
        return torch.einsum("...hk,hkd->...hd", scaled, up_key.float())


def out_of_latent_space(latents: Tensor, up_value: Tensor) -> Tensor:
    """Attended latents (..., H, D) by the values' weights (H, K, D) to head outputs (..., H, K), float32."""
    with full_precision(latents):
        return torch.einsum("...hd,hkd->...hk", latents, up_value.float())


def full_precision(like: Tensor) -> torch.autocast:
    """Scores and probabilities are float32 under any precision."""
    return torch.autocast(like.device.type, enabled=False)
