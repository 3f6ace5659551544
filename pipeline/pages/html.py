"""What all HTML pages share: how they begin, and how texts and values stand in them safely."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")  # in file names whose bytes are not UTF-8
# What could end a script element, or a line of one, inside a string; JSON allows to write it so.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def page_head(title: str, style: str, *, script: bool, more: str = "") -> str:
    """The page up to ``<body>``. It loads nothing from anywhere; without ``script`` it has no scripts and no images.

    ``more`` is what its content security policy allows besides.
    """
    allowed = " style-src 'unsafe-inline'"
    if script:
        allowed = f" img-src data: blob:;{allowed}; script-src 'unsafe-inline'"
    allowed += f"; {more}" if more else ""
    return _fill(_read("head.html"), allowed=allowed, title=escape(title), style=style)


def page_around_content(folder: str, *, title: str, style: str = "", more: str = "", **texts: str) -> tuple[str, str]:
    """What stands before and what stands after the content of a page.

    Args:
        folder: of this package, with the page's ``page.html``, ``page.css`` and, where it has a script, ``page.js``.
        style: rules before those of ``page.css``.
        more: what the content security policy allows besides.
        texts: HTML in place of each ``{name}`` in ``page.html``, besides ``{title}`` and ``{script}``.
    """
    scripted = files(__package__).joinpath(folder, "page.js").is_file()
    texts |= {"title": escape(title), "script": _read(f"{folder}/page.js") if scripted else ""}
    head = page_head(title, style + _read(f"{folder}/page.css"), script=scripted, more=more)
    before, after = _read(f"{folder}/page.html").split("{content}\n")
    return head + _fill(before, **texts), _fill(after, **texts)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fill(template: str, **texts: str) -> str:
    """Each ``{name}`` by its text, in one pass: what the texts hold is not looked at."""
    return re.sub(r"\{(\w+)\}", lambda name: texts[name[1]], template)


def valid(text: object) -> str:
    """A text whose bytes that are not UTF-8 became the replacement character."""
    return _SURROGATES.sub("\ufffd", str(text))


def escape(text: object) -> str:
    """A text as HTML shows it."""
    return html.escape(valid(text))


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings hold."""
    return valid(json.dumps(value, ensure_ascii=False)).translate(_UNSAFE)
