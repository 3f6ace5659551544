"""Ctrl-C and the end of a job's time: the first asks to stop after what is under way, the second stops at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

NAP = 0.2  # so soon is it noticed while waiting


class Stop:
    """Inside the ``with`` block, SIGINT and SIGTERM set ``asked``; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._before[kind] = signal.signal(kind, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signal_kind, handler in self._before.items():
            signal.signal(signal_kind, handler)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        """Until so much time has passed, or it is asked."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(NAP, left))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
