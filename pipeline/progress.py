"""Progress of long work: a bar with rate and ETA on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

LINE_SECONDS = 5.0


class Progress:
    """Use as a context manager and call :meth:`update` with (done, total). Writes to standard error."""

    def __init__(self, title: str, *, unit: str = "item") -> None:
        self.title, self.unit = title, unit
        self._bar: Any = None
        self._task: Any = None
        self._start = self._said = time.monotonic()
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None, *, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done (None: nobody knows yet), and a note such as "2 failed".

        Less than last time begins a new count.
        """
        if done < self._done:
            self._start = time.monotonic()
        self._done = done
        if sys.stderr.isatty():
            self._show_bar(done, total, note)
            return
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS or done == total:
            self._said = now
            rate = done / max(now - self._start, 1e-6)
            parts = [f"{done:,}" if total is None else f"{done:,}/{total:,}", f"{rate:.1f} {self.unit}/s"]
            parts += [] if total is None else [f"{(total - done) / max(rate, 1e-6):.0f} s left"]
            print(f"{self.title}: {', '.join([*parts, note] if note else parts)}", file=sys.stderr)

    def _show_bar(self, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=total, rate="", note="")
        rate = done / max(time.monotonic() - self._start, 1e-6)
        self._bar.update(self._task, completed=done, total=total, rate=f"{rate:.1f} {self.unit}/s", note=note)
