"""Caption a live stream: ``latentcap watch /dev/video0``

Always the newest frame is captioned, at the rate that this machine can; what came and went in between is left out. A
file is played at its own speed. Ctrl-C ends it with a summary.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from latentcap.cli.caption_options import positive
from latentcap.cli.model_option import add_model_option
from latentcap.cli.search_options import add_search_options, search_settings
from latentcap.data.live import LiveVideo
from latentcap.data.video import require_pyav


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap watch", description="Caption a live stream, always its newest frame. Ctrl-C ends it."
    )
    add = parser.add_argument
    add("source", metavar="DEVICE_OR_FILE", help="a camera (/dev/video0), an address (rtsp://...), or a video file")
    add_model_option(parser)
    add("--heads", metavar="V+T", help="only the first V visual and T text heads, such as 1+1")
    add("--context", metavar="TEXT", help="what is known besides the image")
    add("--captions", type=positive, metavar="N", help="end after N (default: with the stream)")
    add_search_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command, and for a stream that breaks
    off."""
    options = parse(arguments)
    require_pyav()
    search = search_settings(options)
    from PIL import Image

    from latentcap.captioner import Captioner  # torch takes seconds to import

    captioner = Captioner.from_pretrained(options.model, heads=options.heads)
    captioner.caption([Image.new("RGB", (640, 480))], options.context, **search)  # the first takes longer
    latencies: list[tuple[float, float]] = []
    began = time.perf_counter()
    try:
        with LiveVideo(options.source) as video:
            while (options.captions is None or len(latencies) < options.captions) and (frame := video.newest()):
                taken = time.perf_counter()
                (caption,) = captioner.caption([frame.image], options.context, **search)
                done = time.perf_counter()
                latencies.append((done - frame.arrived, done - taken))
                print(f"{frame.second:8.2f} s  {caption.text}  ({1000 * latencies[-1][0]:.0f} ms)", flush=True)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    print(summary(latencies, time.perf_counter() - began), file=sys.stderr)
    return 0


def summary(latencies: Sequence[tuple[float, float]], seconds: float) -> str:
    """What is said at the end. ``latencies``: seconds from a frame to its caption, and those of computing alone."""
    if not latencies:
        return "no frame was captioned"
    frames, computing = ([1000 * value for value in values] for values in zip(*latencies, strict=True))
    return (
        f"{len(latencies):,} captions in {seconds:.1f} s, {len(latencies) / seconds:.1f} a second; "
        f"from frame to caption {_percentiles(frames)}, of which computing {_percentiles(computing)}"
    )


def _percentiles(milliseconds: Sequence[float]) -> str:
    median, most = np.percentile(milliseconds, (50, 95))
    return f"p50 {median:.1f} ms, p95 {most:.1f} ms"
