"""What the heads of a model do:  latentcap heads report --model models/rsicd --data DATA --output heads.html

Runs the model over the captions that people wrote (teacher forcing), one forward and one backward pass for each batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentcap.captioner import Captioner
from latentcap.data.batches.context import ContextCollator
from latentcap.data.batches.transforms import load_image
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.splits import select_split
from latentcap.heads.findings import findings
from latentcap.heads.measure import HeadMeter
from latentcap.heads.page import write_report
from latentcap.heads.report import HeadReport, summarise
from latentcap.heads.table import COLUMNS, cells, write_csv
from latentcap.progress import Progress

BATCH = 16  # examples


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap heads report",
        description="Entropy, peak, spread, what is read, similarity and importance of every head.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="model folder, such as models/rsicd")
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
    captioner = Captioner.from_pretrained(options.model, device="cuda" if torch.cuda.is_available() else "cpu")
    where = " ".join(options.data)
    examples = with_captions(read(options, captioner.collate_context), where)
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


def read(options: argparse.Namespace, collate: ContextCollator) -> list[Example]:
    """The examples of the split, with the context fields that the model knows; a source without splits is all of it."""
    fields = Fields(numbers=tuple(collate.fields.numbers), categories=tuple(collate.fields.categories))
    examples = read_examples(options.data, format=options.format, fields=fields)
    return select_split(examples, options.split, " ".join(options.data))


def with_captions(examples: Sequence[Example], where: str) -> list[Example]:
    chosen = [example for example in examples if example.captions]
    if not chosen:
        raise UserError(
            f"{where}: none of the {len(examples):,} examples has a caption, and the heads are measured on."
        )
    return chosen


def measure(captioner: Captioner, examples: Sequence[Example]) -> HeadReport:
    """The report over all captions of some examples. Unreadable images are named and left out.

    Raises UserError where none could be read.
    """
    meter = HeadMeter(captioner.model, tokenizer=captioner.tokenizer, context_tokenizer=captioner.context_tokenizer)
    with Progress("heads", unit="example") as progress:
        for start in range(0, len(examples), BATCH):
            add(meter, captioner, examples[start : start + BATCH])
            progress.update(min(start + BATCH, len(examples)), len(examples))
    if not meter.examples:
        raise UserError(f"none of the {len(examples):,} examples has images that can be read.")
    return summarise(meter)


def add(meter: HeadMeter, captioner: Captioner, examples: Sequence[Example]) -> None:
    """One batch: every caption of every example."""
    views, kept = [], []
    for example in examples:
        try:
            views.append([captioner.transform(load_image(ref, captioner.image)) for ref in example.images])
            kept.append(example)
        except OSError as error:
            print(f"skipped {example.id}: {error.strerror or error}", file=sys.stderr)
    if not kept:
        return
    context = captioner.collate_context.examples(kept)
    with torch.no_grad():
        memory = captioner.encode(views, context)
    tokens = caption_tokens(captioner, kept).to(captioner.device)
    meter.update(memory, tokens, context.to(captioner.device))


def caption_tokens(captioner: Captioner, examples: Sequence[Example]) -> torch.Tensor:
    """All captions, (B, G, T + 1) from ``<bos>`` to ``<eos>``, padded with 0, G being the most that an example has."""
    length = captioner.model.config.decoder.max_length + 2
    rows = [[captioner.tokenizer.encode_caption(text, length) for text in example.captions] for example in examples]
    groups, longest = max(map(len, rows)), max(len(ids) for row in rows for ids in row)
    tokens = torch.zeros(len(rows), groups, longest, dtype=torch.long)
    for b, row in enumerate(rows):
        for g, ids in enumerate(row):
            tokens[b, g, : len(ids)] = torch.tensor(ids)
    return tokens


def show(report: HeadReport, console: Console) -> None:
    """Print a table for each kind, with the figures that it has, and what stands out."""
    for kind in ("visual", "text"):
        rows = [[str(head.number), *cells(head)] for head in report.of(kind)]
        if not rows:
            continue
        names = (kind, *COLUMNS)
        shown = [place for place in range(len(names)) if any(row[place] != "-" for row in rows)]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # fits 80 columns
        for place in shown:
            table.add_column(names[place], justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[place] for place in shown))
        console.print(table)
        console.print()
    for line in findings(report):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"{report.examples:,} examples, {report.queries:,} words", highlight=False)
