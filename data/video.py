"""Frames of a video, some seconds apart (PyAV, which is the extra ``video``)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.remote import is_remote

UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "min": 60.0}
CONTAINERS = "mov,matroska,avi,mpeg,mpegts,asf,ogg,flv,h264,hevc"  # never playlists, which name other files
LACKING = 0.05, 1.0  # how much of its length, or how many seconds, a whole video may be shorter than it states


class Sample(NamedTuple):
    """A frame, and the seconds of the video that it stands for."""

    start: float
    end: float
    image: Image.Image


def parse_interval(text: str) -> float:
    """Seconds of ``2s``, ``2``, ``500ms`` or ``1min``. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|)", text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"'{text}' is no time: 2s, 0.5s, 500ms and 1min are")
    return float(match[1]) * UNITS[match[2]]


def require_pyav() -> None:
    """Raises UserError where PyAV is not installed."""
    if find_spec("av") is None:
        raise UserError("video needs PyAV: pip install 'latentcap[video]'.")


def samples(video: ImageRef, every: float) -> Iterator[Sample]:
    """The first frame, and then the first of each ``every`` seconds; together they stand for the whole video.

    Raises OSError for what is no video, has no pictures, is damaged, or ends before the length that it states.
    """
    import av

    here = video.offset is None and video.data is None and not is_remote(video.path)
    source: Any = video.path if here else io.BytesIO(video.read_bytes())
    try:
        with av.open(source, options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams:
                raise OSError("not a whole video: nothing in it says what it holds, as where a copy was cut off")
            if not container.streams.video:
                raise OSError("a video without pictures: it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from _sampled(container, stream, every)
    except av.FFmpegError as error:
        raise OSError(f"not a whole video: cut off, damaged, or something else ({error.strerror})") from None


def _sampled(container: Any, stream: Any, every: float) -> Iterator[Sample]:
    rate = float(stream.average_rate or 25)
    first = due = end = 0.0
    waiting: tuple[float, Image.Image] | None = None
    for number, frame in enumerate(container.decode(stream)):
        shown = number / rate if frame.time is None else frame.time
        first = shown if number == 0 else first
        start = shown - first
        if start >= due - 1e-6:
            if waiting is not None:
                yield Sample(waiting[0], start, waiting[1])
            waiting = start, upright(frame)
            due = every * (1 + int(start / every + 1e-6))
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
        end = max(end, start + length)
    if waiting is None:
        raise OSError("a video without pictures: no frame of it can be decoded")
    stated = _stated_length(container, stream)
    share, seconds = LACKING
    if max(first, 0.0) + end < stated * (1 - share) - seconds:  # Matroska counts from zero, wherever it begins
        raise OSError(f"a video that is cut off, after {end:.1f} of {stated:.1f} seconds")
    yield Sample(waiting[0], end, waiting[1])


def upright(frame: Any) -> Image.Image:
    """A frame of PyAV's as RGB, turned as the camera was held."""
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _stated_length(container: Any, stream: Any) -> float:
    """Seconds; 0 where nobody says."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is not None:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    alone = container.duration is not None and len(container.streams) == 1
    return container.duration / 1e6 if alone else 0.0
