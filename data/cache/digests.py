"""What is in an image file, by a digest of its bytes; a file that is as it was is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentcap.data.example import ImageRef

SETTLED_SECONDS = 2.0  # a file that changed more recently may change again without its times showing it


def content_digests(refs: Sequence[ImageRef], *, log: Path, workers: int) -> list[str | None]:
    """Hex SHA-256 of each image's encoded bytes; None for one that cannot be read.

    A file whose size and times are those of an earlier call is not read again: ``log`` keeps what they were.
    """
    known = _read_log(log)
    states = {path: _state(path) for path in {ref.path for ref in refs if ref.data is None}}
    names = [_name(ref, states[ref.path]) if ref.data is None else None for ref in refs]
    out = [known.get(name) if name else None for name in names]
    unknown = [i for i, digest in enumerate(out) if digest is None]
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    lines = []
    with ThreadPoolExecutor(workers) as pool:
        for i, digest in zip(unknown, pool.map(lambda i: _digest(refs[i]), unknown), strict=True):
            out[i], name = digest, names[i]
            if digest and name and max(name[-2:]) < settled and _name(refs[i], _state(refs[i].path)) == name:
                lines.append(json.dumps([*name, digest]) + "\n")
    if lines:
        # A read-only cache still serves; its files are only read again. The first newline ends a torn line.
        # One unbuffered write, so that lines of processes that append at once do not mix.
        with contextlib.suppress(OSError), open(log, "ab", buffering=0) as file:
            file.write(("\n" + "".join(lines)).encode())
    return out


def _digest(ref: ImageRef) -> str | None:
    try:
        return hashlib.sha256(ref.read_bytes()).hexdigest()
    except OSError:
        return None


def _state(path: str) -> tuple[int, int, int] | None:
    """Size, and the times in nanoseconds of the last change of the content and of anything else."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _name(ref: ImageRef, state: tuple[int, int, int] | None) -> tuple[Any, ...] | None:
    """What identifies an unchanged file or a part of one: path (and frame), offset, size, and the file's state."""
    path = os.path.abspath(ref.path) + (f"#{ref.frame}" if ref.frame else "")
    return (path, ref.offset, ref.size, *state) if state else None


def _read_log(path: Path) -> dict[tuple[Any, ...], str]:
    """Names to digests; lines that are not whole are passed over."""
    known: dict[tuple[Any, ...], str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                *name, digest = json.loads(line)
                known[tuple(name)] = digest
    return known
