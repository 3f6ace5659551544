"""Captions beside their images as one self-contained HTML file: no network, no server, nothing to install."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image

from latentcap.data.files import written_whole
from latentcap.data.image import ImageRef, to_rgb
from latentcap.pages.html import embedded, page_around_content

CHUNK = 50  # records of one script element


def write_gallery(path: str | Path, records: Iterable[Mapping[str, Any]], *, title: str, thumbnails: int = 160) -> Path:
    """Write a page with a card for each record: thumbnail, caption and what else is known, to search and to sort.

    Records are read one at a time and written at once to a temporary file beside ``path``, which takes its place at the
    end; an interrupted run leaves an existing gallery as it was. The page holds records as JSON and makes cards of
    those alone that are in sight, so that tens of thousands scroll as a hundred do.

    Args:
        path: the HTML file to write; its folder is created where missing.
        records: mappings with ``file`` and ``caption`` and, where known, ``score`` (a number), ``alternatives`` (a list
            of mappings with ``caption`` and ``score``), ``references`` (a list of texts), ``context`` (a text),
            ``error`` (a text) and ``image`` (a PIL image; opened from ``file`` where absent). An image that cannot be
            opened is shown as an error on its card.
        title: heading of the page.
        thumbnails: longest side of the embedded images in pixels.

    Returns:
        The path written.

    Raises:
        OSError: where ``path`` cannot be written.
    """
    target = Path(path)
    size = f":root {{ --width: {max(180, thumbnails + 40)}px; --picture: {max(140, thumbnails + 8)}px; }}\n"
    before, after = page_around_content("gallery", title=title, style=size)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target, encoding="utf-8") as file:
        file.write(before)
        rest = iter(records)
        for first in rest:
            file.write('<script type="application/json">[')
            for index, record in enumerate(chain([first], islice(rest, CHUNK - 1))):
                file.write((",\n" if index else "") + embedded(_entry(record, thumbnails)))
            file.write("]</script>\n")
        file.write(after)
    return target


def _entry(record: Mapping[str, Any], thumbnails: int) -> dict[str, Any]:
    """What the page needs of one record."""
    entry: dict[str, Any] = {"file": str(record["file"]), "caption": str(record["caption"])}
    error = record.get("error")
    try:
        image = record.get("image")
        if image is None and not error:
            image = ImageRef(record["file"]).open()
        if image is not None:
            entry["image"] = _thumbnail(to_rgb(image), thumbnails)
    except OSError as failure:
        error = failure.strerror or failure
    if record.get("score") is not None:
        entry["score"] = float(f"{float(record['score']):.6g}")
    for name, value in (("context", record.get("context")), ("error", error)):
        if value:
            entry[name] = str(value)
    if record.get("alternatives"):
        entry["alternatives"] = [str(other["caption"]) for other in record["alternatives"]]
    if record.get("references"):
        entry["references"] = [str(reference) for reference in record["references"]]
    return entry


def _thumbnail(image: Image.Image, side: int) -> str:
    """The image, at most ``side`` pixels wide and high, as a JPEG in base 64."""
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    return base64.b64encode(encoded.getvalue()).decode("ascii")
