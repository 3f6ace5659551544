"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: Path, mode: str = "w", **more: Any) -> Iterator[IO[Any]]:
    """Open a file that takes its place only at the end: where writing fails, what was there before stays.

    ``mode`` and ``more`` are those of ``open``. Raises OSError where it cannot be written.
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, mode, **more) as file:
            yield file
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
