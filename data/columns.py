"""Many examples as columns: Arrow files that are mapped into memory, and shared by all processes that read them.

A list of a million examples takes more than a gigabyte in every process. Here they stay on the disk, in the system's
cache; what is held is the place of each. An example is made when it is asked for, equal to the one that was put in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from latentcap.data.example import BLOCK, Example

if TYPE_CHECKING:  # few data need it, and it takes a while to import
    import pyarrow as pa

Places = Sequence[int] | np.ndarray


class ExampleColumns(Sequence[Example]):
    """The rows of some files, one after the other.

    Args:
        files: as :func:`latentcap.data.arrow.write_rows` writes them. They have to stay where they are.
        rows: the numbers of the rows that are meant, in order; None for all.
        changed: fields of all rows that are not what the files say.
    """

    def __init__(
        self, files: Sequence[Path], *, rows: np.ndarray | None = None, changed: Mapping[str, pa.ChunkedArray] = {}
    ) -> None:
        import pyarrow as pa

        from latentcap.data.arrow import open_table

        self.files, self.rows, self.changed = list(files), rows, dict(changed)
        table = pa.concat_tables([open_table(file) for file in files])
        for name, column in changed.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        self.whole = rows is None and not changed  # just what the files say
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._length = table.num_rows if rows is None else len(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.files, self.rows, self.changed)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return self.gather(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.gather([index % len(self)])[0]

    def __iter__(self) -> Iterator[Example]:
        from latentcap.data.arrow import decode_rows

        for block in self.blocks():
            yield from decode_rows(block)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def gather(self, places: Places) -> list[Example]:
        """The examples at some places, in the order of these."""
        from latentcap.data.arrow import decode_rows

        places = np.asarray(places, np.int64)
        order = np.argsort(places, kind="stable")
        found: list[Any] = [None] * len(places)
        held = (example for block in self._at(places[order]) for example in decode_rows(block))
        for place, example in zip(order.tolist(), held, strict=True):
            found[place] = example
        return found

    def field(self, name: str) -> Iterator[Any]:
        """One field of each example; nothing else is read."""
        from latentcap.data.arrow import decode_field

        for block in self.blocks():
            yield from decode_field(block, name)

    def take(self, places: Places) -> ExampleColumns:
        """Some of the examples, in another order where that of ``places`` is."""
        places = np.asarray(places, np.int64)
        return ExampleColumns(self.files, rows=places if self.rows is None else self.rows[places], changed=self.changed)

    def replace(self, name: str, values: Sequence[Any]) -> ExampleColumns:
        """With other values of a field, one for each example."""
        import pyarrow as pa

        from latentcap.data.arrow import encode_field

        assert self.rows is None, "fields are replaced before examples are chosen"
        column = pa.chunked_array([encode_field(name, values[at : at + BLOCK]) for at in range(0, len(self), BLOCK)])
        return ExampleColumns(self.files, changed={**self.changed, name: column})

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow has them, at most :data:`BLOCK` at once."""
        if self.rows is not None:
            yield from self._at(np.arange(len(self)))
            return
        for batch in self._batches:
            for at in range(0, len(batch), BLOCK):
                yield batch.slice(at, BLOCK)

    def _at(self, places: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Rows by their places; those that follow one another and lie in one batch are taken at once."""
        import pyarrow as pa

        rows = places if self.rows is None else self.rows[places]
        batches = np.searchsorted(self._ends, rows, side="right")
        cuts = np.flatnonzero(np.diff(batches)) + 1
        for part in np.split(np.arange(len(rows)), cuts):
            for at in range(0, len(part), BLOCK):
                chosen = part[at : at + BLOCK]
                batch = self._batches[batches[chosen[0]]]
                first = self._ends[batches[chosen[0]]] - len(batch)
                yield batch.take(pa.array(rows[chosen] - first))


def _reopen(files: Sequence[Path], rows: np.ndarray | None, changed: Mapping[str, pa.ChunkedArray]) -> ExampleColumns:
    return ExampleColumns(files, rows=rows, changed=changed)


# What is done with examples, however they are held -----------------------------------------------------------------


def each(examples: Sequence[Example], field: str) -> Iterator[Any]:
    """One field of each example."""
    return examples.field(field) if isinstance(examples, ExampleColumns) else map(attrgetter(field), examples)


def gather(examples: Sequence[Example], places: Places) -> list[Example]:
    """A few of the examples, as a list."""
    if isinstance(examples, ExampleColumns):
        return examples.gather(places)
    return [examples[place] for place in places]


def take(examples: Sequence[Example], places: Places) -> Sequence[Example]:
    """Many of the examples, held as all are."""
    return examples.take(places) if isinstance(examples, ExampleColumns) else [examples[place] for place in places]


def with_field(examples: Sequence[Example], name: str, values: Sequence[Any]) -> Sequence[Example]:
    """The examples with other values of one field."""
    if isinstance(examples, ExampleColumns):
        return examples.replace(name, values)
    return [
        example if getattr(example, name) == value else dataclasses.replace(example, **{name: value})
        for example, value in zip(examples, values, strict=True)
    ]
