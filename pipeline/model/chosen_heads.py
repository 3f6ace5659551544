"""Which heads are computed for which queries, and how to compute only those: queries that chose alike go together.

Dimension letters: see ``latent_attention.py``; U units that choose, R chosen heads of each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor


class ChosenHeads:
    """The chosen heads of each unit, a unit being an example or a single query.

    Units are sorted by their set of heads, so that each set is one dense product with that set's weights alone. There
    are as many products as different sets: three with one routed head of three, thousands with seven of fifteen. That
    many are slow where every query chooses for itself; examples never have more sets than the batch has examples.

    Attributes:
        heads: indices of the chosen heads, rising, (B, 1, 1, R) or (B, G, T, R).
        weights: what each chosen head's output is multiplied by, of the same shape.
        num_heads: H, of how many they were chosen.
    """

    def __init__(self, heads: Tensor, weights: Tensor, *, num_heads: int) -> None:
        self.heads, self.weights, self.num_heads = heads, weights, num_heads

    @classmethod
    def all_of(cls, num_heads: int, *, batch: int, device: torch.device) -> Self:
        """Every head, for every example, with the weight 1."""
        heads = torch.arange(num_heads, device=device).expand(batch, 1, 1, -1)
        return cls(heads, torch.ones(heads.shape, device=device), num_heads=num_heads)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, list[int], Tensor]:
        """Order of the units, its inverse, how many units have each set of heads, and those sets, (sets, R)."""
        units = self.heads.flatten(0, 2)
        codes = (1 << units).sum(-1)  # a set of heads as the bits of one number
        order = codes.argsort(stable=True)
        _, counts = torch.unique_consecutive(codes[order], return_counts=True)
        first = order[counts.cumsum(0) - counts]
        return order, order.argsort(), counts.tolist(), units[first]

    def apply(self, function: Callable[..., Tensor], inputs: Tensor, *weights: Tensor) -> Tensor:
        """``function(inputs of those that chose alike, *weights of their heads)`` for every set of heads.

        Args:
            function: gets inputs (rows, ...) and each weight as (R, ...); returns (rows, ...).
            inputs: (B, G, T, ...).
            weights: each (H, ...).

        Returns:
            The results in the order of the inputs, (B, G, T, ...).
        """
        order, inverse, counts, sets = self._sorted
        shape = inputs.shape[:3]
        units = inputs.reshape(len(order), -1, *inputs.shape[3:])  # (U, queries of a unit, ...)
        alike = units.split(counts) if len(sets) == 1 else _permute(units, order, inverse).split(counts)
        # One selection for all sets: its gradient is one sum, not one of the size of all weights for each set.
        chosen = [weight.index_select(0, sets.flatten()).unflatten(0, sets.shape).unbind() for weight in weights]
        results = [
            function(rows.flatten(0, 1), *own) for rows, own in zip(alike, zip(*chosen, strict=True), strict=True)
        ]
        if len(sets) == 1:
            return results[0].unflatten(0, shape)
        joined = torch.cat(results)
        units = joined.view(*units.shape[:2], *joined.shape[1:])
        return _permute(units, inverse, order).reshape(*shape, *joined.shape[1:])

    def pick(self, values: Tensor, like: Tensor) -> Tensor:
        """The chosen heads' entries of values that broadcast to (B, G, T, H): (B, G, T, R), as ``like`` has B, G, T."""
        index = self.heads.expand(*like.shape[:3], -1)
        return values.expand(*like.shape[:3], self.num_heads).gather(-1, index)

    def spread(self, values: Tensor) -> Tensor:
        """Values (B, G, T, R) or (B, G, T, R, S) of chosen heads among zeros: (B, G, T, H) or (B, G, T, H, S)."""
        index = self.heads.expand(*values.shape[:3], -1)
        full = values.new_zeros(*values.shape[:3], self.num_heads, *values.shape[4:])
        return full.scatter(3, index.view(*index.shape, *[1] * (values.ndim - 4)).expand_as(values), values)


class _Permutation(torch.autograd.Function):
    """Rows in another order. The gradient is a permutation too, which autograd would do by slow additions."""

    @staticmethod
    def forward(context: Any, values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        context.save_for_backward(inverse)
        return values.index_select(0, order)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = context.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


def _permute(values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    return _Permutation.apply(values, order, inverse)
