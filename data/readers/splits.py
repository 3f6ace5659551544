"""The three splits, and the names that data sets give them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np

from latentcap.data.columns import each, take, with_field
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


def groups_in_two_splits(*parts: Sequence[Example]) -> dict[str, list[str]]:
    """Patients or cases (``Example.group``) with examples in more than one split, each with those splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for examples in parts:
        for group, split in zip(each(examples, "group"), each(examples, "split"), strict=True):
            if group is not None:
                splits[group].add(split)
    return {group: sorted(found) for group, found in splits.items() if len(found) > 1}


def refuse_leaks(*parts: Sequence[Example], where: str) -> None:
    """Raises UserError where a patient or case is in two splits: scores on it would measure memory."""
    leaks = groups_in_two_splits(*parts)
    if leaks:
        first = "; ".join(f"{group} ({', '.join(splits)})" for group, splits in list(leaks.items())[:3])
        raise UserError(
            f"{where}: {len(leaks):,} patients or cases are in more than one split, so scores would measure memory: "
            f"{first}{'; ...' if len(leaks) > 3 else ''}. Move each to one split; "
            "'latentcap prepare check DATA' lists them."
        )


def select_split(examples: Sequence[Example], split: str | None, where: str) -> Sequence[Example]:
    """The examples of one split, or all for None. Raises UserError, with the splits there are, where it is empty."""
    if split is None:
        return examples
    wanted = normalise_split(split, "split")
    chosen = in_split(examples, wanted)
    if not chosen:
        counts = Counter(each(examples, "split"))
        there = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items())) or "none"
        raise UserError(
            f"{where}: no examples in the split '{wanted}'. Splits there: {there}. Ask for one of those, or give the "
            "data a split column, or files or folders named by split."
        )
    return chosen


def in_split(examples: Sequence[Example], wanted: str) -> Sequence[Example]:
    """The examples of one split; none where it has none."""
    places = [place for place, split in enumerate(each(examples, "split")) if split == wanted]
    return examples if len(places) == len(examples) else take(examples, places)


def share_for_validation(examples: Sequence[Example], *, share: float = 0.1, seed: int = 0) -> Sequence[Example]:
    """All examples, a share of those of train moved to val, for data that state no val split.

    Examples of one patient or case (``Example.group``), or else of one image, move together. The choice depends on the
    seed and on the ids alone, not on the order or the place of the data. At least one moves.

    Raises:
        UserError: all of train is one group, so that nothing would be left to train on.
    """
    splits = list(each(examples, "split"))
    train = [place for place, split in enumerate(splits) if split == "train"]
    mine = take(examples, train)
    # Numbers, not texts, of each group: there may be millions.
    held = np.fromiter(map(hash, _held_together(mine)), np.int64, len(train))
    _, groups, counts = np.unique(held, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UserError(
            "no val split, and none can be taken from train: its examples are all of one image, patient or case. "
            "Give validation data of their own (data.val)."
        )
    chances = np.zeros(len(counts))
    least: dict[int, str] = {}  # id of each group of several, for paths differ from one machine to the next
    for group, id in zip(groups.tolist(), each(mine, "id"), strict=True):
        if counts[group] > 1:
            least[group] = min(least.get(group, id), id)
        else:
            chances[group] = _chance(id, seed)
    for group, id in least.items():
        chances[group] = _chance(id, seed)
    within = int((chances < share).sum())
    chosen = np.argsort(chances)[: min(max(1, within), len(counts) - 1)]
    for place, moves in zip(train, np.isin(groups, chosen).tolist(), strict=True):
        if moves:
            splits[place] = "val"
    return with_field(examples, "split", splits)


def _chance(id: str, seed: int) -> float:
    return int.from_bytes(sha256(f"{seed}:{id}".encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


def _held_together(examples: Sequence[Example]) -> Iterator[str]:
    """What each example stays together with: its patient or case, or else its image."""
    for group, images, id in zip(*(each(examples, name) for name in ("group", "images", "id")), strict=True):
        yield group if group is not None else str(images[0]) if images else id
