"""LightningCLI with this project's defaults: what ``latentcap train fit | validate | test`` runs.

Every setting of the trainer, the model and the data can stand in the YAML or on the command line; ``fit --help`` lists
them. A run writes to ``trainer.default_root_dir``: ``model/`` (what you caption with), ``checkpoints/best.ckpt`` and
``last.ckpt``, ``metrics.csv``, and the validation captions. Go on with an interrupted run with ``--ckpt_path last``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from latentcap.cli.train import VERBS
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.errors import UserError
from latentcap.in_the_box import find_recipe, recipe_names
from latentcap.inference.precision import fast_dtype
from latentcap.training.averaging import EMA
from latentcap.training.callbacks import Checkpoints, ModelFolder, RandomState, Stopping
from latentcap.training.finite_loss import FiniteLoss
from latentcap.training.lightning_messages import HARMLESS, explain
from latentcap.training.lines import Lines
from latentcap.training.metrics_file import Metrics
from latentcap.training.module import CaptionModule
from latentcap.training.parser_messages import check_configs, explain_parsing, known_keys
from latentcap.training.processes import launched, limit_meeting, note_termination
from latentcap.training.trainer_settings import (
    check_modes,
    check_trainer,
    check_unused,
    find_checkpoint,
    unused_parameters_allowed,
    validate_last_epoch,
    writable_folder,
)

logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


ROOT = "runs/default"


class TrainCLI(LightningCLI):
    """LightningCLI with this project's defaults and short error messages."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in VERBS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = super().init_parser(**kwargs)
        for action in parser._actions:
            if "--config" in action.option_strings:
                box = ", ".join(recipe_names())
                action.help = (
                    f"A recipe: a YAML file, or the name of one in the box ({box}); a file of that name here comes "
                    "first. Given again, it adds to those before."
                )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Stopping, "early_stopping")
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
                "early_stopping.strict": False,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Find the checkpoint too: what comes next opens it."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        if config.get("ckpt_path"):
            root = Path(config.trainer.default_root_dir or ROOT)
            config.ckpt_path = find_checkpoint(config.ckpt_path, root, resume=self.config.subcommand == "fit")

    def before_instantiate_classes(self) -> None:
        """Put checkpoints and logs below the run's folder, and refuse what cannot work."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        root = Path(config.trainer.default_root_dir or ROOT)
        config.trainer.default_root_dir = str(root)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(root / "checkpoints")
        check_trainer(config.trainer)
        if self.subcommand == "fit":
            if not config.get("ckpt_path"):
                check_unused(root, Path(config.checkpoint.dirpath))
            validate_last_epoch(config.trainer)
        if (processes := launched(os.environ)) is not None:
            config.trainer.num_nodes, config.trainer.devices = processes
        if not sys.stderr.isatty():  # in a file, a bar is one line that is all epochs at once
            config.trainer.enable_progress_bar = False
        check_modes(checkpoint=config.checkpoint.mode, early_stopping=config.early_stopping.mode)
        writable_folder(root)
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
        if config.trainer.strategy == "auto" and _several_devices(config.trainer):
            config.trainer.strategy = "ddp"
        config.trainer.strategy = unused_parameters_allowed(config.trainer.strategy)

    def before_fit(self) -> None:
        self.model.resume_from = self.config_init[self.subcommand].ckpt_path
        note_termination(self.trainer)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Metrics go to ``metrics.csv`` in the run's folder always, and to whatever loggers are asked for."""
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        asked = config.trainer.logger
        if asked is not False:
            more = [] if asked in (None, True) else asked if isinstance(asked, list) else [asked]
            resumed = config.get("ckpt_path") if self.subcommand == "fit" else None
            kwargs["logger"] = [Metrics(config.trainer.default_root_dir, resumed=resumed), *more]
        trainer = super().instantiate_trainer(**kwargs)
        limit_meeting(trainer)
        return trainer


def with_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with recipes by path and before all settings, which change them, wherever they were written.

    Raises UserError for a recipe that does not exist.
    """
    verb, recipes, settings = list(arguments[:1]), [], []
    rest = iter(arguments[1:])
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option not in ("-c", "--config"):
            settings.append(argument)
        elif equals:
            recipes.append(f"{option}={find_recipe(value)}")
        else:
            recipes += [option, *(str(find_recipe(name)) for name in islice(rest, 1))]
    return [*verb, *recipes, *settings]


class ShortErrorParser(LightningArgumentParser):
    """Errors as one message that names what is wrong and the nearest valid name, not a page of usage."""

    arguments: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> Any:
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        raise UserError(explain_parsing(message, known_keys(self), self.arguments))


def _several_devices(trainer: Any) -> bool:
    """Whether the trainer will use more than one process."""
    if trainer.num_nodes > 1:
        return True
    if trainer.devices == "auto":
        return trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    return str(trainer.devices) not in ("0", "1")


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
    except UserError:
        raise
    except Exception as error:
        said = explain_parsing(str(error), []) if "Does not validate" in str(error) else explain(error)
        if said is None:
            raise
        raise UserError(said) from error


def _train(arguments: Sequence[str]) -> int:
    others = getattr(rank_zero_only, "rank", 0) > 0  # say what they alone know
    level = logging.WARNING if others else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    check_configs(arguments)
    arguments = with_recipes(arguments)
    ShortErrorParser.arguments = arguments
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
            "callbacks": [RandomState(), FiniteLoss(), Lines()],
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "enable_model_summary": False,
            "log_every_n_steps": 20,
        },
        auto_configure_optimizers=False,
        args=list(arguments),
    )
    if cli.subcommand == "fit" and cli.trainer.global_step == 0:
        raise UserError("no step was made, so there is no model: see trainer.limit_train_batches and trainer.max_time.")
    folder = next((entry.folder for entry in cli.trainer.callbacks if isinstance(entry, ModelFolder)), None)  # type: ignore[attr-defined]
    if folder is not None:
        print(f"model folder: {folder}")
    return 0
