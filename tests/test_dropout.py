"""Dropout by few random bits: shares, scale, gradients, and that it is the generator's."""

from __future__ import annotations

import pytest
import torch

from latentcap.model.dropout import Dropout


@pytest.mark.parametrize("shape", [(641, 313), (3, 1, 7, 9999), (200_001,)])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_it_leaves_out_the_share_and_keeps_the_mean(shape: tuple[int, ...], p: float) -> None:
    torch.manual_seed(0)
    layer = Dropout(p)
    values = torch.ones(shape, requires_grad=True)
    found = layer(values)
    left_out = (found == 0).float().mean().item()
    assert left_out == pytest.approx(p, abs=5 * (p * (1 - p) / values.numel()) ** 0.5)
    assert torch.unique(found.detach()).tolist() == pytest.approx([0, 1 / (1 - p)], rel=2e-4)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found.detach())


def test_neighbours_do_not_depend_on_each_other() -> None:
    """Sixteen bits of one number make four of them."""
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(400_000)) != 0).float() - 0.7
    for distance in (1, 2, 3, 4, 8):
        both = (kept[:-distance] * kept[distance:]).mean().item()
        assert abs(both) < 5 * 0.21 / 400_000**0.5


def test_it_is_the_generators_and_keeps_types() -> None:
    layer, values = Dropout(0.2), torch.randn(5, 11).to(torch.bfloat16)
    torch.manual_seed(3)
    first = layer(values)
    torch.manual_seed(3)
    assert torch.equal(first, layer(values))
    assert not torch.equal(first, layer(values))
    assert first.dtype == torch.bfloat16


def test_extremes_and_evaluation() -> None:
    values = torch.randn(4, 6)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)
