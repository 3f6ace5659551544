"""What a frozen backbone makes of each image, computed once and kept on disk.

On disk, below the cache's folder::

    files.jsonl             which content (SHA-256) a file had at which size and times, so that it is not read again
    FINGERPRINT/meta.json   what the fingerprint stands for, for people
    FINGERPRINT/ID.rows     rows of N x C numbers, one after another; only ever appended to, by one process
    FINGERPRINT/ID.keys     one line for each row, in the same order: the key of the row's image

A row counts once its line is whole, and its line is written after the row is safely on disk. So whatever a crash cuts
off is never read. Every writer makes files of its own, so processes cannot disturb one another; a reader takes in all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from latentcap.data.cache.digests import content_digests
from latentcap.data.cache.writer import Writer
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef

KEY_LINE = re.compile(rb"[0-9a-f]{64}\.\d+(\.[0-9a-f]+)?")
FORMAT = 1  # of the files; another format gets another folder

logger = logging.getLogger(__name__)


def entry_key(digest: str, variant: int = 0, change: str = "") -> str:
    """The name of one entry: an image's content, and which variant of it: 0 as for evaluating, others augmented.

    ``change`` names the augmentation in hex digits; the plain variant is the same under each.
    """
    return f"{digest}.{variant}.{change}" if variant and change else f"{digest}.{variant}"


@dataclass(slots=True)
class _Shard:
    """One writer's pair of files, as far as it has been read."""

    path: Path  # without suffix
    read: int = 0  # bytes of the keys file
    rows: int = 0
    map: Any = None


class FeatureCache:
    """Regions (N, C) of images, by content and variant, in a folder that any number of processes share.

    Args:
        folder: where to keep it; made if missing.
        key: the fingerprint of what computes the regions: backbone, weights and image settings. Another fingerprint
            sees none of these entries.
        shape: (N, C) of one entry.
        dtype: ``torch.float16`` or ``torch.float32``. Values beyond half precision's range are clipped to it.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, key: str, shape: tuple[int, int], dtype: torch.dtype = torch.float16
    ) -> None:
        self.folder = Path(folder)
        self.key, self.shape, self.dtype = key, (int(shape[0]), int(shape[1])), dtype
        self._numpy_dtype = np.dtype({torch.float16: np.float16, torch.float32: np.float32}[dtype])
        meta = {"key": key, "shape": list(self.shape), "dtype": self._numpy_dtype.name, "format": FORMAT}
        content = json.dumps(meta, sort_keys=True)
        self.path = self.folder / hashlib.sha256(content.encode()).hexdigest()[:16]
        self._shards: dict[str, _Shard] = {}
        self._entries: dict[str, tuple[_Shard, int]] = {}
        with self.explained(0):
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / "meta.json").exists():
                (self.path / "meta.json").write_text(content + "\n", encoding="utf-8")
        self.refresh()

    def __reduce__(self) -> tuple[Callable[..., FeatureCache], tuple[Any, ...]]:
        return _reopen, (self.folder, self.key, self.shape, self.dtype)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def bytes_per_image(self) -> int:
        """Bytes on disk for one entry, that is, for one variant of one image."""
        return self.shape[0] * self.shape[1] * self._numpy_dtype.itemsize

    def refresh(self) -> None:
        """Takes in what all writers, in this process and in others, have flushed since."""
        for keys_path in sorted(self.path.glob("*.keys")):
            shard = self._shards.setdefault(keys_path.stem, _Shard(keys_path.with_suffix("")))
            with open(keys_path, "rb") as file:
                file.seek(shard.read)
                lines = file.read().split(b"\n")[:-1]  # what follows the last newline is not whole
            on_disk = os.path.getsize(shard.path.with_suffix(".rows")) // self.bytes_per_image
            for line in lines:
                if shard.rows == on_disk or not KEY_LINE.fullmatch(line):
                    break
                self._entries.setdefault(line.decode(), (shard, shard.rows))
                shard.read += len(line) + 1
                shard.rows += 1

    def missing(self, keys: Sequence[str]) -> list[int]:
        """The places in ``keys`` (see :func:`entry_key`) of entries that are not in the cache."""
        return [i for i, key in enumerate(keys) if key not in self._entries]

    def read(self, keys: Sequence[str]) -> Tensor:
        """The entries of ``keys``, (B, N, C) of the cache's dtype. Raises KeyError for one that is missing."""
        out = torch.empty(len(keys), *self.shape, dtype=self.dtype)
        rows = out.numpy()
        for i, key in enumerate(keys):
            shard, row = self._entries[key]
            if shard.map is None or row >= len(shard.map):
                shape = (shard.rows, *self.shape)
                rows_path = shard.path.with_suffix(".rows")
                shard.map = np.memmap(rows_path, self._numpy_dtype, "r", shape=shape).view(np.ndarray)
            rows[i] = shard.map[row]
        return out

    def writer(self) -> Writer:
        """A new writer, to be closed, or used in a ``with`` statement."""
        return Writer(self)

    def digests(self, refs: Sequence[ImageRef], *, workers: int = 2) -> list[str | None]:
        """Hex SHA-256 of each image's encoded bytes, see :func:`content_digests`."""
        return content_digests(refs, log=self.folder / "files.jsonl", workers=workers)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that extracts into this cache. The system frees it when that process ends."""
        lock = FileLock(self.path / "lock", thread_local=False)
        with self.explained(0):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                logger.info("another process is filling the feature cache %s; waiting for it", self.path)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def require_space(self, count: int) -> None:
        """Raises UserError unless ``count`` more entries fit on the disk."""
        needed, free = count * self.bytes_per_image, shutil.disk_usage(self.path).free
        if needed > free:
            raise UserError(
                f"the feature cache in '{self.folder}' needs {_size(needed)} more for {count:,} entries of "
                f"{_size(self.bytes_per_image)}, but its disk has {_size(free)} left. Free some space, name a folder "
                "on a larger disk, use fewer variants or a smaller image size, or train without the cache"
            )

    @contextlib.contextmanager
    def explained(self, count: int) -> Iterator[None]:
        """Turns the system's refusal to write ``count`` entries into a message."""
        try:
            yield
        except OSError as error:
            needed = f" ({_size(count * self.bytes_per_image)} more were to be written)" if count else ""
            raise UserError(
                f"cannot write the feature cache in '{self.folder}': {error.strerror or error}{needed}. "
                "Name a folder that you may write to and that has space"
            ) from error


def _reopen(folder: Path, key: str, shape: tuple[int, int], dtype: torch.dtype) -> FeatureCache:
    return FeatureCache(folder, key=key, shape=shape, dtype=dtype)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
