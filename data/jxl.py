"""The size of a JPEG XL image, of its header (ISO/IEC 18181-1): its decoder tells it only with all pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable

CODESTREAM = b"\xff\x0a"
RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height
LENGTHS = (9, 13, 18, 30)  # bits of a side


def jxl_size(encoded: bytes) -> tuple[int, int]:
    """Width and height. Raises OSError for a damaged file."""
    try:
        stream = _codestream(encoded)
    except struct.error:
        stream = b""
    if len(stream) < 12 or not stream.startswith(CODESTREAM):
        raise OSError("a JPEG XL image that is damaged")
    left = int.from_bytes(stream[2:12], "little")

    def bits(count: int) -> int:
        nonlocal left
        value = left & (1 << count) - 1
        left >>= count
        return value

    eighths = bool(bits(1))
    height = _side(bits, eighths)
    ratio = bits(3)
    if not ratio:
        return _side(bits, eighths), height
    wide, high = RATIOS[ratio - 1]
    return height * wide // high, height


def _side(bits: Callable[[int], int], eighths: bool) -> int:
    return 8 * (1 + bits(5)) if eighths else 1 + bits(LENGTHS[bits(2)])


def _codestream(encoded: bytes) -> bytes:
    """The first bytes of the codestream, of a file that is one or of a container of boxes."""
    if encoded.startswith(CODESTREAM):
        return encoded[:12]
    at = 0
    while at < len(encoded):
        size, kind = struct.unpack_from(">I4s", encoded, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", encoded, at + 8)[0], 16
        if kind in (b"jxlc", b"jxlp"):  # the latter begins with its number
            start = at + head + 4 * (kind == b"jxlp")
            return encoded[start : start + 12]
        at += max(size, head) if size else len(encoded)
    return b""
