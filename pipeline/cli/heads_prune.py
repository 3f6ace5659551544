"""Remove attention heads one by one, the least important first, each followed by a brief fine-tuning.

latentcap heads prune --model IN --data SOURCE --output OUT --until quality=0.99
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from latentcap.batch.engine import BATCH
from latentcap.bench.timing import Section, Setting, in_turns, machine, plain
from latentcap.captioner import Captioner
from latentcap.cli.bench import described, show
from latentcap.cli.run import run
from latentcap.config import ModelConfig
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.errors import UserError
from latentcap.heads.laboratory import Laboratory, open_data
from latentcap.heads.latency import BEAMS, WORDS, caption_latency, fusion_step
from latentcap.heads.plot import Chart, line_charts
from latentcap.heads.stages import FULL, QUALITY, Pruning, Stage
from latentcap.model_folder import read_config
from latentcap.progress import Progress
from latentcap.training.module import describe

TIMED_IMAGES = 50


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap heads prune",
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
        help=f"quality=0.99: as long as validation {QUALITY} is at least 0.99 of the full model's, fine-tuned as long; "
        "heads=4: to 4 heads",
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
    stage = pruning.first(laboratory)
    stages = [stage]
    while len(stage["kept"]) > fewest and pruning.share(stage) >= share:
        stage = pruning.next(laboratory, stage)
        stages.append(stage)
        print(pruning.line(stage), flush=True)
    good = [stage for stage in stages if pruning.share(stage) >= share]
    pruning.finish(
        good[-1], data, describe(laboratory.module.config, laboratory.module.optim, laboratory.module.search)
    )
    report(pruning, stages, good[-1], data)
    return 0


# What is shown --------------------------------------------------------------------------------------------------------


def report(pruning: Pruning, stages: Sequence[Stage], chosen: Stage, data: CaptionData) -> None:
    """Measure the latency of all stages in turns; print the table; write ``pruning.json`` and ``pruning.svg``."""
    captioners = {str(len(stage["kept"])): Captioner.from_pretrained(pruning.model(stage)) for stage in stages}
    with Progress("latency", unit="img") as progress:
        examples = data.datasets["val"].examples[:TIMED_IMAGES]  # those that could be read
        latency = caption_latency(captioners, examples, progress=progress.update, min_length=WORDS, max_length=WORDS)
    grid = next(iter(captioners.values())).model.backbone.grid
    regions = grid[0] * grid[1]
    calls = {name: fusion_step(entry, regions=regions, images=BATCH) for name, entry in captioners.items()}
    steps = in_turns(calls, Setting(5, torch.device("cpu"), False, lambda text: None))
    section = Section(f"Pruning {pruning.options.model.name}: captions of {WORDS} words, {BEAMS} beams")
    full = str(len(stages[0]["kept"]))
    whole, step = latency[full].row(), median(steps[full])
    for stage, (name, times) in zip(stages, latency.items(), strict=True):
        row = times.row()
        section.rows.append(
            {
                "heads": pruning.split(stage),
                "removed": pruning.name(stage["removed"][-1]) if stage["removed"] else None,
                QUALITY: stage["scores"][QUALITY],
                FULL: stage["beside"][QUALITY],
                "of full": f"{pruning.share(stage):.1%}",
                "fusion ms": row["fusion ms"],
                "saved": f"{1 - row['fusion ms'] / whole['fusion ms']:.0%}",
                "batch ms": 1000 * median(steps[name]),
                "saved in batches": f"{1 - median(steps[name]) / step:.0%}",
                "image ms": row["p50 ms"],
                "saved of all": f"{1 - row['p50 ms'] / whole['p50 ms']:.0%}",
                "kept": stage is chosen,
            }
        )
    section.notes = [
        f"heads: visual + text. {FULL}: {QUALITY} of the full model, fine-tuned as long; of full: share of it, or of "
        "the full model as it was given where that is better.",
        f"fusion: the layer's compression and all steps of one caption; batch: one step of {BATCH} images with "
        f"{regions} regions; image: file to caption. Medians, {len(examples)} validation images.",
        f"{described(machine(torch.device('cpu')))}",
    ]
    show(section, Console())
    content = {**plain(section), "stages": list(stages)}
    (pruning.folder / "pruning.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    points = [(len(stage["kept"]), row) for stage, row in zip(stages, section.rows, strict=True)][::-1]
    shares = [(len(stage["kept"]), pruning.share(stage)) for stage in reversed(stages)]
    charts = [
        Chart(f"{QUALITY}, the full model's being 1", "heads", shares, level=1.0, from_zero=False),
        Chart("Fusion layer, ms a caption", "heads", [(heads, row["fusion ms"]) for heads, row in points]),
        Chart(f"Fusion layer, ms a step of {BATCH}", "heads", [(heads, row["batch ms"]) for heads, row in points]),
        Chart("Image to caption, ms", "heads", [(heads, row["image ms"]) for heads, row in points]),
    ]
    (pruning.folder / "pruning.svg").write_text(line_charts(charts), encoding="utf-8")
    print(f"model   {pruning.folder}   ({pruning.split(chosen)} heads)\nplot    {pruning.folder / 'pruning.svg'}")


if __name__ == "__main__":
    run(main)
