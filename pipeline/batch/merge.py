"""The outputs of several parts of one job as one file."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from latentcap.batch.journal import written_to_disk
from latentcap.batch.outputs import choose_format, make_output
from latentcap.batch.outputs.base import public
from latentcap.batch.outputs.table import TableFile
from latentcap.batch.run_folder import RunFolder
from latentcap.data.errors import UserError
from latentcap.data.jsonl import to_line


def merge(path: Path) -> tuple[int, int]:
    """Write ``captions.jsonl`` from ``captions-00000-of-00004.jsonl``, ..., in the order of the parts.

    Returns the number of parts and of captions.

    Raises:
        UserError: a part is missing, is not complete, or was made with other settings than the first.
    """
    kind = choose_format(path, None)
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
        outputs.append(make_output(folder.with_name(run.output), folder, kind))
    count = sum(1 for output in outputs for _ in output.journal)
    records = public(chain.from_iterable(output.journal for output in outputs))
    searched = first.get("search")
    captions = int(searched.get("num_captions", 1)) if isinstance(searched, dict) else 1
    merged = make_output(path, path.with_name(path.name + ".run"), kind, num_captions=captions)
    with written_to_disk(path) as file:
        if isinstance(merged, TableFile):
            merged.write(records, file)
        else:
            file.writelines(map(to_line, records))
    return len(folders), count


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
