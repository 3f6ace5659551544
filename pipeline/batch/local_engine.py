"""The model and how it is spread over threads, or over processes with a device each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from latentcap.batch.engine import Engine
from latentcap.batch.journal import Record
from latentcap.batch.pool import Block, in_processes, in_threads
from latentcap.batch.settings import BATCH, WorkerSettings
from latentcap.batch.worker import Worker
from latentcap.data.errors import UserError


class LocalEngine(Engine):
    """Threads of this process, or a process for each device.

    Args:
        settings: what each process loads. An empty device is a GPU where there is one.
        search: settings of the search that differ from the model's own.
        workers: threads, shared out among the processes.
        devices: processes. With one, this process does the work itself.

    Raises:
        UserError: the model folder, the device or a setting of the search cannot be used.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        search: Mapping[str, Any],
        *,
        workers: int,
        devices: int = 1,
        batch_size: int = BATCH,
    ) -> None:
        device = choose_device(settings.device)
        here = replace(settings, device=device if devices == 1 else "cpu")
        if device == "cuda" and devices > torch.cuda.device_count():
            raise UserError(f"--devices {devices}: there are {torch.cuda.device_count()} GPUs.")
        captioner = Worker.load(here).captioner
        self.search = captioner.search_config(**search)
        self.settings = replace(settings, device=device, search=self.search)
        self.worker = Worker(captioner, self.settings)
        self.devices, self.workers = devices, max(1, workers // devices)
        self.batch_size = batch_size
        self.described = f"{captioner.engine}, {str(captioner.dtype).removeprefix('torch.')}"

    def map(self, blocks: Iterator[Block]) -> Iterator[list[Record]]:
        if self.devices == 1:
            return in_threads(self.worker, blocks, self.workers)
        numbered = self.settings.device == "cuda"
        each = [replace(self.settings, device=f"cuda:{n}") if numbered else self.settings for n in range(self.devices)]
        return in_processes([partial(Worker.load, one) for one in each], blocks, self.workers)


def choose_device(given: str) -> str:
    """The device that was given, else a GPU where there is one. Raises UserError where it cannot be used."""
    device = given or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device} cannot be used ({reason}). cpu always can.") from None
    return device
