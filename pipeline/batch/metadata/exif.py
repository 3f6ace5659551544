"""``ImageDescription`` in Exif: set where there is none, or where it is ours; nothing else changes its place.

Exif is a TIFF: a header that says where a list of entries is, 12 bytes each, and values that they point to. What is new
is put at the end, so that whatever points into the rest, makers' notes too, stays right.
"""

from __future__ import annotations

import struct

TAG, ASCII, SHORT, RATIONAL = 0x010E, 2, 3, 5
NEW = (  # what Exif has to have besides: 72 pixels an inch, colours centred
    (0x011A, RATIONAL, struct.pack("<II", 72, 1)),
    (0x011B, RATIONAL, struct.pack("<II", 72, 1)),
    (0x0128, SHORT, struct.pack("<H", 2)),
    (0x0213, SHORT, struct.pack("<H", 1)),
)
SIZES = {ASCII: 1, SHORT: 2, RATIONAL: 8}


def with_image_description(tiff: bytes | None, text: str, *, ours: str) -> bytes | None:
    """Exif, after its ``Exif\\0\\0``, with this description; None where it is to stay as it is: somebody else's
    description is there, or it cannot be followed. ``ours`` is the description that may be written over."""
    value = text.replace("\0", "").encode("utf-8", "replace") + b"\0"
    if tiff is None:
        return _new(value)
    try:
        return _changed(tiff, value, ours.encode("utf-8", "replace"))
    except (struct.error, KeyError):
        return None


def _changed(tiff: bytes, value: bytes, ours: bytes) -> bytes | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (number,) = struct.unpack_from(order + "H", tiff, start)
    places = [start + 2 + 12 * index for index in range(number)]
    entries = [tiff[place : place + 12] for place in places]
    following = tiff[start + 2 + 12 * number :][:4]
    if len(following) < 4:
        return None
    tags = [struct.unpack_from(order + "H", entry)[0] for entry in entries]
    if TAG not in tags:
        padded = tiff + bytes(len(tiff) % 2)
        entry, more = _entry(order, value, at=len(padded) + 2 + 12 * (number + 1) + 4)
        entries.insert(sum(tag < TAG for tag in tags), entry)
        listed = struct.pack(order + "H", number + 1) + b"".join(entries) + following
        return tiff[:4] + struct.pack(order + "I", len(padded)) + padded[8:] + listed + more
    place = places[tags.index(TAG)]
    _, kind, count, at = struct.unpack_from(order + "HHII", tiff, place)
    held = tiff[place + 8 : place + 8 + count] if count <= 4 else tiff[at : at + count]
    if kind != ASCII or held.strip(b"\0 ") not in (b"", ours) or held == value:
        return None
    if 4 < len(value) <= count:
        entry = struct.pack(order + "HHII", TAG, ASCII, len(value), at)
        tiff = tiff[:at] + value.ljust(count, b"\0") + tiff[at + count :]
        return tiff[:place] + entry + tiff[place + 12 :]
    padded = tiff + bytes(len(tiff) % 2)
    entry, more = _entry(order, value, at=len(padded))
    return padded[:place] + entry + padded[place + 12 :] + more


def _new(value: bytes) -> bytes:
    """A whole one."""
    entries, values = b"", b""
    fields = ((TAG, ASCII, value), *NEW)
    at = 8 + 2 + 12 * len(fields) + 4
    for tag, kind, content in fields:
        entry, more = _entry("<", content, at=at + len(values), tag=tag, kind=kind)
        entries, values = entries + entry, values + more
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + values


def _entry(order: str, value: bytes, *, at: int, tag: int = TAG, kind: int = ASCII) -> tuple[bytes, bytes]:
    """An entry, and the value where it does not fit into it, which then is at ``at``."""
    head = struct.pack(order + "HHI", tag, kind, len(value) // SIZES[kind])
    if len(value) <= 4:
        return head + value.ljust(4, b"\0"), b""
    return head + struct.pack(order + "I", at), value + bytes(len(value) % 2)
