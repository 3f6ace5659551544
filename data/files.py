"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: Path, mode: str = "w", **more: Any) -> Iterator[IO[Any]]:
    """Open a file that takes its place only at the end: where writing fails, what was there before stays.

    Several may write to one path at a time; the last to end counts. ``mode`` and ``more`` are those of ``open``.
    Raises OSError where it cannot be written.
    """
    unfinished = path.with_name(f"{path.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with open(unfinished, mode, **more) as file:
            yield file
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
