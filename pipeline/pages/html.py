"""What all HTML pages share: how they begin, and how texts and values stand in them safely."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")  # in file names whose bytes are not UTF-8
# What could end a script element, or a line of one, inside a string; JSON allows to write it so.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def page_head(title: str, style: str, *, script: bool) -> str:
    """The page up to ``<body>``. It loads nothing from anywhere; without ``script`` it has no scripts and no images."""
    allowed = " img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    if not script:
        allowed = " style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none';{allowed}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
"""


def valid(text: object) -> str:
    """A text whose bytes that are not UTF-8 became the replacement character."""
    return _SURROGATES.sub("\ufffd", str(text))


def escape(text: object) -> str:
    """A text as HTML shows it."""
    return html.escape(valid(text))


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings hold."""
    return valid(json.dumps(value, ensure_ascii=False)).translate(_UNSAFE)
