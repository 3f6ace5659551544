"""XMP and Exif in a JPEG: a segment each, among those before the picture."""

from __future__ import annotations

from itertools import pairwise

from latentcap.batch.metadata.exif import with_image_description

SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
LARGEST = 65_533 - len(SIGNATURE)  # bytes of a packet
EXIF = b"Exif\0\0"
APP0, APP1, APP2, SOS = 0xE0, 0xE1, 0xE2, 0xDA


def packet_of(data: bytes) -> bytes | None:
    """The XMP packet, or None. Raises ValueError for a JPEG whose segments cannot be followed."""
    for start, end in _segments(data):
        if _is_xmp(data, start):
            return data[start + 4 + len(SIGNATURE) : end]
    return None


def with_packet(data: bytes, packet: bytes) -> bytes:
    """The file with this packet in place of its own, or after the headers of JFIF and Exif.

    Raises ValueError where the packet is too long, or offsets in the file would be wrong afterwards.
    """
    if len(packet) > LARGEST:
        raise ValueError(f"its XMP would be {len(packet):,} bytes long, where a JPEG has room for {LARGEST:,}")
    segment = _segment(SIGNATURE + packet)
    place = 2
    several = False
    for start, end in _segments(data):
        if _is_xmp(data, start):
            if several and end - start != len(segment):
                raise ValueError("it holds several pictures, whose places are given before its XMP")
            return data[:start] + segment + data[end:]
        several = several or (data[start + 1] == APP2 and data.startswith(b"MPF\0", start + 4))
        if place == start and (data[start + 1] == APP0 or data.startswith(b"Exif\0", start + 4)):
            place = end
    return data[:place] + segment + data[place:]


def with_exif_description(data: bytes, text: str, *, ours: str) -> bytes:
    """The file with ``text`` as Exif's ``ImageDescription``, as :mod:`.exif` has it; unchanged where it has no room."""
    place, held = 2, None
    for start, end in _segments(data):
        if data[start + 1] == APP2:
            break  # places of further pictures may be counted from here on
        if data[start + 1] == APP0 and place == start:
            place = end
        elif data[start + 1] == APP1 and data.startswith(EXIF, start + 4):
            place, held = start, (start, end)
            break
    tiff = data[held[0] + 4 + len(EXIF) : held[1]] if held else None
    changed = with_image_description(tiff, text, ours=ours)
    if changed is None or len(changed) > 65_533 - len(EXIF):
        return data
    return data[:place] + _segment(EXIF + changed) + data[held[1] if held else place :]


def _segment(content: bytes) -> bytes:
    return b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Start and end of the segments before the picture."""
    ends = [2]
    while True:
        at = ends[-1]
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError("its segments cannot be followed")
        if data[at + 1] == SOS:
            return list(pairwise(ends))
        size = int.from_bytes(data[at + 2 : at + 4], "big") + 2
        if data[at + 1] == 0xFF or data[at + 1] < 0xC0:
            raise ValueError("it has padding or markers that are not expected before the picture")
        ends.append(at + size)


def _is_xmp(data: bytes, start: int) -> bool:
    return data[start + 1] == APP1 and data.startswith(SIGNATURE, start + 4)
