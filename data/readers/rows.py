"""Files of rows: JSON Lines, JSON, CSV, TSV and Parquet as lists of mappings; and their faults, with line numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from latentcap.data.encoding import read_text
from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_jsonl
from latentcap.data.readers.delimited import iter_delimited
from latentcap.data.readers.fields import Row

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def load_rows(path: Path) -> list[Row]:
    """The rows of a table by its suffix. Raises UserError where the file is broken."""
    rows = list(iter_rows(path))
    if not rows:
        raise UserError(f"{path}: the table has no rows.")
    return rows


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a table one at a time, however long it is. Raises UserError at the row where the file is broken."""
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
    text = read_text(path)
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
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None
