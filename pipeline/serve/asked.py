"""What a request asks for, whatever API it came by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentcap.data.errors import UserError
from latentcap.search.config import SearchConfig
from latentcap.serve.errors import ApiError


@dataclass
class Asked:
    """One example and how it is to be captioned.

    Attributes:
        images: the encoded views.
        model: its name; None is the first.
        text: what is known besides the images, for models that read a context.
        numbers, categories: named fields of the context.
        search: settings that differ from the model's own.
        heads: a head budget such as "1+1"; None is all.
        attention: whether the answer says where each head looked.
        stream: whether the answer comes word by word.
        usage: whether a stream ends with the number of tokens.
    """

    images: list[bytes]
    model: str | None = None
    text: str | None = None
    numbers: dict[str, float | None] = field(default_factory=dict)
    categories: dict[str, str | None] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    heads: str | None = None
    attention: bool = False
    stream: bool = False
    usage: bool = False


def check_texts(body: Any) -> None:
    """Raises ApiError where a text of a request holds half a character, which no answer could repeat."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "a text of the request holds half a character, such as \\ud800 without its second half."
        raise ApiError(400, message, code="invalid_json") from None


def search_of(own: SearchConfig, changes: Mapping[str, Any]) -> SearchConfig:
    """A model's own search with some settings changed. Raises ApiError where they contradict or do not exist."""
    try:
        return own.changed(**changes)
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_setting") from None


def number(body: Mapping[str, Any], name: str, *, least: float, most: float, whole: bool = False) -> float | int | None:
    """A number of a request, None where it is absent. Raises ApiError for anything else or outside the range."""
    value = body.get(name)
    if value is None:
        return None
    fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if not fits or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ApiError(
            400, f"{name} is {str(value)[:40]!r}: it must be {kind} from {least:g} to {most:g}.", code="invalid_value",
            param=name,
        )  # fmt: skip
    return int(value) if whole else float(value)
