"""Rows of JSON Lines, CSV and Parquet tables as inputs: the image, and what the model reads besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentcap.batch.journal import digest
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.jsonl import parse_line
from latentcap.data.readers.fields import VIEWS_COLUMN, Fields, Row, clean_text, to_number, to_views
from latentcap.data.readers.rows import iter_rows
from latentcap.data.readers.table import image_root, row_images, row_name
from latentcap.data.remote import is_remote, local_copy


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


def remote_inputs(address: str, columns: Columns) -> Iterator[dict[str, Any]]:
    """:func:`table_inputs` of a table behind an address, whose paths begin at the folder that it is in there, unless
    ``columns.root`` is given."""
    folder = "" if columns.root else address.rpartition("/")[0]
    for row in table_inputs(local_copy(address), replace(columns, root=columns.root or Path()), called=address):
        yield row | {"images": tuple(_below(folder, image) if folder else image for image in row["images"])}


def _below(folder: str, image: ImageRef) -> ImageRef:
    named = image.data is None and not is_remote(image.path)
    return replace(image, path=f"{folder}/{image.path}") if named else image


def table_inputs(path: str | Path, columns: Columns, *, called: str = "") -> Iterator[dict[str, Any]]:
    """The fields of an ``Input`` for each row, as :func:`row_inputs` gives them.

    Raises:
        UserError: there is no image column, or a row is broken.
    """
    path = Path(path)
    where = f"{called or path}, row"
    return row_inputs(
        enumerate(iter_rows(path), start=1), columns, where=where, root=lambda first: image_root(path, first)
    )


def line_inputs(lines: Iterable[str], columns: Columns, *, where: str) -> Iterator[dict[str, Any]]:
    """The fields of an ``Input`` for each line of JSON; paths begin where the program runs.

    A line that is none has an error, with its number. Raises UserError where the first names no image.
    """

    def rows() -> Iterator[tuple[int, Row | UserError]]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, parse_line(line, f"{where}, line {number}")
                except UserError as error:
                    yield number, error

    return row_inputs(rows(), columns, where=f"{where}, line", root=lambda first: Path())


def row_inputs(
    rows: Iterable[tuple[int, Row | UserError]], columns: Columns, *, where: str, root: Callable[[Any], Path]
) -> Iterator[dict[str, Any]]:
    """The fields of an ``Input`` for each numbered row. Rows that are alike but for other columns are one.

    Columns are found as rows bring them. An image that comes again with another context, and another image of the same
    name that is in the table itself, are named ``x.jpg#2``, ``x.jpg#3``, ...

    Args:
        where: what numbers are put after, in messages.
        root: where paths begin, by what the first row calls its image; ``columns.root`` comes first.

    Raises:
        UserError: there is no image column.
    """
    fields = Fields(image=columns.image, context=columns.context, caption="")
    base = columns.root
    known: dict[str, None] = {}
    image = context = id = ""
    seen: set[int] = set()
    times: Counter[int] = Counter()
    for number, row in rows:
        at = f"{where} {number}"
        if isinstance(row, UserError):
            yield {"name": at, "images": (), "error": _reason(row, at)}
            continue
        if not row.keys() <= known.keys():
            known |= dict.fromkeys(row)
            try:
                found = fields.resolve(known, at.rpartition(",")[0])
            except UserError as error:
                raise UserError(f"{error} To caption: --image-column COLUMN, --context-column COLUMN.") from None
            image, id = found.image or "", found.id or ""
            context = (found.context or "") if columns.reads_context or columns.context else ""
        base = base or root(row.get(image))
        entry = _entry(row, image, context, root=base, where=at, number=number, columns=columns)
        entry["id"] = (clean_text(row.get(id)) or "") if id else ""
        alike = [entry[name] for name in ("name", "views", "context", "numbers", "categories")]
        what = digest(repr([*alike, which(entry["images"])]))
        if what in seen:
            continue
        seen.add(what)
        key = digest(entry["name"])
        times[key] += 1
        if times[key] > 1:
            entry["name"] += f"#{times[key]}"
        yield entry


def which(images: Sequence[ImageRef]) -> int:
    """A number that tells images from others: of where they are, or of their bytes."""
    return digest(repr([image.place if image.data is None else digest(image.data) for image in images]))


def _reason(error: UserError, where: str) -> str:
    """Without the place, which the input's name says, so that equal reasons are counted as one."""
    return str(error).removeprefix(f"{where}: ")


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
        images, error = (), _reason(problem, where)
    return {
        "name": row_name(row.get(image), number, root),
        "images": images,
        "views": to_views(row.get(VIEWS_COLUMN), len(images)),
        "context": clean_text(row.get(context)) if context else None,
        "numbers": {name: to_number(row.get(name)) for name in columns.numbers if name in row},
        "categories": {name: clean_text(row.get(name)) for name in columns.categories if name in row},
        "error": error,
    }
