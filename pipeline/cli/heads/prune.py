"""Remove attention heads one by one, the least important first, each followed by a brief fine-tuning.

latentcap heads prune --model IN --data SOURCE --output OUT --until quality=0.99
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from latentcap.cli.model_option import add_model_option
from latentcap.data.errors import UserError
from latentcap.in_the_box import find_recipe

QUALITY = "CIDEr-D"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap heads prune",
        description="Remove the least important heads one by one, fine-tune briefly after each, and keep the smallest "
        "model that is good enough. Stopped at any moment and run again, it goes on where it was.",
    )
    add = parser.add_argument
    add_model_option(parser, required=True)
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
    add("--recipe", metavar="RECIPE", help="the file or name of the recipe that the model was trained by: data, optim")
    add("--seed", type=int, default=0, help="of the fine-tuning (default: 0)")
    add("--cache", metavar="FOLDER", help="where regions are kept (default: ~/.cache/latentcap)")
    options = parser.parse_args(arguments)
    if options.steps < 0:
        raise UserError(f"--steps {options.steps}: give 0 (no fine-tuning) or more.")
    if options.recipe is not None:
        options.recipe = find_recipe(options.recipe)
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
    from latentcap.captioner import Captioner  # torch and lightning take seconds to import
    from latentcap.config import ModelConfig
    from latentcap.heads.laboratory import Laboratory, open_data
    from latentcap.heads.pruning_report import report_stages
    from latentcap.heads.stages import Pruning
    from latentcap.model_folder import read_config
    from latentcap.training.module import describe

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
    report_stages(pruning, stages, good[-1], data)
    return 0
