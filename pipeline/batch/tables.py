"""Rows of JSONL, CSV and Parquet tables as inputs: the image, and what the model reads besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentcap.batch.journal import digest
from latentcap.data.errors import UserError
from latentcap.data.readers.fields import VIEWS_COLUMN, Fields, Row, clean_text, to_number, to_views
from latentcap.data.readers.rows import iter_rows
from latentcap.data.readers.table import image_root, row_images, row_name


@dataclass(frozen=True)
class Columns:
    """The columns of a table. ``None`` finds the image and the context by their usual names.

    ``numbers`` and ``categories`` are the fields that the model reads; a column of that name gives their value. Without
    ``reads_context`` a column of contexts is left aside, unless it is named.
    """

    image: str | None = None
    context: str | None = None
    root: Path | None = None
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    reads_context: bool = True


def table_inputs(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """The fields of an ``Input`` for each row. Rows that are alike but for other columns are one.

    An image that comes again with another context is named ``x.jpg#2``, ``x.jpg#3``, ...

    Raises:
        UserError: there is no image column, or a row is broken.
    """
    fields = Fields(image=columns.image, context=columns.context, caption="")
    root = columns.root
    image = context = id = ""
    seen: set[int] = set()
    times: Counter[int] = Counter()
    for number, row in enumerate(iter_rows(path), start=1):
        if number == 1:
            found = fields.resolve(row, str(path))
            image = found.image or ""
            id = found.id or ""
            context = (found.context or "") if columns.reads_context or columns.context else ""
            root = root or image_root(path, row.get(image))
        assert root is not None
        entry = _entry(row, image, context, root=root, where=f"{path}, row {number}", number=number, columns=columns)
        entry["id"] = (clean_text(row.get(id)) or "") if id else ""
        what = digest(repr([entry[name] for name in ("name", "views", "context", "numbers", "categories")]))
        if what in seen:
            continue
        seen.add(what)
        key = digest(entry["name"])
        times[key] += 1
        if times[key] > 1:
            entry["name"] += f"#{times[key]}"
        yield entry


def count_rows(path: Path) -> int:
    """How many rows a table has; lines, for those that are texts."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _entry(
    row: Row, image: str, context: str, *, root: Path, where: str, number: int, columns: Columns
) -> dict[str, Any]:
    error = ""
    try:
        images = row_images(row.get(image), root, where)
    except UserError as problem:
        images, error = (), str(problem)
    return {
        "name": row_name(row.get(image), number, root),
        "images": images,
        "views": to_views(row.get(VIEWS_COLUMN), len(images)),
        "context": clean_text(row.get(context)) if context else None,
        "numbers": {name: to_number(row.get(name)) for name in columns.numbers if name in row},
        "categories": {name: clean_text(row.get(name)) for name in columns.categories if name in row},
        "error": error,
    }
