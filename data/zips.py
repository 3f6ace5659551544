"""One file of a zip archive, read where it is: the archive is never unpacked."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

HEADER = struct.Struct("<4s2xHH16xHH")  # of a file: signature, flags, method, lengths of its name and of what follows
STORED, DEFLATED = 0, 8
BOMB_SIZE, BOMB_RATIO = 1 << 26, 100  # a picture that is larger, and packs better than that, is none


def read_zipped(file: BinaryIO, *, offset: int, size: int, unpacked: int, most: int | None = None) -> bytes:
    """The bytes of a file in a zip, at most the first ``most``.

    Args:
        offset: where its header is.
        size: bytes in the archive.
        unpacked: bytes that they unpack to; no more are ever unpacked.

    Raises:
        OSError: it is encrypted, packed by a method that is not read, damaged or a decompression bomb.
    """
    if unpacked > max(BOMB_SIZE, BOMB_RATIO * size):
        raise OSError(f"a decompression bomb: {size:,} bytes that unpack to {unpacked:,}")
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise OSError("damaged: it is not where its archive says")
    _, flags, method, name, more = HEADER.unpack(header)
    if flags & 1:
        raise OSError("encrypted: unpack the archive with its password first")
    if method not in (STORED, DEFLATED):
        raise OSError(f"packed by method {method}, where zips are read that store or deflate: pack the archive again")
    file.seek(name + more, 1)
    wanted = unpacked if most is None else min(most, unpacked)
    if method == STORED:
        content = file.read(min(wanted, size))
    else:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(size), wanted + 1)
        except zlib.error as error:
            raise OSError(f"damaged: it cannot be unpacked ({error})") from None
    if len(content) < wanted or (most is None and len(content) > wanted):
        raise OSError("damaged: it does not unpack to the size that its archive states")
    return content[:wanted]
