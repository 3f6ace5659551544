"""The colour map of every picture of attention: viridis, even in lightness and readable for the colour-blind."""

from __future__ import annotations

from torch import Tensor, tensor

ANCHORS = (
    *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)


def colour(values: Tensor) -> Tensor:
    """Values from 0 to 1, (...), to red, green and blue from 0 to 1, (..., 3)."""
    table = tensor([[int(anchor[at : at + 2], 16) / 255 for at in (1, 3, 5)] for anchor in ANCHORS])
    place = values.detach().float().cpu().clamp(0, 1) * (len(ANCHORS) - 1)
    below = place.long().clamp_max(len(ANCHORS) - 2)
    return table[below].lerp(table[below + 1], (place - below).unsqueeze(-1))


def hex_colour(value: float) -> str:
    """One value from 0 to 1 as ``#rrggbb``."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour(tensor(value)).tolist())
