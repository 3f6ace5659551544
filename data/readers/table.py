"""Tables: one row an image and what is known of it; rows that differ in the caption alone are one example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.captions import is_null
from latentcap.data.readers.fields import IMAGE_COLUMNS, ReadOptions, Row, addresses_alone, clean_text
from latentcap.data.readers.paths import guess_root, native
from latentcap.data.readers.rows import columns_of, load_rows
from latentcap.data.readers.splits import split_in_name

IMAGE_FOLDERS = ("images", "Images", "image", "img", "imgs", "photos")


def read_table(path: Path, options: ReadOptions, *, split: str | None = None, id_prefix: str = "") -> list[Example]:
    """JSON Lines, CSV, TSV or Parquet. ``split`` is that of rows that state none; by default the file name says it."""
    split = split or split_in_name(path.name)
    rows = load_rows(path)
    root = rows_root(rows, path, options)
    return examples_from_rows(rows, options, root=root, split=split, where=str(path), id_prefix=id_prefix)


def examples_from_rows(
    rows: Sequence[Row], options: ReadOptions, *, root: Path, split: str, where: str, id_prefix: str = ""
) -> list[Example]:
    """Examples in the order of their first rows.

    Rows with the same images, split, context, numbers and categories, and the same id where ``Fields.id`` names its
    column, are one example with the captions of all. Its id is that of the first row, or else its first image's path.
    """
    columns = options.fields.resolve(columns_of(rows), where)
    assert columns.image is not None
    merged: dict[tuple[Any, ...], Example] = {}
    for number, row in enumerate(rows, start=1):
        at = f"{where}, row {number}"
        images = row_images(row.get(columns.image), root, at)
        id = clean_text(row.get(columns.id)) if columns.id else None
        name = id or id_prefix + row_name(row.get(columns.image), number, root)
        example = columns.example(row, id=name, images=images, default_split=split, where=at)
        key = (
            images,
            example.split,
            example.context,
            tuple(example.numbers.items()),
            tuple(example.categories.items()),
            id if options.fields.id else None,
        )
        first = merged.get(key)
        if first is not None:
            example = dataclasses.replace(
                first,
                captions=first.captions + example.captions,
                paraphrases=first.paraphrases + example.paraphrases,
            )
        merged[key] = example
    return list(merged.values())


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
    values = value if isinstance(value, list | tuple) else [value]
    images = tuple(_image(item, root, where) for item in values)
    if not images:
        raise UserError(f"{where}: the list of images is empty.")
    return images


def _image(value: Any, root: Path, where: str) -> ImageRef:
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return ImageRef(path=where, data=value)
    if is_null(value) or not str(value).strip():
        raise UserError(f"{where}: no image. Every row needs the path of one; leave the row out, or complete it.")
    if str(value).lstrip().startswith(("http://", "https://")):
        raise addresses_alone(where, str(value).strip())
    return ImageRef(path=str(root / native(str(value).strip(), root)))


def row_name(value: Any, number: int, root: Path) -> str:
    """What the image column calls the row's first image, or ``row-NUMBER`` where it holds bytes without a name."""
    first = value[0] if isinstance(value, list | tuple) else value
    if isinstance(first, Mapping):
        first = first.get("path")
    return native(first.strip(), root) if isinstance(first, str) and first.strip() else f"row-{number}"
