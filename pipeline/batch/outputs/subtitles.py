"""Subtitles: ``clip.srt`` (SubRip) or ``clip.vtt`` (WebVTT) for each video, beside it or below another folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.outputs.sidecar import Sidecars
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef

SUBTITLES = (".srt", ".vtt")
NO_VIDEO, KEPT = "not a video", "has subtitles already (--existing overwrite replaces them)"


class Subtitles(Sidecars):
    """A text that players show with the video. ``path`` may be the file itself, for one video.

    Raises UserError where what is there is to be added to.
    """

    def __init__(self, path: Path | None, run: Path, *, suffix: str, existing: str) -> None:
        if existing in ("append", "prepend"):
            raise UserError(f"--existing {existing}: subtitles that are there are kept (skip) or replaced (overwrite).")
        super().__init__(path, run, suffix=suffix, existing=existing, separator="")

    def target(self, name: str, image: ImageRef) -> Path:
        if self.path is not None and self.path.suffix.lower() == self.suffix:
            return self.path
        return super().target(name, image)

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        self.why_skipped = KEPT if item.video else NO_VIDEO
        return super().prepare(item, known=known) if item.video else None

    def new_text(self, record: Record) -> str:
        return (as_srt if self.suffix == ".srt" else as_vtt)(record["segments"])


def as_srt(segments: Iterable[Record]) -> str:
    """SubRip: numbered, with a comma before the milliseconds."""
    return "\n\n".join(
        f"{number}\n{clock(segment['start'], ',')} --> {clock(segment['end'], ',')}\n{_lines(segment['caption'])}"
        for number, segment in enumerate(segments, start=1)
    )


def as_vtt(segments: Iterable[Record]) -> str:
    """WebVTT, as browsers read it."""
    cues = (
        f"{clock(segment['start'], '.')} --> {clock(segment['end'], '.')}\n{_escaped(_lines(segment['caption']))}"
        for segment in segments
    )
    return "\n\n".join(("WEBVTT", *cues))


def clock(seconds: float, point: str) -> str:
    """``00:01:02,500``."""
    total = round(seconds * 1000)
    return f"{total // 3_600_000:02}:{total // 60_000 % 60:02}:{total // 1000 % 60:02}{point}{total % 1000:03}"


def _lines(text: str) -> str:
    """Without blank lines, which would end a subtitle."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
