"""Where something stands, as a vector: the place of a word, or the row and column of a region."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """The position code of Vaswani et al. (2017): positions (...) to (..., size), ``size`` even."""
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device) * (-math.log(10_000.0) / size))
    angles = positions.float().unsqueeze(-1) * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


def grid_sinusoids(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """Half of the code for the row, half for the column: (height * width, size), ``size`` a multiple of 4."""
    rows = sinusoids(torch.arange(height, device=device) * (16 / height), size // 2)
    columns = sinusoids(torch.arange(width, device=device) * (16 / width), size // 2)
    grid = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), -1)
    return grid.flatten(0, 1)
