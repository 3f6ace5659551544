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
from rich.markup import escape

from latentcap.cli import evaluate_seeds as seeds
from latentcap.cli.prepare import parse_fields
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import read_examples
from latentcap.data.readers.splits import select_split
from latentcap.evaluation.comparison import FINDINGS, Comparison, compare
from latentcap.evaluation.predictions import Matches, match, read_captions
from latentcap.evaluation.report import evaluate
from latentcap.evaluation.tables import agreement_table, interval_tables, score_table
from latentcap.metrics.clinical.scores import UNCERTAIN, chexpert_agreement, imaging_agreement
from latentcap.metrics.java import why_unavailable


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
        help='JSON Lines of {"file": ..., "caption": ...}; "id" if the references have ids; '
        "left out, --model writes them",
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
        "--tokenizer",
        choices=("ptb", "words"),
        help="ptb: as COCO's evaluation, needs the extra 'coco' (default where it is there); words: our own",
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
        choices=FINDINGS,
        default=[],
        help="clinical agreement, by rules: the 14 "
        "CheXpert observations; modality, plane, location and side of CT and MR captions",
    )
    more.add_argument("--uncertain", choices=UNCERTAIN, default="positive", help="what a doubtful finding counts as")
    more.add_argument("--chexbert", metavar="FOLDER", help="your CheXbert weights: chexbert.pth and a BERT tokenizer")
    more.add_argument("--radgraph", metavar="FOLDER", help="your RadGraph weights, with the package radgraph installed")
    more.add_argument("--samples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    more.add_argument("--seed", type=int, default=0, help="of resamples and of shuffling (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.captions is None and options.model is None:
        raise UserError("nothing to score: give a file of captions, or --model FOLDER to write them.")
    for name in ("image_only", "context_only", "ablate"):
        if getattr(options, name) and not options.model:
            raise UserError(f"--{name.replace('_', '-')} needs the model it is compared with: add --model FOLDER.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["seeds"]:
        return seeds.main(arguments[1:])
    options = parse(arguments)
    fields, where = parse_fields(options.field), " ".join(options.references)
    settings: dict[str, Any] = {"format": options.format, "image_root": options.image_root, "fields": fields}
    everything = read_examples(options.references, **settings)
    known = read_examples(options.train, **settings) if options.train else everything
    train = [example for example in known if example.split == "train" and example.captions]
    if options.train and not train:
        raise UserError(f"--train {' '.join(options.train)}: no captions in the split 'train' of it.")
    examples, texts, matches = _to_score(options, everything, where)
    notes: list[str] = []
    beside: dict[str, list[str]] = {}
    ablation: dict[str, list[str]] = {}
    labels: dict[str, tuple[float, float, int]] = {}
    if options.model:
        from latentcap.evaluation.systems import run_systems

        systems = run_systems(options, examples, train, texts)
        examples, texts, beside = systems.examples, systems.model, systems.beside
        notes, ablation, labels = systems.notes, systems.ablation, systems.labels
    assert texts is not None
    references = [example.captions for example in examples]
    settings = {"tokenizer": options.tokenizer or ("words" if why_unavailable() else "ptb")}
    console = Console()
    with Console(stderr=True).status("scoring"):
        train_texts = [text for example in train for text in example.captions]
        report = evaluate(texts, references, **settings, train=train_texts, beside={**beside, **ablation})
        settings |= {"groups": [_patient(example) for example in examples], "samples": options.samples}
        settings |= {"seed": options.seed, "clinical": options.clinical, "uncertain": options.uncertain}
        name = "model" if options.model else "captions"
        systems_all = {name: texts, "floor": [report.floor_caption] * len(texts), **beside}
        comparison = compare(systems_all, references, **settings)
        changed = compare(ablation, references, **settings) if ablation else None
        agreement = _agreement(options, systems_all, references)
        reasons = dict(report.reasons)
        plugins = _plugins(options, texts, references, reasons)

    splits = sorted({example.split for example in examples})
    title = f"{report.images:,} images, {report.references:,} references ({', '.join(splits)})"
    columns = {name: report.captions, "floor": report.floor, **{key: report.beside[key] for key in beside}}
    console.print(score_table(columns, title))
    console.print(*interval_tables(comparison), sep="\n")
    for kind, table in agreement.items():
        console.print(agreement_table(kind, table))
    if changed:
        console.print(score_table({key: report.beside[key] for key in ablation}, "the same model, context changed"))
        console.print(*interval_tables(changed), sep="\n")
    source = "training caption" if report.floor_from_training else "reference (no training captions are known)"
    tokenizer = "ptb (as COCO's evaluation)" if report.tokenizer == "ptb" else "words (our own; close to COCO's)"
    lines = [f"floor: the most frequent {source}, given to every image: '{report.floor_caption}'", *notes]
    lines += [f"tokenizer: {tokenizer}; references are scored whole"]
    lines += [_how(comparison, options)]
    lines += [f"{key}: {reason}" for key, reason in reasons.items()]
    lines += [f"{key}: {value}" for key, value in plugins.items() if value is not None]
    lines += [
        f"label {key}: {right:.1%} right of {count:,}; the most frequent class is {most:.1%}"
        for key, (right, most, count) in labels.items()
    ]
    lines += _left_out(matches)
    lines += comparison.verdicts + [f"context: {line}" for line in _ablation_words(changed)]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    if options.json:
        extra = {
            "comparison": dataclasses.asdict(comparison),
            "agreement": agreement,
            "ablation": dataclasses.asdict(changed) if changed else None,
            "labels": {
                key: dict(zip(("accuracy", "most frequent", "examples"), v, strict=True)) for key, v in labels.items()
            },
            "plugins": plugins,
            "uncertain": options.uncertain,
            "image_only": options.image_only,
            "notes": notes,
            "examples": [
                {
                    "id": example.id,
                    "references": example.captions,
                    **{key: value[at] for key, value in systems_all.items()},
                }
                for at, example in enumerate(examples)
            ],
        }
        write_json(
            options.json, {**dataclasses.asdict(report), "reasons": reasons}, matches,
            captions_file=options.captions, model=options.model, references_from=where, splits=splits, **extra,
        )  # fmt: skip
    return 0


def _to_score(
    options: argparse.Namespace, everything: Sequence[Example], where: str
) -> tuple[list[Example], list[str] | None, Matches | None]:
    """The examples, and their captions where a file holds them."""
    if options.captions is None:
        examples = [example for example in select_split(everything, options.split or "val", where) if example.captions]
        if not examples:
            raise UserError(
                f"{where}: no references in the split '{options.split or 'val'}', so nothing can be scored."
            )
        return examples, None, None
    captions = read_captions(options.captions)
    matches = match(captions, select_split(everything, options.split, where), options.captions)
    return [example for _, example in matches.pairs], [caption.text for caption, _ in matches.pairs], matches


def _patient(example: Example) -> str:
    return example.group or example.context or example.id


def _agreement(
    options: argparse.Namespace, systems: dict[str, list[str]], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, dict[str, float]]]:
    """For each kind of agreement and each system: precision, recall and F1 in each way of averaging."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for name, texts in systems.items():
        if "chexpert" in options.clinical:
            found = chexpert_agreement(texts, references, uncertain=options.uncertain)
            tables.setdefault(f"CheXpert observations, doubt counts as {options.uncertain}", {})[name] = found.scores()
        if "imaging" in options.clinical:
            for field, agreement in imaging_agreement(texts, references).items():
                tables.setdefault(f"{field} named", {})[name] = agreement.scores()
    return tables


def _plugins(
    options: argparse.Namespace, texts: Sequence[str], references: Sequence[Sequence[str]], reasons: dict[str, str]
) -> dict[str, Any]:
    """Scores of the user's own CheXbert and RadGraph weights; None with a reason where they cannot run."""
    found: dict[str, Any] = {}
    if not (options.chexbert or options.radgraph):
        return found
    from latentcap.metrics.clinical.plugins import chexbert_agreement, radgraph_f1

    for name, folder, score in (
        ("CheXbert", options.chexbert, lambda f: chexbert_agreement(texts, references, f, uncertain=options.uncertain)),
        ("RadGraph", options.radgraph, lambda f: radgraph_f1(texts, references, f)),
    ):
        if folder:
            found[name], reason = score(folder)
            if reason:
                reasons[name] = reason
    return found


def _how(comparison: Comparison, options: argparse.Namespace) -> str:
    return (
        f"intervals: 95 %, paired bootstrap of {comparison.samples:,} resamples of {comparison.groups:,} patients or "
        f"groups (seed {options.seed}); p: share of resamples in which the model is not better; METEOR "
        "exact: its exact matches alone, which can be resampled"
    )


def _ablation_words(changed: Comparison | None) -> list[str]:
    """Whether the context helps, and whether it is read or only there."""
    if changed is None:
        return []
    lines = []
    for name, standing in list(changed.systems.items())[1:]:
        found = standing.behind_model["CIDEr-D"]
        says = "helps" if found.beats else "does not help"
        lines.append(
            f"the patient's own {says} against {name}: CIDEr-D {found.value:+.4f} "
            f"({found.low:+.4f} to {found.high:+.4f}), p = {found.p:.3f}"
        )
    return lines


def _left_out(matches: Matches | None) -> list[str]:
    notes = []
    if matches and matches.unmatched_captions:
        first = ", ".join(map(str, matches.unmatched_captions[:3]))
        notes += [f"left out: {len(matches.unmatched_captions):,} captions without references: {first}"]
    if matches and matches.unmatched_examples:
        notes += [f"left out: {matches.unmatched_examples:,} images with references, for which there is no caption"]
    return notes


def write_json(path: Path, report: dict[str, Any], matches: Matches | None, **more: Any) -> None:
    """All numbers at full precision. Raises UserError where the file cannot be written."""
    left_over = {}
    if matches:
        left_over = {
            "unmatched_captions": [caption.file or caption.id for caption in matches.unmatched_captions],
            "unmatched_examples": matches.unmatched_examples,
        }
    everything = {**more, **report, **left_over}
    try:
        path.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror}).") from None
