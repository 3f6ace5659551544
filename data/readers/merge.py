"""Rows that differ in the caption alone become one example."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from latentcap.data.columns import gather
from latentcap.data.example import BLOCK, Example
from latentcap.data.readers.collect import collect


def merged(rows: Sequence[Example], keys: array[int], folder: Path) -> Sequence[Example]:
    """One example of all rows with one key, with the captions and paraphrases of all and else what the first has.

    They are in the order of their first rows.
    """
    _, firsts, groups = np.unique(np.frombuffer(keys, np.int64), return_index=True, return_inverse=True)
    if len(firsts) == len(rows):
        return rows
    places = np.empty_like(firsts)
    places[np.argsort(firsts)] = np.arange(len(firsts))
    groups = places[groups]
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ends = np.append(starts, len(rows))
    blocks = (order[ends[at] : ends[min(at + BLOCK, len(starts))]] for at in range(0, len(starts), BLOCK))
    return collect((example for block in blocks for example in _merged(rows, block, groups)), folder)


def _merged(rows: Sequence[Example], places: np.ndarray, groups: np.ndarray) -> Iterator[Example]:
    held = zip(groups[places].tolist(), gather(rows, places), strict=True)
    for _, group in groupby(held, key=lambda pair: pair[0]):
        same = [example for _, example in group]
        yield same[0] if len(same) == 1 else _one(same)


def _one(rows: Sequence[Example]) -> Example:
    return dataclasses.replace(
        rows[0],
        captions=tuple(text for row in rows for text in row.captions),
        paraphrases=tuple(text for row in rows for text in row.paraphrases),
    )
