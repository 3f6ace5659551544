"""The same split heads without compression: full keys and values, the layer that latents are compared with.

Dimension letters: see ``model/latent_attention.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentcap.model.fusion import Fusion


class FullAttention(nn.Module):
    r"""Heads with keys and values of their own, as in ``nn.MultiheadAttention``: :math:`k_h = W^k_h x, v_h = W^v_h x`.

    It takes the place of ``LatentAttention`` in a ``Fusion``: its "latents" are the keys and values of all heads, so
    D = 2 H K. It reads them by PyTorch's fused kernel, which gives no probabilities.
    """

    def __init__(self, query_dim: int, memory_dim: int, *, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.query = nn.Linear(query_dim, num_heads * head_dim, bias=False)
        self.down = nn.Linear(memory_dim, 2 * num_heads * head_dim, bias=False)

    def compress(self, memory: Tensor, position: Tensor) -> Tensor:
        """Memory (..., C) to keys and values (..., 2 H K); the code of position is added to both."""
        keys = self.down(memory)
        return keys + position.to(keys.dtype)

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
        maps: bool = False,
    ) -> tuple[Tensor, None]:
        """As ``LatentAttention.forward``: head outputs (B, G, T, H, K), and no probabilities.

        Neither a ``shared_mask`` nor keys that are not part of what is read.
        """
        assert shared_mask is None
        assert shared_keys is None
        assert own_keys is None
        batch, captions, steps, _ = state.shape
        queries = self.query(state).unflatten(-1, (self.num_heads, self.head_dim))
        if own is None:  # all captions are queries on one copy
            heads = self._read(queries.flatten(1, 2), shared, None)
            return heads.unflatten(1, (captions, steps)), None
        memory = torch.cat((shared[:, None].expand(-1, captions, -1, -1).to(own.dtype), own), 2)
        mask = None
        if own_mask is not None:
            mask = torch.cat((own_mask.new_ones(steps, shared.shape[1]), own_mask), 1)
        heads = self._read(queries.flatten(0, 1), memory.flatten(0, 1), mask)
        return heads.unflatten(0, (batch, captions)), None

    def _read(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (B, T, H, K) and keys and values (B, S, 2 H K) to (B, T, H, K)."""
        keys, values = memory.to(queries.dtype).unflatten(-1, (2, self.num_heads, self.head_dim)).unbind(2)
        heads = nn.functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )
        return heads.transpose(1, 2)


def uncompress(fusion: Fusion, *, sizes: tuple[int, int, int]) -> Fusion:
    """A fusion layer with the same heads of both kinds, as many of each, and full keys and values.

    ``sizes`` are those of a query, a region and a word.
    """
    assert fusion.visual is not None
    assert fusion.text is not None
    heads, head_dim = fusion.visual.num_heads, fusion.head_dim
    assert fusion.text.num_heads == heads
    query, region, text = sizes
    full = Fusion(
        query_dim=query,
        region_dim=region,
        text_dim=text,
        output_dim=fusion.output.out_features,
        visual_heads=heads,
        text_heads=heads,
        head_dim=head_dim,
        latent_dim=2 * heads * head_dim,
        latent_dropout=0.0,
        max_views=1,
        position="latents",
    )
    full.visual = FullAttention(query, region, num_heads=heads, head_dim=head_dim)  # type: ignore[assignment]
    full.text = FullAttention(query, text, num_heads=heads, head_dim=head_dim)  # type: ignore[assignment]
    return full
