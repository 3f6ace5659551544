"""The options of programs that caption: one for each setting of ``SearchConfig``."""

from __future__ import annotations

import argparse
from typing import Any

from latentcap.search.config import SearchConfig

OPTIONS: tuple[tuple[str, type, str, str], ...] = (
    ("beam_size", int, "N", "captions searched side by side; 1 is greedy"),
    ("num_captions", int, "N", "best captions of each image, up to the beam size; with --sample, samples drawn"),
    ("max_length", int, "N", "longest caption in words (tokens)"),
    ("min_length", int, "N", "shortest caption in words (tokens)"),
    ("length_penalty", float, "P", "above 0 favours longer captions"),
    ("no_repeat_ngram", int, "N", "no run of N words occurs twice in a caption; 0 allows it"),
    ("forbidden_words", str, "WORDS", 'words or phrases that no caption contains, such as "tree, swimming pool"'),
    ("required_words", str, "WORDS", "words or phrases that every caption contains (needs 2 beams or more)"),
    ("bad_endings", str, "WORDS", "words that no caption ends with; 'english' is a list of a, of, the and their like"),
    ("beam_groups", int, "N", "diverse beam search: groups of beams, each kept off the words of those before"),
    ("diversity_penalty", float, "P", "how much groups of beams differ (default: 0.5)"),
    ("sample", bool, "", "draw words at random instead of searching for the most probable caption"),
    ("temperature", float, "T", "of sampling; below 1 favours probable words"),
    ("top_k", int, "N", "sample among the N most probable words; 0 is all"),
    ("top_p", float, "P", "sample among the most probable words that together reach probability P"),
    ("seed", int, "N", "of sampling: the same seed and image give the same captions, whatever else is captioned"),
)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add a group "search" with one option for each setting; an option not given leaves the model's own setting."""
    group = parser.add_argument_group("search", "by default as the model folder says")
    for name, kind, metavar, text in OPTIONS:
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(flag, type=kind, metavar=metavar, help=text)


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, for ``Captioner.caption(**settings)`` and ``Captioner.search_config``."""
    given = {name: getattr(options, name) for name in SearchConfig.__dataclass_fields__}
    return {name: value for name, value in given.items() if value is not None}
