"""Training in several processes, on one machine or on several: what a launcher says, and what all have to agree on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import _set_pg_timeout

MEETING = timedelta(minutes=5)  # from the first process of a training to the last


def launched(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Nodes, and processes on each of them, as torchrun or srun tell each process; None where none of them does."""
    if "TORCHELASTIC_RUN_ID" in environment:
        here = int(environment["LOCAL_WORLD_SIZE"])
        return int(environment["WORLD_SIZE"]) // here, here
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))  # inside srun; sbatch alone starts one process
    if tasks > 1:
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        return nodes, tasks // nodes
    return None


def limit_meeting(trainer: L.Trainer, most: timedelta = MEETING) -> None:
    """Let processes wait for each other no longer than ``most`` until all are there.

    Later on the strategy's own limit counts, torch's half hour: one process may compute what the others wait for.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return
    connect, later = strategy.setup_distributed, strategy._timeout

    def meet() -> None:
        strategy._timeout = most
        connect()
        strategy._timeout = later
        if later is not None:
            _set_pg_timeout(later)

    strategy.setup_distributed = meet  # type: ignore[method-assign]


def note_termination(trainer: L.Trainer) -> None:
    """Let each process note a SIGTERM by itself, and end after the step that it is in.

    Lightning's handler would tell the others at once, in the middle of whatever these are exchanging.
    """
    connector = trainer._signal_connector

    def note(signum: int, frame: Any) -> None:
        if not connector.received_sigterm and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signum)
        connector.received_sigterm = True

    connector._sigterm_notifier_fn = note  # type: ignore[method-assign, assignment]


def together() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def share_of(count: Tensor) -> Tensor:
    """What a mean over ``count`` things counts in the mean of all processes' means: ``count`` over their mean count.

    Processes average their gradients. Times this, their average is that of the mean over all things of all of them.
    """
    count = count.float()
    if not together():
        return torch.ones_like(count)
    mean = count.clone()
    distributed.all_reduce(mean)
    return count * distributed.get_world_size() / mean.clamp_min(1)
