"""The page: all records in one HTML file that needs no network, no server and nothing installed."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.explain.viridis import ANCHORS

SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # of file names that are not UTF-8
# What could end a script element, or a line of one, inside a string; JSON allows to write it so.
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


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
    unfinished = target.with_name(target.name + ".part")
    head, foot = _template().split("{records}\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(head.replace("{title}", html.escape(title.translate(SURROGATES))))
            for record in records:
                file.write(f'<script type="application/json" class="record">{embedded(record)}</script>\n')
            file.write(foot)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings hold."""
    return json.dumps(value, ensure_ascii=False).translate(SURROGATES).translate(UNSAFE)


def _template() -> str:
    folder = files(__package__)
    parts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    script = parts["page.js"].replace("{anchors}", json.dumps(ANCHORS))
    return parts["page.html"].replace("{style}", parts["page.css"]).replace("{script}", script)
