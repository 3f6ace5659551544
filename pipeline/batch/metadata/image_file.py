"""The description inside an image file: read, and set without touching a pixel."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from latentcap.batch.journal import synced
from latentcap.batch.metadata import jpeg, png, webp
from latentcap.batch.metadata.xmp import description_of, with_description

ROOM = 8192  # bytes that a caption may add to the XMP of a JPEG, which is limited


def read_description(path: Path) -> str:
    """The description in the XMP of an image, or "".

    Raises OSError where it cannot be read, ValueError where a description cannot be written into it.
    """
    data = path.read_bytes()
    if not os.access(path, os.W_OK):
        raise ValueError("the file is read-only")
    packet = _packet(data)
    with_description_in(data, "x" * ROOM)  # whatever stands against it is known before it is captioned
    return description_of(packet) if packet else ""


def write_description(path: Path, text: str) -> None:
    """Set the description in an image: a new file takes the old one's place, with its times, rights and pixels.

    Raises OSError where it cannot be written, ValueError where there is no place for it.
    """
    path = Path(os.path.realpath(path))
    status = os.stat(path)
    data = path.read_bytes()
    changed = with_description_in(data, text)
    if changed == data:
        return
    with synced(path) as file:
        file.write(changed)
        file.flush()
        with suppress(OSError):
            os.chown(file.name, status.st_uid, status.st_gid)
        shutil.copystat(path, file.name)


def with_description_in(data: bytes, text: str) -> bytes:
    """An encoded JPEG, PNG or WebP with this description. Raises ValueError for others, and where it does not fit."""
    before = _packet(data)
    packet = with_description(before, text)
    text = description_of(packet)  # as XML holds it, so that the other places say the same
    ours = description_of(before) if before else ""
    if data.startswith(png.SIGNATURE):
        return png.with_packet(data, packet, text, ours=ours)
    if data.startswith(b"RIFF"):
        return webp.with_packet(data, packet)
    return jpeg.with_exif_description(jpeg.with_packet(data, packet), text, ours=ours)


def _packet(data: bytes) -> bytes | None:
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg.packet_of(data)
    if data.startswith(png.SIGNATURE):
        return png.packet_of(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return webp.packet_of(data)
    raise ValueError("neither JPEG, PNG nor WebP: --format xmp writes a file beside it")
