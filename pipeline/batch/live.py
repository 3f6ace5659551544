"""Captions of a live stream, always of its newest frame, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from latentcap.captioner import Captioner
from latentcap.data.live import LiveVideo


class LiveCaption(NamedTuple):
    """A caption, the second of the stream that it is of, and seconds from the frame's arrival to it: ``latency``; of
    them ``computing``, the rest is what the frame waited for the caption before."""

    second: float
    text: str
    latency: float
    computing: float


def caption_live(
    captioner: Captioner, video: LiveVideo, context: str | None = None, **search: Any
) -> Iterator[LiveCaption]:
    """A caption of the newest frame, again and again until the stream ends. Raises UserError where that breaks off."""
    while frame := video.newest():
        taken = time.perf_counter()
        (caption,) = captioner.caption([frame.image], context, **search)
        done = time.perf_counter()
        yield LiveCaption(frame.second, caption.text, done - frame.arrived, done - taken)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p95, in milliseconds."""
    median, most = 1000 * np.percentile(seconds, (50, 95))
    return float(median), float(most)
