"""Tables: one row an image and what is known of it; rows that differ in the caption alone are one example."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import BLOCK, Example, ImageRef
from latentcap.data.readers.captions import is_null
from latentcap.data.readers.collect import collect
from latentcap.data.readers.fields import (
    IMAGE_COLUMNS,
    SPLIT_LIKE,
    Columns,
    ReadOptions,
    Row,
    addresses_alone,
    clean_text,
)
from latentcap.data.readers.kept import kept
from latentcap.data.readers.merge import merged
from latentcap.data.readers.paths import guess_root, native
from latentcap.data.readers.rows import TableRows, columns_of
from latentcap.data.readers.splits import known_split, split_in_name
from latentcap.data.remote import is_remote

IMAGE_FOLDERS = ("images", "Images", "image", "img", "imgs", "photos")


def read_table(path: Path, options: ReadOptions, *, split: str | None = None, id_prefix: str = "") -> Sequence[Example]:
    """JSON Lines, CSV, TSV or Parquet. ``split`` is that of rows that state none; by default the file name says it."""
    split = split or split_in_name(path.name)
    rows = TableRows(path)
    root = rows_root([rows.first()], path, options)

    def read() -> Sequence[Example]:
        return examples_from_rows(rows, options, root=root, split=split, where=str(path), id_prefix=id_prefix)

    return kept([path], options, (str(path), str(root), split, id_prefix), read)


def examples_from_rows(
    rows: Iterable[Row], options: ReadOptions, *, root: Path, split: str, where: str, id_prefix: str = ""
) -> Sequence[Example]:
    """Examples in the order of their first rows, which are gone through again where they have to be.

    Rows with the same images, split, context, numbers and categories, and the same id where ``Fields.id`` names its
    column, are one example with the captions of all. Its id is that of the first row, or else its first image's path.
    """

    def read(names: Sequence[str]) -> Sequence[Example]:
        keys = array("q")
        resolved = options.fields.resolve(names, where)
        columns = resolved if resolved.split else replace(resolved, split=_split_by_values(islice(rows, BLOCK)))
        known = set(names)

        def examples() -> Iterator[Example]:
            for number, row in enumerate(rows, start=1):
                if not row.keys() <= known:
                    known.update(row)
                    if options.fields.resolve(known, where) != resolved:
                        raise _OtherColumns
                yield _example(row, number, columns, keys, named=bool(options.fields.id))

        return merged(collect(examples(), options.columns), keys, options.columns)

    def _example(row: Row, number: int, columns: Columns, keys: array[int], *, named: bool) -> Example:
        at = f"{where}, row {number}"
        value = row.get(columns.image)  # type: ignore[arg-type]
        images = row_images(value, root, at)
        id = clean_text(row.get(columns.id)) if columns.id else None
        name = id or id_prefix + row_name(value, number, root)
        example = columns.example(row, id=name, images=images, default_split=split, where=at)
        # As text: Python's hash of -1 is that of -2.
        known = f"{example.numbers}{example.categories}" if example.numbers or example.categories else ""
        keys.append(hash((images, example.split, example.context, known, id if named else None)))
        return example

    try:
        return read(columns_of(islice(rows, BLOCK)))
    except (UserError, _OtherColumns):  # a row further down may have the column, or the file another fault
        return read(columns_of(rows))


def _split_by_values(rows: Iterable[Row]) -> str | None:
    """A column that may be anything by its name and names splits by its values."""
    values: dict[str, set[str | None]] = {}
    for row in rows:
        for name, value in row.items():
            if name.strip().lower() in SPLIT_LIKE and isinstance(value, str):
                values.setdefault(name, set()).add(known_split(value.strip()))
    found = [name for name, splits in values.items() if None not in splits]
    return found[0] if len(found) == 1 else None


class _OtherColumns(Exception):
    """A row has a column that changes which columns are meant."""


def rows_root(rows: Sequence[Row], path: Path, options: ReadOptions) -> Path:
    """The given root or the table's folder; another folder in it, or that above it, where the first row's image is."""
    if options.image_root:
        return options.image_root
    column = options.fields.image or next((name for name in IMAGE_COLUMNS if rows and name in rows[0]), None)
    return image_root(path, rows[0].get(column) if rows and column else None)


def image_root(path: Path, first: Any) -> Path:
    """Where the images of a table are, by the value that its first row has for an image."""
    name = first[0] if isinstance(first, list | tuple) and first else first
    if not isinstance(name, str) or not name.strip():
        return path.parent
    image = native(name.strip(), path.parent)
    bases = (path.parent, *(path.parent / folder for folder in IMAGE_FOLDERS), path.parent.parent)
    root = guess_root(bases, ("",), image)
    if (root / image).exists():
        return root
    others = [folder for folder in path.parent.iterdir() if (folder / image).is_file()]
    return others[0] if len(others) == 1 else root


def row_images(value: Any, root: Path, where: str) -> tuple[ImageRef, ...]:
    """A path, encoded bytes, ``{"bytes", "path"}`` as in Hugging Face Parquet files, or a list of those (views)."""
    if isinstance(value, str):
        return (_image(value, root, where),)
    values = value if isinstance(value, list | tuple) else [value]
    images = tuple(_image(item, root, where) for item in values)
    if not images:
        raise UserError(f"{where}: the list of images is empty.")
    return images


def _image(value: Any, root: Path, where: str) -> ImageRef:
    if not isinstance(value, str):
        if isinstance(value, Mapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes):
            return ImageRef(path=where, data=value)
        value = "" if is_null(value) else str(value)
    text = value.strip()
    if not text:
        raise UserError(f"{where}: no image. Every row needs the path of one; leave the row out, or complete it.")
    if "://" in text:
        if text.startswith(("http://", "https://")):
            raise addresses_alone(where, text)
        if is_remote(text):
            return ImageRef(text)
    path = native(text, root)
    cut = path.rfind("/") + 1
    name = path[cut:]
    return ImageRef(str(root / path) if name in ("", ".") else _folder(str(root), path[:cut]) + name)


@lru_cache(maxsize=4096)
def _folder(root: str, name: str) -> str:
    """What a path in a folder begins with. A path is slow to make, and a folder has many images."""
    folder = str(Path(root, name))
    return "" if folder == "." else os.path.join(folder, "")


def row_name(value: Any, number: int, root: Path) -> str:
    """What the image column calls the row's first image, or ``row-NUMBER`` where it holds bytes without a name."""
    if isinstance(value, str) and (name := value.strip()):
        return native(name, root)
    first = next(iter(value), None) if isinstance(value, (list, tuple)) else value
    if isinstance(first, Mapping):
        first = first.get("path")
    return native(first.strip(), root) if isinstance(first, str) and first.strip() else f"row-{number}"
