"""What the gallery shows of a run: each image with its record, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from latentcap.batch.image_file import check_file
from latentcap.batch.inputs import Input
from latentcap.batch.journal import Journal, Record, digest
from latentcap.batch.outputs.subtitles import clock
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import load_image
from latentcap.data.video import samples

THUMBNAIL = ImageConfig(size=(160, 160))  # that size is enough to decode


def cards(
    inputs: Iterable[Input], journal: Journal, errors: Journal, *, every: float = 0.0
) -> Iterator[dict[str, Any]]:
    """A card for each input that has a caption or an error, and for each scene of a video, of which a frame was read
    ``every`` so many seconds. Only where a record is, is kept of each.
    """
    reasons = {digest(record["file"]): record["error"] for record in errors}
    places: dict[int, int] = {}
    start = 0
    for end, record in journal.entries():
        places[digest(str(record.get("file")))] = start
        start = end
    for item in inputs:
        key = digest(item.name)
        if key in places:
            _, record = next(journal.entries(places[key]))
            if "segments" in record:
                yield from _scenes(item, record, every)
            else:
                yield record | _picture(item)
        elif key in reasons:
            yield {"file": item.name, "caption": "", "error": reasons[key]}


def _scenes(item: Input, record: Record, every: float) -> Iterator[dict[str, Any]]:
    """A card for each segment, with the frame that it begins with."""
    waiting = iter(record["segments"])
    segment = next(waiting)
    try:
        for frame in samples(item.images[0], every):
            if round(frame.start, 3) == segment["start"]:
                name = f"{record['file']} {clock(frame.start, '.')}"
                yield record | segment | {"file": name, "image": frame.image}
                if (segment := next(waiting, None)) is None:
                    return
    except OSError as error:
        yield {"file": record["file"], "caption": segment["caption"], "error": str(error)}


def _picture(item: Input) -> dict[str, Any]:
    try:
        check_file(item.images[0])
        return {"image": load_image(item.images[0], THUMBNAIL)}
    except (OSError, IndexError) as error:
        return {"error": str(error)}
