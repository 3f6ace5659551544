"""Which example each caption belongs to: by id, else by path."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentcap.data.archives import as_path
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.evaluation.predictions import Caption, some

_BY_ID = 1 << 30  # better than any number of path parts in common
_NUMBER = re.compile(r"(?:.*_)?(\d+)$")  # COCO_val2014_000000000139


@dataclass(frozen=True, slots=True)
class Matches:
    """What was found: pairs in the order of the captions, and what of each side is left over.

    ``unmatched_examples`` are the ids of those with references in the splits that any caption belongs to.
    """

    pairs: list[tuple[Caption, Example]]
    unmatched_captions: list[Caption]
    unmatched_examples: list[str]

    @property
    def splits(self) -> list[str]:
        return sorted({example.split for _, example in self.pairs})

    def notes(self) -> list[str]:
        """What is left over, in words."""
        notes = []
        if self.unmatched_captions:
            first = some(map(str, self.unmatched_captions))
            notes.append(f"left out: {len(self.unmatched_captions):,} captions without references: {first}")
        if self.unmatched_examples:
            count, first = len(self.unmatched_examples), some(self.unmatched_examples)
            notes.append(f"left out: {count:,} images with references, for which there is no caption: {first}")
        return notes


class _Names:
    """All that captions may call examples by."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.ids: defaultdict[str, set[int]] = defaultdict(set)
        self.numbers: defaultdict[str, set[int]] = defaultdict(set)
        self.paths: defaultdict[str, set[int]] = defaultdict(set)
        self.stems: defaultdict[str, set[int]] = defaultdict(set)
        for index, example in enumerate(examples):
            images = (f"{image.path}/{image.name}" if image.name else image.path for image in example.images)
            files = [example.id, *images]
            for id in (example.id, *example.aliases):
                self.ids[id].add(index)
            numbered = (example.id, *(example.aliases or map(_stem, files)))
            for found in filter(None, map(_NUMBER.match, numbered)):
                self.numbers[_number(found[1])].add(index)
            for file in files:
                for _, suffix in _suffixes(file):
                    self.paths[suffix].add(index)
                    self.stems[_stem(suffix)].add(index)

    def find(self, caption: Caption) -> tuple[float, set[int]]:
        """How well the best of the examples fit, and those: by id, by path, by an id that is a path."""
        if caption.id in self.ids:
            return _BY_ID, self.ids[caption.id]
        if caption.id.isdecimal() and (found := self.numbers.get(_number(caption.id))):
            return _BY_ID - 1, found
        if caption.file and not caption.stem and (best := _deepest(caption.file, self.paths)):
            return best
        if caption.stem and (best := _deepest(caption.file, self.stems)):
            return best
        return _deepest(caption.id, self.paths) or _deepest(caption.id, self.stems) or (0, set())


def match(captions: Sequence[Caption], examples: Sequence[Example], where: str | Path) -> Matches:
    """Pair captions with examples by equal id, else by the most path parts in common, down to the file name.

    Ids are compared as text, then as numbers: 139 is "139", and "000139" too where no other id is. A caption may not
    get an example that another caption fits better.

    Raises:
        UserError: a caption fits several examples equally well, two captions fit the same one, or none fits any.
            ``where`` names the captions' file.
    """
    scored = [example for example in examples if example.captions]
    if not scored:
        raise UserError(
            f"the references hold no captions for any of {len(examples):,} images, so nothing can be scored. If the "
            "captions have a column of their own, name it: --field caption=COLUMN."
        )
    names = _Names(scored)
    found = [(*names.find(caption), place) for place, caption in enumerate(captions)]
    owners: dict[int, tuple[float, int]] = {}  # of examples: how well its caption fits, and the caption's place
    double: list[tuple[Caption, Caption, str]] = []
    for depth, candidates, place in sorted(found, key=lambda item: -item[0]):
        caption = captions[place]
        free = [index for index in candidates if index not in owners or owners[index][0] == depth]
        if len(free) > 1:
            ids = some(sorted(scored[index].id for index in free), 4)
            raise UserError(
                f"{where}, {caption}: may be any of {len(free)} examples: {ids}. "
                'Write an "id" or a longer relative path into the captions, or choose one split with --split.'
            )
        if free and free[0] in owners:
            double.append((captions[owners[free[0]][1]], caption, scored[free[0]].id))
        elif free:
            owners[free[0]] = (depth, place)
    if double:
        first, second, name = double[0]
        more = f" {len(double):,} captions are a second one like that." if len(double) > 1 else ""
        raise UserError(
            f"{where}, {first} and {second}: both are captions of the example '{name}'.{more} "
            "Keep one caption for each."
        )
    if not owners:
        raise UserError(
            f"{where}: none of its {len(captions):,} captions belongs to any of the {len(scored):,} examples with "
            f"references. Captions are for {captions[0].file or captions[0].id}, ..., references for "
            f"{_called(scored[0])}, ... They are matched by id, then by relative path, then by file name."
        )
    pairs = sorted((place, index) for index, (_, place) in owners.items())
    matched, splits = {place for place, _ in pairs}, {scored[index].split for _, index in pairs}
    return Matches(
        pairs=[(captions[place], scored[index]) for place, index in pairs],
        unmatched_captions=[caption for place, caption in enumerate(captions) if place not in matched],
        unmatched_examples=[
            example.id for index, example in enumerate(scored) if example.split in splits and index not in owners
        ],
    )


def _called(example: Example) -> str:
    return " = ".join((example.id, *example.aliases))


def _deepest(path: str, index: dict[str, set[int]]) -> tuple[float, set[int]] | None:
    return next(((depth, index[suffix]) for depth, suffix in _suffixes(path) if suffix in index), None)


def _suffixes(path: str) -> Iterator[tuple[int, str]]:
    """(number of parts, those last parts) of a path, longest first; members of an archive count as files in it."""
    parts = [part for part in as_path(path.replace("\\", "/")).split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        yield len(parts) - start, "/".join(parts[start:])


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _number(digits: str) -> str:
    return digits.lstrip("0") or "0"
