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
            return _unpacked(text) if packed else text
    return None


def with_packet(data: bytes, packet: bytes, text: str, *, ours: str) -> bytes:
    """The file with this packet right after the header, in place of its own, and ``text`` as its ``Description``,
    unless somebody else's is there. ``ours`` is the description that may be written over."""
    described = [data[start:end] for kind, start, end in _chunks(data) if _is_text(kind, data, start, PLAIN)]
    free = all(chunk == _plain(ours) for chunk in described)
    parts = [SIGNATURE]
    for kind, start, end in _chunks(data):
        if not (_is_text(kind, data, start, XMP) or (free and _is_text(kind, data, start, PLAIN))):
            parts.append(data[start:end])
        if kind == b"IHDR":
            parts += [_text(XMP, packet), *([_plain(text)] if free else ())]
    end = next(end for kind, _, end in _chunks(data) if kind == b"IEND")
    return b"".join(parts) + data[end:]


def _is_text(kind: bytes, data: bytes, start: int, keyword: bytes) -> bool:
    return kind in (b"iTXt", b"tEXt", b"zTXt") and _keyword(data, start) == keyword


def _unpacked(text: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(text, 1 << 24)
    except zlib.error as error:
        raise ValueError(f"its XMP is damaged ({error})") from None


def _plain(text: str) -> bytes:
    return _text(PLAIN, text.encode("utf-8", "replace"))


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
