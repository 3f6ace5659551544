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
from latentcap.inference.device import usable_device
from latentcap.inference.engine import choose_computing
from latentcap.inference.precision import dtype_named


class LocalEngine(Engine):
    """Threads of this process, or a process for each device.

    Args:
        settings: what each process loads. An empty device is a GPU where there is one.
        search: settings of the search that differ from the model's own.
        workers: threads, shared out among the processes.
        devices: processes, which GPUs are shared out among. With one, this process does the work itself.

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
        captioner = Worker.load(here).captioner
        self.search = captioner.search_config(**search)
        self.settings = replace(settings, device=device, search=self.search)
        self.worker = Worker(captioner, self.settings)
        self.devices, self.workers = devices, max(1, workers // devices)
        self.batch_size = batch_size
        engine, dtype = choose_computing(settings.engine, torch.device(device), dtype_named(settings.dtype))
        self.described = f"{engine}, {str(dtype).removeprefix('torch.')}"

    def map(self, blocks: Iterator[Block]) -> Iterator[list[Record]]:
        if self.devices == 1:
            return in_threads(self.worker, blocks, self.workers)
        each = [replace(self.settings, device=name) for name in share_devices(self.settings.device, self.devices)]
        return in_processes([partial(Worker.load, one) for one in each], blocks, self.workers)


def share_devices(device: str, processes: int) -> list[str]:
    """The device of each process: GPUs by turns where none is named by its number."""
    if device != "cuda":
        return [device] * processes
    return [f"cuda:{number % torch.cuda.device_count()}" for number in range(processes)]


def choose_device(given: str) -> str:
    """The device that was given, else a GPU where there is one. Raises UserError where it cannot be used."""
    return str(usable_device(given or ("cuda" if torch.cuda.is_available() else "cpu")))
