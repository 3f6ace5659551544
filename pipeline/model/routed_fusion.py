"""The fusion layer with routers: of each kind, only the heads that an example or a query has chosen are computed.

Dimension letters: see ``latent_attention.py``; R chosen heads of one kind, E size of the fused vector.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from latentcap.model.chosen_heads import ChosenHeads
from latentcap.model.fusion import Attention, Fusion, Memory, words_so_far
from latentcap.model.latent_attention import LatentAttention, into_latent_space, out_of_latent_space
from latentcap.model.routing import HeadRouter


class RoutedFusion(Fusion):
    """A :class:`Fusion` whose gates have a further factor, the router's weight of a head.

    Heads with the factor 0 are skipped: R heads in place of H from the query projection on. What they read stays in
    the latent space, so that the way back and the output projection are one pass over queries that chose alike. A kind
    with no more heads than ``shared_heads + top_k`` has no router, and all its heads are on.

    Args:
        top_k: of each kind, how many of the heads that are not shared are on.
        shared_heads: of each kind, the first heads, which are always on.
        route_by: who chooses, ``example`` (from the memory's summary) or ``query`` (from its state).
        balance: see :class:`HeadRouter`.
        sizes: of :class:`Fusion`.
    """

    def __init__(self, *, top_k: int, shared_heads: int, route_by: str, balance: str, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.route_by = route_by

        def router(kind: LatentAttention | None) -> HeadRouter | None:
            if kind is None or kind.num_heads <= shared_heads + top_k:
                return None
            size = sizes["output_dim"] if route_by == "example" else sizes["query_dim"]
            return HeadRouter(size, num_heads=kind.num_heads, shared_heads=shared_heads, top_k=top_k, balance=balance)

        self.visual_router, self.text_router = router(self.visual), router(self.text)

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
        """As :meth:`Fusion.attend`; padding, where ``written`` is False, does not count as a router's load."""
        gate, query_gate = self.weigh_heads(state, gate)
        kinds: dict[str, tuple[LatentAttention | None, HeadRouter | None, dict[str, Any]]] = {
            "visual": (
                self.visual,
                self.visual_router,
                {"shared": memory.visual, "shared_keys": memory.visual_keys, "shared_mask": memory.visual_mask},
            ),
            "text": (
                self.text,
                self.text_router,
                {
                    "shared": memory.context,
                    "shared_keys": memory.context_keys,
                    "shared_mask": memory.context_mask,
                    "own": words,
                    "own_keys": self.word_keys(words),
                    "own_mask": words_so_far(words) if causal else None,
                },
            ),
        }
        counts = [0 if kind is None else kind.num_heads for kind, _, _ in kinds.values()]
        weights = self.output.weight.T.unflatten(0, (-1, self.head_dim)).split(counts)  # of each kind (H, K, E)
        gates = gate.expand(*gate.shape[:-1], sum(counts)).split(counts, -1)
        fused = self.output.bias.to(state.dtype)
        looked, losses = {}, []
        for (name, (kind, router, read)), weight, own_gate in zip(kinds.items(), weights, gates, strict=True):
            if kind is None:
                continue
            chosen, loss = self._choose(kind, router, state, memory, written)
            latents, where = kind.read(_ask(kind, chosen, state), **read, maps=maps)  # (B, G, T, R, D)
            factor = chosen.pick(own_gate, latents) * chosen.weights
            fused = fused + _answer(kind, chosen, latents * factor.unsqueeze(-1), weight, dtype=state.dtype)
            looked[name] = where, chosen
            losses += [] if loss is None else [loss]
        balance_loss = torch.stack(losses).sum() if losses else None
        attention = RoutedAttention(looked, state.shape[:3], query_gate=query_gate, balance_loss=balance_loss)
        return self.weigh_output(state, fused), attention

    def _choose(
        self, kind: LatentAttention, router: HeadRouter | None, state: Tensor, memory: Memory, written: Tensor | None
    ) -> tuple[ChosenHeads, Tensor | None]:
        """The heads of one kind that are on, and the router's balance loss."""
        if router is None:
            return ChosenHeads.all_of(kind.num_heads, batch=len(state), device=state.device), None
        if self.route_by == "query":
            return router(state, written)
        return router(memory.summary[:, None, None])


def _ask(kind: LatentAttention, chosen: ChosenHeads, state: Tensor) -> Tensor:
    """States (B, G, T, Z) to the chosen heads' scaled queries in the latent space, (B, G, T, R, D)."""

    def ask(rows: Tensor, weight: Tensor, up_key: Tensor) -> Tensor:
        queries = nn.functional.linear(rows, weight.flatten(0, 1)).unflatten(-1, weight.shape[:2])
        return into_latent_space(queries, up_key)

    weight = kind.query.weight.unflatten(0, (kind.num_heads, kind.head_dim))  # (H, K, Z)
    return chosen.apply(ask, state, weight, kind.up_key)


def _answer(
    kind: LatentAttention, chosen: ChosenHeads, latents: Tensor, output: Tensor, *, dtype: torch.dtype
) -> Tensor:
    """What the chosen heads read, gated, (B, G, T, R, D), through the output matrix (H, K, E): (B, G, T, E)."""

    def answer(rows: Tensor, up_value: Tensor, weight: Tensor) -> Tensor:
        return out_of_latent_space(rows, up_value).flatten(-2).to(dtype) @ weight.flatten(0, 1)

    return chosen.apply(answer, latents, kind.up_value, output)


class RoutedAttention(Attention):
    """Where each head looked: zeros for heads that were left out.

    The zeros are filled in when an attribute is read, so that who reads none, as training does, pays nothing.
    """

    def __init__(
        self,
        looked: dict[str, tuple[Tensor | None, ChosenHeads]],
        captions: torch.Size,
        *,
        query_gate: Tensor | None,
        balance_loss: Tensor | None,
    ) -> None:
        self._looked, self._captions = looked, captions  # B, G, T
        self.query_gate, self.balance_loss = query_gate, balance_loss

    @cached_property
    def visual(self) -> Tensor | None:  # type: ignore[override]
        return self._maps("visual")

    @cached_property
    def text(self) -> Tensor | None:  # type: ignore[override]
        return self._maps("text")

    @cached_property
    def gate(self) -> Tensor | None:  # type: ignore[override]
        return torch.cat(
            [chosen.spread(chosen.weights.expand(*self._captions, -1)) for _, chosen in self._looked.values()], -1
        )

    def _maps(self, kind: str) -> Tensor | None:
        where, chosen = self._looked.get(kind, (None, None))
        return None if where is None or chosen is None else chosen.spread(where)
