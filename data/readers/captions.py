"""Captions in whatever layout a cell holds them: texts, lists, ``{"raw": ...}``, JSON or Python in text."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from latentcap.data.errors import UserError

KEYS = ("raw", "caption", "captions", "text", "texts", "sentence", "sentences", "value")
"""Of an object that stands for captions, the entry that is one, or several; the first that is there counts."""
_LANGUAGE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2,4})?")
_LIST_OR_OBJECT = re.compile(r"\s*(\[\s*(['\"{]|None|null).*]|\{\s*['\"].*}|\[\s*]|\{\s*})\s*", re.DOTALL)
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ARRAY = re.compile(rf"\s*\[\s*{_LITERAL}(?:\s+{_LITERAL})+\s*]\s*", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def is_null(value: Any) -> bool:
    """None, and the NaN that tables write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_captions(value: Any, where: str = "captions") -> tuple[str, ...]:
    """The texts of a value. Nulls are left out; blank texts stay, so that the data check can report them.

    Raises UserError, beginning with ``where``, for a layout that is not known, which would else be trained on as it is.
    """
    if type(value) is list and {*map(type, value)} == {str}:  # by far the most frequent
        texts = [item.strip() for item in value]
        if {text[:1] for text in texts}.isdisjoint("[{"):
            return tuple(texts)
    if value is None:
        return ()
    if isinstance(value, str):
        text = value.strip()
        opened = _opened(text) if text.startswith(("[", "{")) else None
        return (text,) if opened is None else to_captions(opened, where)
    if is_null(value):
        return ()
    if isinstance(value, Mapping):
        return to_captions(value[_key(value, where)], where)
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, int | float) and not is_null(item) for item in value):
            raise UserError(
                f"{where}: the captions are numbers ({_short(value)}), such as ids of tokens. Text is needed; name the "
                "column of the text in the fields, as caption=COLUMN."
            )
        if any(isinstance(item, list | tuple) for item in value):
            raise UserError(
                f"{where}: the captions are lists of words ({_short(value)}). Text is needed: join the words, or name "
                "the column of the text in the fields, as caption=COLUMN."
            )
        return tuple(text for item in value for text in to_captions(item, where))
    kind = "bytes" if isinstance(value, bytes) else f"'{value}', no text but {_kind(value)}"
    raise UserError(f"{where}: the caption is {kind}. Text is needed; name its column, as caption=COLUMN.")


def _kind(value: Any) -> str:
    return {bool: "a yes or no", int: "a number", float: "a number"}.get(type(value), f"a {type(value).__name__}")


def _key(value: Mapping[Any, Any], where: str) -> Any:
    for key in KEYS:
        if not is_null(value.get(key)):
            return key
    present = [key for key in value if not is_null(value[key])]
    texts = all(isinstance(value[key], str | list | tuple) for key in present)
    if present and texts and all(isinstance(key, str) and _LANGUAGE.fullmatch(key) for key in value):
        if "en" in present or len(present) == 1:
            return "en" if "en" in present else present[0]
        raise UserError(
            f"{where}: captions in several languages ({', '.join(map(str, present))}). Choose one in the fields, as "
            f"caption=COLUMN.{present[0]}."
        )
    raise UserError(
        f"{where}: the caption is an object with the keys {', '.join(map(str, value)) or '(none)'}. Looked for: "
        f"{', '.join(KEYS)}. Name the right one in the fields, as caption=COLUMN.KEY."
    )


def _opened(text: str) -> Any:
    """What a text spells out in JSON, or as Python or numpy prints it; None where it is plain text."""
    if _ARRAY.fullmatch(text):  # ['one' 'two'], which Python would take for one text
        literals = re.findall(_LITERAL, text, re.DOTALL)
        return [re.sub(r"\\(.)", lambda match: _ESCAPED.get(match[1], match[1]), literal[1:-1]) for literal in literals]
    if not _LIST_OR_OBJECT.fullmatch(text):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list | dict | tuple) else None
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
