"""Score captions against what people wrote:  latentcap evaluate captions.jsonl --references data.tar

With ``--model FOLDER`` beside what they have to beat: nearest neighbour, less input, another patient's image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from latentcap.cli import evaluate_seeds as seeds
from latentcap.cli.prepare import parse_fields
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import read_examples
from latentcap.data.readers.splits import select_split
from latentcap.evaluation.comparison import FINDINGS
from latentcap.evaluation.printed import print_results
from latentcap.evaluation.results import score
from latentcap.evaluation.scored import Scored, captions_of_file
from latentcap.metrics.clinical.radeval import load_radeval
from latentcap.metrics.clinical.scores import UNCERTAIN
from latentcap.metrics.java import why_unavailable
from latentcap.metrics.tokenize import PROTOCOLS, TOKENIZERS

RADEVAL = "radeval"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["seeds"]:
        return seeds.main(arguments[1:])
    options = parse(arguments)
    radeval = load_radeval() if RADEVAL in options.clinical else None
    examples, train = read_data(options)
    scored = what_is_scored(options, examples, train)
    console = Console()
    with Console(stderr=True).status("scoring"):
        results = score(
            scored,
            train=[text for example in train for text in example.captions],
            tokenizer=options.tokenizer or ("words" if why_unavailable() else "ptb"),
            samples=options.samples,
            seed=options.seed,
            clinical=options.clinical,
            uncertain=options.uncertain,
            radeval=radeval,
        )
    print_results(results, console)
    if options.json:
        origin = {
            "captions_file": options.captions,
            "model": options.model,
            "references_from": " ".join(options.references),
            "image_only": options.image_only,
        }
        write_json(options.json, origin | results.to_dict())
    return 0


def read_data(options: argparse.Namespace) -> tuple[Sequence[Example], list[Example]]:
    """All examples that may be scored, and those whose captions were trained on."""
    fields = parse_fields(options.field)
    if options.tokenizer == "r2gen" and fields.text_style is None:
        fields = dataclasses.replace(fields, text_style="r2gen")  # its cleaning is made for texts as written
    settings: dict[str, Any] = {"format": options.format, "image_root": options.image_root, "fields": fields}
    everything = read_examples(options.references, **settings)
    known = read_examples(options.train, **settings) if options.train else everything
    train = [example for example in known if example.split == "train" and example.captions]
    if options.train and not train:
        raise UserError(f"--train {' '.join(options.train)}: no captions in the split 'train' of it.")
    split = options.split or (None if options.captions else "val")
    return select_split(everything, split, " ".join(options.references)), train


def what_is_scored(options: argparse.Namespace, examples: Sequence[Example], train: Sequence[Example]) -> Scored:
    """The captions of the file, or of the model, or those of the file beside the model's baselines."""
    if options.captions:
        of_file = captions_of_file(options.captions, examples)
        if not options.model:
            return of_file
        examples, texts = of_file.examples, of_file.texts
    else:
        of_file, texts = None, None
        examples = [example for example in examples if example.captions]
        if not examples:
            split = options.split or "val"
            raise UserError(
                f"{' '.join(options.references)}: no references in the split '{split}', so nothing can be scored."
            )
    from latentcap.evaluation.systems import run_systems

    scored = run_systems(options, examples, train, texts)
    if of_file:
        scored.matches, scored.notes = of_file.matches, of_file.notes + scored.notes
    return scored


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap evaluate",
        description="Score captions: BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE, and how varied they are, beside the same "
        "for the most frequent training caption given to every image, with 95 % intervals and a paired test.",
        epilog="'latentcap evaluate seeds RUN.json RUN.json' compares what --json wrote for several seeds.",
    )
    parser.add_argument(
        "captions",
        nargs="?",
        help='what latentcap caption wrote, in any of its formats: JSON Lines of {"file": ..., "caption": ...} '
        '("id" or "image_id" if the references have ids), .csv, .parquet, a folder of parts, tars or text files; or '
        "COCO's results (.json). Left out, --model writes them",
    )
    parser.add_argument(
        "--references", nargs="+", required=True, metavar="REFS", help="the data set with the references"
    )
    parser.add_argument("--format", default="auto", help="the data set's format (default: found out)")
    parser.add_argument("--field", action="append", default=[], metavar="FIELD=COLUMN", help="as latentcap prepare's")
    parser.add_argument("--image-root", metavar="FOLDER", help="what image paths are relative to (default: REFS')")
    parser.add_argument("--split", help="score only this split (default: those that the captions belong to, or val)")
    parser.add_argument(
        "--train", nargs="+", metavar="SOURCE", help="data set with the training captions (default: REFS)"
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        help="what the scores are made with. coco: Penn Treebank words, as COCO's evaluation, needs the extra 'coco' "
        "(default where it is there); plain: our own words, nearly the same; r2gen: as published for chest X-rays "
        "since R2Gen, with full stops as words and all texts cut at 60",
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        help="a protocol by its tokeniser (ptb, words, r2gen), or whitespace: the text as it is, full stops as words",
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write everything to this file")
    beside = parser.add_argument_group("beside a model")
    beside.add_argument(
        "--model",
        metavar="MODEL",
        help="its folder, or its name in the box: adds what it has to beat",
    )
    beside.add_argument("--image-only", metavar="FOLDER", help="a model trained without context, to compare with")
    beside.add_argument("--context-only", metavar="FOLDER", help="a model trained with sees_image: false")
    beside.add_argument(
        "--ablate", choices=("context",), help="the model with its context, none, and another patient's"
    )
    beside.add_argument("--beam-size", type=int, metavar="N", help="of the search (default: the model's)")
    beside.add_argument(
        "--cache-dir", default="~/.cache/latentcap", help="where regions are kept (default: %(default)s)"
    )
    more = parser.add_argument_group("agreement and tests")
    more.add_argument(
        "--clinical",
        nargs="+",
        choices=(*FINDINGS, RADEVAL),
        default=[],
        help="clinical agreement, by rules: the 14 CheXpert observations; modality, plane, location and side of CT and "
        "MR captions; by the package RadEval: RadGraph and CheXbert",
    )
    more.add_argument("--uncertain", choices=UNCERTAIN, default="positive", help="what a doubtful finding counts as")
    more.add_argument("--samples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    more.add_argument("--seed", type=int, default=0, help="of resamples and of shuffling (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.captions is None and options.model is None:
        raise UserError("nothing to score: give a file of captions, or --model FOLDER to write them.")
    if options.protocol and options.tokenizer:
        raise UserError("--protocol and --tokenizer say the same in two ways: give --protocol alone.")
    options.tokenizer = PROTOCOLS.get(options.protocol, options.tokenizer)
    if options.samples < 1 or options.seed < 0:
        raise UserError("--samples has to be 1 or more (1000 is usual), and --seed 0 or more.")
    for name in ("image_only", "context_only", "ablate"):
        if getattr(options, name) and not options.model:
            raise UserError(f"--{name.replace('_', '-')} needs the model it is compared with: add --model FOLDER.")
    return options


def write_json(path: Path, content: dict[str, Any]) -> None:
    """All numbers at full precision. Raises UserError where the file cannot be written."""
    try:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror}).") from None
