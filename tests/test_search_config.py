"""Search settings and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentcap.data.errors import UserError
from latentcap.search.config import SearchConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, "1 \\(greedy\\) or more"),
        ({"num_captions": 4, "beam_size": 3}, "from 1 to beam_size, which is 3"),
        ({"num_captions": 0}, "from 1 to beam_size"),
        ({"min_length": 50}, "0 <= min <= max"),
        ({"max_length": 0}, "1 <= max"),
        ({"temperature": 0.7}, "only sampling uses it"),
        ({"top_k": 5}, "only sampling uses it"),
        ({"top_p": 0.9}, "only sampling uses it"),
        ({"sample": True, "temperature": 0.0}, "above 0"),
        ({"sample": True, "top_p": 1.5}, "at most 1"),
        ({"sample": True, "top_k": -1}, "0 \\(all words\\) or more"),
        ({"sample": True, "num_captions": 0}, "1 or more"),
        ({"sample": True, "beam_size": 3}, "contradict"),
        ({"sample": True, "beam_groups": 3}, "contradict"),
        ({"sample": True, "required_words": "tree"}, "contradict"),
        ({"beam_groups": 2}, "must divide beam_size, which is 3: 1, 3"),
        ({"diversity_penalty": 1.0}, "set beam_groups"),
        ({"beam_groups": 3, "diversity_penalty": -1.0}, "0 or more"),
        ({"beam_groups": 3, "required_words": "tree"}, "contradict"),
        ({"beam_size": 1, "required_words": "tree"}, "2 or more"),
        ({"no_repeat_ngram": -1}, "0 \\(off\\) or more"),
        ({"length_penalty": float("nan")}, "must be a number"),
        ({"forbidden_words": [3]}, "list of words"),
        ({"forbiden_words": "tree"}, "Did you mean 'forbidden_words'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig().changed(**changes)


def test_words_are_a_list_or_a_text_with_commas() -> None:
    config = SearchConfig(forbidden_words="tree, swimming pool,,tree", required_words=["plane"])  # type: ignore[arg-type]
    assert config.forbidden_words == ("tree", "swimming pool")
    assert config.required_words == ("plane",)
    assert hash(config) == hash(config.changed())


def test_going_from_beams_to_sampling_and_back_drops_what_only_the_other_uses() -> None:
    sampling = SearchConfig(beam_size=4, beam_groups=2, diversity_penalty=1.0).changed(sample=True, temperature=0.5)
    assert (sampling.beam_groups, sampling.temperature) == (1, 0.5)
    assert sampling.changed(num_captions=9).temperature == 0.5
    back = sampling.changed(sample=False, beam_size=2)
    assert (back.beam_size, back.temperature) == (2, 1.0)


def test_more_captions_than_beams_add_beams() -> None:
    assert SearchConfig().changed(num_captions=5).beam_size == 5
    assert SearchConfig(beam_size=8).changed(num_captions=5).beam_size == 8
    assert SearchConfig().changed(num_captions=5, beam_groups=2).beam_size == 6
    with pytest.raises(UserError, match="from 1 to beam_size, which is 4"):
        SearchConfig().changed(num_captions=5, beam_size=4)


def test_settings_survive_json_and_older_models_have_the_defaults() -> None:
    config = SearchConfig(beam_size=4, forbidden_words=("tree",), bad_endings=("english",))
    assert SearchConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    sampling = SearchConfig(sample=True, top_k=7)
    assert SearchConfig.from_dict(json.loads(json.dumps(sampling.to_dict()))) == sampling
    shipped = json.loads(Path("models/rsicd/config.json").read_text(encoding="utf-8"))["search"]
    assert SearchConfig.from_dict(shipped).beam_size == shipped["beam_size"]
    with pytest.raises(UserError, match="unknown search setting 'beams'"):
        SearchConfig.from_dict({"beams": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_captions": 1.5}, "num_captions is 1.5, of the wrong type: it must be a whole number, such as 1"),
        ({"max_length": 10.5}, "whole number, such as 40"),
        ({"max_length": True}, "whole number"),
        ({"beam_size": float("inf")}, "whole number"),
        ({"seed": 1.5}, "whole number"),
        ({"sample": True, "top_k": 2.5}, "whole number"),
        ({"sample": "yes"}, "sample is 'yes', of the wrong type: it must be true or false"),
        ({"sample": 1}, "true or false"),
        ({"guidance": False}, "it must be a number, such as 0.5"),
        ({"beam_groups": None}, "whole number"),
        ({"forbidden_words": 5}, "list of words"),
        ({"length_penalty": 1e308}, "from -10 to 10"),
        ({"length_penalty": 10**400}, "from -10 to 10"),
        ({"guidance": 1e308}, "at most 1000"),
        ({"diversity_penalty": -(10**400), "beam_groups": 3}, "0 or more"),
        ({"sample": True, "temperature": 1e-300}, "from 0.001 to 100"),
        ({"sample": True, "temperature": 1e308}, "from 0.001 to 100"),
        ({"sample": True, "top_p": 1e-300}, "1e-06 or more"),
        ({"beam_size": 10**12, "beam_groups": 7}, "at most 10,000"),
        ({"self": 1}, "unknown search setting 'self'"),
    ],
)
def test_types_and_extremes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig().changed(**changes)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    config = SearchConfig().changed(beam_size=4.0, beam_groups=2.0, length_penalty=1)
    assert (config.beam_size, config.beam_groups, config.length_penalty) == (4, 2, 1.0)
    assert type(config.beam_size) is int
    assert SearchConfig(max_length=20.0).max_length == 20  # type: ignore[arg-type]
