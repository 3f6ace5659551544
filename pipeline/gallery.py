"""Captions beside their images as one self-contained HTML file: no network, no server, nothing to install."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image

from data.example import ImageRef, to_rgb
from pipeline.gallery_page import FOOT, HEAD

CHUNK = 50  # records of one script element
_SURROGATES = re.compile("[\ud800-\udfff]")


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
    unfinished = target.with_name(target.name + ".part")
    size = f"--width: {max(180, thumbnails + 40)}px; --picture: {max(140, thumbnails + 8)}px;"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(HEAD.replace("{title}", html.escape(_valid(title))).replace("{size}", size))
            rest = iter(records)
            for first in rest:
                file.write('<script type="application/json">[')
                for index, record in enumerate(chain([first], islice(rest, CHUNK - 1))):
                    file.write((",\n" if index else "") + _entry(record, thumbnails))
                file.write("]</script>\n")
            file.write(FOOT)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _valid(value: object) -> str:
    """A text whose bytes that are not UTF-8 became the replacement character."""
    return _SURROGATES.sub("\ufffd", str(value))


def _entry(record: Mapping[str, Any], thumbnails: int) -> str:
    """One record as JSON that cannot end the script element that it is in."""
    entry: dict[str, Any] = {"file": _valid(record["file"]), "caption": _valid(record["caption"])}
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
            entry[name] = _valid(value)
    if record.get("alternatives"):
        entry["alternatives"] = [_valid(other["caption"]) for other in record["alternatives"]]
    if record.get("references"):
        entry["references"] = [_valid(reference) for reference in record["references"]]
    return json.dumps(entry).replace("<", "\\u003c")


def _thumbnail(image: Image.Image, side: int) -> str:
    """The image, at most ``side`` pixels wide and high, as a JPEG in base 64."""
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    return base64.b64encode(encoded.getvalue()).decode("ascii")
