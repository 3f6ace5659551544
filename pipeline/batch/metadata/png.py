"""XMP and a description in a PNG: two chunks of text."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP, PLAIN = b"XML:com.adobe.xmp", b"Description"


def packet_of(data: bytes) -> bytes | None:
    """The XMP packet, or None. Raises ValueError for a PNG whose chunks cannot be followed."""
    for kind, start, end in _chunks(data):
        if kind == b"iTXt" and _keyword(data, start) == XMP:
            packed, rest = data[start + 8 + len(XMP) + 1], data[start + 8 + len(XMP) + 3 : end - 4]
            _, _, text = rest.split(b"\0", 2)
            return zlib.decompressobj().decompress(text, 1 << 24) if packed else text
    return None


def with_packet(data: bytes, packet: bytes, text: str) -> bytes:
    """The file with this packet, and ``text`` as its ``Description``, right after the header, in place of its own."""
    parts = [SIGNATURE]
    for kind, start, end in _chunks(data):
        if not (kind in (b"iTXt", b"tEXt", b"zTXt") and _keyword(data, start) in (XMP, PLAIN)):
            parts.append(data[start:end])
        if kind == b"IHDR":
            parts += [_text(XMP, packet), _text(PLAIN, text.encode("utf-8", "replace"))]
    end = next(end for kind, _, end in _chunks(data) if kind == b"IEND")
    return b"".join(parts) + data[end:]


def _text(keyword: bytes, text: bytes) -> bytes:
    content = b"iTXt" + keyword + b"\0\0\0\0\0" + text
    return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


def _keyword(data: bytes, start: int) -> bytes:
    return data[start + 8 : start + 88].split(b"\0", 1)[0]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk."""
    start = len(SIGNATURE)
    while True:
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if start + 12 > len(data) or end > len(data):
            raise ValueError("its end is missing")
        kind = data[start + 4 : start + 8]
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
