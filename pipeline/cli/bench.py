"""Measure how fast training, fusion and captioning are, against what one would use otherwise.

``latentcap bench`` runs all benchmarks; name one to run it alone. Contenders take turns within one run, and
every ratio is the median of its turns, with the least and the greatest of them in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentcap.cli.model_option import add_model_option
from latentcap.data.errors import UserError

if TYPE_CHECKING:
    from latentcap.bench.timing import Section, Setting

BENCHMARKS = {
    "training": "a training step, beside a decoder with attention inside its loop",
    "fusion": "the fusion layer, beside torch.nn.MultiheadAttention",
    "heads": "what routing and compression save",
    "captioning": "images to captions, beside BLIP, ViT-GPT2 and GIT",
    "batch": "many images: the program beside its own CNN, beams, memory",
    "video": "live captions of a video, with all heads and with one of each kind",
    "serve": "the server with 1, 8 and 64 clients, beside batch captioning",
    "data": "reading tables of up to ten million rows, and the start of training on them",
    "kills": "runs killed at random moments, in every format: nothing lost, nothing twice",
    "fuzz": "5,000 broken files of many kinds in one run, broken tables by every reader",
    "precision": "training in float32, bfloat16 and float16: time, memory, loss",
}
MODEL_BENCHMARKS = ("captioning", "batch", "video", "serve", "fuzz")  # with a trained model and images


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap bench",
        description="Measure speed and memory side by side with the alternatives.",
        epilog="benchmarks:\n" + "\n".join(f"  {name:11} {what}" for name, what in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("benchmark", nargs="?", choices=(*BENCHMARKS, "all"), default="all", help="which to run (default: %(default)s)")
    add_model_option(parser, more="; for captioning, batch, video and serve")
    add("--images", type=Path, metavar="FOLDER|TAR", help="images to caption (default: scenes that are drawn for it)")
    add("--repeats", type=int, default=5, metavar="N", help="measurements of each contender (default: %(default)s)")
    add("--requests", type=int, default=2_000, metavar="N", help="of serve, for each row (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what to measure (default: %(default)s)")
    add("--markdown", type=Path, metavar="OUT.md", help="also write the tables to this file")
    add("--json", type=Path, metavar="OUT.json", help="also write all numbers to this file")
    add("--seconds", type=float, default=600.0, metavar="S", help="of kills: for how long (default: %(default)g)")
    add("--quick", action="store_true", help="tiny models: see that it runs, the numbers mean nothing")
    options = parser.parse_args(arguments)
    for name in ("repeats", "requests", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more.")
    for name in ("markdown", "json"):
        path = getattr(options, name)
        if path is not None and not path.parent.is_dir():
            raise UserError(f"--{name} {path}: the folder {path.parent} does not exist. Make it first.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    options = parse(arguments)
    import torch  # takes seconds, as what follows does
    from rich.console import Console
    from rich.markup import escape

    from latentcap.bench.report import described, markdown, show
    from latentcap.bench.timing import Setting, machine, plain

    chosen = tuple(BENCHMARKS) if options.benchmark == "all" else (options.benchmark,)
    check(options, chosen)
    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Console(stderr=True)
    start = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"{time.monotonic() - start:5.0f} s  {escape(text)}", style="dim", highlight=False)

    device = torch.device(options.device)
    setting = Setting(repeats=options.repeats, device=device, quick=options.quick, say=say, seconds=options.seconds)
    console, found = Console(), machine(setting.device)
    console.print(f"[bold]{escape(described(found))}[/bold]", highlight=False, soft_wrap=True)
    report: dict[str, list[Section]] = {}
    for name in chosen:
        report[name] = measure(name, setting, options)
        for section in report[name]:
            show(section, console)
        numbers = {"machine": found, "quick": options.quick, **plain(report)}
        # after each, so that an interrupted run keeps what it has
        write("markdown", options.markdown, markdown(found, report))
        write("json", options.json, json.dumps(numbers, indent=2) + "\n")
    return 0


def check(options: argparse.Namespace, chosen: Sequence[str]) -> None:
    """Raises UserError for what would fail only after minutes of measuring."""
    import torch

    from latentcap.bench.captioning import pictures
    from latentcap.model_folder import read_config

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here. Leave it out to measure the CPU.")
    if needing := [name for name in chosen if name in MODEL_BENCHMARKS]:
        try:
            read_config(options.model)
        except UserError as error:
            others = ", ".join(name for name in BENCHMARKS if name not in MODEL_BENCHMARKS)
            raise UserError(
                f"{needing[0]} needs a trained model: {error} Set --model FOLDER; {others} run without one."
            ) from None
        with pictures(options.images):
            pass


def measure(name: str, setting: Setting, options: argparse.Namespace) -> list[Section]:
    """The sections of one benchmark, which is the module of that name."""
    more: dict[str, Any] = {"folder": options.model, "images": options.images} if name in MODEL_BENCHMARKS else {}
    if name == "kills":
        more["images"] = options.images
    if name == "serve":
        more["requests"] = options.requests
    sections: list[Section] = importlib.import_module(f"latentcap.bench.{name}").bench(setting, **more)
    return sections


def write(option: str, path: Path | None, text: str) -> None:
    """Write a file that was asked for. Raises UserError where that fails."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--{option} {path}: cannot be written ({error.strerror}).") from None
