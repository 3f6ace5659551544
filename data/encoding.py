"""Text in the encoding that its byte-order mark names; UTF-8 where there is none."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from latentcap.data.errors import UserError

MARKS = {  # UTF-16's mark begins UTF-32's, so the longer ones come first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

START = 4096  # bytes that tell what a text is


def encoding_of(start: bytes) -> str:
    """The encoding, as Python calls it, of a text that begins with ``start``: at least its first four bytes."""
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")


def refuse_unmarked(start: bytes, where: str) -> None:
    """Raises UserError for UTF-16 without a mark: nearly every other byte of plain text is zero there."""
    start = start[:START]
    counts = sorted((start[::2].count(0), start[1::2].count(0)))
    if encoding_of(start) == "utf-8" and counts[1] > len(start) * 2 // 5 and counts[0] * 10 <= counts[1]:
        raise UserError(f"{where}: UTF-16 text without a byte-order mark, so it seems. Save it as UTF-8.")


def decode(content: bytes, where: str) -> str:
    """A whole text. Raises UserError, beginning with ``where``, for bytes that are none."""
    try:
        refuse_unmarked(content, where)
        return content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        raise _no_text(where, error) from None


def read_text(path: Path) -> str:
    """A file of text. Raises UserError where it is not one, or cannot be read."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


@contextmanager
def open_text(path: Path, *, newline: str | None = None, errors: str = "strict") -> Iterator[IO[str]]:
    """A file of text, open for reading; ``newline`` and ``errors`` are those of ``open``.

    Raises UserError, inside the block too, where the file turns out not to be text, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.peek(START)
            refuse_unmarked(start, str(path))
            encoding = encoding_of(start)
            with io.TextIOWrapper(file, encoding=encoding, newline=newline, errors=errors) as text:
                yield text
    except UnicodeDecodeError as error:
        raise _no_text(str(path), error) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _no_text(where: str, error: UnicodeDecodeError) -> UserError:
    name = error.encoding.upper().removesuffix("-SIG")
    return UserError(f"{where}: not {name} text ({error.reason}). Save it as UTF-8.")
