"""The newest frame of a stream that goes on while it is looked at: of a camera, an address, a file that is played."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.video import upright

CAMERAS = "/dev/"


class LiveFrame(NamedTuple):
    """A frame: its second in the stream, and when it was there, by ``time.perf_counter``."""

    second: float
    arrived: float
    image: Image.Image


class LiveVideo:
    """A thread reads and keeps the newest frame alone; what nobody has looked at by then is gone.

    Use as a context manager. Raises UserError for what cannot be opened as a video, also in :meth:`newest`.
    """

    def __init__(self, source: str) -> None:
        import av

        self.source = source
        self._changed = threading.Condition()
        self._frame: tuple[float, float, Any] | None = None
        self._ended = False
        self._error: str | None = None
        try:
            self._container = av.open(source, format="v4l2" if source.startswith(CAMERAS) else None)
            if not self._container.streams.video:
                raise UserError(f"{source}: has no video stream.")
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{source}: cannot be opened as a video ({error.strerror}).") from None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(timeout=5)
        self._container.close()

    def newest(self) -> LiveFrame | None:
        """The newest frame, each once: waits for one that has not been given yet. None where the stream has ended."""
        with self._changed:
            while self._frame is None and not self._ended:
                self._changed.wait(timeout=1)  # so that Ctrl-C is heard everywhere
            taken, self._frame = self._frame, None
        if self._error is not None:
            raise UserError(f"{self.source}: the stream broke off ({self._error}).")
        return None if taken is None else LiveFrame(taken[0], taken[1], upright(taken[2]))

    def _read(self) -> None:
        import av

        played = self._container.duration is not None  # a file: at its own speed, as a camera would show it
        began = time.perf_counter()
        try:
            for frame in self._container.decode(video=0):
                second = float(frame.time or 0.0)
                with self._changed:
                    if played:
                        self._changed.wait_for(lambda: self._ended, began + second - time.perf_counter())
                    if self._ended:
                        return
                    self._frame = second, time.perf_counter(), frame
                    self._changed.notify_all()
        except av.FFmpegError as error:
            self._error = error.strerror
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
