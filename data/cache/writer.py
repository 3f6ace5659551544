"""Appends to a feature cache, so that a crash at any moment leaves only whole entries."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from latentcap.data.cache.store import FeatureCache


class Writer:
    """Appends entries to files of its own. What is flushed stays; what is not is as if never added."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache
        self._path = cache.path / uuid.uuid4().hex
        self._files: list[Any] = []
        self._keys: list[str] = []

    def add(self, keys: Sequence[str], features: Tensor) -> None:
        """Adds ``features`` (B, N, C), of any float type and on any device, under ``keys``.

        Raises:
            ValueError: for another shape.
            UserError: the disk is full or refuses.
        """
        cache = self._cache
        if features.shape != (len(keys), *cache.shape):
            raise ValueError(
                f"features {tuple(features.shape)} must be {(len(keys), *cache.shape)} for {len(keys)} keys"
            )
        limit = torch.finfo(cache.dtype).max
        rows = features.detach().cpu().float().clamp(-limit, limit).to(cache.dtype).contiguous()
        with self._writing(len(keys)):
            if not self._files:
                for end in (".rows", ".keys"):
                    self._files.append(open(self._path.with_suffix(end), "xb", buffering=0))  # noqa: SIM115
            _write(self._files[0], rows.numpy().reshape(-1).view(np.uint8).data)
            self._keys += keys

    def flush(self) -> None:
        """Makes what was added part of the cache: rows first, then, once they are on disk, their keys."""
        if not self._keys:
            return
        with self._writing(len(self._keys)):
            os.fsync(self._files[0])
            _write(self._files[1], memoryview("".join(f"{key}\n" for key in self._keys).encode()))
            os.fsync(self._files[1])
            self._keys = []
        self._cache.refresh()

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._abandon()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self, count: int) -> Iterator[None]:
        try:
            with self._cache.explained(count):
                yield
        except BaseException:
            # Rows and keys may be out of step now, so nothing can follow: a later `add` starts new files.
            self._abandon()
            raise

    def _abandon(self) -> None:
        for file in self._files:
            file.close()
        self._files, self._keys = [], []
        self._path = self._cache.path / uuid.uuid4().hex


def _write(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
