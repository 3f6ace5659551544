"""Measure how fast training, fusion and captioning are, against what one would use otherwise.

``latentcap bench`` runs all benchmarks; name one to run it alone. Contenders take turns within one run, and
every ratio is the median of its turns, with the least and the greatest of them in brackets.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentcap.bench import batch as bench_batch
from latentcap.bench import captioning as bench_captioning
from latentcap.bench import fusion as bench_fusion
from latentcap.bench import heads as bench_heads
from latentcap.bench import precision as bench_precision
from latentcap.bench import training as bench_training
from latentcap.bench.timing import Section, Setting, machine, plain, shown
from latentcap.cli.run import run
from latentcap.data.errors import UserError
from latentcap.model_folder import read_config

BENCHMARKS = ("training", "fusion", "heads", "captioning", "batch", "precision")
MODEL_BENCHMARKS = {"captioning": bench_captioning, "batch": bench_batch}  # with a trained model and images


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap bench", description="Measure speed and memory side by side with the alternatives."
    )
    parser.add_argument("benchmark", nargs="?", choices=(*BENCHMARKS, "all"), default="all")
    parser.add_argument("--model", type=Path, default=Path("models/rsicd"), help="model folder for captioning")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER|TAR", help="images to caption (default: scenes that are drawn for it)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender (default: 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--markdown", type=Path, metavar="OUT.md", help="also write the tables to this file")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="also write all numbers to this file")
    parser.add_argument("--quick", action="store_true", help="tiny models: see that it runs, the numbers mean nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    chosen = BENCHMARKS if options.benchmark == "all" else (options.benchmark,)
    check(options, chosen)
    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Console(stderr=True)
    start = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"{time.monotonic() - start:5.0f} s  {escape(text)}", style="dim", highlight=False)

    setting = Setting(repeats=options.repeats, device=torch.device(options.device), quick=options.quick, say=say)
    console, found = Console(), machine(setting.device)
    console.print(f"[bold]{escape(described(found))}[/bold]", highlight=False, soft_wrap=True)
    report: dict[str, list[Section]] = {}
    for name in chosen:
        report[name] = measure(name, setting, options)
        for section in report[name]:
            show(section, console)
        write(options, found, report)  # after each, so that an interrupted run keeps what it has
    return 0


def check(options: argparse.Namespace, chosen: Sequence[str]) -> None:
    """Raises UserError for what would fail only after minutes of measuring."""
    for name in ("repeats", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here. Leave it out to measure the CPU.")
    for name in ("markdown", "json"):
        path = getattr(options, name)
        if path is not None and not path.parent.is_dir():
            raise UserError(f"--{name} {path}: the folder {path.parent} does not exist. Make it first.")
    if needing := [name for name in chosen if name in MODEL_BENCHMARKS]:
        try:
            read_config(options.model)
        except UserError as error:
            others = ", ".join(name for name in BENCHMARKS if name not in MODEL_BENCHMARKS)
            raise UserError(
                f"{needing[0]} needs a trained model: {error} Set --model FOLDER; {others} run without one."
            ) from None
        with bench_captioning.pictures(options.images):
            pass


def measure(name: str, setting: Setting, options: argparse.Namespace) -> list[Section]:
    if name in MODEL_BENCHMARKS:
        return MODEL_BENCHMARKS[name].bench(setting, folder=options.model, images=options.images)
    modules = {"training": bench_training, "fusion": bench_fusion, "heads": bench_heads, "precision": bench_precision}
    return modules[name].bench(setting)


def described(found: dict[str, Any]) -> str:
    gpu = f"{found['gpu']}, " if found["gpu"] else ""
    return (
        f"{gpu}{found['cpu']}, {found['threads']} threads, bfloat16 on CPU {found['bfloat16 on cpu']}, "
        f"torch {found['torch']}, Python {found['python']}, {found['date']}"
    )


def show(section: Section, console: Console) -> None:
    table = Table(title=escape(section.title))
    for name, value in section.rows[0].items():
        table.add_column(escape(name), justify="left" if isinstance(value, str) else "right")
    for row in section.rows:
        table.add_row(*(escape(shown(value)) for value in row.values()))
    console.print(table)
    for note in section.notes:
        console.print(escape(note), style="dim", highlight=False)
    console.print()


def write(options: argparse.Namespace, found: dict[str, Any], report: dict[str, list[Section]]) -> None:
    """Write the files that were asked for. Raises UserError where that fails."""
    texts = {
        "markdown": lambda: markdown(found, report),
        "json": lambda: json.dumps({"machine": found, "quick": options.quick, **plain(report)}, indent=2) + "\n",
    }
    for name, text in texts.items():
        path = getattr(options, name)
        if path is None:
            continue
        try:
            path.write_text(text(), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--{name} {path}: cannot be written ({error.strerror}).") from None


def markdown(found: dict[str, Any], report: dict[str, list[Section]]) -> str:
    """All sections as Markdown tables."""
    lines = [described(found), "Medians; in brackets the least and the greatest of the turns.", ""]
    for section in (section for sections in report.values() for section in sections):
        lines += [f"## {section.title}", ""]
        lines.append("| " + " | ".join(section.rows[0]) + " |")
        lines.append(
            "|" + "|".join(" --- " if isinstance(v, str) else " ---: " for v in section.rows[0].values()) + "|"
        )
        lines += ["| " + " | ".join(shown(value) for value in row.values()) + " |" for row in section.rows]
        lines += ["", *(f"- {note}" for note in section.notes), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    run(main)
