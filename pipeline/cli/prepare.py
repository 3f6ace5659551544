"""Look at a data set before training on it: ``latentcap prepare check DATA``. Exit code: 0 the data are clean, 1
problems were found, 2 the data cannot be read.

``latentcap prepare frames FILE FOLDER`` writes the frames of a DICOM file as pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentcap.data.check.examples import check_examples
from latentcap.data.dicom import decode_dicom, frames_of, is_dicom
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.readers import FORMATS, Fields, read_examples
from latentcap.data.readers.fields import Skipped

FIELD_NAMES = tuple(field.name for field in dataclasses.fields(Fields))
SECONDS_BETWEEN_LINES = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError where the data cannot be read."""
    arguments = parse_arguments(argv)
    if arguments.command == "labeller":
        return measure_labeller(arguments.data)
    if arguments.command == "frames":
        return write_frames(arguments.file, arguments.folder)
    return check(arguments)


def check(arguments: argparse.Namespace) -> int:
    """Read and check a data set, print what was found. Returns the exit code."""
    skipped: list[Skipped] = []
    examples = read_examples(
        arguments.data,
        format=arguments.format,
        image_root=arguments.image_root,
        fields=parse_fields(arguments.field),
        allow_leaks=True,
        skipped=skipped,
    )
    with show_progress("checking images") as progress:
        report = check_examples(examples, skipped=skipped, progress=progress)
    print(report.to_text())
    if arguments.json:
        try:
            arguments.json.write_text(
                json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise UserError(f"--json {arguments.json}: cannot be written ({error.strerror}).") from None
    return 0 if report.clean else 1


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="latentcap prepare", description="Look at a data set before training on it.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check",
        help="read every image and caption once and report problems",
        description="Read every image and caption once. Exit code: 0 clean, 1 problems found, 2 cannot be read.",
    )
    check.add_argument(
        "data", nargs="+", help="files, folders, patterns such as 'train-{00000..00009}.tar', or hf:NAME"
    )
    check.add_argument("--format", default="auto", help=f"auto (default), {', '.join(FORMATS)}")
    check.add_argument("--image-root", metavar="FOLDER", help="what image paths are relative to (default: the table's)")
    check.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="the column of a field, as caption=Findings or numbers=age,weight, or how reports are read, as "
        f"report=impression; fields: {', '.join(FIELD_NAMES)}",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there too")
    labeller = commands.add_parser(
        "labeller",
        help="how far findings by rule agree with the terms that people gave the same reports",
        description="Findings by rule against the MeSH terms of Open-i's reports.",
    )
    labeller.add_argument("data", nargs="+", help="Open-i, such as index_rest.jsonl")
    frames = commands.add_parser(
        "frames", help="write each frame of a DICOM file as a PNG", description="Write each frame of a DICOM file."
    )
    frames.add_argument("file", type=Path, help="a DICOM file, such as a film of ultrasound")
    frames.add_argument("folder", type=Path, help="where to write NAME-0001.png, NAME-0002.png, ...")
    return parser.parse_args(argv)


def measure_labeller(data: Sequence[str]) -> int:
    """Print precision, recall and F1 of the rules. Raises UserError where nobody has indexed the reports."""
    from latentcap.metrics.clinical.indexed import MESH, mesh_agreement

    found = mesh_agreement(read_examples(data, allow_leaks=True))
    print("| finding | MeSH terms | with the term | by rule | precision | recall | F1 |\n|---|---|---|---|---|---|---|")
    for name, row in found.per_finding().items():
        scores = " | ".join(f"{row[score]:.3f}" for score in ("precision", "recall", "F1"))
        print(f"| {name} | {'; '.join(MESH[name])} | {row['references']} | {row['said']} | {scores} |")
    means = found.scores()
    print(f"{len(found.rows):,} studies: F1 {means['F1 micro']:.3f} micro, {means['F1 macro']:.3f} macro")
    return 0


def write_frames(file: Path, folder: Path) -> int:
    """Every frame of a DICOM file as ``NAME-0001.png``, ... Raises UserError where it is none, or cannot be written."""
    try:
        encoded = file.read_bytes()
        if not is_dicom(encoded):
            raise UserError(f"{file}: not a DICOM file.")
        folder.mkdir(parents=True, exist_ok=True)
        count = frames_of(encoded)
        for frame in range(count):
            decode_dicom(encoded, frame=frame, name=file.name).save(folder / f"{file.stem}-{frame + 1:04d}.png")
    except OSError as error:
        raise UserError(f"{error.filename or file}: {error.strerror or error}.") from None
    print(f"{count:,} pictures: {folder}", file=sys.stderr)
    return 0


def parse_fields(assignments: Sequence[str]) -> Fields:
    """``["caption=Findings", "numbers=age,weight"]`` as Fields. Raises UserError for anything else."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, column = assignment.partition("=")
        if not equals or name not in FIELD_NAMES:
            raise UserError(
                f"--field {assignment}: not FIELD=COLUMN with a known field.{did_you_mean(name, FIELD_NAMES)} "
                f"Fields: {', '.join(FIELD_NAMES)}."
            )
        several = name in ("numbers", "categories", "labels")
        values[name] = tuple(column.split(",")) if several else column
    return Fields(**values)


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, otherwise a line every few seconds; on stderr. Yields ``update(done, total)``."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    printed = time.monotonic()

    def print_line(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    yield print_line
