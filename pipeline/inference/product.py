"""Products with one matrix, again and again: what a step of a search does most."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

LEAST = 4  # rows that a product is computed for


class Product:
    """``linear`` with a matrix that stays as it is: values (B, G, K) to (B, G, N).

    On a CPU the matrix is laid out once in the order in which oneDNN's kernels read it. For the three rows of one
    image's beams the product then takes a third of ``linear``'s time, which brings the matrix into that order at every
    call; for hundreds of rows nine tenths.

    Searches that end one by one have all numbers of rows: they are rounded up, see :func:`blank_rows`.

    Args:
        weight, bias: (N, K) and (N,).
        packed: False leaves the matrix as it is, for a graph that is traced.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, packed: bool = True) -> None:
        self.weight, self.bias = weight, bias
        self._packed = _packed(weight) if packed else None

    def __call__(self, values: Tensor) -> Tensor:
        if self._packed is None:
            return linear(values, self.weight, self.bias)
        shape, rows = values.shape[:-1], values.shape[:-1].numel()
        values = values.reshape(rows, values.shape[-1])
        if blank := blank_rows(rows):
            values = pad(values, (0, 0, 0, blank))
        found: Tensor = torch.ops.mkldnn._linear_pointwise(values, self._packed, self.bias, "none", [], "")
        return found[:rows].unflatten(0, shape)


def blank_rows(rows: int) -> int:
    """How many rows to add, so that products come in few sizes: up to a multiple of ``LEAST``, by an eighth at most.

    oneDNN compiles kernels for each new number of rows, which takes as long as a small product, and keeps those of the
    last thousand: of a product with a vocabulary's matrix and its gradients 9 MB for each number.
    """
    return -rows % max(LEAST, 1 << max(0, rows.bit_length() - 4))


def _packed(weight: Tensor) -> Tensor | None:
    """The matrix as oneDNN wants it; None where it cannot: another device, another library, a type it has not."""
    if not weight.is_cpu or not torch.backends.mkldnn.is_available() or not weight.numel():
        return None
    try:
        found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    except (AttributeError, RuntimeError):  # bfloat16 on a processor that has no products for it
        return None
    return found
