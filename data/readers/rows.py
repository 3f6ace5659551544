"""Files of rows: JSON Lines, JSON, CSV, TSV and Parquet as lists of mappings; and their faults, with line numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from latentcap.data.encoding import open_text, read_text
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.jsonl import iter_jsonl
from latentcap.data.kinds import stand_in
from latentcap.data.readers.delimited import iter_delimited
from latentcap.data.readers.fields import Row
from latentcap.data.readers.paths import shorten

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def load_rows(path: Path) -> list[Row]:
    """The rows of a table by its suffix. Raises UserError where the file is broken."""
    rows = list(iter_rows(path))
    if not rows:
        raise UserError(f"{path}: {_no_rows(path)}")
    return rows


class TableRows:
    """The rows of a table, read anew each time they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Row]:
        return iter_rows(self.path)

    def first(self) -> Row:
        """Raises UserError where there is none."""
        for row in self:
            return row
        raise UserError(f"{self.path}: {_no_rows(self.path)}")


def _no_rows(path: Path) -> str:
    if not path.stat().st_size:
        return "the file is empty."
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return "the table has no rows."
    with open_text(path) as file:
        line = shorten(file.readline().strip(), 60)
    return f"no row after the first line, which names the columns: '{line}'."


def refuse_stand_in(path: Path) -> None:
    """Raises UserError where something else is in place of a file of data, such as a pointer of Git LFS."""
    what = stand_in(ImageRef(str(path)).start())
    if what:
        raise UserError(f"{path}: {what}.")


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a table one at a time, however long it is. Raises UserError at the row where the file is broken."""
    refuse_stand_in(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _iter_parquet(path)
    if suffix in (".csv", ".tsv", ".txt"):
        return iter_delimited(path)
    if suffix in (".jsonl", ".ndjson"):
        return iter_jsonl(path)
    raise UserError(f"{path}: not a table. Tables end in {', '.join(TABLE_SUFFIXES)} or .json (a list of objects).")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that any row has, in order of appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def load_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError with the line of a fault."""
    refuse_stand_in(path)
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty.")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = " It looks like JSON Lines: give it the suffix .jsonl." if error.msg == "Extra data" else ""
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).{hint}") from None


def _iter_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None
