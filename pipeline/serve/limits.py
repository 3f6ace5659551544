"""How much one request, and all of them together, may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each is answered with an error that names it.

    Attributes:
        body: bytes of a request.
        pixels: of one image, width times height.
        images: of one request.
        seconds: from the first byte of a request to its answer.
        waiting: requests that are accepted and not answered; above it, 503.
        captions: of one image.
    """

    body: int = 32 << 20
    pixels: int = 100_000_000
    images: int = 64
    seconds: float = 60.0
    waiting: int = 256
    captions: int = 16
