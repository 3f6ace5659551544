"""Which examples a run trains on and which validate it."""

from __future__ import annotations

import logging

import pytest

from latentcap.data.batches.splits import Source, read_splits
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef

FIT = ("train", "val")


def examples(**counts: int) -> list[Example]:
    return [
        Example(f"{split}{number}", (ImageRef(f"{split}{number}.png"),), split=split)
        for split, count in counts.items()
        for number in range(count)
    ]


def splits(
    data: dict[str, list[Example]], wanted: tuple[str, ...] = FIT, *, share: float = 0.2, **sources: Source
) -> dict[str, list[str]]:
    given: dict[str, Source] = {"train": None, "val": None, "test": None, **sources}
    found = read_splits(wanted, given, lambda source: data[str(source)], val_share=share)
    return {split: [example.id for example in part] for split, part in found.items()}


def test_splits_that_the_data_state_are_taken_as_they_are() -> None:
    found = splits({"all": examples(train=3, val=2, test=1)}, train="all")
    assert found == {"train": ["train0", "train1", "train2"], "val": ["val0", "val1"]}


def test_data_without_a_validation_split_give_a_share_of_train(caplog: pytest.LogCaptureFixture) -> None:
    data = {"all": examples(train=50, test=5)}
    with caplog.at_level(logging.INFO):
        found = splits(data, train="all")
    assert len(found["val"]) + len(found["train"]) == 50
    assert 3 <= len(found["val"]) <= 20
    assert f"{len(found['val'])} of 50 training examples validate" in caplog.text
    assert "data.val_share 0.2" in caplog.text
    assert splits(data, ("val",), train="all")["val"] == found["val"]  # to validate alone reads the same ones


def test_a_source_of_its_own_is_that_split() -> None:
    data = {"a": examples(train=4), "b": examples(train=2), "c": examples(val=3)}
    assert splits(data, train="a", val="b") == {"train": [f"train{n}" for n in range(4)], "val": ["train0", "train1"]}
    assert len(splits(data, train="c", val="b")["train"]) == 3


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, r"no train data: set data.train"),
        ({"train": "all"}, r"no 'val' examples in all: its splits are test \(1\), train \(2\)"),
        ({"train": "rest"}, r"no 'train' examples in rest: its splits are test \(1\), val \(1\)"),
    ],
)
def test_a_split_without_examples_is_said(sources: dict[str, Source], message: str) -> None:
    data = {"all": examples(train=2, test=1), "rest": examples(val=1, test=1)}
    with pytest.raises(UserError, match=message):
        splits(data, share=0.0, **sources)
