"""What a reader made of files, kept beside the cache: they are not read again as long as they are as they were.

In the folder ``examples`` of the cache::

    NAME.json         the state of the files, what the reader skipped in them, and which file has the columns
    NAME-ID.arrow     the examples; the JSON is written when this is whole

The name stands for the files' paths and all that the reader was told, so that a changed table takes its own place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from latentcap.data.columns import ExampleColumns
from latentcap.data.example import Example
from latentcap.data.files import written_whole
from latentcap.data.readers.fields import ReadOptions, Skipped

VERSION = 1  # of what readers make of a file, and of the columns

logger = logging.getLogger(__name__)


def kept(
    files: Sequence[Path],
    options: ReadOptions,
    told: Sequence[Any],
    read: Callable[[], Sequence[Example]],
    *,
    least: int | None = None,
) -> Sequence[Example]:
    """What ``read`` makes of the files, or made of them before.

    Args:
        told: all that it depends on besides the files and ``options.fields``.
        least: how many examples are worth keeping; None: as many as are no list any more.
    """
    whole = repr(([os.path.abspath(file) for file in files], options.fields, told))
    name = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    note = options.columns / f"{name}.json"
    state = [VERSION, *(_state(file) for file in files)]
    found = _open(note, state)
    if found is None:
        before = len(options.skipped)
        examples = read()
        few = not isinstance(examples, ExampleColumns) and (least is None or len(examples) < least)
        if few or state != [VERSION, *(_state(file) for file in files)]:
            return examples
        with _unless_it_cannot_be_written(options.columns):
            return _keep(examples, note, state, options.skipped[before:])
        return examples
    columns, skipped = found
    options.skipped.extend(skipped)
    return columns


def _state(file: Path) -> list[int]:
    """Size and time of the last change in nanoseconds."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _open(note: Path, state: list[Any]) -> tuple[ExampleColumns, list[Skipped]] | None:
    """What is kept, None where it is of other files, or broken."""
    if not note.exists():
        return None
    from pyarrow import ArrowException

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ArrowException):
        held = json.loads(note.read_bytes())
        if held["state"] == state:
            return ExampleColumns([note.parent / held["columns"]]), [Skipped(*item) for item in held["skipped"]]
    return None


def _keep(examples: Sequence[Example], note: Path, state: list[Any], skipped: Sequence[Skipped]) -> ExampleColumns:
    from latentcap.data.arrow import encode_rows, write_batches

    file = note.with_name(f"{note.stem}-{uuid4().hex[:8]}.arrow")
    if isinstance(examples, ExampleColumns) and len(examples.files) == 1:
        os.replace(examples.files[0], file)
    else:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_batches(file, examples.blocks() if isinstance(examples, ExampleColumns) else encode_rows(examples))
    with written_whole(note) as out:
        json.dump({"state": state, "columns": file.name, "skipped": skipped}, out)
    for old in note.parent.glob(f"{note.stem}-*.arrow"):
        if old != file:
            old.unlink(missing_ok=True)
    return ExampleColumns([file])


@contextlib.contextmanager
def _unless_it_cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("%s: cannot be written (%s), so the data are read anew each time", folder, error.strerror)
