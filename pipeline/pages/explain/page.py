"""The page: all records in one HTML file that needs no network, no server and nothing installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latentcap.data.files import written_whole
from latentcap.pages.html import embedded, page_around_content
from latentcap.pages.viridis import ANCHORS


def write_page(path: str | Path, records: Iterable[Mapping[str, Any]], *, title: str) -> Path:
    """Write the page of some captions.

    Records are taken one at a time and written at once to a file beside ``path``, which takes its place at the end.

    Args:
        path: the HTML file; its folder is created where missing.
        records: of :func:`caption_record`; one with ``file`` and ``error`` (texts) alone stands for an image that
            could not be read.
        title: heading of the page.

    Raises:
        OSError: where ``path`` cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target, encoding="utf-8") as file:
        file.writelines(page_parts(records, title=title))
    return target


def page_parts(records: Iterable[Mapping[str, Any]], *, title: str) -> Iterator[str]:
    """The page of :func:`write_page`, a piece at a time."""
    before, after = page_around_content("explain", title=title, anchors=embedded(ANCHORS))
    yield before
    for record in records:
        yield f'<script type="application/json" class="record">{embedded(record)}</script>\n'
    yield after
