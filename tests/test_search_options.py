"""Options of programs that caption."""

from __future__ import annotations

import argparse

from latentcap.cli.search_options import add_search_options, search_settings
from latentcap.search.config import SearchConfig, default, described


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+")
    add_search_options(parser)
    return parser.parse_args(arguments)


def test_every_setting_has_an_option() -> None:
    parser = argparse.ArgumentParser()
    add_search_options(parser)
    options = {action.dest: action for action in parser._actions if action.dest != "help"}
    assert list(options) == list(SearchConfig.__dataclass_fields__)
    for name, option in options.items():
        assert option.help == described()[name]
        assert option.default is None
        assert option.type is (
            None if name == "sample" else str if name.endswith(("words", "endings")) else type(default(name))
        )


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
