"""Settings of the trainer that would fail later, or in words that help nobody: told before anything is built."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latentcap.data.errors import UserError

logger = logging.getLogger(__name__)

DDP = ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
RESUMED = ("pytorch-lightning_version", "loops", "optimizer_states")  # of a checkpoint, besides its weights
SMALLEST = {
    "check_val_every_n_epoch": 1,
    "accumulate_grad_batches": 1,
    "log_every_n_steps": 1,
    "num_nodes": 1,
    "gradient_clip_val": 0,
    "reload_dataloaders_every_n_epochs": 0,
}


def check_trainer(settings: Any) -> None:
    """Raises UserError for a setting of ``trainer`` that cannot work here."""
    for name, least in SMALLEST.items():
        value = settings.get(name)
        if value is not None and value < least:
            raise UserError(f"trainer.{name} is {value}: it must be {least} or more.")
    for name in ("max_epochs", "max_steps"):
        value = settings.get(name)
        if value is not None and value != -1 and value < 1:
            raise UserError(
                f"trainer.{name} is {value}, so nothing would be trained: give 1 or more, or -1 for no limit."
            )
    if str(settings.get("devices")).strip() in ("0", "[]", ""):
        raise UserError("trainer.devices is 0: give how many to train on, 1 or more, or leave the setting out.")
    if settings.get("enable_checkpointing") is False:
        raise UserError(
            "trainer.enable_checkpointing is false: the model folder is written from the best checkpoint. Leave the "
            "setting out; checkpoints are two files, best.ckpt and last.ckpt."
        )
    if settings.get("barebones"):
        raise UserError("trainer.barebones is true: a run without checkpoints leaves no model. Leave the setting out.")


def check_unused(root: Path, checkpoints: Path) -> None:
    """Raises UserError for a folder that holds a run already, which a new one would overwrite."""
    if (checkpoints / "last.ckpt").is_file():
        raise UserError(
            f"{root} holds a run already: add --ckpt_path last to go on with it, or give another folder with "
            "--trainer.default_root_dir."
        )


def validate_last_epoch(settings: Any) -> None:
    """Lower ``trainer.check_val_every_n_epoch`` to a number that divides the epochs: what a run ends with is scored."""
    epochs, every = settings.get("max_epochs") or -1, settings.get("check_val_every_n_epoch") or 1
    if epochs > 0 and epochs % every:
        settings.check_val_every_n_epoch = max(n for n in range(1, min(every, epochs) + 1) if epochs % n == 0)
        logger.info(
            "validation after every %d epochs, not %d, so that the last of %d is validated too",
            settings.check_val_every_n_epoch, every, epochs,
        )  # fmt: skip


def check_modes(**modes: str) -> None:
    """Raises UserError for a ``mode`` that is neither min nor max; ``modes`` by the setting that it belongs to."""
    for setting, mode in modes.items():
        if mode not in ("min", "max"):
            raise UserError(f"{setting}.mode is '{mode}': it must be max (such as for CIDEr-D) or min (for a loss).")


def unused_parameters_allowed(strategy: Any) -> Any:
    """A strategy by name as it has to be here: a batch without any context does not use the context's table."""
    return f"{strategy}_find_unused_parameters_true" if strategy in DDP else strategy


def writable_folder(path: Path) -> Path:
    """Make a run's folder. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"trainer.default_root_dir '{path}' cannot be made: {error.strerror}. Give a folder that you may write to."
        ) from error
    return path


def find_checkpoint(given: str, folder: Path, *, resume: bool) -> str:
    """The file that ``--ckpt_path`` means: ``last``, ``best`` or a path. Raises UserError where there is none.

    ``resume``: a training is to go on from it, which takes more than weights.
    """
    named = given in ("last", "best")
    path = folder / "checkpoints" / f"{given}.ckpt" if named else Path(given)
    if not path.is_file():
        if named:
            raise UserError(f"no run to go on with: {path} does not exist. Leave out --ckpt_path to start one.")
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(
            f"--ckpt_path {given} {what}: give the file, such as {folder / 'checkpoints' / 'last.ckpt'}, or "
            "'last'. To start from a model folder, give --model.start_from FOLDER."
        )
    check_checkpoint(path, ("state_dict", *(RESUMED if resume else ())))
    return str(path)


def check_checkpoint(path: Path, needed: Sequence[str]) -> None:
    """Raises UserError for a file that is no checkpoint of a training here. No code in it is run."""
    hint = "Give last.ckpt or best.ckpt of a run; to start from a model folder, give --model.start_from FOLDER."
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever the file's first bytes make its readers stumble over
        raise UserError(f"--ckpt_path {path} is no checkpoint, or is damaged. {hint}") from error
    if not isinstance(checkpoint, dict) or any(name not in checkpoint for name in needed):
        raise UserError(f"--ckpt_path {path} is not a checkpoint of a training run that can go on. {hint}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises UserError for a number outside its range, or none."""
    if not low <= value <= high or math.isinf(value):
        limits = f"from {low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise UserError(f"{name} is {value}: it must be {limits}.")
