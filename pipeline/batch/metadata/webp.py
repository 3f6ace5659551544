"""XMP in a WebP: a chunk at the end, and a flag in the header, which the simple kind of file gets with it."""

from __future__ import annotations

from collections.abc import Iterator

XMP_FLAG, ALPHA_FLAG = 0x04, 0x10


def packet_of(data: bytes) -> bytes | None:
    """The XMP packet, or None. Raises ValueError for a WebP whose chunks cannot be followed."""
    return next((data[start + 8 : start + 8 + size] for kind, start, size in _chunks(data) if kind == b"XMP "), None)


def with_packet(data: bytes, packet: bytes) -> bytes:
    """The file with this packet in place of its own."""
    parts = []
    chunks = list(_chunks(data))
    if chunks[0][0] != b"VP8X":
        parts.append(_header(data, chunks[0][0]))
    for kind, start, size in chunks:
        if kind == b"VP8X":
            flags = data[start + 8] | XMP_FLAG
            parts.append(data[start : start + 8] + bytes([flags]) + data[start + 9 : start + 8 + size])
        elif kind != b"XMP ":
            parts.append(data[start : start + 8 + size] + bytes(size % 2))
    parts.append(b"XMP " + len(packet).to_bytes(4, "little") + packet + bytes(len(packet) % 2))
    body = b"WEBP" + b"".join(parts)
    end = 8 + int.from_bytes(data[4:8], "little")
    return b"RIFF" + len(body).to_bytes(4, "little") + body + data[end:]


def _header(data: bytes, kind: bytes) -> bytes:
    """The chunk that a simple file lacks: flags and size. The picture's own chunk begins at byte 12."""
    flags = XMP_FLAG
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags |= ALPHA_FLAG if bits >> 28 & 1 else 0
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise ValueError("it begins with a chunk that is not expected")
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + (10).to_bytes(4, "little") + bytes([flags, 0, 0, 0]) + sizes


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and size of each chunk's content, which begins 8 bytes later."""
    start, end = 12, 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or end < 20:
        raise ValueError("its end is missing")
    while start + 8 <= end:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if start + 8 + size > end:
            raise ValueError("its end is missing")
        yield data[start : start + 4], start, size
        start += 8 + size + size % 2
