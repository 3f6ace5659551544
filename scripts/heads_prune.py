"""Remove attention heads one by one, the least important first, each followed by a brief fine-tuning.

python scripts/heads.py prune --model IN --data SOURCE --output OUT --until quality=0.99
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from data.datamodule import CaptionData
from data.errors import UserError
from pipeline.captioner import Captioner, read_config
from pipeline.config import ModelConfig
from pipeline.heads.plot import Chart, line_charts
from pipeline.module import describe
from pipeline.progress import Progress
from scripts.bench import described, show
from scripts.bench_timing import Section, Setting, in_turns, machine
from scripts.cli import run
from scripts.heads_laboratory import Laboratory, open_data
from scripts.heads_latency import caption_latency, fusion_step, readable
from scripts.heads_stages import QUALITY, Pruning, Stage

TIMED_IMAGES = 50


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python scripts/heads.py prune",
        description="Remove the least important heads one by one, fine-tune briefly after each, and keep the smallest "
        "model that is good enough. Stopped at any moment and run again, it goes on where it was.",
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FOLDER", help="the model folder to prune")
    add("--data", nargs="+", required=True, metavar="SOURCE", help="data set: its splits 'train' and 'val' are used")
    add("--val", nargs="+", metavar="SOURCE", help="validation data, where they are not in --data")
    add("--output", type=Path, required=True, metavar="FOLDER", help="where the smaller model folder goes")
    add(
        "--until",
        required=True,
        metavar="quality=SHARE|heads=N",
        help=f"quality=0.99: as long as validation {QUALITY} is at least 0.99 of the full model's; heads=4: to 4 heads",
    )
    add("--steps", type=int, default=200, metavar="N", help="fine-tuning after each removal (default: 200 steps)")
    add("--recipe", type=Path, metavar="YAML", help="the recipe that the model was trained with, for data and optim")
    add("--seed", type=int, default=0, help="of the fine-tuning (default: 0)")
    add("--cache", metavar="FOLDER", help="where regions are kept (default: ~/.cache/latentcap)")
    options = parser.parse_args(arguments)
    if options.steps < 0:
        raise UserError(f"--steps {options.steps}: give 0 (no fine-tuning) or more.")
    if options.output.resolve() == options.model.resolve():
        raise UserError("--output is the folder of --model: choose another, the full model is still needed.")
    return options


def parse_until(text: str, heads: int) -> tuple[float, int]:
    """The least share of the full model's quality, and the least number of heads. Raises UserError for other texts."""
    name, _, value = text.partition("=")
    try:
        if name == "quality" and 0 < float(value) <= 1:
            return float(value), 1
        if name == "heads" and 1 <= int(value) < heads:
            return 0.0, int(value)
    except ValueError:
        pass
    raise UserError(
        f"--until {text}: give quality=SHARE, a share of the full model's {QUALITY} above 0 and up to 1 such as "
        f"quality=0.99, or heads=N, from 1 to {heads - 1} for this model of {heads} heads."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the arguments."""
    options = parse(arguments)
    sizes = ModelConfig.from_dict(read_config(options.model)["model"]).fusion
    share, fewest = parse_until(options.until, sizes.visual_heads + sizes.text_heads)
    data, optim = open_data(options.data, val=options.val, recipe=options.recipe, cache=options.cache)
    pruning = Pruning(options, sizes)
    laboratory = Laboratory(Captioner.from_pretrained(options.model), data, optim, train=True)
    stages = [pruning.first(laboratory)]
    while len(stages[-1]["kept"]) > fewest and pruning.share(stages[-1], stages[0]) >= share:
        stages.append(pruning.next(laboratory, stages[-1]))
        print(pruning.line(stages[-1], stages[0]), flush=True)
    chosen = [stage for stage in stages if pruning.share(stage, stages[0]) >= share][-1]
    pruning.finish(
        good[-1], data, describe(laboratory.module.config, laboratory.module.optim, laboratory.module.search)
    )
    report(pruning, stages, chosen, data)
    return 0


# What is shown --------------------------------------------------------------------------------------------------------


def report(pruning: Pruning, stages: Sequence[Stage], chosen: Stage, data: CaptionData) -> None:
    """Measure the latency of all stages in turns; print the table; write ``pruning.json`` and ``pruning.svg``."""
    captioners = {pruning.split(stage): Captioner.from_pretrained(pruning.model(stage)) for stage in stages}
    examples = readable(data.examples["val"], TIMED_IMAGES)
    with Progress("latency", unit="img") as progress:
        latency = caption_latency(captioners, examples, progress=progress.update)
    grid = next(iter(captioners.values())).model.backbone.grid
    calls = {name: fusion_step(entry.model, regions=grid[0] * grid[1]) for name, entry in captioners.items()}
    steps = in_turns(calls, Setting(5, torch.device("cpu"), False, lambda text: None))
    section = Section(f"Pruning {pruning.options.model.name}: one image at a time, file to caption")
    for stage, (name, times) in zip(stages, latency.items(), strict=True):
        row = times.row()
        section.rows.append(
            {
                "heads": name,
                "without": pruning.name(stage["removed"][-1]) if stage["removed"] else None,
                QUALITY: stage["scores"][QUALITY],
                "of full": pruning.share(stage, stages[0]),
                "step ms": 1000 * median(steps[name]),
                "fusion ms": row["fusion ms"],
                "image ms": row["p50 ms"],
                "words": row["words"],
            }
        )
    section.notes = [
        "heads: visual + text. step: the fusion layer in one decoding step, 3 beams. fusion: compression and all steps "
        f"of a caption. image: file to caption. Medians in milliseconds; {len(examples)} validation images.",
        described(machine(torch.device("cpu"))),
    ]
    show(section, Console())
    content = {"title": section.title, "chosen": pruning.split(chosen), "rows": section.rows, "stages": list(stages)}
    text = json.dumps({**content, "notes": section.notes}, indent=2) + "\n"
    (pruning.folder / "pruning.json").write_text(text, encoding="utf-8")
    (pruning.folder / "pruning.svg").write_text(line_charts(charts(stages, section)), encoding="utf-8")
    print(f"model   {pruning.folder}   ({pruning.split(chosen)} heads)\nplot    {pruning.folder / 'pruning.svg'}")


def charts(stages: Sequence[Stage], section: Section) -> list[Chart]:
    """Quality, time of a fusion step and time of an image against the number of heads."""
    rows = [(len(stage["kept"]), row) for stage, row in zip(stages, section.rows, strict=True)]
    titles = {QUALITY: QUALITY, "step ms": "Fusion step, ms", "image ms": "Image to caption, ms"}
    return [
        Chart(
            title,
            "heads",
            [(heads, row[name]) for heads, row in reversed(rows)],
            level=rows[0][1][name] if name == QUALITY else None,
            from_zero=name != QUALITY,
        )
        for name, title in titles.items()
    ]


if __name__ == "__main__":
    run(main)
