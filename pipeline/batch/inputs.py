"""What is to be captioned, one after the other: paths, patterns, lists, standard input, archives and tables."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from latentcap.batch.journal import digest
from latentcap.batch.lists import Kept, entries_in, names_in
from latentcap.batch.tables import Columns, count_rows, line_inputs, remote_inputs, table_inputs, which
from latentcap.data.archives import is_archive
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.kinds import is_video
from latentcap.data.listing import Listed, list_path, no_images
from latentcap.data.readers.paths import existing, expand_sources, native
from latentcap.data.readers.rows import TABLE_SUFFIXES
from latentcap.data.remote import check_address, is_remote
from latentcap.data.walk import RUN, own_outputs

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to caption and the name that no other has. ``error`` says why nothing can be captioned,
    ``skipped`` why it is not even tried: it is no image of a kind that is read.

    ``images`` are the views of one example, one for all but studies and tables with lists of images; ``views`` their
    names, or nothing where they have none. ``id`` is what a table calls it besides; ``study`` the StudyInstanceUID of
    DICOM files that are read together. A ``video`` is read frame by frame.
    """

    name: str
    images: tuple[ImageRef, ...]
    context: str | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    error: str = ""
    skipped: str = ""
    id: str = ""
    study: str = ""
    video: bool = False


class Inputs:
    """All inputs that command-line arguments name; iterated as often as wanted, always in the same order.

    Nothing is held but 64 bits for each name and each image, and what standard input said. Where one folder, archive
    or table is all that is given, inputs are named by their path in it, else by their path as given; images that a
    table holds itself are named by its path too then. An image that is named twice comes once; other images of one
    name, as an archive may hold, are ``x.jpg``, ``x.jpg#2``, ...

    Args:
        sources: files, folders, tars, zips, patterns, tables; ``@list.txt`` is a file that names one image a line, and
            ``-`` standard input that does. Lists may be separated by zero bytes instead, as ``find -print0`` writes
            them. They name files: a folder in a list is an error. Standard input whose first line is JSON is JSON
            Lines, with the columns that tables have.
        columns: what the columns of tables are called and what of them the model reads.
        context: of all inputs that have none of their own, by their name; None where it is not known.
        videos: are read; otherwise they are skipped.
        belongs: which inputs are this process's part.
        may_be_empty: whether no input at all is no mistake.
        grouped: what becomes of all inputs together, such as studies of several files.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        columns: Columns | None = None,
        context: Callable[[str], str | None] = lambda name: None,
        videos: bool = False,
        belongs: Callable[[Input], bool] = lambda item: True,
        may_be_empty: bool = False,
        grouped: Callable[[Iterable[Input]], Iterable[Input]] | None = None,
    ) -> None:
        self.may_be_empty = may_be_empty
        self.columns, self.context, self.belongs = columns or Columns(), context, belongs
        self.grouped = grouped
        self.videos = videos
        self.sources = _without_outputs([path for source in sources for path in _expand(source)])
        self._stdin = Kept(entries_in(sys.stdin.buffer, "standard input")) if STDIN in self.sources else None

    def __iter__(self) -> Iterator[Input]:
        empty = True
        for item in _named_apart(self._all()):
            empty = False
            if self.belongs(item):
                yield item
        if empty and not self.may_be_empty:
            raise no_images(self.sources)

    @property
    def root(self) -> str | None:
        """What names do not say: the one folder, archive or table that is given; None where they say it."""
        if len(self.sources) != 1 or self.sources[0] == STDIN:
            return None
        (source,) = self.sources
        if _is_table(source):
            source = str(self.columns.root or source)
        elif not (os.path.isdir(source) or is_archive(source)):
            return None
        return source if is_remote(source) else os.path.realpath(source)

    def count(self) -> int | None:
        """How many there are, what is named twice counted twice; None where standard input or a server knows."""
        if self._stdin is not None or any(map(is_remote, self.sources)):
            return None
        if self.grouped is not None:
            return sum(map(self.belongs, self._all()))
        tables = [source for source in self.sources if _is_table(source)]
        return sum(count_rows(Path(table)) for table in tables) + sum(
            self.belongs(item) for source in self.sources if source not in tables for item in self._from(source)
        )

    def count_beside(self) -> Callable[[], int | None]:
        """Count in a thread of its own. Returns a function that gives :meth:`count`, or None until it is known."""
        found: list[int | None] = []

        def run() -> None:
            with suppress(OSError, ValueError):  # whoever iterates will meet it too, and say so
                found.append(self.count())

        threading.Thread(target=run, daemon=True).start()
        return lambda: found[0] if found else None

    def _all(self) -> Iterator[Input]:
        items: Iterable[Input] = (item for source in self.sources for item in self._from(source))
        for item in self.grouped(items) if self.grouped else items:
            if self.videos and item.images and is_video(item.name):
                item = replace(item, video=True, skipped="")
            given = self.context(item.name) if item.context is None else None
            yield replace(item, context=given) if given else item

    def _from(self, source: str) -> Iterator[Input]:
        if source == STDIN:
            assert self._stdin is not None
            first = next(filter(str.strip, self._stdin), "")
            if first.lstrip().startswith("{") and not os.path.exists(first):
                yield from (Input(**row) for row in line_inputs(self._stdin, self.columns, where="standard input"))
            else:
                yield from _listed(filter(str.strip, self._stdin))
        elif source.startswith("@") and not os.path.exists(source):
            with open(source[1:], "rb") as file:
                yield from _listed(names_in(file, source[1:]))
        elif _is_table(source):
            rows = remote_inputs if is_remote(source) else table_inputs
            items = (Input(**row) for row in rows(source, self.columns))
            yield from items if len(self.sources) == 1 else (_of_table(item, source, self.columns) for item in items)
        else:
            inside = "" if len(self.sources) == 1 else source
            yield from map(_from_listed, list_path(source, inside))


def _of_table(item: Input, table: str, columns: Columns) -> Input:
    """A row as it is named beside those of other tables."""
    if not item.images or any(image.data is not None for image in item.images):
        return replace(item, name=f"{table}:{item.name}")
    if columns.root or is_remote(item.name):
        return item
    return replace(item, name=os.path.join(os.path.dirname(table), item.name))


def _named_apart(items: Iterable[Input]) -> Iterator[Input]:
    """Each image once, and no two of one name."""
    seen: dict[int, int] = {}  # names, and which images have them
    for item in items:
        images, name = which(item.images), item.name
        for times in itertools.count(2):
            before = seen.get(key := digest(name))
            if before in (None, images):
                break
            name = f"{item.name}#{times}"
        if before is None:
            seen[key] = images
            yield item if name == item.name else replace(item, name=name)


def _expand(source: str) -> list[str]:
    """The paths of one argument. Raises UserError for one that names nothing."""
    if source == STDIN:
        return [source]
    if source.startswith("@") and not os.path.exists(source):
        if not os.path.isfile(source[1:]):
            raise UserError(
                f"{source}: there is no list '{source[1:]}'. @FILE names a text with one image path a line."
            )
        return [source]
    paths = expand_sources(source)
    for path in paths:
        if is_remote(path):
            check_address(path)
        else:
            existing(path, "image path")
    return paths


def _is_table(source: str) -> bool:
    return source.lower().endswith(TABLE_SUFFIXES) and not os.path.isdir(source)


def _listed(names: Iterable[str]) -> Iterator[Input]:
    """What a list names: files; what does not exist fails by itself when it is read. Folders are not walked."""
    for name in names:
        path = native(name, Path())
        if os.path.isdir(path):
            yield Input(path, (ImageRef(path),), error="a folder, where a list names files: give the folder by itself")
        else:
            yield from map(_from_listed, list_path(path, path))


def _from_listed(listed: Listed) -> Input:
    return Input(listed.name, (listed.image,), error=listed.error, skipped=listed.skipped)


def _without_outputs(sources: list[str]) -> list[str]:
    """Of several sources, as a pattern gives them, those that captioning did not write itself."""
    if len(sources) < 2:
        return sources
    kept = []
    for source in sources:
        folder, name = os.path.split(source.rstrip("/"))
        ours = own_outputs(folder, {name, f"{name}{RUN}"}) if name else set()
        if name not in ours:
            kept.append(source)
    return kept
