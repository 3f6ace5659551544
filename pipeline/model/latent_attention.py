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
from torch.nn.functional import scaled_dot_product_attention

from latentcap.model.dropout import Dropout

COPIED = 128  # shared positions that the fused kernel may be given a copy of for each caption


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
        self.dropout = Dropout(latent_dropout)
        for weight in (self.query.weight, self.down.weight):
            nn.init.xavier_uniform_(weight)
        for weight in (self.up_key, self.up_value):
            nn.init.normal_(weight, std=latent_dim**-0.5)

    def compress(self, memory: Tensor, position: Tensor | None = None) -> Tensor:
        """Memory (..., C) to latents (..., D), with its position code (..., D) where that is to be read out too."""
        latents = self.norm(self.down(memory).float())
        return self.dropout(latents if position is None else latents + position)

    def forward(
        self,
        state: Tensor,
        shared: Tensor,
        *,
        shared_keys: Tensor | None = None,
        shared_mask: Tensor | None = None,
        own: Tensor | None = None,
        own_keys: Tensor | None = None,
        own_mask: Tensor | None = None,
        maps: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Every head's output for every query.

        Args:
            state: what asks, (B, G, T, Z).
            shared: latents that all captions of an example read, (B, S, D); S may be 0.
            shared_keys: what queries are compared with in place of ``shared``, (B, S, D).
            shared_mask: True where a shared position may be read, (B, S). None: everywhere.
            own: latents that only their own caption reads, (B, G, W, D).
            own_keys: what queries are compared with in place of ``own``, (B, G, W, D).
            own_mask: True where query t may read own position w, (T, W). None: everywhere.
            maps: return probabilities too. Without them PyTorch's fused kernels read, which keep none.

        Returns:
            Head outputs (B, G, T, H, K), float32 or what a fused kernel multiplies in, and probabilities
            (B, G, T, H, S + W), float32, or None.
        """
        dtype = product_dtype(state.device.type) if _is_fused(shared, own, maps=maps) else torch.float32
        asked = self.query(state).unflatten(-1, (self.num_heads, self.head_dim))
        queries = into_latent_space(asked, self.up_key, dtype)
        latents, probabilities = self.read(
            queries,
            shared,
            shared_keys=shared_keys,
            shared_mask=shared_mask,
            own=own,
            own_keys=own_keys,
            own_mask=own_mask,
            maps=maps,
        )  # (B, G, T, H, D)
        return out_of_latent_space(latents, self.up_value, dtype), probabilities

    def read(
        self,
        queries: Tensor,
        shared: Tensor,
        *,
        shared_keys: Tensor | None = None,
        shared_mask: Tensor | None = None,
        own: Tensor | None = None,
        own_keys: Tensor | None = None,
        own_mask: Tensor | None = None,
        maps: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Scaled queries in the latent space (B, G, T, H, D) to what they attend to there and where.

        Memory, masks and ``maps`` are those of :meth:`forward`; H may be some of the heads alone. Returns latents
        (B, G, T, H, D), float32 or what a fused kernel multiplies in, and probabilities (B, G, T, H, S + W), float32,
        or None.
        """
        keys = shared if shared_keys is None else shared_keys
        own_keys = own if own_keys is None else own_keys
        if _is_fused(shared, own, maps=maps):
            return _read_fused(queries, keys, shared, shared_mask, own_keys, own, own_mask), None
        captions = [queries.size(axis) for axis in range(4)]  # B, G, T, H; part of a shape is a constant of a trace
        with full_precision(queries):
            shared = shared.float()
            scores = (queries.flatten(1, 3) @ keys.float().transpose(1, 2)).view(*captions, -1)
            if shared_mask is not None:
                scores = scores.masked_fill(~shared_mask[:, None, None, None], -math.inf)
            if own is None:
                probabilities = scores.softmax(-1)
                return (probabilities.flatten(1, 3) @ shared).view(*captions, -1), probabilities
            assert own_keys is not None
            own = own.float()
            own_scores = (queries.flatten(2, 3) @ own_keys.float().transpose(2, 3)).view(*captions, -1)
            if own_mask is not None:
                own_scores = own_scores.masked_fill(~own_mask[:, None], -math.inf)
            probabilities = torch.cat((scores, own_scores), -1).softmax(-1)
            to_shared, to_own = probabilities.split((shared.shape[1], own.shape[2]), -1)
            latents = (to_shared.flatten(1, 3) @ shared).view(*captions, -1)
            latents = latents + (to_own.flatten(2, 3) @ own).view(*captions, -1)
            return latents, probabilities if maps else None


def _is_fused(shared: Tensor, own: Tensor | None, *, maps: bool) -> bool:
    """Whether PyTorch's fused kernels read: nobody asks for maps, and what they copy is small."""
    return not maps and (own is None or shared.shape[1] <= COPIED)


def _read_fused(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    own_keys: Tensor | None,
    own: Tensor | None,
    own_mask: Tensor | None,
) -> Tensor:
    """What :meth:`LatentAttention.read` returns first: to a fused kernel all heads and steps are queries to one head.

    A caption that reads positions of its own gets shared ones beside them, a copy for each caption.
    """
    dtype = product_dtype(queries.device.type)
    if own is None or own_keys is None:
        asked, alike = queries.flatten(1, 3).unsqueeze(1), keys is values
        values = values.unsqueeze(1)
        keys = values if alike else keys.unsqueeze(1)
        mask = None if mask is None else mask[:, None, None]  # (B, 1, 1, S)
    else:
        batch, captions, steps, heads, _ = queries.shape
        size = values.shape[1]
        asked = queries.flatten(2, 3)  # (B, G, T * H, D)
        keys = torch.cat((keys[:, None].expand(-1, captions, -1, -1), own_keys.to(keys.dtype)), 2)
        values = torch.cat((values[:, None].expand(-1, captions, -1, -1), own.to(values.dtype)), 2)
        if mask is not None or own_mask is not None:
            readable = torch.ones(batch, 1, steps, values.shape[2], dtype=torch.bool, device=queries.device)
            if mask is not None:
                readable[..., :size] = mask[:, None, None]
            if own_mask is not None:
                readable[..., size:] = own_mask
            mask = readable.repeat_interleave(heads, 2)
    with full_precision(queries):
        latents = values.to(dtype)
        compared = latents if keys is values else keys.to(dtype)
        read = scaled_dot_product_attention(asked.to(dtype), compared, latents, attn_mask=mask, scale=1.0)
    return read.reshape(queries.shape)


def product_dtype(device: str) -> torch.dtype:
    """What fused kernels multiply in: the training's precision where the hardware multiplies matrices of it.

    A CPU without such units (AMX) takes longer in bfloat16 than in float32.
    """
    if not torch.is_autocast_enabled(device) or (device == "cpu" and not torch.cpu._is_amx_tile_supported()):
        return torch.float32
    return torch.get_autocast_dtype(device)


def into_latent_space(queries: Tensor, up_key: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Queries (..., H, K) by the keys' weights (H, K, D) to scaled queries in the latent space (..., H, D)."""
    with full_precision(queries):
        scaled = (up_key / math.sqrt(up_key.shape[1])).to(dtype)
        return torch.einsum("...hk,hkd->...hd", queries.to(dtype), scaled)


def out_of_latent_space(latents: Tensor, up_value: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attended latents (..., H, D) by the values' weights (H, K, D) to head outputs (..., H, K)."""
    with full_precision(latents):
        return torch.einsum("...hd,hkd->...hk", latents.to(dtype), up_value.to(dtype))


def full_precision(like: Tensor) -> torch.autocast:
    """Scores and probabilities are float32 under any precision: the products of latents are, but in fused kernels."""
    return torch.autocast(like.device.type, enabled=False)
