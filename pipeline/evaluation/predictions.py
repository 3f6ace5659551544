"""A file of captions, and which example each of its lines belongs to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentcap.data.errors import UserError
from latentcap.data.example import Example

_BY_ID = 1 << 30  # better than any number of path parts in common


@dataclass(frozen=True, slots=True)
class Caption:
    """One line of a captions file."""

    text: str
    file: str
    id: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line} ({self.file or self.id})"


@dataclass(frozen=True, slots=True)
class Matches:
    """What was found: pairs in the order of the captions, and how many of each side are left over.

    ``unmatched_examples`` counts those with references in the splits that any caption belongs to.
    """

    pairs: list[tuple[Caption, Example]]
    unmatched_captions: list[Caption]
    unmatched_examples: int

    @property
    def splits(self) -> list[str]:
        return sorted({example.split for _, example in self.pairs})


def read_captions(path: str | Path) -> list[Caption]:
    """Read lines of ``{"file": ..., "caption": ...}``, or with ``"id"`` instead of or beside the file.

    Lines that hold an ``"error"`` and no caption stand for images that could not be read, and are left out.

    Raises:
        UserError: the file or one of its lines cannot be read, with the line's number.
    """
    captions = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the captions ({error}).") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not a JSON object ({error}). {_EXPECTED}") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: not a JSON object. {_EXPECTED}")
        if record.get("caption") is None and "error" in record:
            continue
        text, file, id = record.get("caption"), record.get("file"), record.get("id")
        if not isinstance(text, str) or (file is None and id is None):
            there = ", ".join(record) or "nothing"
            raise UserError(f"{path}, line {number}: needs a caption and a file or id, has {there}. {_EXPECTED}")
        captions.append(Caption(text, str(file or ""), "" if id is None else str(id), number))
    if not captions:
        raise UserError(f"{path}: no captions in it. {_EXPECTED}")
    return captions


_EXPECTED = 'Expected on each line: {"file": "photo.jpg", "caption": "a red bridge"}, as batch captioning writes it.'


def match(captions: Sequence[Caption], examples: Sequence[Example], where: str | Path) -> Matches:
    """Pair captions with examples by equal id, else by the most path parts in common, down to the file name.

    A caption may not get an example that another caption fits better.

    Raises:
        UserError: a caption fits several examples equally well, two captions fit the same one, or none fits any.
            ``where`` names the captions' file.
    """
    scored = [example for example in examples if example.captions]
    if not scored:
        raise UserError("the references hold no captions, so nothing can be scored.")
    by_id = {example.id: index for index, example in enumerate(scored)}
    by_path: defaultdict[str, set[int]] = defaultdict(set)
    for index, example in enumerate(scored):
        for name in (example.id, *(f"{image.path}/{image.name}" for image in example.images)):
            for _, suffix in _suffixes(name):
                by_path[suffix].add(index)

    found: list[tuple[int, set[int], Caption]] = []
    for caption in captions:
        if caption.id in by_id:
            found.append((_BY_ID, {by_id[caption.id]}, caption))
            continue
        hits = ((depth, by_path[suffix], caption) for depth, suffix in _suffixes(caption.file) if suffix in by_path)
        found.append(next(hits, (0, set(), caption)))

    owners: dict[int, tuple[int, Caption]] = {}
    for depth, candidates, caption in sorted(found, key=lambda item: -item[0]):
        free = [index for index in candidates if index not in owners or owners[index][0] == depth]
        if len(free) > 1:
            names = ", ".join(sorted(scored[index].id for index in free)[:4])
            raise UserError(
                f"{where}, {caption}: may be any of {len(free)} examples: {names}{', ...' if len(free) > 4 else ''}. "
                'Write an "id" or a longer relative path into the captions, or choose one split with --split.'
            )
        if free and free[0] in owners:
            raise UserError(
                f"{where}, {owners[free[0]][1]} and {caption}: both are captions of the example "
                f"'{scored[free[0]].id}'. Keep one caption for each."
            )
        if free:
            owners[free[0]] = (depth, caption)
    if not owners:
        raise UserError(
            f"{where}: none of its {len(captions):,} captions belongs to any of the {len(scored):,} examples with "
            f"references. Captions are for {captions[0].file or captions[0].id}, ..., references for {scored[0].id}, "
            "... They are matched by id, then by relative path, then by file name."
        )
    pairs = sorted(((caption, scored[index]) for index, (_, caption) in owners.items()), key=lambda pair: pair[0].line)
    matched = {caption.line for caption, _ in pairs}
    splits = {example.split for _, example in pairs}
    return Matches(
        pairs=pairs,
        unmatched_captions=[caption for caption in captions if caption.line not in matched],
        unmatched_examples=sum(example.split in splits for example in scored) - len(pairs),
    )


def _suffixes(path: str) -> Iterator[tuple[int, str]]:
    """(number of parts, those last parts) of a path, longest first; members of a tar archive count as files in it."""
    parts = [part for part in path.replace("\\", "/").replace(".tar:", ".tar/").split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        yield len(parts) - start, "/".join(parts[start:])
