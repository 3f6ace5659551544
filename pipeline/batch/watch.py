"""Files as they arrive in folders: each is given once, when it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator

from latentcap.batch.inputs import Input
from latentcap.batch.journal import digest

SETTLED = 2.0  # seconds without a change after which a file is taken to be whole
PAUSE = 1.0  # seconds between two looks, or SPARING times what a look takes
SPARING = 5.0

Version = tuple[int, int]  # size and date of a file


class Watch:
    """Call it for what is new in ``inputs`` since the last call.

    A file that is still being written, so far as its size and date say, waits for a later call. A file that has changed
    since it was given comes again where its name is in ``failed``, a set of digests, and with ``changed`` in any case.
    """

    def __init__(self, inputs: Iterable[Input], *, failed: Collection[int], changed: bool = False) -> None:
        self.inputs, self.failed, self.changed = inputs, failed, changed
        self.pause = PAUSE
        self._given: set[int] = set()
        self._versions: dict[int, Version] = {}  # of those given that may come again
        self._waiting: dict[int, tuple[Version, float]] = {}

    def __call__(self) -> list[Input]:
        start = time.monotonic()
        if not self.changed:
            self._versions = {key: version for key, version in self._versions.items() if key in self.failed}
        found = list(self._arrived())
        self.pause = max(PAUSE, SPARING * (time.monotonic() - start))
        return found

    def _arrived(self) -> Iterator[Input]:
        for item in self.inputs:
            key = digest(item.name)
            if key in self._given and key not in self._versions:
                continue
            version = _version(item)
            if self._versions.get(key) != version and self._is_whole(key, version):
                self._given.add(key)
                self._versions[key] = version
                yield item

    def _is_whole(self, key: int, version: Version) -> bool:
        now = time.monotonic()
        seen, since = self._waiting.get(key, (version, now))
        if seen != version:
            since = now
        if now - since >= SETTLED or time.time() - version[1] / 1e9 >= SETTLED:
            self._waiting.pop(key, None)
            return True
        self._waiting[key] = version, since
        return False


def _version(item: Input) -> Version:
    try:
        status = os.stat(item.images[0].path)
    except (OSError, IndexError):
        return 0, 0
    return status.st_size, status.st_mtime_ns
