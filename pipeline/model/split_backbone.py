"""A backbone in two: layers that stay as they are, run once for each image and cached, and layers that are trained.

Dimension letters: see ``backbone.py``; h' x w' the grid of the frozen layers, c its channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SplitBackbone:
    """The layers of a CNN, in the order in which it runs them.

    Attributes:
        stem: frozen; images (B, 3 or 1, H, W) to maps (B, c, h', w').
        tail: from the first trained layer on; those maps to features (B, C, h, w).
        shape: (h', w', c), what is kept of one image.
    """

    stem: nn.Sequential
    tail: nn.Sequential
    shape: tuple[int, int, int]

    def regions_from(self, cells: Tensor) -> Tensor:
        """Cells of the maps (B, V * h' * w', c) to regions (B, V * h * w, C)."""
        height, width, channels = self.shape
        maps = cells.reshape(-1, height, width, channels).permute(0, 3, 1, 2)  # as the CNN has them: channels last
        regions = self.tail(maps).flatten(2).mT
        return regions.reshape(len(cells), -1, regions.shape[-1])


def split_at_first_trained(net: nn.Module, features: Callable[[Tensor], Tensor], probe: Tensor) -> SplitBackbone | None:
    """Cut ``net`` before its first layer that has a gradient.

    A network that does not run its layers one after another, in the order in which it declares them, cannot be cut:
    whether it does is tried on ``probe``, images (B, C, H, W), whose ``features`` must come out.

    Returns:
        None where nothing is trained, the first layer is, or the network cannot be cut.
    """
    layers = layers_in_order(net)
    trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    first = trained.index(True) if any(trained) else 0
    if not first:
        return None
    training = net.training
    net.eval()
    shape, end = None, 0
    with torch.inference_mode():
        expected, values = features(probe), probe
        for number, layer in enumerate(layers, start=1):
            try:
                values = layer(values)
            except (RuntimeError, TypeError, ValueError):  # it is not made for what the layer before gives
                break
            if number == first:
                shape = values.shape
            if number > first and values.shape == expected.shape and torch.allclose(values, expected, atol=1e-4):
                end = number
                break
    net.train(training)
    if not end or shape is None or len(shape) != 4:
        return None
    stem, tail = nn.Sequential(*layers[:first]), nn.Sequential(*layers[first:end])
    return SplitBackbone(stem, tail, (shape[2], shape[3], shape[1]))


def cut_like(net: nn.Module, other: SplitBackbone) -> SplitBackbone:
    """A network of the same layers as that of ``other``, cut at the same place."""
    layers, first = layers_in_order(net), len(other.stem)
    tail = layers[first : first + len(other.tail)]
    return SplitBackbone(nn.Sequential(*layers[:first]), nn.Sequential(*tail), other.shape)


def layers_in_order(net: nn.Module) -> list[nn.Module]:
    """The layers and blocks of a network as it declares them; sequences, and sequences in them, are taken apart."""
    found: list[nn.Module] = []
    for child in net.children():
        found += layers_in_order(child) if isinstance(child, nn.Sequential) else [child]
    return found
