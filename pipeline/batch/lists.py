"""Lists of file names: from files and from standard input, in any encoding, separated by newlines or by zero bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO, cast

from latentcap.data.encoding import encoding_of, refuse_unmarked

CHUNK = 1 << 16


def names_in(stream: BinaryIO, where: str) -> Iterator[str]:
    """:func:`entries_in` without blank ones."""
    return filter(str.strip, entries_in(stream, where))


def entries_in(stream: BinaryIO, where: str) -> Iterator[str]:
    """What stands in a list, as it is read, blank entries too.

    The encoding is that of the byte-order mark; without one, bytes are those of the file names, UTF-8 or not (those
    that are not become surrogates, as in all names that Python gives). The separator is decided once: a zero byte
    where the list, or the first that a pipe gives, has one; else the end of a line.

    Raises UserError, naming ``where``, for UTF-16 without a mark.
    """
    start = _first(stream)
    refuse_unmarked(start, where)
    encoding = encoding_of(start)
    rest = _Joined(start, stream)
    if encoding != "utf-8":
        whole = io.BufferedReader(cast(io.RawIOBase, rest))
        text = io.TextIOWrapper(whole, encoding=encoding, errors="surrogateescape", newline="\n")
        return (part for line in text for part in line.rstrip("\r\n").split("\0"))
    separator = b"\0" if b"\0" in start or _has_zero(stream) else b"\n"
    return (os.fsdecode(part if separator == b"\0" else part.removesuffix(b"\r")) for part in rest.split(separator))


class Kept:
    """What can be read only once, kept as it is read, so that it can be read again."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._known: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for place in count():
            if place == len(self._known):
                more = next(self._source, None)
                if more is None:
                    return
                self._known.append(more)
            yield self._known[place]


class _Joined(io.RawIOBase):
    """A first chunk and the stream that it was read from, as one."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._start, self._stream = start, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        chunk = self._start[: len(buffer)] or _some(self._stream, len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def split(self, separator: bytes) -> Iterator[bytes]:
        """What stands between separators, each part as soon as its end is known."""
        left = b""
        while chunk := self.read(CHUNK):
            *parts, left = (left + chunk).split(separator)
            yield from parts
        if left:
            yield left


def _first(stream: BinaryIO) -> bytes:
    """At least the four bytes that a byte-order mark can have, and otherwise what is there without waiting."""
    start = b""
    while len(start) < 4 and (more := _some(stream, CHUNK)):
        start += more
    return start


def _some(stream: BinaryIO, size: int) -> bytes:
    """What a stream has, without waiting for more where a pipe has some."""
    read: bytes = getattr(stream, "read1", stream.read)(size)
    return read


def _has_zero(stream: BinaryIO) -> bool:
    """Whether the rest of a file has a zero byte; of a pipe nobody can look ahead."""
    if not stream.seekable():
        return False
    place = stream.tell()
    try:
        return any(b"\0" in chunk for chunk in iter(lambda: stream.read(CHUNK), b""))
    finally:
        stream.seek(place)
