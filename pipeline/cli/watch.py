"""Caption a live stream: ``latentcap watch /dev/video0``

Always the newest frame is captioned, at the rate that this machine can; what came and went in between is left out. A
file is played at its own speed. Ctrl-C ends it with a summary.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from latentcap.cli.caption_options import positive
from latentcap.cli.model_option import add_model_option
from latentcap.cli.search_options import add_search_options, search_settings
from latentcap.data.live import LiveVideo
from latentcap.data.video import require_pyav

if TYPE_CHECKING:
    from latentcap.batch.live import LiveCaption


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

    from latentcap.batch.live import caption_live  # torch takes seconds to import
    from latentcap.captioner import Captioner

    captioner = Captioner.from_pretrained(options.model, heads=options.heads)
    captioner.caption([Image.new("RGB", (640, 480))], options.context, **search)  # the first takes longer
    captions: list[LiveCaption] = []
    began = time.perf_counter()
    try:
        with LiveVideo(options.source) as video:
            for caption in islice(caption_live(captioner, video, options.context, **search), options.captions):
                captions.append(caption)
                print(f"{caption.second:8.2f} s  {caption.text}  ({1000 * caption.latency:.0f} ms)", flush=True)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    print(summary(captions, time.perf_counter() - began), file=sys.stderr)
    return 0


def summary(captions: Sequence[LiveCaption], seconds: float) -> str:
    """What is said at the end."""
    from latentcap.batch.live import percentiles

    if not captions:
        return "no frame was captioned"
    frames = percentiles([caption.latency for caption in captions])
    computing = percentiles([caption.computing for caption in captions])
    return (
        f"{len(captions):,} captions in {seconds:.1f} s, {len(captions) / seconds:.1f} a second; "
        f"from frame to caption p50 {frames[0]:.1f} ms, p95 {frames[1]:.1f} ms, of which computing "
        f"p50 {computing[0]:.1f} ms, p95 {computing[1]:.1f} ms"
    )
