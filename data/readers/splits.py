"""The three splits, and the names that data sets give them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

from latentcap.data.errors import UserError
from latentcap.data.example import Example

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_YEAR = re.compile(r"\d{4}$")


def known_split(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for a usual name of one (``dev``, ``train2014``, ...), else None."""
    return SPLIT_NAMES.get(_YEAR.sub("", name.strip().lower()))


def normalise_split(name: str, where: str) -> str:
    """As :func:`known_split`. Raises UserError, naming ``where``, for a name that is none."""
    split = known_split(name)
    if split is None:
        accepted = ", ".join(SPLIT_NAMES)
        raise UserError(f"{where}: '{name}' is not a split. Accepted: {accepted} (also with a year, as train2014).")
    return split


def split_in_name(file_name: str, default: str = "train") -> str:
    """The split that a file name speaks of (``val-00000.tar``, ``captions_train2014.json``), if exactly one."""
    stem = file_name.rpartition("/")[2].partition(".")[0]
    found = {split for word in re.split(r"[-_ ]", stem) if (split := known_split(word))}
    return found.pop() if len(found) == 1 else default


def groups_in_two_splits(examples: Iterable[Example]) -> dict[str, list[str]]:
    """Patients or cases (``Example.group``) with examples in more than one split, each with those splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        if example.group is not None:
            splits[example.group].add(example.split)
    return {group: sorted(found) for group, found in splits.items() if len(found) > 1}


def refuse_leaks(examples: Iterable[Example], where: str) -> None:
    """Raises UserError where a patient or case is in two splits: scores on it would measure memory."""
    leaks = groups_in_two_splits(examples)
    if leaks:
        first = "; ".join(f"{group} ({', '.join(splits)})" for group, splits in list(leaks.items())[:3])
        raise UserError(
            f"{where}: {len(leaks):,} patients or cases are in more than one split, so scores would measure memory: "
            f"{first}{'; ...' if len(leaks) > 3 else ''}. Move each to one split; "
            "'latentcap prepare check DATA' lists them."
        )


def select_split(examples: Sequence[Example], split: str | None, where: str) -> list[Example]:
    """The examples of one split, or all for None. Raises UserError, with the splits there are, where it is empty."""
    if split is None:
        return list(examples)
    wanted = normalise_split(split, "split")
    chosen = [example for example in examples if example.split == wanted]
    if not chosen:
        counts = Counter(example.split for example in examples)
        there = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items())) or "none"
        raise UserError(
            f"{where}: no examples in the split '{wanted}'. Splits there: {there}. Ask for one of those, or give the "
            "data a split column, or files or folders named by split."
        )
    return chosen


def share_for_validation(examples: Sequence[Example], *, share: float = 0.1, seed: int = 0) -> list[Example]:
    """All examples, a share of those of train moved to val, for data that state no val split.

    Examples of one patient or case (``Example.group``), or else of one image, move together. The choice depends on the
    seed and on the ids alone, not on the order or the place of the data. At least one moves.

    Raises:
        UserError: all of train is one group, so that nothing would be left to train on.
    """
    ids: dict[str, str] = {}  # of each group the least, for paths differ from one machine to the next
    for example in examples:
        if example.split == "train":
            held = _held_together(example)
            ids[held] = min(ids.get(held, example.id), example.id)
    chance = {
        held: int.from_bytes(sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
        for held, name in ids.items()
    }
    if len(chance) < 2:
        raise UserError(
            "no val split, and none can be taken from train: its examples are all of one image, patient or case. "
            "Give validation data of their own (data.val)."
        )
    ranked = sorted(chance, key=lambda name: (chance[name], name))
    within = sum(1 for name in ranked if chance[name] < share)
    chosen = set(ranked[: min(max(1, within), len(ranked) - 1)])
    return [
        dataclasses.replace(example, split="val")
        if example.split == "train" and _held_together(example) in chosen
        else example
        for example in examples
    ]


def _held_together(example: Example) -> str:
    return example.group if example.group is not None else str(example.images[0]) if example.images else example.id
