"""Images with texts of the same name, ``KEY.jpg`` with ``KEY.txt``, ``.caption`` or ``.json``, in folders and tars."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from latentcap.data.archives import Member
from latentcap.data.encoding import decode
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.kinds import begins_as_image, is_image, may_be_image, suffix_of, why_not_read
from latentcap.data.readers.captions import to_captions
from latentcap.data.readers.fields import CAPTION_COLUMNS, ReadOptions, clean_text

TEXTS = (".txt", ".caption")
SUFFIXES = (*TEXTS, ".json")
NOTES = ("readme", "license", "licence", "notice", "requirements", "changelog", "classes", "labels", "notes", "todo")


@dataclass
class Sample:
    """What has one key: its images, and where its texts are, by their suffix."""

    images: list[Member]
    texts: dict[str, Member] = field(default_factory=dict)


def group(members: Iterable[Member], options: ReadOptions) -> dict[str, Sample]:
    """Samples by key, in the order of their images; what is in none is taken down as skipped.

    The key is all before the last dot, or the whole name (``a.jpg.txt``); ``KEY.0.jpg``, ``KEY.1.jpg``, ... are the
    views of ``KEY`` where the text is called ``KEY.txt``. So names may have dots.
    """
    images: dict[str, Member] = {}
    texts: dict[str, dict[str, Member]] = {}
    unread: set[str] = set()
    for member in members:
        stem, suffix = os.path.splitext(member.name)[0], suffix_of(member.name)
        if suffix in SUFFIXES:
            if suffix in texts.setdefault(stem, {}):
                options.skip(member.name, "the name comes again; the last one counts")
            texts[stem][suffix] = member
        elif reason := why_not_read(member.name):
            options.skip(member.name, reason)
            unread.add(stem)
        elif is_image(member.name) or (may_be_image(member.name) and begins_as_image(member.place.start())):
            if member.name in images:
                options.skip(member.name, "the name comes again; the last one counts")
            images[member.name] = member
    samples: dict[str, Sample] = {}
    for name, member in images.items():
        key, view = _key(name, texts)
        sample = samples.setdefault(key, Sample([], texts.get(key, {})))
        if sample.images and not view:
            options.skip(name, f"a second image of '{key}'; views of one are called {key}.0.jpg, {key}.1.jpg, ...")
        else:
            sample.images.append(member)
    for sample in samples.values():
        if len(sample.images) > 1:
            sample.images.sort(key=lambda member: int(os.path.splitext(member.name)[0].rpartition(".")[2]))
    for key in texts.keys() - samples.keys() - unread:
        _name_orphan(key, texts[key], options)
    return samples


def examples_of(
    samples: dict[str, Sample],
    options: ReadOptions,
    *,
    where: str,
    split: Callable[[str], str],
    name: Callable[[str, Sample], str],
) -> list[Example]:
    """Samples as examples: captions are those in the JSON, else the lines of the text.

    Args:
        where: the folder or tar, for messages.
        split: of a key, where its JSON says none.
        name: the id of a sample, where ``fields.id`` names no column.

    Raises:
        UserError: no sample has a caption, JSON that is none, and a named field that is in no JSON.
    """
    rows = {key: _row(sample, options, f"{where}:{key}") for key, sample in samples.items()}
    found = dict.fromkeys(column for row in rows.values() for column in row)
    if not found and options.fields.caption is None:
        raise UserError(
            f"{where}: none of its {len(samples):,} images has captions: a text of the same name beside it (KEY.jpg "
            f"with KEY{', KEY'.join(SUFFIXES)})."
        )
    columns = options.fields.resolve(found, where, with_image=False)
    return [
        columns.example(
            rows[key],
            id=(clean_text(rows[key].get(options.fields.id)) if options.fields.id else None) or name(key, sample),
            images=tuple(member.place for member in sample.images),
            default_split=split(key),
            where=f"{where}:{key}.json",
        )
        for key, sample in samples.items()
    ]


def caption_lines(text: str) -> tuple[str, ...]:
    """One caption for every line that is not blank. Lines end at newlines alone."""
    return tuple(line.strip() for line in text.split("\n") if line.strip())


def _key(name: str, texts: dict[str, dict[str, Member]]) -> tuple[str, bool]:
    """The key that an image belongs to, and whether it is one of several views."""
    stem = os.path.splitext(name)[0]
    base, dot, number = stem.rpartition(".")
    if stem in texts:
        return stem, False
    if name in texts:
        return name, False
    if dot and number.isdecimal() and base in texts:
        return base, True
    return stem, False


def _row(sample: Sample, options: ReadOptions, where: str) -> dict[str, Any]:
    """What is known of a sample, by column; where no column of captions is named, they are all in ``captions``."""
    row = _parse(sample.texts[".json"], where) if ".json" in sample.texts else {}
    if options.fields.caption is not None:
        return row
    column = next((name for name in CAPTION_COLUMNS if name in row), None)
    captions = to_captions(row[column], where) if column else ()
    text = next((sample.texts[suffix] for suffix in TEXTS if suffix in sample.texts), None)
    if not captions and text is not None:
        captions = caption_lines(_read(text))
    return row | {"captions": list(captions)} if captions or column or text else row


def _name_orphan(key: str, texts: dict[str, Member], options: ReadOptions) -> None:
    """Take down a caption without an image. Other texts and JSON files are none."""
    for suffix, member in texts.items():
        if suffix in TEXTS and os.path.basename(key).lower() not in NOTES:
            options.skip(member.name, "a caption without an image of that name")
            return
        if suffix == ".json":
            try:
                row = _parse(member, member.name)
                if any(to_captions(row.get(name), member.name) for name in CAPTION_COLUMNS):
                    options.skip(member.name, "a caption without an image of that name")
                    return
            except UserError:  # statistics and the like
                continue


def _read(member: Member) -> str:
    try:
        return decode(member.place.read_bytes(), str(member.place))
    except OSError as error:
        raise UserError(f"{member.place}: cannot be read ({error.strerror}).") from None


def _parse(member: Member, where: str) -> dict[str, Any]:
    try:
        row = json.loads(_read(member))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}.json: not valid JSON ({error.msg}, line {error.lineno}).") from None
    if isinstance(row, str | list):
        return {"captions": row}
    if not isinstance(row, dict):
        raise UserError(f"{where}.json: a {type(row).__name__}, where an object or a list of captions is needed.")
    return row
