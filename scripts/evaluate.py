"""Score captions against what people wrote:  python -m scripts.evaluate captions.jsonl --references data.tar"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import UserError
from data.readers import read_examples
from data.readers.splits import select_split
from pipeline.metrics.java import why_unavailable
from pipeline.metrics.matching import Matches, match, read_captions
from pipeline.metrics.report import COUNTS, Report, evaluate
from scripts.cli import run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate",
        description="Score captions: BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE, and how varied they are, beside the same "
        "for the most frequent training caption given to every image.",
    )
    parser.add_argument("captions", help='JSON Lines of {"file": ..., "caption": ...}; "id" if the references have ids')
    parser.add_argument(
        "--references", nargs="+", required=True, metavar="REFS", help="the data set with the references"
    )
    parser.add_argument("--format", default="auto", help="the data set's format (default: found out)")
    parser.add_argument("--split", help="score only this split (default: those that the captions belong to)")
    parser.add_argument(
        "--train", nargs="+", metavar="SOURCE", help="data set with the training captions (default: REFS)"
    )
    parser.add_argument(
        "--tokenizer",
        choices=("ptb", "words"),
        help="ptb: as COCO's evaluation, needs the extra 'coco' (default where it is there); words: our own",
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write everything to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    captions = read_captions(options.captions)
    examples = read_examples(options.references, format=options.format)
    known = read_examples(options.train, format=options.format) if options.train else examples
    train = [text for example in known if example.split == "train" for text in example.captions]
    if options.train and not train:
        raise UserError(f"--train {' '.join(options.train)}: no captions in the split 'train' of it.")
    where = " ".join(options.references)
    matches = match(captions, select_split(examples, options.split, where), options.captions)

    console = Console()
    with Console(stderr=True).status("scoring"):
        report = evaluate(
            [caption.text for caption, _ in matches.pairs],
            [example.captions for _, example in matches.pairs],
            tokenizer=options.tokenizer or ("words" if why_unavailable() else "ptb"),
            train=train,
        )
    show(report, matches, console)
    if options.json:
        write_json(options.json, report, matches, captions_file=options.captions, references_from=where)
    return 0


def show(report: Report, matches: Matches, console: Console) -> None:
    """Print the table and what has to be known to read it."""
    table = Table(title=f"{report.images:,} images, {report.references:,} references ({', '.join(matches.splits)})")
    table.add_column("")
    table.add_column("captions", justify="right", style="bold")
    table.add_column("floor", justify="right")
    for name, value in report.captions.items():
        if name == "distinct captions":
            table.add_section()
        table.add_row(name, shown(name, value), shown(name, report.floor[name]))
    console.print(table)
    source = "training caption" if report.floor_from_training else "reference (no training captions are known)"
    tokenizer = "ptb (as COCO's evaluation)" if report.tokenizer == "ptb" else "words (our own; close to COCO's)"
    notes = [f"floor: the most frequent {source}, given to every image: '{report.floor_caption}'"]
    notes += [f"tokenizer: {tokenizer}"]
    notes += [f"{name}: {reason}" for name, reason in report.reasons.items()]
    if matches.unmatched_captions:
        first = ", ".join(map(str, matches.unmatched_captions[:3]))
        notes += [f"left out: {len(matches.unmatched_captions):,} captions without references: {first}"]
    if matches.unmatched_examples:
        notes += [f"left out: {matches.unmatched_examples:,} images with references, for which there is no caption"]
    for note in notes:
        console.print(escape(note), highlight=False, soft_wrap=True)


def shown(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.1f}" if name == "mean length" else f"{value:.1%}" if name == "novel share" else f"{value:.4f}"


def write_json(path: Path, report: Report, matches: Matches, **more: Any) -> None:
    """All numbers at full precision. Raises UserError where the file cannot be written."""
    left_over = {
        "unmatched_captions": [caption.file or caption.id for caption in matches.unmatched_captions],
        "unmatched_examples": matches.unmatched_examples,
    }
    everything = {**more, "splits": matches.splits, **dataclasses.asdict(report), **left_over}
    try:
        path.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror}).") from None


if __name__ == "__main__":
    run(main)
