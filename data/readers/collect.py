"""What readers yield, as a list where it is short, and as columns on the disk where it is long."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from latentcap.data.columns import ExampleColumns
from latentcap.data.errors import UserError
from latentcap.data.example import BLOCK, Example

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY = 20_000  # examples that are held as a list: some 30 MB
UNCOLLECTED = 100_000  # objects that may be made before Python looks for cycles among them


def collect(examples: Iterable[Example], folder: Path) -> Sequence[Example]:
    """All of them, in ``folder`` where they are more than :data:`IN_MEMORY`."""
    return joined(_lists(iter(examples)), folder)


def joined(parts: Iterable[Sequence[Example]], folder: Path) -> Sequence[Example]:
    """Examples of several sources as one sequence. Each part is let go before the next is asked for.

    Raises UserError where the disk is full or refuses.
    """
    parts = iter(parts)
    few: list[Example] = []
    with _seldom_collected():
        for part in parts:
            if len(few) + len(part) > IN_MEMORY:
                return _on_disk(chain([few] if few else [], [part], parts), folder)
            few += part
    return few


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Examples have no cycles, and to look for some every few rows takes a third of the time of reading them."""
    before = gc.get_threshold()
    if 0 < before[0] < UNCOLLECTED:
        gc.set_threshold(UNCOLLECTED, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _lists(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while block := list(islice(examples, BLOCK)):
        yield block


def _on_disk(parts: Iterable[Sequence[Example]], folder: Path) -> ExampleColumns:
    files: list[Path] = []
    for large, group in groupby(parts, _is_large):
        if large:
            files += [file for part in group for file in part.files]  # type: ignore[attr-defined]
        else:
            files.append(new_file(folder))
            store(files[-1], chain.from_iterable(map(_batches, group)))
    return ExampleColumns(files)


def _is_large(part: Sequence[Example]) -> bool:
    """Whether a part stays the file that it is: of many small ones, too many files would be open."""
    return isinstance(part, ExampleColumns) and len(part) > IN_MEMORY and part.whole


def _batches(part: Sequence[Example]) -> Iterator[pa.RecordBatch]:
    from latentcap.data.arrow import encode_rows

    return part.blocks() if isinstance(part, ExampleColumns) else encode_rows(part)


def store(file: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file of columns. Raises UserError where the disk is full or refuses."""
    from latentcap.data.arrow import write_batches

    try:
        write_batches(file, batches)
    except OSError as error:
        raise UserError(
            f"{file.parent}: cannot be written ({error.strerror or error}), where columns of many examples are kept. "
            "Free some space, or name another folder for the cache."
        ) from None


def new_file(folder: Path) -> Path:
    """A name for columns that last as long as this process, in ``folder`` where that can be written."""
    return Path(_passing(folder).name, f"{uuid4().hex}.arrow")


@cache
def _passing(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix="passing-")
    except OSError:
        return tempfile.TemporaryDirectory(prefix="latentcap-")
