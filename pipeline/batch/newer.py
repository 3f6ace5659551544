"""Which images are newer than their captions."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Journal, digest
from latentcap.batch.outputs import Output

SLACK = 0.05  # seconds by which a file system's clock may be behind


class Times:
    """``times.jsonl`` in a run folder: how long the journal was at which time. So a caption's age is known, to the half
    minute between two marks, without a word in the caption's own record.

    A journal that has been rewritten is shorter than marks from before, which no longer count then. ``began`` is when
    the first run began, in seconds since 1970.
    """

    def __init__(self, path: Path, *, began: float) -> None:
        self._marks, self.began = Journal(path), began

    def mark(self, journal: Path) -> None:
        """What is in the journal now was captioned before now; what follows was read later."""
        size = journal.stat().st_size if journal.is_file() else 0
        for _ in self._marks.recover():
            pass
        with self._marks:
            self._marks.append([{"bytes": size, "time": time.time()}])

    def known(self) -> tuple[list[int], list[float]]:
        """Places in the journal, rising, and since when records from there on were read."""
        places, moments = [0], [self.began]
        for record in self._marks:
            while places and places[-1] >= record["bytes"]:
                places.pop(), moments.pop()
            places.append(record["bytes"])
            moments.append(record["time"])
        return places, moments


def newer(inputs: Iterable[Input], output: Output, times: Times) -> dict[int, int]:
    """The inputs that were changed after they were read, or whose captions somebody has removed: digests of their
    names, with where in the journal the records of their captions begin."""
    made: dict[int, int] = {}
    start = 0
    for end, record in output.journal.entries():
        made[digest(str(record.get("file")))] = start
        start = end
    places, moments = times.known()
    found = {}
    for item in inputs:
        place = made.get(digest(item.name))
        if place is None:
            continue
        if changed(item) > moments[bisect_right(places, place) - 1] - SLACK or output.is_gone(item):
            found[digest(item.name)] = place
    return found


def changed(item: Input) -> float:
    """When an input was changed last, in seconds since 1970; 0 where nobody knows."""
    return max((_modified(image.path) for image in item.images if image.data is None), default=0.0)


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
