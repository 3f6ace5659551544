"""The options of programs that caption: one for each setting of ``SearchConfig``, with the text that stands there."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from latentcap.search.config import SearchConfig, described

METAVARS = {int: "N", float: "X", tuple: "WORDS"}


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add a group "search" with one option for each setting; an option not given leaves the model's own setting."""
    group = parser.add_argument_group("search", "by default as the model folder says")
    texts = described()
    for setting in fields(SearchConfig):
        flag, text, kind = "--" + setting.name.replace("_", "-"), texts[setting.name], type(setting.default)
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(flag, type=str if kind is tuple else kind, metavar=METAVARS[kind], help=text)


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, for ``Captioner.caption(**settings)`` and ``Captioner.search_config``."""
    given = {setting.name: getattr(options, setting.name) for setting in fields(SearchConfig)}
    return {name: value for name, value in given.items() if value is not None}
