"""What the heads of a model do:  latentcap heads report --model rsicd --data DATA --output heads.html

Runs the model over the captions that people wrote (teacher forcing), one forward and one backward pass for each batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from latentcap.cli.model_option import add_model_option
from latentcap.data.errors import UserError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap heads report",
        description="Entropy, peak, spread, what is read, similarity and importance of every head.",
    )
    add = parser.add_argument
    add_model_option(parser)
    add("--data", required=True, nargs="+", metavar="SOURCE", help="a data set with captions")
    add("--format", default="auto", help="the data set's format (default: found out)")
    add("--split", default="val", help="the split to look at (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="look at N examples, spread over the split (default: all)")
    add("--output", required=True, type=Path, metavar="HTML", help="the page to write")
    add("--csv", type=Path, metavar="FILE", help="also write the table")
    add("--json", type=Path, metavar="FILE", help="also write every figure, maps and histograms included")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: give 1 or more.")
    for name in ("output", "csv", "json"):
        path = getattr(options, name)
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            what = "is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
            raise UserError(f"--{name} {path}: {what}. Give the name of a file in a folder that exists.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    options = parse(arguments)
    import torch  # takes seconds, as what follows does
    from rich.console import Console

    from latentcap.captioner import Captioner
    from latentcap.heads.over_captions import measure, read
    from latentcap.heads.page import write_report
    from latentcap.heads.table import show, write_csv

    captioner = Captioner.from_pretrained(options.model, device="cuda" if torch.cuda.is_available() else "cpu")
    where = " ".join(options.data)
    examples = read(options.data, captioner.collate_context, format=options.format, split=options.split)
    if options.limit is not None and options.limit < len(examples):
        examples = [examples[place * len(examples) // options.limit] for place in range(options.limit)]
    report = measure(captioner, examples)
    show(report, Console())
    notes = [
        f"Model {options.model}, data {where}, split {options.split}.",
        f"{report.examples:,} examples, {report.queries:,} words of human captions, teacher-forced.",
    ]
    try:
        write_report(options.output, report, title="What the heads do", notes=notes)
        if options.csv:
            write_csv(options.csv, report)
        if options.json:
            content = {"model": str(options.model), "data": where, "split": options.split, **report.to_dict()}
            options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}).") from None
    print(f"page: {options.output}   (open it in a browser)", file=sys.stderr)
    return 0
