"""The outputs of several parts of one job as one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from latentcap.batch.journal import written_to_disk
from latentcap.batch.outputs import MERGING, REPORTS, Output, choose_format, make_output
from latentcap.batch.outputs.base import public
from latentcap.batch.outputs.coco import CocoFile
from latentcap.batch.outputs.hf import HuggingFaceFolder, write_card
from latentcap.batch.outputs.parts import ParquetParts
from latentcap.batch.outputs.table import TableFile
from latentcap.batch.run_folder import MERGED, RunFolder
from latentcap.data.errors import UserError
from latentcap.data.jsonl import to_line


def merge(path: Path) -> tuple[int, int]:
    """Write ``captions.jsonl`` from ``captions-00000-of-00004.jsonl``, ..., in the order of the parts; so also tables,
    COCO's results and folders of Parquet files.

    Returns the number of parts and of captions.

    Raises:
        UserError: a part is missing, is not complete, or was made with other settings than the first; or there is
            something else than an earlier merge of these parts where the result is to be.
    """
    folders = _parts(path)
    outputs = []
    first: dict[str, object] = {}
    for folder in folders:
        with RunFolder(folder, output=folder.name.removesuffix(".run")) as run:
            if run.manifest.get("status") != "complete":
                raise UserError(f"{run.output}: is not complete. Run its command again, then merge.")
            settings = {name: value for name, value in run.manifest["settings"].items() if name != "shard"}
            first = first or settings
            if settings != first:
                raise UserError(f"{run.output}: was made with other settings than {folders[0].name}.")
        kind = str(settings.get("format") or choose_format(Path(run.output), None))  # older runs did not note it
        if kind in (*MERGING, *REPORTS):
            raise UserError(
                f"{run.output}: texts beside images, reports and tars are one folder already: nothing to merge."
            )
        outputs.append(make_output(folder.with_name(run.output), folder, kind))
    searched = first.get("search")
    captions = int(searched.get("num_captions", 1)) if isinstance(searched, dict) else 1
    merged = make_output(path, path.with_name(path.name + ".run"), kind, num_captions=captions)
    mark = folders[0] / MERGED
    _check_unknown(merged, mark)
    if isinstance(merged, ParquetParts):
        _copy_parts(outputs, merged, mark)
    else:
        _write_records(outputs, merged)
    _leave(mark, merged)
    return len(folders), sum(1 for output in outputs for _ in output.journal)


def _check_unknown(merged: Output, mark: Path) -> None:
    """Raises UserError for a file that an earlier merge, which left ``mark``, has not written, or not so."""
    known = json.loads(mark.read_bytes()) if mark.is_file() else {}
    for name, state in _written(merged).items():
        if known.get(name) != state:
            raise UserError(
                f"{merged}: exists, and no merge of these parts has written it, or it has changed since. Move it away, "
                "and merge again."
            )


def _leave(mark: Path, merged: Output) -> None:
    with written_to_disk(mark, "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(_written(merged), file)


def _written(merged: Output) -> dict[str, list[int]]:
    """The files of a result that are not empty: their sizes and when they were written."""
    assert merged.path is not None
    files = merged.parts() if isinstance(merged, ParquetParts) else [merged.path]
    states = {file.name: file.stat() for file in files if file.is_file()}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items() if state.st_size}


def _write_records(outputs: Sequence[Output], merged: Output) -> None:
    records = chain.from_iterable(output.journal for output in outputs)
    assert merged.path is not None
    with written_to_disk(merged.path) as file:
        if isinstance(merged, CocoFile):
            merged.write(records, file)
        elif isinstance(merged, TableFile):
            merged.write(public(records), file)
        else:
            file.writelines(map(to_line, public(records)))


def _copy_parts(outputs: Sequence[Output], merged: ParquetParts, mark: Path) -> None:
    """The Parquet files of all outputs, numbered anew; each is known by ``mark`` at once, so that a merge that is
    stopped can be begun again."""
    parts = [part for output in outputs if isinstance(output, ParquetParts) for part in output.parts()]
    for number, part in enumerate(parts):
        with open(part, "rb") as source, written_to_disk(merged.folder / merged.part.format(f"{number:05d}")) as file:
            shutil.copyfileobj(source, file)
        _leave(mark, merged)
    for surplus in merged.parts()[len(parts) :]:
        surplus.unlink()
    if isinstance(merged, HuggingFaceFolder):
        write_card(merged.folder)


def _parts(path: Path) -> list[Path]:
    """The run folders of all parts, in order."""
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(path.suffix)}\.run")
    found: dict[int, dict[int, Path]] = {}
    for folder in path.absolute().parent.iterdir():
        if match := pattern.fullmatch(folder.name):
            found.setdefault(int(match[2]), {})[int(match[1])] = folder
    if not found:
        raise UserError(
            f"{path}: there is no {path.stem}-00000-of-...{path.suffix}.run beside it, so nothing to merge."
        )
    if len(found) > 1:
        raise UserError(
            f"{path}: there are outputs of {' and of '.join(map(str, sorted(found)))} parts. Remove one set."
        )
    ((number, parts),) = found.items()
    missing = [str(index) for index in range(number) if index not in parts]
    if missing:
        raise UserError(f"{path}: of {number} parts, these are missing: {', '.join(missing[:20])}.")
    return [parts[index] for index in range(number)]
