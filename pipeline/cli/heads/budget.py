"""One checkpoint, any number of heads: quality and latency of a model folder under every head budget.

latentcap heads budget --model FOLDER --data SOURCE --output budget.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from latentcap.cli.model_option import add_model_option
from latentcap.data.errors import UserError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap heads budget",
        description="Quality and latency under every head budget: only the first heads of each kind are kept.",
    )
    add = parser.add_argument
    trained = "; trained with RandomHeadBudget; several: the same training with other seeds"
    add_model_option(parser, required=True, more=trained, nargs="+")
    add("--data", nargs="+", required=True, metavar="SOURCE", help="data set, of which the split 'val' is captioned")
    add(
        "--heads",
        nargs="+",
        metavar="V+T",
        help="budgets, visual + text heads (default: 1+1, 2+2, ... to all), or 'every' for each pair",
    )
    add(
        "--beside",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="models trained on their own with as many heads, to compare with; several of one size are its seeds",
    )
    add("--images", type=int, default=100, metavar="N", help="images that latency is measured on (default: 100)")
    add("--repeats", type=int, default=5, help="measurements of each fusion step (default: 5)")
    add("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    add("--cache", metavar="FOLDER", help="where regions are kept (default: ~/.cache/latentcap)")
    add("--output", type=Path, required=True, metavar="OUT.json", help="all numbers; OUT.md gets the tables")
    options = parser.parse_args(arguments)
    for name in ("images", "repeats", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more.")
    if options.output.suffix != ".json" or not options.output.parent.is_dir():
        raise UserError(f"--output {options.output}: give a .json file in a folder that exists.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the arguments."""
    options = parse(arguments)
    import torch  # takes seconds, as what follows does
    from rich.console import Console

    from latentcap.bench.report import described, markdown, show
    from latentcap.bench.timing import Setting, machine, plain
    from latentcap.captioner import Captioner
    from latentcap.heads.budgets import budgets, group_by_heads, latency_section, quality_section, score
    from latentcap.heads.laboratory import Laboratory, open_data
    from latentcap.heads.latency import steps_section

    if options.threads:
        torch.set_num_threads(options.threads)
    first = Captioner.from_pretrained(options.model[0])
    names = budgets(options.heads, first.model.config.fusion)
    beside = group_by_heads(options.beside)
    data, optim = open_data(options.data, val=None, recipe=None, cache=options.cache)
    laboratory = Laboratory(first, data, optim, train=False)

    console, found = Console(), machine(torch.device("cpu"))
    quality = score(laboratory, options.model, names, beside)
    images = len(data.datasets["val"])
    sections = [
        quality_section(quality, names, images=images, search=laboratory.module.search),
        latency_section(options.model[0], names, beside, data.datasets["val"].examples[: options.images]),
        steps_section(
            lambda: Captioner.from_pretrained(options.model[0]),
            Setting(options.repeats, torch.device("cpu"), False, lambda text: None),
        ),
    ]
    for section in sections:
        show(section, console)
    named = dict(zip(("quality", "latency", "steps"), sections, strict=True))
    report = {"machine": found, "scores": quality, **plain(named)}
    try:
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        text = markdown(found, {"budgets": sections})
        options.output.with_suffix(".md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {options.output}: cannot be written ({error.strerror}).") from None
    console.print(described(found), style="dim", highlight=False, soft_wrap=True)
    return 0
