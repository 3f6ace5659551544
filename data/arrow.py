"""Examples as Arrow record batches, one column a field, and files of these that are read without being loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from latentcap.data.example import BLOCK, Example, ImageRef
from latentcap.data.files import written_whole

BATCH_ROWS, BATCH_BYTES = 65_536, 2**28  # of a record batch in a file, about

TEXT = pa.string()
PARTS = {
    "path": TEXT,
    "offset": pa.int64(),
    "size": pa.int64(),
    "name": TEXT,
    "unpacked": pa.int64(),
    "frame": TEXT,
    "data": pa.large_binary(),
}
IMAGE = pa.struct(list(PARTS.items()))
SCHEMA = pa.schema(
    {
        "id": TEXT,
        "images": pa.list_(IMAGE),
        "captions": pa.list_(TEXT),
        "paraphrases": pa.list_(TEXT),
        "context": TEXT,
        "numbers": pa.map_(TEXT, pa.float64()),
        "categories": pa.map_(TEXT, TEXT),
        "split": TEXT,
        "labels": pa.map_(TEXT, TEXT),
        "views": pa.list_(TEXT),
        "group": TEXT,
        "aliases": pa.list_(TEXT),
    }
)


def encode_rows(examples: Iterable[Example]) -> Iterator[pa.RecordBatch]:
    """Batches of at most :data:`BLOCK` rows."""
    waiting = iter(examples)
    while block := list(islice(waiting, BLOCK)):
        columns = [encode_field(*pair) for pair in zip(SCHEMA.names, _transposed(block, SCHEMA.names), strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def decode_rows(batch: pa.RecordBatch) -> Iterator[Example]:
    """The examples that a batch was made of."""
    return map(Example, *(decode_field(batch, name) for name in SCHEMA.names))


def encode_field(name: str, values: Sequence[Any]) -> pa.Array:
    """What examples have in one field, as a column."""
    kind = SCHEMA.field(name).type
    if kind == TEXT:
        return _plain(values, TEXT)
    if not any(values):
        return _empty(kind, len(values))
    ends = pa.array(np.cumsum([0, *map(len, values)], dtype=np.int32))
    if pa.types.is_map(kind):
        pairs = [item for row in values for item in row.items()]
        keys, items = zip(*pairs, strict=True)
        return pa.MapArray.from_arrays(ends, _plain(keys, TEXT), _plain(items, kind.item_type))
    flat = [item for row in values for item in row]
    if kind.value_type == TEXT:
        return pa.ListArray.from_arrays(ends, _plain(flat, TEXT))
    parts = zip(_transposed(flat, PARTS), PARTS.values(), strict=True)
    arrays = [_plain(part, kind) for part, kind in parts]
    return pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(arrays, fields=list(IMAGE)))


def decode_field(batch: pa.RecordBatch, name: str) -> list[Any]:
    """What the examples of a batch have in one field."""
    column, kind = batch.column(name), SCHEMA.field(name).type
    if kind == TEXT:
        return _values(column)
    ends = column.offsets.to_pylist()
    first, count = ends[0], ends[-1] - ends[0]
    if not count:
        return [{} for _ in ends[1:]] if pa.types.is_map(kind) else [()] * (len(ends) - 1)
    if pa.types.is_map(kind):
        keys = _values(column.keys.slice(first, count))
        items = _values(column.items.slice(first, count))
        return _cut(list(zip(keys, items, strict=True)), ends, dict)
    values = column.values.slice(first, count)
    if kind.value_type == TEXT:
        return _cut(_values(values), ends, tuple)
    return _cut(list(map(ImageRef, *(_values(values.field(part)) for part in PARTS))), ends, tuple)


def write_batches(file: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """A file of all of them, whole or not there. Raises OSError where it cannot be written."""
    with written_whole(file, "wb") as out, pa.ipc.new_file(out, SCHEMA) as writer:
        held, rows, size = list[pa.RecordBatch](), 0, 0
        for batch in batches:
            held.append(batch)
            rows, size = rows + len(batch), size + batch.nbytes
            if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                _write(writer, held)
                held, rows, size = [], 0, 0
        _write(writer, held)


def open_table(file: Path) -> pa.Table:
    """All rows of such a file, in memory that is mapped to it.

    Raises ArrowException, OSError or ValueError where it is none, or has other columns.
    """
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    if table.schema != SCHEMA:
        raise ValueError(f"{file} has other columns")
    return table


def _write(writer: Any, batches: Sequence[pa.RecordBatch]) -> None:
    for whole in pa.Table.from_batches(batches, SCHEMA).combine_chunks().to_batches():
        writer.write_batch(whole)


def _cut(values: Sequence[Any], ends: Sequence[int], make: Callable[[Sequence[Any]], Any]) -> list[Any]:
    """The values of each row: those from one end to the next, which count from the first."""
    return [make(values[start - ends[0] : end - ends[0]]) for start, end in pairwise(ends)]


@lru_cache(maxsize=64)
def _empty(kind: pa.DataType, count: int) -> pa.Array:
    """Rows of no items."""
    return pa.array([[]] * count, kind)


def _transposed(items: Sequence[Any], names: Iterable[str]) -> Sequence[Sequence[Any]]:
    """What each attribute of the items is."""
    names = list(names)
    return list(zip(*map(attrgetter(*names), items), strict=True))


def _plain(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Names of files and JSON may hold what is no text, lone surrogates: Arrow lets these be, if not asked to look."""
    if values and values[0] is None and values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(encoded, pa.binary()).cast(TEXT, safe=False)


def _values(column: pa.Array) -> list[Any]:
    if column.null_count == len(column):
        return [None] * len(column)
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        encoded = column.cast(pa.binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogatepass") for value in encoded]
