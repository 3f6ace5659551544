"""LightningCLI with this project's defaults: what ``latentcap train fit | validate | test`` runs.

Every setting of the trainer, the model and the data can stand in the YAML or on the command line; ``fit --help`` lists
them. A run writes to ``trainer.default_root_dir``: ``model/`` (what you caption with), ``checkpoints/best.ckpt`` and
``last.ckpt``, ``metrics.csv``, and the validation captions. Go on with an interrupted run with ``--ckpt_path last``.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from latentcap.cli.train import VERBS
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.errors import UserError, did_you_mean
from latentcap.in_the_box import find_recipe
from latentcap.inference.precision import fast_dtype
from latentcap.training.callbacks import EMA, Checkpoints, ModelFolder, RandomState
from latentcap.training.lightning_messages import HARMLESS
from latentcap.training.module import CaptionModule

logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


class TrainCLI(LightningCLI):
    """LightningCLI with this project's defaults and short error messages."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in VERBS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(ModelFolder, "model_folder")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/CIDEr-D",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/CIDEr-D",
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Put checkpoints and logs below the run's folder, and find its last checkpoint."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        root = Path(config.trainer.default_root_dir or "runs/default")
        config.trainer.default_root_dir = str(root)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(root / "checkpoints")
        if config.get("ckpt_path") == "last":
            last = root / "checkpoints" / "last.ckpt"
            if not last.is_file():
                raise UserError(f"no run to go on with: {last} does not exist. Leave out --ckpt_path to start one.")
            config.ckpt_path = str(last)
        if config.data.seed is None:
            config.data.seed = int(config.seed_everything)
        if config.get("ckpt_path"):
            config.weights_only = True
        if config.trainer.precision is None:
            config.trainer.precision = _best_precision()
        elif str(config.trainer.precision).startswith("bf16") and _best_precision() == "32-true":
            raise UserError(
                f"trainer.precision {config.trainer.precision}: this processor does not multiply bfloat16. "
                "Leave the setting out, or give 32-true."
            )
        if config.trainer.strategy == "auto" and config.trainer.devices != 1 and _several_devices(config.trainer):
            config.trainer.strategy = (
                "ddp_find_unused_parameters_true"  # a batch without any context uses no context table
            )

    def before_fit(self) -> None:
        self.model.resume_from = self.config_init[self.subcommand].ckpt_path

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Metrics go to ``metrics.csv`` in the run's folder always, and to whatever loggers are asked for."""
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        asked = config.trainer.logger
        if asked is not False:
            more = [] if asked in (None, True) else asked if isinstance(asked, list) else [asked]
            kwargs["logger"] = [CSVLogger(config.trainer.default_root_dir, name="", version=""), *more]
        return super().instantiate_trainer(**kwargs)


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with the path of each recipe in place of its name. Raises UserError for one that does not exist."""
    found = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("-c", "--config"):
            if equals:
                found[place] = f"{option}={find_recipe(value)}"
            elif place + 1 < len(found):
                found[place + 1] = str(find_recipe(found[place + 1]))
    return found


class ShortErrorParser(LightningArgumentParser):
    """Errors as one message that names what is wrong and the nearest valid name, not a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        raise UserError(shorten(message, known_keys(self)))


def known_keys(parser: Any) -> list[str]:
    """Every dotted key of the parser and its subcommands."""
    keys = [action.dest for action in parser._actions]
    for action in parser._actions:
        for sub in (getattr(action, "_name_parser_map", None) or {}).values():
            keys += [entry.dest for entry in sub._actions]
            # settings inside dataclass arguments are found by instantiating their help
            for entry in sub._actions:
                nested = getattr(getattr(entry, "_typehint", None), "__dataclass_fields__", None)
                keys += [f"{entry.dest}.{name}" for name in nested or ()]
    return keys


def shorten(message: str, keys: list[str]) -> str:
    """jsonargparse's message in one line, with the nearest valid name for an unknown key."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    details = [line[2:] for line in lines if line.startswith("- ") and "NoneType" not in line]
    text = " ".join([lines[0].removesuffix("Does not validate against any of the Union subtypes"), *details[:2]])[:600]
    unknown = re.search(r"(?:key|option|arguments:)\s*[\"'`]?(?:--)?([\w.]+)", message, re.IGNORECASE)
    if unknown and unknown[1] not in keys:
        leaves = {key.split(".")[-1] for key in keys}
        text += did_you_mean(unknown[1], keys) or did_you_mean(unknown[1].split(".")[-1], leaves)
    return text


def _several_devices(trainer: Any) -> bool:
    """Whether the trainer will use more than one process."""
    if trainer.devices == "auto":
        return trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    return str(trainer.devices) not in ("0", "1") or trainer.num_nodes > 1


def _best_precision() -> str:
    """bfloat16 mixed where the hardware multiplies it, float16 mixed on older GPUs, else float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}
    return names[fast_dtype(device)]


def train(arguments: Sequence[str]) -> int:
    """Run a command line that begins with fit, validate or test. Raises UserError for a mistake in it."""
    try:
        return _train(arguments)
    except SIGTERMException:  # of a scheduler, or of a machine that shuts down; it would exit with 0
        print("terminated; the same command with --ckpt_path last goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM
    except ValueError as error:
        if isinstance(error, UserError) or "Does not validate" not in str(error):
            raise
        raise UserError(shorten(str(error), [])) from error


def _train(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    cli = TrainCLI(
        CaptionModule,
        CaptionData,
        parser_class=ShortErrorParser,
        parser_kwargs={"prog": "latentcap train"},
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "max_epochs": 20,
            "gradient_clip_val": 1.0,
            "callbacks": [RandomState()],
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "enable_model_summary": False,
            "log_every_n_steps": 20,
        },
        args=with_recipes(arguments),
    )
    folder = next((entry.folder for entry in cli.trainer.callbacks if isinstance(entry, ModelFolder)), None)  # type: ignore[attr-defined]
    if folder is not None:
        print(f"model folder: {folder}")
    return 0
