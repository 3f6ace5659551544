"""What Lightning says: what users need not read, and its errors as one sentence with the cause and the way out."""

from __future__ import annotations

import errno
import inspect
import re
import traceback
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from latentcap.training.parser_messages import HELP, missing_package

HARMLESS = (
    "LightningCLI.s args parameter is intended",
    "The '.*_dataloader' does not have many workers",
    "Found keys that are in the model state dict but not in",
    "The number of training batches .* is smaller than the logging interval",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    "Mean of empty slice",
    "Trying to infer the `batch_size` from an ambiguous collection",
    "`ModelCheckpoint.monitor=.* could not find the monitored key",
    "You requested to overfit but enabled",
    ".*GPU available but not used.*",
    ".*module\\(s\\) in eval mode at the start of training",
    ".*isinstance\\(treespec, LeafSpec\\)",
    "It is recommended to use `self.log\\(.*sync_dist=True",  # of scores that all processes have computed together
)
GO_ON = "The same command with --ckpt_path last goes on from the last checkpoint."
ALONE = (
    "another process of this training has ended, or cannot be reached any more: what it printed last says why. " + GO_ON
)
NOT_MET = (
    "the processes of this training have not all met in time: another process of this training has ended before, was "
    "not started, or cannot be reached here, at MASTER_ADDR and MASTER_PORT. What it printed last says why; then start "
    "all of them again."
)
NO_SPACE = f"no space is left on the disk. Free some, or give another --trainer.default_root_dir. {GO_ON}"
MEANINGS = (  # \1 is the first group of the pattern
    ("No supported gpu backend", "trainer.accelerator is gpu, and PyTorch finds no GPU here: leave the setting out."),
    (
        r"(\w+)Accelerator.? can not run on your system.*\[(.*)\]",
        r"trainer.accelerator is \1, which is not there: leave the setting out, or give one that is (\2).",
    ),
    (
        "invalid (accelerator|strategy) name: .*='([^']*)'.*(?:names are|choices): (.*?)\\.?( Find a .*)?$",
        r"trainer.\1 is '\2': leave the setting out, or give one of \3.",
    ),
    (
        r"requested to check ([\d.]+) of the `?(\w+?)_dataloader",
        r"\1 of the \2 batches is less than one batch: give trainer.limit_\2_batches, or trainer.overfit_batches, as a "
        "number of batches, such as 1.",
    ),
    ("CPUAccelerator.* should be an int", "trainer.devices is a number of processes on a CPU: give 1 or more."),
    (
        "Out of memory|out of memory",
        "memory is full: halve --data.batch_size and double --trainer.accumulate_grad_batches, which trains alike. "
        + GO_ON,
    ),
    (
        "EADDRINUSE",
        "the port on which the processes of a training meet is taken: give torchrun another --master-port, or set "
        "MASTER_PORT.",
    ),
    ("waiting for clients|client socket has timed out", NOT_MET),
    ("gloo/|NCCL|TCPStore|Connection (closed|reset) by peer", ALONE),
    ("file write failed|unexpected pos|No space left", NO_SPACE),
    (
        "DataLoader worker",
        "a process that decodes images has died, mostly for lack of memory: lower --data.workers or --data.batch_size. "
        + GO_ON,
    ),
    ("not in bounds, numpy accepts", "seed_everything must be a whole number from 0 to 4294967295."),
    (
        r"Error\(s\) in loading state_dict",
        "the checkpoint of --ckpt_path is of another model: give the settings and data that it was trained with, or "
        "start a new run from its weights with --model.start_from and its model folder.",
    ),
    (
        "`val_check_interval` .* must be less than or equal",
        "trainer.val_check_interval is more than the batches of an epoch: lower it, or count over epochs with "
        "--trainer.check_val_every_n_epoch null.",
    ),
)
TRAINER = ("lightning", "jsonargparse", "lightning_utilities")


def explain(error: BaseException) -> str | None:
    """An error of the trainer as a sentence. None where it is no mistake of the user's, and its traceback is needed."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError):
        return NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else _file(error)
    for pattern, meaning in MEANINGS:
        if match := re.search(pattern, said):
            return match.expand(meaning)
    if package := missing_package(said):
        return f"a setting needs a package that is not installed: pip install '{package}', or leave the setting out."
    if isinstance(error, MisconfigurationException) or (
        isinstance(error, ValueError | TypeError | RuntimeError | ModuleNotFoundError) and _raised_by_trainer(error)
    ):
        return _tidy(said)
    return None


def _file(error: OSError) -> str | None:
    if error.filename is None:
        return None
    return (
        f"'{error.filename}' cannot be used: {error.strerror}. Give another folder or file; a run writes to "
        "--trainer.default_root_dir."
    )


def _raised_by_trainer(error: BaseException) -> bool:
    """Whether the trainer's own checks raised it, and not what runs inside the trainer."""
    frames: Any = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(f"/{package}/" in frames[-1].filename.replace("\\", "/") for package in TRAINER)


def _tidy(said: str) -> str:
    """Lightning's sentences with our names of settings: ``Trainer(devices='0')`` is trainer.devices 0."""
    settings = "|".join(inspect.signature(L.Trainer.__init__).parameters)
    text = re.sub(r"`?Trainer\((\w+)=([^)]*)\)`?", r"trainer.\1 \2", said)
    text = re.sub(rf"`({settings})`", r"trainer.\1", text)
    text = re.split(r" HINT: | Find a complete list", text)[0].replace("`", "").rstrip("., ")
    return f"{text[:400]}. {HELP}"
