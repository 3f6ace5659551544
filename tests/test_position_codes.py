"""Position codes: no two places alike."""

from __future__ import annotations

import torch

from latentcap.model.position_codes import grid_sinusoids, sinusoids


def test_position_codes_tell_places_apart() -> None:
    code = sinusoids(torch.arange(50), 16)
    assert torch.cdist(code, code).fill_diagonal_(9).min() > 0.1
    grid = grid_sinusoids(3, 5, 16, torch.device("cpu"))
    assert grid.shape == (15, 16)
    assert torch.cdist(grid, grid).fill_diagonal_(9).min() > 0.1
