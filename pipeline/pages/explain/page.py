"""The page: all records in one HTML file that needs no network, no server and nothing installed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from latentcap.data.files import written_whole
from latentcap.pages.html import embedded, escape, page_head
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
    style, before, after = _template()
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target, encoding="utf-8") as file:
        file.write(page_head(title, style, script=True) + before.replace("{title}", escape(title)))
        for record in records:
            file.write(f'<script type="application/json" class="record">{embedded(record)}</script>\n')
        file.write(after)
    return target


def _template() -> tuple[str, str, str]:
    """The style, and what stands before and after the records."""
    folder = files(__package__)
    parts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    script = parts["page.js"].replace("{anchors}", json.dumps(ANCHORS))
    before, after = parts["page.html"].replace("{script}", script).split("{records}\n")
    return parts["page.css"], before, after
