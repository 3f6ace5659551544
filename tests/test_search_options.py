"""Options of programs that caption."""

from __future__ import annotations

import argparse

from latentcap.cli.search_options import OPTIONS, add_search_options, search_settings
from latentcap.search.config import SearchConfig


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+")
    add_search_options(parser)
    return parser.parse_args(arguments)


def test_every_setting_has_an_option() -> None:
    assert {name for name, *_ in OPTIONS} == set(SearchConfig.__dataclass_fields__)


def test_only_what_is_given_changes() -> None:
    assert search_settings(parse("photos")) == {}
    given = search_settings(parse("--sample", "--top-p", "0.9", "--forbidden-words", "tree, big pool", "photos"))
    assert given == {"sample": True, "top_p": 0.9, "forbidden_words": "tree, big pool"}
    config = SearchConfig().changed(**given)
    assert (config.sample, config.top_p, config.forbidden_words) == (True, 0.9, ("tree", "big pool"))
    assert search_settings(parse("photos", "--no-sample", "--bad-endings", "english")) == {
        "sample": False,
        "bad_endings": "english",
    }
